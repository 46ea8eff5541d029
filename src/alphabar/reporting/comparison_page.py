"""A comparison as tables to print and as one self-contained HTML page, with its files beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alphabar.files import write_file, writing
from alphabar.formatting import format_count, format_duration, format_number, format_short_count
from alphabar.messages import Message, message, reader_language
from alphabar.metrics.suite import metric_name
from alphabar.reporting.comparison import Comparison, Entry, Table
from alphabar.reporting.evaluation_rows import BETTER
from alphabar.reporting.exports import csv_bytes, latex_rows, svg_file, write_files
from alphabar.reporting.pages import download, files_folder, page_picture, page_template
from alphabar.reporting.plots import FIRST, SECOND, THIRD, Curve, plot
from alphabar.reporting.values import bracketed, number

Rows = list[tuple[str, ...]]  # of cells, which may be messages; the first row names the runs


def comparison_rows(comparison: Comparison) -> list[tuple[str, Rows]]:
    """Tables to print: (title, rows). The first is that of the costs, the others those of the protocols."""
    head = ("", *(e.name for e in comparison.entries))
    return [
        (message("reporting.cost"), [head, *_cost_rows(comparison.entries)]),
        *((_title(table), [head, *_metric_rows(table)]) for table in comparison.tables),
    ]


def write_comparison(comparison: Comparison, path: Path, language: str | None = None) -> Path:
    """Write the comparison as an HTML page, its tables and figures into the folder beside; return the page.

    language: "en" or "es", by default the reader's. Raises AlphabarError where it cannot be written,
    UsageError where the path is no .html.
    """
    language = language or reader_language()
    folder = files_folder(path)
    tables = comparison_rows(comparison)
    curve, caption = _learning(comparison.entries, language)
    contents = _files(comparison, tables, language)
    html = page_template("comparison.html", language).render(
        names=[e.name for e in comparison.entries],
        tables=[
            {"title": title, "rows": rows, **about}
            for (title, rows), about in zip(
                tables,
                [{"protocol": None}, *(_about(comparison, table) for table in comparison.tables)],
                strict=True,
            )
        ],
        notes=comparison.notes,
        pictures=[
            (e.name, e.recipe, page_picture(e.samples), page_picture(e.strip)) for e in comparison.entries
        ],
        curve=curve,
        curve_caption=caption,
        files_folder=folder.name,
        downloads=[download(name, content) for name, content in contents.items()],
    )
    write_files(folder, contents | ({"learning.svg": svg_file(curve)} if curve else {}))
    with writing(folder):
        for i, entry in enumerate(comparison.entries, 1):
            entry.samples.save(folder / f"samples-{i}.png")
            entry.strip.save(folder / f"interpolations-{i}.png")
    write_file(path, html.encode(errors="backslashreplace"))
    return path


def _files(comparison: Comparison, tables: Sequence[tuple[str, Rows]], language: str) -> dict[str, bytes]:
    """The tables as CSV and LaTeX, by file name."""
    runs = [
        {"run": e.name, "path": str(e.path), "recipe": e.recipe, **e.cost._asdict()}
        for e in comparison.entries
    ]
    metrics = [
        {"run": entry.name, "key": key, "name": name}
        | {k: v for k, v in metric.items() if k not in ("key", "name", "interval")}
        | dict(zip(("low", "high"), metric.get("interval") or (None, None), strict=True))
        | table.protocol
        for table in comparison.tables
        for key, (name, row) in table.metrics.items()
        for entry, metric in zip(comparison.entries, row, strict=True)
        if metric
    ]
    curves = [
        {"run": e.name, "features": key[0], "n": key[1], "n_reference": key[2], "seconds": x, "kid": y}
        for e in comparison.entries
        for key, points in e.distances.items()
        for x, y in points
    ]
    found = {"runs.csv": runs, "metrics.csv": metrics, "learning.csv": curves}
    latex = {f"table-{i}.tex": latex_rows(rows, title, language) for i, (title, rows) in enumerate(tables)}
    return {name: csv_bytes(rows) for name, rows in found.items() if rows} | latex


def _cost_rows(entries: Sequence[Entry]) -> Rows:
    costs = [e.cost for e in entries]
    rows: list[tuple[Message, list[str]]] = [
        (message("reporting.cost_recipe"), [e.recipe for e in entries]),
        (message("reporting.images_seen"), [format_count(c.images) for c in costs]),
        (message("reporting.cost_train_flop"), [format_number(c.train_flop, 3) for c in costs]),
        (message("reporting.cost_train_time"), [_seconds(c.train_seconds) for c in costs]),
        (message("reporting.cost_train_load"), [format_number(c.train_load, 3) for c in costs]),
        (message("reporting.parameters"), [format_short_count(c.parameters) for c in costs]),
        (message("reporting.cost_evaluations"), [str(c.evaluations) for c in costs]),
        (message("reporting.cost_flop"), [format_number(c.sample_flop, 3) for c in costs]),
        (message("reporting.cost_seconds"), [format_number(c.sample_seconds, 3) for c in costs]),
        (message("reporting.cost_load"), [format_number(c.sample_load, 3) for c in costs]),
    ]
    return [(name, *cells) for name, cells in rows]


def _metric_rows(table: Table) -> Rows:
    rows: Rows = []
    for name, row in table.metrics.values():
        better = next(m["better"] for m in row if m)
        label = message("reporting.is_better", name=name, better=BETTER.get(better, better))
        rows.append((label, *map(_cell, row)))
    if any(table.held_out_kid):
        rows.append((message("reporting.to_held_out"), *map(_cell, table.held_out_kid)))
    if any(table.memorization):
        copies = (
            message("reporting.share_of", share=m["copies"], n=m["n"]) if m else "–"
            for m in table.memorization
        )
        rows.append((message("reporting.copies"), *copies))
    return rows


def _title(table: Table) -> Message:
    p = table.protocol
    return message("reporting.table_title", n=p["n"], features=p["extractor"], reference=p["reference"])


def _about(comparison: Comparison, table: Table) -> dict[str, Any]:
    """What stands below the table of a protocol on the page."""
    copies = [
        (e.name, m["sentence"])
        for e, m in zip(comparison.entries, table.memorization, strict=True)
        if "sentence" in m
    ]
    return {"protocol": table.protocol["protocol"], "ranking": table.ranking, "copies": copies}


def _cell(metric: Mapping[str, Any] | None) -> str:
    if not metric:
        return "–"
    interval, baseline = metric.get("interval"), metric.get("baseline")
    value = " ".join(filter(None, (number(metric["value"]), bracketed(interval))))
    return (
        value if baseline is None else message("reporting.cell_real", value=value, baseline=number(baseline))
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else format_duration(value)


def _learning(entries: Sequence[Entry], language: str) -> tuple[Markup | None, Message | None]:
    """The learning curves that most runs share, and what their numbers are."""
    keys = list(dict.fromkeys(key for e in entries for key in e.distances))
    if not keys:
        return None, None
    key = max(keys, key=lambda k: sum(k in e.distances for e in entries))
    features, n, reference_n, *_ = key
    name = metric_name("kid", str(features))
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
        x_label=message("reporting.axis_minutes"),
        y_label=name,
        description=message("reporting.plot_learning"),
        baseline=0.0,  # of real images, on average
        language=language,
    )
    caption = message("reporting.curve_caption", name=name, n=n, n_reference=reference_n)
    if missing := [e.name for e in entries if key not in e.distances]:
        caption = message("reporting.curve_missing", caption=caption, names=", ".join(missing))
    return Markup(svg), caption
