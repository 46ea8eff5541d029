"""A comparison as tables to print and as one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alphabar.files import write_file
from alphabar.formatting import format_count, format_duration, format_number, format_short_count
from alphabar.reporting.comparison import Comparison, Entry, Table
from alphabar.reporting.pages import page_picture, page_template
from alphabar.reporting.plots import FIRST, SECOND, THIRD, Curve, plot

Rows = list[tuple[str, ...]]  # of cells; the first row names the runs


def comparison_rows(comparison: Comparison) -> list[tuple[str, Rows]]:
    """Tables to print: (title, rows). The first is that of the costs, the others those of the protocols."""
    head = ("", *(e.name for e in comparison.entries))
    return [
        ("cost", [head, *_cost_rows(comparison.entries)]),
        *((_title(table), [head, *_metric_rows(table)]) for table in comparison.tables),
    ]


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as an HTML page, and return its path. Raises AlphabarError where it cannot be."""
    html = page_template("comparison.html").render(
        names=[e.name for e in comparison.entries],
        tables=[
            {"title": title, "rows": rows, **about}
            for (title, rows), about in zip(
                comparison_rows(comparison),
                [{"protocol": None}, *(_about(comparison, table) for table in comparison.tables)],
                strict=True,
            )
        ],
        notes=comparison.notes,
        pictures=[
            (e.name, e.recipe, page_picture(e.samples), page_picture(e.strip)) for e in comparison.entries
        ],
        curve=_learning(comparison.entries),
    )
    write_file(path, html.encode(errors="backslashreplace"))
    return path


def _cost_rows(entries: Sequence[Entry]) -> Rows:
    costs = [e.cost for e in entries]
    return [
        ("recipe", *(e.recipe for e in entries)),
        ("images seen", *(format_count(c.images) for c in costs)),
        ("training, FLOP", *(format_number(c.train_flop, 3) for c in costs)),
        ("training, wall-clock", *(_seconds(c.train_seconds) for c in costs)),
        ("parameters", *(format_short_count(c.parameters) for c in costs)),
        ("network evaluations per sample", *(str(c.evaluations) for c in costs)),
        ("FLOP per sample", *(format_number(c.sample_flop, 3) for c in costs)),
        ("seconds per sample", *(format_number(c.sample_seconds, 3) for c in costs)),
    ]


def _metric_rows(table: Table) -> Rows:
    rows: Rows = [
        (f"{name}, {next(m['better'] for m in row if m)} is better", *map(_cell, row))
        for name, row in table.metrics.values()
    ]
    if any(table.held_out_kid):
        rows.append(("kernel distance to held-out images", *map(_cell, table.held_out_kid)))
    if any(table.memorization):
        rows.append(("copies", *(f"{m['copies']} of {m['n']}" if m else "–" for m in table.memorization)))
    return rows


def _title(table: Table) -> str:
    p = table.protocol
    return f"{p['n']} samples, {p['extractor']}, against {p['reference']}"


def _about(comparison: Comparison, table: Table) -> dict[str, Any]:
    """What stands below the table of a protocol on the page."""
    copies = [
        (e.name, m["sentence"])
        for e, m in zip(comparison.entries, table.memorization, strict=True)
        if "sentence" in m
    ]
    return {"protocol": table.protocol["protocol"], "ranking": table.ranking, "copies": copies}


def _cell(metric: dict[str, Any] | None) -> str:
    if not metric:
        return "–"
    interval, baseline = metric.get("interval"), metric.get("baseline")
    ends = f" [{format_number(interval[0])}, {format_number(interval[1])}]" if interval else ""
    real = f" (real {format_number(baseline, 3)})" if baseline is not None else ""
    return f"{format_number(metric['value'])}{ends}{real}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else format_duration(value)


def _learning(entries: Sequence[Entry]) -> tuple[Markup, str] | None:
    """The learning curves that most runs share, and what their numbers are."""
    keys = list(dict.fromkeys(key for e in entries for key in e.distances))
    if not keys:
        return None
    key = max(keys, key=lambda k: sum(k in e.distances for e in entries))
    styles = [(color, style) for style in ("-", "--", ":") for color in (FIRST, SECOND, THIRD)]
    curves = []
    for i, entry in enumerate(entries):
        if key in entry.distances:
            x, y = zip(*entry.distances[key], strict=True)
            color, style = styles[i % len(styles)]
            curves.append(Curve(entry.name, [s / 60 for s in x], y, color, style, points=True))
    svg = plot(
        "plot-learning",
        curves,
        x_label="minutes of training",
        y_label="kernel distance",
        description="Kernel distance of samples from training images against wall-clock time, a line per run",
    )
    missing = [e.name for e in entries if key not in e.distances]
    features, n, reference_n, *_ = key
    sentence = f"{n} samples against {reference_n} training images, {features} features"
    if missing:
        sentence += f"; not measured in this way: {', '.join(missing)}"
    return Markup(svg), sentence
