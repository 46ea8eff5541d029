"""The tab Runs: trainings as they go, side by side; begin one, pause it, resume it."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.errors import AlphabarError, UsageError
from alphabar.recipes.presets import RECIPES
from alphabar.runs.run import Run
from alphabar.studio.elements import heading, note
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import LIGHT, Page
from alphabar.studio.run_views import FRAMES, curves_of, frame_of, last_change, runs_table, sample_grids
from alphabar.studio.upload import unpack

MAX_SHOWN = 4  # runs side by side
SECONDS_BETWEEN_UPDATES = 3.0
SECONDS_BETWEEN_FRAMES = 0.15
SECONDS_TO_FOLLOW = 10  # of a training, once it has begun: most of what can go wrong does so at once
BY_BUDGET = ""  # in place of a recipe: what suits the machine and the time
FINETUNE = "finetune:"  # before the name of a model, in place of a recipe


class RunsTab:
    """Its views of the runs and their handlers."""

    def __init__(self, page: Page, jobs: TrainingJobs):
        self.page, self.jobs = page, jobs
        self.shown = gr.State(None)  # what the curves were made from
        self.table = gr.HTML(elem_id="runs-table")
        with gr.Row(equal_height=False):
            self._add_choice()
        self.status = gr.HTML(elem_id="runs-status")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._add_frames()
            with gr.Column(scale=3, min_width=300):
                self.curves = gr.HTML(elem_id="runs-curves")
        with gr.Accordion(page.text("new_run"), open=not page.models.runs(), elem_id="new-run"):
            self.form = TrainingForm(page, jobs)
        self._connect()

    def _add_choice(self) -> None:
        text, names = self.page.text, self.page.models.runs()
        self.chosen = gr.Dropdown(
            names,
            value=names[:1],
            multiselect=True,
            max_choices=MAX_SHOWN,
            label=text("runs_shown"),
            info=text("runs_shown_help"),
            scale=3,
            min_width=280,
            elem_id="runs-chosen",
        )
        with gr.Column(scale=2, min_width=260):
            self.budget = gr.Textbox(
                "10m", label=text("total_budget"), info=text("budget_help"), elem_id="total-budget"
            )
            with gr.Row():
                self.pause_button = gr.Button(text("pause"), elem_id="pause-button", min_width=90)
                self.resume_button = gr.Button(text("resume"), elem_id="resume-button", min_width=90)

    def _add_frames(self) -> None:
        text = self.page.text
        gr.HTML(heading(text("samples_over_time")))
        self.frame = gr.HTML(elem_id="sample-frame")
        with gr.Column(visible=False) as self.player:
            self.position = gr.Slider(
                0, FRAMES - 1, FRAMES - 1, step=1, label=text("moment"), elem_id="moment"
            )
            with gr.Row():
                self.play_button = gr.Button(text("play"), elem_id="play-button", min_width=90)
                self.stop_button = gr.Button(text("stop"), min_width=90)

    def _connect(self) -> None:
        page, chosen, position = self.page, self.chosen, self.position
        views = [self.table, chosen, self.shown, self.curves, self.frame, self.player]
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
        self.pause_button.click(page.handler(self.pause), chosen, self.status, **LIGHT)
        self.resume_button.click(page.handler(self.resume), [chosen, self.budget], self.status, **LIGHT)
        self.form.connect(self.status)

    def update(self, chosen: list[str], shown: Any, position: float) -> Iterator[tuple[Any, ...]]:
        """The table, and the curves and the frame where they are out of date. shown: what they show."""
        names = self.page.models.runs()
        table = runs_table(self.page, self.jobs, names)
        kept = [name for name in chosen or [] if name in names] or names[:1]
        choice = gr.update(choices=names, value=kept) if kept != chosen else gr.update(choices=names)
        state = [(name, last_change(self.page.models.run(name))) for name in kept]
        if state == shown:
            yield table, *[gr.skip()] * 5
        else:
            runs = [self.page.models.run(name) for name in kept]
            player = gr.update(visible=any(sample_grids(run) for run in runs))
            yield (
                table,
                choice,
                state,
                curves_of(self.page, runs),
                frame_of(self.page, runs, int(position)),
                player,
            )

    def show_frame(self, chosen: list[str], position: float) -> Iterator[str]:
        """The samples at a moment of the trainings."""
        yield frame_of(self.page, self._runs(chosen), int(position))

    def play(self, chosen: list[str]) -> Iterator[tuple[int, str]]:
        """One moment after the other."""
        runs = self._runs(chosen)
        for position in range(FRAMES):
            yield position, frame_of(self.page, runs, position)
            time.sleep(SECONDS_BETWEEN_FRAMES)

    def pause(self, chosen: list[str]) -> Iterator[str]:
        """Lets the training of the first chosen run save and end."""
        self.jobs.pause(self._run(chosen).path.name)
        yield note(self.page.text("pausing"))

    def resume(self, chosen: list[str], budget: str) -> Iterator[str]:
        """Continues the first chosen run."""
        run = self._run(chosen)
        if run.data is None:
            raise AlphabarError("studio.no_data")
        self.jobs.launch(run.path, ["train", run.data], budget.strip(), self.page.language)
        yield from follow(self.page, self.jobs, run.path.name)

    def _runs(self, chosen: Sequence[str] | None) -> list[Run]:
        known = self.page.models.runs()
        return [self.page.models.run(name) for name in chosen or [] if name in known][:MAX_SHOWN]

    def _run(self, chosen: Sequence[str] | None) -> Run:
        if not chosen:
            raise UsageError("studio.choose_run")
        return self.page.models.run(chosen[0])


class TrainingForm:
    """What a new training needs: data, a name, a time, a size and a recipe."""

    def __init__(self, page: Page, jobs: TrainingJobs):
        self.page, self.jobs = page, jobs
        with gr.Row(equal_height=False):
            with gr.Column(min_width=280):
                self._add_data()
            with gr.Column(min_width=280):
                self._add_settings()

    def _add_data(self) -> None:
        text = self.page.text
        self.source = gr.Radio(
            [(text("own_pictures"), "upload"), (text("toycars"), "toycars")],
            value="upload",
            label=text("data"),
            elem_id="new-source",
        )
        self.files = gr.File(
            label=text("upload"),
            file_count="multiple",
            file_types=[".zip", "image"],
            height=150,
            elem_id="new-files",
        )

    def _add_settings(self) -> None:
        text = self.page.text
        self.name = gr.Textbox("", label=text("run_name"), placeholder="cars", elem_id="new-name")
        with gr.Row():
            self.budget = gr.Textbox(
                "10m", label=text("budget"), info=text("budget_help"), min_width=120, elem_id="new-budget"
            )
            self.size = gr.Dropdown(
                [16, 32, 64, 128],
                value=32,
                label=text("size"),
                info=text("size_help"),
                min_width=120,
                elem_id="new-size",
            )
        self.recipe = gr.Dropdown(
            [
                (text("by_budget"), BY_BUDGET),
                *((name, name) for name in RECIPES),
                *((text("finetune", model=name), FINETUNE + name) for name in self.page.models.models()),
            ],
            value=BY_BUDGET,
            label=text("recipe"),
            elem_id="new-recipe",
        )
        self.train_button = gr.Button(text("train"), variant="primary", elem_id="train-button", min_width=90)

    def connect(self, status: gr.HTML) -> None:
        """Connect the handlers. status: where they say what happens."""
        inputs = [self.source, self.files, self.name, self.budget, self.size, self.recipe]
        self.train_button.click(self.page.handler(self.train), inputs, status, **LIGHT)
        self.source.change(lambda kind: gr.update(visible=kind == "upload"), self.source, self.files, **LIGHT)

    def train(
        self, source: str, files: list[str] | None, name: str, budget: str, size: int, recipe: str
    ) -> Iterator[str]:
        """Begins a training and shows its first messages."""
        page = self.page
        run = self.jobs.new_run(name.strip())
        data = "toycars"
        if source == "upload":
            if not files:
                raise UsageError("studio.no_files")
            yield note(page.text("unpacking"))
            folder = page.models.path / ".pictures" / run.name
            count = unpack([Path(file) for file in files], folder)
            yield note(page.text("unpacked", n=f"{count:,}"))
            data = str(folder)
        if recipe.startswith(FINETUNE):
            command = ["finetune", str(page.models.model(recipe.removeprefix(FINETUNE))), data]
        else:
            command = ["train", data, "--set", f"data.size={int(size)}"]
            command += ["--recipe", recipe] if recipe else []
        self.jobs.launch(run, command, budget.strip(), page.language)
        yield from follow(page, self.jobs, run.name)


def follow(page: Page, jobs: TrainingJobs, name: str) -> Iterator[str]:
    """The first messages of a training. Raises AlphabarError with its last one where it fails at once."""
    job = jobs.jobs[name]
    for _ in range(2 * SECONDS_TO_FOLLOW):
        time.sleep(0.5)
        line = job.last_line().removeprefix("alphabar: ")
        if not job.running and job.process.returncode:
            raise AlphabarError("studio.training_failed", name=name, problem=line)
        yield note(page.text("training", name=name) + (f" {line}" if line else ""))
