"""Views of runs as HTML: a table, curves, and samples from the same initial noise over the training."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alphabar.evaluation.record import Evaluation
from alphabar.formatting import format_count, format_duration, format_number, format_short_count
from alphabar.images import evenly
from alphabar.reporting.plots import FIRST, INK, SECOND, THIRD, Curve, plot, smooth
from alphabar.runs.run import Run, data_notes
from alphabar.studio.elements import data_address, error_note, figure, heading, note, scrolling, term
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import Page

COLORS = (FIRST, SECOND, THIRD, INK)  # of runs
MEASURE_COLUMNS = ("metric", "value", "interval", "baseline", "better")
LEVEL_CURVES = 4  # moments of one run whose errors by noise level are shown


def last_change(run: Run) -> tuple[float, ...]:
    """When there was last something new to show: the times of the log, of the samples and of the data."""
    times = []
    for path in (run.log.path, run.path / "samples", run.path / "data.json"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            times.append(0.0)
    return tuple(times)


def runs_table(page: Page, jobs: TrainingJobs, names: Sequence[str]) -> str:
    """All runs in a table, a row for each; one that is only just beginning is there as well."""
    if page.models.single and not page.models.runs():
        return note(page.text("single_model"))
    if not names:
        return note(page.text("no_runs"))
    keys = ("run", "state", "images", "trained", "rate", "loss", "distance", "time_left", "disk")
    head = "".join(f"<th>{html.escape(page.text(f'column_{key}'))}</th>" for key in keys)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in run_cells(page, jobs, name)) + "</tr>"
        for name in names
    )
    return scrolling(f'<table class="plain"><tr>{head}</tr>{rows}</table>')


def run_cells(page: Page, jobs: TrainingJobs, name: str) -> tuple[str, ...]:
    """The cells of a run in the table."""
    active = f'<span class="active"></span>{html.escape(page.text("state_training"))}'
    if name not in page.models.runs():
        return (f"<b>{html.escape(name)}</b>", active, *["—"] * 7)
    run = page.models.run(name)
    records = run.log.records()
    train = [r for r in records if r.get("kind") == "train"]
    distances = [r for r in records if r.get("kind") == "distance"]
    training, last = run.is_training(), train[-1] if train else {}
    return (
        f"<b>{html.escape(name)}</b>",
        active if training else html.escape(page.text("state_paused")),
        format_short_count(last["images"]) if last else "—",
        format_duration(last["seconds"]) if last.get("seconds") else "—",
        f"{last['rate']:.1f}/s" if last else "—",
        f"{last['loss']:.4f}" if last else "—",
        distance_cell(page, distances[-1]) if distances else "—",
        html.escape(time_left(page, jobs, name, last)) if training else "—",
        format_bytes(page.models.disk_bytes(name)),
    )


def distance_cell(page: Page, record: dict[str, Any]) -> str:
    """A distance of the training monitor with all that it needs: name, n, reference and baseline."""
    value = page.text("kernel_distance", value=f"{record['kid']:.3f}", error=f"{record['kid_error']:.2g}")
    about = distance_about(page, record)
    return f"{html.escape(value)} {term('kid', page.language, '?')}<br><small>{html.escape(about)}</small>"


def distance_about(page: Page, record: dict[str, Any]) -> str:
    """The features, n, the reference and the baseline of a distance of the training monitor."""
    return page.text(
        "distance_about",
        features=record.get("features", "?"),
        n=format_count(record.get("n", 0)),
        reference=format_count(record.get("n_reference", 0)),
        baseline=format_number(record.get("kid_baseline"), 3),
    )


def format_bytes(number: int) -> str:
    """Bytes in megabytes, or gigabytes where they are many."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def seconds_trained(run: Run) -> float:
    """How long a run has been trained, as its log says."""
    train = [r for r in run.log.records() if r.get("kind") == "train"]
    return float(train[-1].get("seconds", 0.0)) if train else 0.0


def job_line(page: Page, jobs: TrainingJobs) -> str:
    """What the training that was begun last is doing, or how it has ended."""
    latest = jobs.latest()
    if latest is None:
        return note("")
    name, job = latest
    line = job.last_line()
    if job.running:
        if job.pausing:
            return note(page.text("pausing", name=name))
        return note(f"{page.text('training', name=name)} {line}".strip())
    if job.failed:
        return error_note(page.text("training_failed", name=name, problem=line))
    return note(page.text("training_ended", name=name, line=line))


