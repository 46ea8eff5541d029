"""Views of runs as HTML: a table, curves, and samples from the same initial noise over the training."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alphabar.formatting import format_short_count
from alphabar.images import evenly
from alphabar.reporting.plots import FIRST, INK, SECOND, THIRD, Curve, plot, smooth
from alphabar.runs.run import Run
from alphabar.studio.elements import data_address, figure, note
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import Page

COLORS = (FIRST, SECOND, THIRD, INK)  # of runs
FRAMES = 60  # moments of a training that can be shown
LEVEL_CURVES = 4  # moments of one run whose errors by noise level are shown


def last_change(run: Run) -> tuple[float, float]:
    """When there was last something new to show: the times of the log and of the samples."""
    times = []
    for path in (run.log.path, run.path / "samples"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            times.append(0.0)
    return times[0], times[1]


def runs_table(page: Page, jobs: TrainingJobs, names: Sequence[str]) -> str:
    """All runs in a table, a row for each."""
    if not names:
        return note(page.text("no_runs"))
    keys = ("run", "state", "images", "rate", "loss", "distance", "time_left")
    head = "".join(f"<th>{html.escape(page.text(f'column_{key}'))}</th>" for key in keys)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in run_cells(page, jobs, name)) + "</tr>"
        for name in names
    )
    return f'<div class="scroll"><table class="plain"><tr>{head}</tr>{rows}</table></div>'


def run_cells(page: Page, jobs: TrainingJobs, name: str) -> tuple[str, ...]:
    """The cells of a run in the table."""
    run = page.models.run(name)
    records = run.log.records()
    train = [r for r in records if r.get("kind") == "train"]
    distances = [r for r in records if r.get("kind") == "distance"]
    training, last = run.is_training(), train[-1] if train else {}
    unsaid = dict.fromkeys(("features", "n", "n_reference"), "—")  # in logs of older versions
    active = f'<span class="active"></span>{page.text("state_training")}'
    return (
        f"<b>{html.escape(name)}</b>",
        active if training else page.text("state_paused"),
        format_short_count(last["images"]) if last else "—",
        f"{last['rate']:.1f}/s" if last else "—",
        f"{last['loss']:.4f}" if last else "—",
        html.escape(page.text("distance_of", **unsaid | distances[-1])) if distances else "—",
        html.escape(time_left(page, jobs, name, last)) if training else "—",
    )


def time_left(page: Page, jobs: TrainingJobs, name: str, last: dict[str, Any]) -> str:
    """The time that a training has left: by its budget where the page began it, otherwise by its images."""
    job = jobs.jobs.get(name)
    if job is not None and job.running:
        return job.time_left() or page.text("time_left_soon")
    if not last or not last["rate"]:
        return "—"
    seconds = max(page.models.run(name).recipe.images - last["images"], 0) / last["rate"]
    return page.text("time_left_at_most", hours=f"{seconds / 3600:.1f}")


def curves_of(page: Page, runs: Sequence[Run]) -> str:
    """Loss, error by noise level, distance and speed of the runs, in one plot each."""
    curves: dict[str, list[Curve]] = {"loss": [], "levels": [], "distance": [], "rate": []}
    for run, color in zip(runs, COLORS):
        records, name = run.log.records(), run.path.name
        train = [r for r in records if r.get("kind") == "train" and math.isfinite(r.get("loss") or math.nan)]
        if train:
            images = [r["images"] for r in train]
            curves["loss"].append(Curve(name, *smooth(images, [r["loss"] for r in train]), color))
            curves["rate"].append(Curve(name, *smooth(images, [r["rate"] for r in train]), color))
        curves["levels"] += level_curves(records, None if len(runs) == 1 else name, color)
        distances = [r for r in records if r.get("kind") == "distance"]
        if distances:
            x, y, error = ([r[key] for r in distances] for key in ("images", "kid", "kid_error"))
            curves["distance"].append(Curve(name, x, y, color, error=error, points=True))
    plots = "".join(curve_plot(page, key, shown) for key, shown in curves.items() if shown)
    return f'<div class="plots">{plots}</div>'


def level_curves(records: Sequence[dict[str, Any]], name: str | None, color: str) -> list[Curve]:
    """The error by noise level of a run: at several moments where it has no name, otherwise at the last."""
    errors = [r for r in records if r.get("kind") == "held_out" and (r.get("error") or r.get("train_error"))]
    shown = errors[-1:] if name else [errors[i] for i in evenly(len(errors), LEVEL_CURVES)]
    curves = []
    for rank, record in enumerate(shown, 1):
        error = record.get("error") or record["train_error"]
        label = name or format_short_count(record["images"])
        opacity = 0.25 + 0.75 * rank / len(shown)
        curves.append(Curve(label, record["levels"], error, color, opacity=opacity, points=True))
    return curves


def curve_plot(page: Page, key: str, curves: Sequence[Curve]) -> str:
    """A plot with its heading. key: "loss", "levels", "distance" or "rate"."""
    title = page.text(f"plot_{key}")
    svg = plot(
        f"runs-{key}-{page.language}",
        curves,
        x_label=page.text("levels_axis" if key == "levels" else "images_axis"),
        y_label="",
        description=title,
        counts=key != "levels",
    )
    return f"<div><h4>{html.escape(title)}</h4>{svg}</div>"


def sample_grids(run: Run) -> list[Path]:
    """The grids of samples from the same initial noise that a training has written, oldest first."""
    return sorted(p for p in (run.path / "samples").glob("*.png") if p.stem.isdecimal())


def frame_of(page: Page, runs: Sequence[Run], position: int) -> str:
    """The sample grids of the runs, each at the same share of its training. position: in [0, FRAMES)."""
    shown = []
    for run in runs:
        paths = sample_grids(run)
        if paths:
            path = paths[round((len(paths) - 1) * min(position, FRAMES - 1) / (FRAMES - 1))]
            seen = page.text("images_seen", n=format_short_count(int(path.stem)))
            shown.append(figure(data_address(path.read_bytes(), ".png"), f"{run.path.name} · {seen}"))
    return f'<div class="figures frames">{"".join(shown)}</div>' if shown else note(page.text("no_samples"))
