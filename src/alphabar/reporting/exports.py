"""The tables of a page as CSV and LaTeX, and its plots as SVG files.

Columns have the names of the keys in evaluation.json and log.jsonl, in every language.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from alphabar.files import write_file, writing
from alphabar.messages import message, translated
from alphabar.reporting.evaluation_rows import BETTER, shown_name
from alphabar.reporting.values import bracketed, mapping, mappings, number, setting
from alphabar.runs.log import RunLog

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}

MATHEMATICS = {"→": r"$\rightarrow$", "∞": r"$\infty$", "±": r"$\pm$", "−": "$-$"}


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a CSV file whose columns are all of their keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _bytes(text.getvalue())


def evaluation_tables(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """The CSV files of evaluations, by name: metrics, attribute frequencies, agreement with conditions."""
    metrics = [row for e in evaluations for row in _metric_rows(e)]
    frequencies = _nested(evaluations, "attribute_frequencies", "frequencies")
    agreements = _nested(evaluations, "condition_agreement", "distances")
    tables = {"metrics.csv": metrics, "attributes.csv": frequencies, "conditions.csv": agreements}
    return {name: csv_bytes(rows) for name, rows in tables.items() if rows}


def log_tables(log: RunLog) -> dict[str, bytes]:
    """The CSV files of a log, by name: what was logged of updates and what the monitor measured."""
    records = mappings(log.records())
    kinds = {"training.csv": "train", "monitor.csv": "distance"}
    found = {name: [r for r in records if r.get("kind") == kind] for name, kind in kinds.items()}
    return {
        name: csv_bytes([{k: v for k, v in r.items() if k != "kind"} for r in rows])
        for name, rows in found.items()
        if rows
    }


def _metric_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each number of an evaluation, against the training data and against the held-out data."""
    about = {key: evaluation.get(key) for key in ("when", "images", "seed")}
    rows = []
    for reports, kind in ((evaluation, "training"), (mapping(evaluation.get("held_out")), "held_out")):
        for m in mappings(reports.get("metrics")):
            ends = m.get("interval") or (None, None)
            low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
            rows.append(
                about
                | {"against": kind}
                | {key: m.get(key) for key in ("key", "name", "value", "error")}
                | {"low": low, "high": high, "baseline": m.get("baseline"), "better": m.get("better")}
                | {
                    key: reports.get(key)
                    for key in ("n", "reference_n", "baseline_n", "baseline_reference_n")
                }
                | {key: reports.get(key) for key in ("extractor", "reference", "protocol")}
            )
    return rows


def _nested(evaluations: Sequence[Mapping[str, Any]], key: str, inner: str) -> list[dict[str, Any]]:
    """The rows of a table within the tables of each evaluation, with what those say of all their rows."""
    rows = []
    for e in evaluations:
        for outer in mappings(e.get(key)):
            of_all = {k: v for k, v in outer.items() if k != inner}
            of_all = {f"attribute_{k}" if k in ("n", "low", "high") else k: v for k, v in of_all.items()}
            found = mappings(outer.get(inner)) or [{}]
            rows += [{"when": e.get("when"), **of_all, **row} for row in found]
    return rows


def latex_table(evaluation: Mapping[str, Any], language: str) -> bytes:
    """The numbers of an evaluation as a LaTeX table in a language."""
    n = setting(evaluation.get("n"))
    rows: list[tuple[Any, ...]] = [
        (
            message("reporting.latex_samples", n=n),
            message("reporting.column_value"),
            message("reporting.column_baseline"),
        )
    ]
    for m in mappings(evaluation.get("metrics")):
        name = shown_name(m, evaluation.get("extractor"))
        better = message("reporting.is_better", name=name, better=BETTER.get(str(m.get("better")), ""))
        shown = " ".join(filter(None, (number(m.get("value")), bracketed(m.get("interval")))))
        rows.append((better, shown, number(m.get("baseline"))))
    return latex_rows(rows, evaluation.get("reference", ""), language)


def latex_rows(rows: Sequence[Sequence[Any]], title: Any, language: str) -> bytes:
    """Rows as a LaTeX table (package booktabs) in a language: the first is its head, the title a comment."""
    head, *body = [[latex(translated(cell, language)) for cell in row] for row in rows]
    lines = [f"% {translated(title, language)}".replace("\n", " ")]
    lines += [
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(cells) + r" \\" for cells in body]
    return _bytes("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n")


def latex(text: str) -> str:
    """Text on one line, with the characters that LaTeX takes for commands written so that they show."""
    return "".join(LATEX.get(c, MATHEMATICS.get(c, c)) for c in " ".join(text.split()))


def svg_file(inline: str) -> bytes:
    """A plot of a page as a file of its own: with the colors of a light page, and text without serifs."""
    plain = re.sub(r"var\(--[a-z-]+, (#[0-9a-f]+)\)", r"\1", inline)
    opening = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" '
    return _bytes(plain.replace("<svg ", opening, 1))


def _bytes(text: str) -> bytes:
    """Text in UTF-8; half of a character, which may stand in JSON and in file names, as an escape."""
    return text.encode(errors="backslashreplace")


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made where it is missing."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_file(folder / name, content)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG. Raises AlphabarError where it cannot be written."""
    with writing(path):
        picture.save(path)
