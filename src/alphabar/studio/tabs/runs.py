"""The tab Runs: trainings as they go, side by side; start one, pause it, resume it."""

import base64
import html
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.errors import AlphabarError, UsageError
from alphabar.images import evenly
from alphabar.recipes.presets import RECIPES
from alphabar.reporting.plots import FIRST, INK, SECOND, THIRD, Curve, plot, short_count, smooth
from alphabar.runs.run import Run
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import LIGHT, Page
from alphabar.studio.upload import unpack

SHOWN = 4  # runs side by side


COLOURS = (FIRST, SECOND, THIRD, INK)


FRAMES = 60  # grids of the film, at most


EVERY = 3.0  # seconds between looks


BY_BUDGET = ""  # no recipe: what suits the machine and the time


FROM = "from "  # before the name of the model to go on from, in place of a recipe


def tab(page: Page, trainings: TrainingJobs) -> None:
    """Build the tab."""
    text = page.text
    seen = gr.State(None)  # what the curves were drawn from
    names = page.shelf.runs()
    table = gr.HTML(elem_id="runs-table")
    with gr.Row(equal_height=False):
        chosen = gr.Dropdown(
            names,
            value=names[:1],
            multiselect=True,
            max_choices=SHOWN,
            label=text("runs_shown"),
            info=text("runs_shown_info"),
            scale=3,
            min_width=280,
            elem_id="runs-chosen",
        )
        with gr.Column(scale=2, min_width=260):
            more = gr.Textbox(
                "10m", label=text("budget_more"), info=text("budget_info"), elem_id="budget-more"
            )
            with gr.Row():
                pause = gr.Button(text("pause"), elem_id="pause", min_width=90)
                resume = gr.Button(text("resume"), elem_id="resume", min_width=90)
    said = gr.HTML(elem_id="runs-said")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            gr.HTML(f'<h3 class="part">{text("film")}</h3>')
            film = gr.HTML(elem_id="film")
            with gr.Column(visible=False) as projector:
                frame = gr.Slider(0, FRAMES - 1, FRAMES - 1, step=1, label=text("frame"), elem_id="frame")
                with gr.Row():
                    play = gr.Button(text("play"), elem_id="play", min_width=90)
                    halt = gr.Button(text("stop"), min_width=90)
        with gr.Column(scale=3, min_width=300):
            curves = gr.HTML(elem_id="runs-curves")
    with gr.Accordion(text("new_run"), open=not names, elem_id="new-run"), gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            source = gr.Radio(
                [(text("pictures_upload"), "upload"), (text("pictures_toycars"), "toycars")],
                value="upload",
                label=text("pictures"),
                elem_id="new-source",
            )
            files = gr.File(
                label=text("pictures_drop"),
                file_count="multiple",
                file_types=[".zip", "image"],
                height=150,
                elem_id="new-files",
            )
        with gr.Column(min_width=280):
            name = gr.Textbox("", label=text("run_name"), placeholder="cars", elem_id="new-name")
            with gr.Row():
                budget = gr.Textbox(
                    "10m",
                    label=text("budget"),
                    info=text("budget_info"),
                    min_width=120,
                    elem_id="new-budget",
                )
                size = gr.Dropdown(
                    [16, 32, 64, 128],
                    value=32,
                    label=text("size"),
                    info=text("size_info"),
                    min_width=120,
                    elem_id="new-size",
                )
            recipe = gr.Dropdown(
                [
                    (text("by_budget"), BY_BUDGET),
                    *((name, name) for name in RECIPES),
                    *((text("go_on_from", model=name), FROM + name) for name in page.shelf.models()),
                ],
                value=BY_BUDGET,
                label=text("recipe"),
                elem_id="new-recipe",
            )
            start = gr.Button(text("train"), variant="primary", elem_id="train", min_width=90)

    def look(chosen: list[str], seen: Any, at: float) -> Iterator[tuple[Any, ...]]:
        names = page.shelf.runs()
        rows = table_of(page, trainings, names)
        kept = [name for name in chosen or [] if name in names] or names[:1]
        update = gr.update(choices=names, value=kept) if kept != chosen else gr.update(choices=names)
        state = [(name, _changed(page.shelf.run(name))) for name in kept]
        if state == seen:
            yield rows, *[gr.skip()] * 5
        else:
            runs = [page.shelf.run(name) for name in kept]
            rolls = gr.update(visible=any(_grids(run) for run in runs))
            yield rows, update, state, curves_of(page, runs), film_of(page, runs, int(at)), rolls

    def show(chosen: list[str], at: float) -> Iterator[str]:
        yield film_of(page, _runs(page, chosen), int(at))

    def rolling(chosen: list[str]) -> Iterator[tuple[int, str]]:
        runs = _runs(page, chosen)
        for at in range(FRAMES):
            yield at, film_of(page, runs, at)
            time.sleep(0.15)

    def on_pause(chosen: list[str]) -> Iterator[str]:
        trainings.pause(_one(page, chosen).path.name)
        yield page.note(text("pausing"))

    def on_resume(chosen: list[str], budget: str) -> Iterator[str]:
        run = _one(page, chosen)
        if run.data is None:
            raise AlphabarError(text("no_data"))
        trainings.start(run.path, run.data, budget.strip())
        yield from follow(run.path.name)

    def on_start(
        source: str, files: list[str] | None, name: str, budget: str, size: int, recipe: str
    ) -> Iterator[str]:
        path = trainings.place(name.strip())
        data = "toycars"
        if source == "upload":
            if not files:
                raise UsageError(text("no_files_given"))
            yield page.note(text("unpacking"))
            folder = page.shelf.path / ".pictures" / path.name
            count = unpack([Path(file) for file in files], folder)
            yield page.note(text("unpacked", n=f"{count:,}"))
            data = str(folder)
        if recipe.startswith(FROM):
            options = ["--from", str(page.shelf.model(recipe.removeprefix(FROM)))]
        else:
            options = ["--set", f"data.size={int(size)}", *(["--recipe", recipe] if recipe else [])]
        trainings.start(path, data, budget.strip(), *options)
        yield from follow(path.name)

    def follow(name: str) -> Iterator[str]:
        """The first words of a training: most of what can go wrong does so at once."""
        training = trainings.started[name]
        for _ in range(20):
            time.sleep(0.5)
            line = training.last_line()
            if not training.running and training.process.returncode:
                raise AlphabarError(line.removeprefix("alphabar: ") or text("ended"))
            yield page.note(text("training", name=name) + (f" {line}" if line else ""))

    views = [table, chosen, seen, curves, film, projector]
    looking = {"trigger_mode": "once", **LIGHT}
    gr.on(
        [page.blocks.load, gr.Timer(EVERY).tick, chosen.change],
        page.told(look),
        [chosen, seen, frame],
        views,
        **looking,
    )
    frame.input(page.told(show), [chosen, frame], film, **{**looking, "trigger_mode": "always_last"})
    rolls = play.click(page.told(rolling), chosen, [frame, film], **LIGHT)
    halt.click(lambda: None, None, None, cancels=rolls, **LIGHT)
    pause.click(page.told(on_pause), chosen, said, **LIGHT)
    resume.click(page.told(on_resume), [chosen, more], said, **LIGHT)
    start.click(page.told(on_start), [source, files, name, budget, size, recipe], said, **LIGHT)
    source.change(lambda kind: gr.update(visible=kind == "upload"), source, files, **LIGHT)