def time_left(page: Page, jobs: TrainingJobs, name: str, last: dict[str, Any]) -> str:
    """The time that a training has left: by its budget where the page began it, otherwise by its images."""
    job = jobs.jobs.get(name)
    if job is not None and job.running:
        return job.time_left() or page.text("time_left_soon")
    if not last or not last["rate"]:
        return "—"
    seconds = max(page.models.run(name).recipe.images - last["images"], 0) / last["rate"]
    return page.text("time_left_at_most", hours=f"{seconds / 3600:.1f}")


def evaluation_view(page: Page, evaluation: Evaluation) -> str:
    """The numbers of an evaluation: each with its name, interval and baseline, and what they are about."""
    report = evaluation.report
    head = "".join(f"<th>{html.escape(page.text(f'measure_{key}'))}</th>" for key in MEASURE_COLUMNS)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(cell)}</td>"
            for cell in (
                page.say(metric.name),
                format_number(metric.value),
                f"[{', '.join(map(format_number, metric.interval))}]" if metric.interval else "–",
                format_number(metric.baseline),
                page.text(f"better_{metric.better}"),
            )
        )
        + "</tr>"
        for metric in report.metrics
    )
    about = page.text(
        "evaluated",
        n=format_count(report.n),
        reference=page.say(report.reference),
        baseline=format_count(report.baseline_n),
        others=format_count(report.baseline_reference_n),
        protocol=page.say(report.protocol),
    )
    said = [*report.warnings, *evaluation.notes]
    if evaluation.memorization:
        said.insert(0, evaluation.memorization.sentence)
    return (
        scrolling(f'<table class="plain"><tr>{head}</tr>{rows}</table>')
        + note(about)
        + "".join(note(page.say(each)) for each in said)
    )


def data_notes_of(page: Page, runs: Sequence[Run]) -> str:
    """What the trainings said of their data, such as files and rows of tables that they could not use."""
    shown = ""
    for run in runs:
        if notes := data_notes(run):
            shown += heading(page.text("data_notes", name=run.path.name))
            shown += "".join(note(page.say(each)) for each in notes)
    return shown


def curves_of(page: Page, runs: Sequence[Run]) -> str:
    """Loss, error by noise level, distance and speed of the runs, in one plot each."""
    about: dict[str, Any] = {}
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
            about = distances[-1]
    plots = "".join(curve_plot(page, key, shown, about) for key, shown in curves.items() if shown)
    return f'<div class="plots">{plots}</div>'


def level_curves(records: Sequence[dict[str, Any]], name: str | None, color: str) -> list[Curve]:
    """The error by noise level of a run: at several moments where it has no name, otherwise at the last."""
    errors = [r for r in records if r.get("kind") == "held_out" and (r.get("error") or r.get("train_error"))]
    # A run that was continued may have measured the same moment twice.
    errors = list({format_short_count(r["images"]): r for r in errors}.values())
    shown = errors[-1:] if name else [errors[i] for i in evenly(len(errors), LEVEL_CURVES)]
    curves = []
    for rank, record in enumerate(shown, 1):
        error = record.get("error") or record["train_error"]
        label = name or format_short_count(record["images"])
        opacity = 0.25 + 0.75 * rank / len(shown)
        curves.append(Curve(label, record["levels"], error, color, opacity=opacity, points=True))
    return curves


def curve_plot(page: Page, key: str, curves: Sequence[Curve], distance: dict[str, Any]) -> str:
    """A plot with its heading. key: "loss", "levels", "distance" or "rate". distance: its last record."""
    title = page.text(f"plot_{key}")
    about = note(distance_about(page, distance)) if key == "distance" else ""
    svg = plot(
        f"runs-{key}-{page.language}",
        curves,
        x_label=page.text("levels_axis" if key == "levels" else "images_axis"),
        y_label="",
        description=title,
        counts=key != "levels",
    )
    return f'<div><h2 class="plot-title">{html.escape(title)}</h2>{svg}{about}</div>'


def sample_grids(run: Run) -> list[Path]:
    """The grids of samples from the same initial noise that a training has written, oldest first."""
    return sorted(p for p in (run.path / "samples").glob("*.png") if p.stem.isdecimal() and p.is_file())


def frame_of(page: Page, runs: Sequence[Run], percent: float) -> str:
    """The sample grids of the runs, each after the same share of its training. percent: in [0, 100]."""
    shown = []
    for run in runs:
        paths = sample_grids(run)
        if paths:
            path = paths[round((len(paths) - 1) * min(max(percent, 0), 100) / 100)]
            seen = page.text("images_seen", n=format_short_count(int(path.stem)))
            shown.append(figure(data_address(path.read_bytes(), ".png"), f"{run.path.name} · {seen}"))
    return f'<div class="figures frames">{"".join(shown)}</div>' if shown else note(page.text("no_samples"))
