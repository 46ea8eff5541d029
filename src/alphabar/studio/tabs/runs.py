"""The tab Runs: trainings as they go, side by side; begin one, pause it, resume it, evaluate it."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from alphabar.errors import AlphabarError, UsageError
from alphabar.formatting import format_duration, parse_duration
from alphabar.images import evenly
from alphabar.runs.model import Model
from alphabar.runs.run import Run
from alphabar.studio.elements import heading, note
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import LIGHT, Page, Tab
from alphabar.studio.run_views import (
    curves_of,
    data_notes_of,
    evaluation_view,
    frame_of,
    job_line,
    last_change,
    runs_table,
    sample_grids,
    seconds_trained,
)
from alphabar.studio.tabs.run_tools import RunTools
from alphabar.studio.tabs.training_form import TrainingForm

MAX_SHOWN = 4  # runs side by side
MAX_FRAMES = 60  # of a film
SECONDS_BETWEEN_UPDATES = 3.0
SECONDS_BETWEEN_FRAMES = 0.15


class RunsTab(Tab):
    """Its views of the runs and their handlers."""

    def __init__(self, page: Page, jobs: TrainingJobs):
        self.page, self.jobs = page, jobs
        self.shown = gr.State(None)  # what the curves were made from
        self.begun = gr.State(None)  # the name of the run that was begun last
        self.table = gr.HTML(elem_id="runs-table")
        self.following = gr.HTML(elem_id="runs-following")
        with gr.Row(equal_height=False):
            self._add_choice()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._add_frames()
            with gr.Column(scale=3, min_width=300):
                self.curves = gr.HTML(elem_id="runs-curves")
        self.notes = gr.HTML(elem_id="runs-notes")
        self.tools = RunTools(page)
        self.form = None
        if not page.models.single:
            with gr.Accordion(page.text("new_run"), open=not page.models.runs(), elem_id="new-run"):
                self.form = TrainingForm(page, jobs)
        self._connect()

    def _add_choice(self) -> None:
        text = self.page.text
        self.chosen = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            max_choices=MAX_SHOWN,
            label=text("runs_shown"),
            info=text("runs_shown_help"),
            scale=3,
            min_width=280,
            elem_id="runs-chosen",
        )
        with gr.Column(scale=2, min_width=260):
            self.more = gr.Textbox(
                "10m", label=text("more_budget"), info=text("budget_help"), elem_id="more-budget"
            )
            with gr.Row():
                self.pause_button = gr.Button(text("pause"), elem_id="pause-button", min_width=90)
                self.resume_button = gr.Button(text("resume"), elem_id="resume-button", min_width=90)
            self.status = gr.HTML(elem_id="runs-status")

    def _add_frames(self) -> None:
        text = self.page.text
        gr.HTML(heading(text("samples_over_time")))
        self.frame = gr.HTML(elem_id="sample-frame")
        with gr.Column(visible=False) as self.player:
            self.position = gr.Slider(0, 100, 100, step=1, label=text("moment"), elem_id="moment")
            with gr.Row():
                self.play_button = gr.Button(text("play"), elem_id="play-button", min_width=90)
                self.stop_button = gr.Button(text("stop"), min_width=90)

    def _connect(self) -> None:
        page, chosen, position = self.page, self.chosen, self.position
        views = [
            self.table, self.following, self.pause_button, self.resume_button, self.more,
            chosen, self.shown, self.curves, self.notes, self.frame, self.player,
        ]  # fmt: skip
        self.begun.change(page.handler(self.choose), self.begun, chosen, **LIGHT)
        gr.on(
            [page.blocks.load, gr.Timer(SECONDS_BETWEEN_UPDATES).tick, chosen.change],
            page.handler(self.update),
            [chosen, self.shown, position],
            views,
            trigger_mode="once",
            **LIGHT,
        )
        position.input(
            page.handler(self.show_frame), [chosen, position], self.frame, trigger_mode="always_last", **LIGHT
        )
        playing = self.play_button.click(page.handler(self.play), chosen, [position, self.frame], **LIGHT)
        self.stop_button.click(lambda: None, None, None, cancels=playing, **LIGHT)
        self.pause_button.click(page.handler(self.pause, self.status), None, self.status, **LIGHT)
        self.resume_button.click(
            page.handler(self.resume, self.status), [chosen, self.more], [self.status, self.begun], **LIGHT
        )
        self.tools.connect(chosen, self.begun)
        self.kept = [self.tools.evaluation, self.tools.samples, chosen, self.more]
        self.views = [self.tools.result]
        if self.form:
            self.form.connect(self.begun)
            self.kept += self.form.inputs

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The last evaluation, and the runs that were shown."""
        evaluation, _, chosen, *_ = values
        names = self.names()
        kept = self.page.models.still_there(chosen or [], names)
        updates: dict[Any, Any] = {self.chosen: gr.update(choices=names, value=kept)}
        if evaluation is not None:
            updates[self.tools.result] = evaluation_view(self.page, evaluation)
        return updates

    def names(self) -> list[str]:
        """The runs, and before them one that is only just beginning."""
        names, training = self.page.models.runs(), self.jobs.running()
        return names if training is None or training in names else [training, *names]

    def choose(self, begun: str | None) -> Iterator[Any]:
        """Show a run that has begun or has another name, alone, so that it is what is seen."""
        names = self.names()
        yield gr.update(choices=names, value=[begun] if begun in names else self._preferred(names))

    def _preferred(self, names: list[str]) -> list[str]:
        """The run that trains, or else the latest."""
        training = [name for name in names if name == self.jobs.running()]
        return (training or names)[:1]

    def update(self, chosen: list[str], shown: Any, position: float) -> Iterator[tuple[Any, ...]]:
        """The table and the line, and the curves, the notes and the frame where they are out of date."""
        names = self.names()
        live = runs_table(self.page, self.jobs, names), job_line(self.page, self.jobs), *self._buttons(chosen)
        kept = self.page.models.still_there(chosen or [], names) or self._preferred(names)
        choice = gr.update(choices=names, value=kept) if kept != chosen else gr.update(choices=names)
        runs = self._runs(kept)
        state = [(run.path.name, last_change(run)) for run in runs]
        if state == shown:
            yield *live, choice, *[gr.skip()] * 5
        else:
            player = gr.update(visible=any(sample_grids(run) for run in runs))
            frame = frame_of(self.page, runs, position)
            notes = data_notes_of(self.page, runs)
            yield *live, choice, state, curves_of(self.page, runs), notes, frame, player

    def _buttons(self, chosen: Sequence[str] | None) -> tuple[Any, ...]:
        """Pause names the run that trains, Resume the first that is shown; each only where it can act."""
        text, training = self.page.text, self.jobs.running()
        first = next(iter(self._runs(chosen)), None)
        pause = text("pause_run", name=training) if training else text("pause")
        resume = text("resume_run", name=first.path.name) if first else text("resume")
        trained = format_duration(seconds_trained(first)) if first else ""
        info = text("more_help", name=first.path.name, trained=trained) if first else text("budget_help")
        return (
            gr.update(value=pause, interactive=training is not None),
            gr.update(value=resume, interactive=first is not None and training is None),
            gr.update(info=info),
        )

    def show_frame(self, chosen: list[str], position: float) -> Iterator[str]:
        """The samples at a moment of the trainings."""
        yield frame_of(self.page, self._runs(chosen), position)

    def play(self, chosen: list[str]) -> Iterator[tuple[float, str]]:
        """One moment after the other."""
        runs = self._runs(chosen)
        count = max((len(sample_grids(run)) for run in runs), default=0)
        for i in evenly(count, MAX_FRAMES):
            percent = 100 * i / max(count - 1, 1)
            yield round(percent), frame_of(self.page, runs, percent)
            time.sleep(SECONDS_BETWEEN_FRAMES)

    def pause(self) -> Iterator[str]:
        """Lets the run that trains save and end."""
        yield note(self.page.text("pausing", name=self.jobs.pause()))

    def resume(self, chosen: list[str], more: str) -> Iterator[tuple[Any, ...]]:
        """Continues the first chosen run for a further time."""
        if not chosen:
            raise UsageError("studio.choose_run")
        run = self.page.models.run(chosen[0])
        further = parse_duration(more)
        if run.data is None:
            raise AlphabarError("studio.no_data")
        if run.is_training():
            raise AlphabarError("studio.run_is_training", name=run.path.name)
        budget = f"{budget_for(run, further):.1f}s"
        self.jobs.launch(run.path, ["train", run.data, "--budget", budget], self.page.language)
        yield note(self.page.text("training", name=run.path.name)), gr.skip()

    def _runs(self, chosen: Sequence[str] | None) -> list[Run]:
        known = self.page.models.runs()
        return [self.page.models.run(name) for name in chosen or [] if name in known][:MAX_SHOWN]


def budget_for(run: Run, further: float) -> float:
    """The budget with which a run trains so many seconds further.

    The run's preparation counts as part of it, by half of it at most.
    """
    seconds = seconds_trained(run) + further
    return seconds + min(run.preparation, seconds)