def _runs(page: Page, chosen: Sequence[str] | None) -> list[Run]:
    known = page.shelf.runs()
    return [page.shelf.run(name) for name in chosen or [] if name in known][:SHOWN]


def _one(page: Page, chosen: Sequence[str] | None) -> Run:
    if not chosen:
        raise UsageError(page.text("choose_run"))
    return page.shelf.run(chosen[0])


def _changed(run: Run) -> tuple[float, float]:
    """When there was last something new to show."""
    times = []
    for path in (run.path / "log.jsonl", run.path / "samples"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            times.append(0.0)
    return times[0], times[1]


def table_of(page: Page, trainings: TrainingJobs, names: Sequence[str]) -> str:
    """All runs in a table."""
    if not names:
        return page.note(page.text("no_runs"))
    keys = ("run", "state", "images", "rate", "loss", "distance", "time_left")
    head = "".join(f"<th>{html.escape(page.text(f'column_{key}'))}</th>" for key in keys)
    rows = []
    for name in names:
        run = page.shelf.run(name)
        train = [r for r in run.log.records() if r.get("kind") == "train"]
        distances = [r for r in run.log.records() if r.get("kind") == "distance"]
        live = run.is_training()
        last = train[-1] if train else {}
        state = f'<span class="live"></span>{page.text("live")}' if live else page.text("resting")
        distance = f"KID {distances[-1]['kid']:.3f}" if distances else "—"
        cells = (
            f"<b>{html.escape(name)}</b>",
            state,
            short_count(last["images"]) if last else "—",
            f"{last['rate']:.1f}/s" if last else "—",
            f"{last['loss']:.4f}" if last else "—",
            distance,
            _left(page, trainings, name, run, last) if live else "—",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="scroll"><table class="plain"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _left(page: Page, trainings: TrainingJobs, name: str, run: Run, last: dict[str, Any]) -> str:
    """The time that a training has left: by its budget where it was started here, else by its images."""
    started = trainings.started.get(name)
    if started is not None and started.running:
        _, found, left = started.last_line().rpartition("  left ")
        return html.escape(left) if found else page.text("soon")
    if not last or not last["rate"]:
        return "—"
    seconds = max(run.recipe.images - last["images"], 0) / last["rate"]
    return page.text("at_most", hours=f"{seconds / 3600:.1f}")


def curves_of(page: Page, runs: Sequence[Run]) -> str:
    """Loss, error by noise level, distance and speed of the runs, in one plot each."""
    loss, levels, distance, rate = [], [], [], []
    for run, colour in zip(runs, COLOURS):
        records, name = run.log.records(), run.path.name
        train = [r for r in records if r.get("kind") == "train" and math.isfinite(r.get("loss") or math.nan)]
        if train:
            images = [r["images"] for r in train]
            loss.append(Curve(name, *smooth(images, [r["loss"] for r in train]), colour))
            rate.append(Curve(name, *smooth(images, [r["rate"] for r in train]), colour))
        looks = [
            r for r in records if r.get("kind") == "held_out" and (r.get("error") or r.get("train_error"))
        ]
        shown = evenly(len(looks), 4) if len(runs) == 1 else ([len(looks) - 1] if looks else [])
        for rank, i in enumerate(shown, 1):
            error = looks[i].get("error") or looks[i]["train_error"]
            label = short_count(looks[i]["images"]) if len(runs) == 1 else name
            faint = 0.25 + 0.75 * rank / len(shown)
            levels.append(Curve(label, looks[i]["levels"], error, colour, opacity=faint, points=True))
        kids = [r for r in records if r.get("kind") == "distance"]
        if kids:
            x, y, error = ([r[key] for r in kids] for key in ("images", "kid", "kid_error"))
            distance.append(Curve(name, x, y, colour, error=error, points=True))
    parts = [
        ("loss", loss, True),
        ("levels", levels, False),
        ("distance", distance, True),
        ("rate", rate, True),
    ]
    shown_plots = []
    for key, drawn, counts in parts:
        if not drawn:
            continue
        axis = page.text("images_axis") if counts else page.text("levels_axis")
        svg = plot(
            f"runs-{key}-{page.language}",
            drawn,
            x_label=axis,
            y_label="",
            description=page.text(f"plot_{key}"),
            counts=counts,
        )
        shown_plots.append(f"<div><h4>{html.escape(page.text(f'plot_{key}'))}</h4>{svg}</div>")
    return f'<div class="plots">{"".join(shown_plots)}</div>'


def _grids(run: Run) -> list[Path]:
    """The grids of fixed noise that a training left, oldest first."""
    return sorted(p for p in (run.path / "samples").glob("*.png") if p.stem.isdecimal())


def film_of(page: Page, runs: Sequence[Run], at: int) -> str:
    """The grids of fixed noise of the runs, each at the same share of its way. at: of FRAMES."""
    figures = []
    for run in runs:
        paths = _grids(run)
        if not paths:
            continue
        path = paths[round((len(paths) - 1) * min(at, FRAMES - 1) / (FRAMES - 1))]
        uri = base64.b64encode(path.read_bytes()).decode()
        said = f"{run.path.name} · {page.text('images_seen', n=short_count(int(path.stem)))}"
        picture = f'<img src="data:image/png;base64,{uri}" alt="">'
        figures.append(f"<figure>{picture}<figcaption>{html.escape(said)}</figcaption></figure>")
    return f'<div class="trio film">{"".join(figures)}</div>' if figures else page.note(page.text("no_film"))
