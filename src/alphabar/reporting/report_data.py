"""What a report shows: everything in a run folder, in the form that the template takes.

Everything but the recipe may be missing or cut short.
"""

import json
import math
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from alphabar.formatting import format_duration, format_short_count
from alphabar.images import evenly
from alphabar.messages import catalogue, message
from alphabar.methods.base import Method
from alphabar.methods.registry import METHODS
from alphabar.reporting.evaluation_rows import evaluation_rows
from alphabar.reporting.pages import Picture, read_picture
from alphabar.reporting.report_plots import (
    accuracy_plot,
    distance_plot,
    error_plot,
    progress_plot,
    training_plot,
)
from alphabar.reporting.values import finite, flat, items, mapping, mappings, median, number, series, setting
from alphabar.runs.run import Run

FIGURES = ("forward", "reverse", "samples", "nearest")  # that `report_figures` makes

GRIDS = 12  # of samples along the training that are shown


def report_data(run: Path, figures: Path) -> dict[str, Any]:
    """The values of the template report.html, by name. figures: the folder of `make_report_figures`."""
    problems: list[str] = []
    recipe = _read(run / "recipe.toml", tomllib.loads, {}, problems)
    about = _read(figures / "figures.json", json.loads, {}, problems)
    evaluations = [
        evaluation_rows(e)
        for e in reversed(mappings(_read(run / "evaluation.json", json.loads, [], problems)))
    ]
    environment = _read(run / "environment.json", json.loads, {}, problems)
    if about.get("terminal_warning"):
        problems.append(about["terminal_warning"])
    log = Run(run).log
    records = log.records()
    problems += [problem] if (problem := log.problem()) else []
    images = max((r["images"] for r in records), default=0)
    return {
        "name": run.resolve().name,
        **_method(recipe),
        "argument": shlex.quote(str(run)),
        "more": format_short_count(2 * images) if images else "500k",
        "facts": _facts(records, images, evaluations, mapping(about.get("model"))),
        "warnings": problems,
        **_figures(figures, about),
        "copies": read_picture(run / "copies.png"),
        "grids": _grids(run / "samples"),
        **_training(records),
        "evaluations": evaluations,
        "recipe": recipe,
        "recipe_rows": [(key, setting(value)) for key, value in recipe.items()],
        "environment": list(flat(environment)),
    }


def _read(path: Path, parse: Callable[[str], Any], empty: Any, problems: list[str]) -> Any:
    """The parsed file; ``empty`` where it is missing, or broken, which is added to the problems."""
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError, RecursionError) as error:
        problems.append(message("reporting.unreadable", file=path.name, problem=error))
        return empty
    if not isinstance(value, type(empty)):
        problems.append(message("reporting.other_content", file=path.name))
        return empty
    return value


def _method(recipe: dict[str, Any]) -> dict[str, Any]:
    """What the model is called, and which sections its report has."""
    name = str(mapping(recipe.get("method")).get("name", "diffusion"))
    method = cast(type[Method], METHODS.get(name, METHODS["diffusion"]))
    title = f"reporting.method_{name}"
    return {
        "title": message(title) if title in catalogue() else message("reporting.method", name=name),
        "samples_exist": method.samples,
        "samples_in_steps": method.samples and not method.one_step,
    }


def _figures(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The figures that `report_figures` made, and the numbers that stand below them."""
    pieces = {name: mapping(about.get(name)) for name in FIGURES}
    return {
        "pictures": {name: read_picture(folder / f"{name}.png") for name in FIGURES},
        "sampling": [f"{key} {setting(value)}" for key, value in pieces["samples"].items()],
        "levels": {name: _levels(pieces[name].get("levels")) for name in ("forward", "reverse")},
        "nearest_distances": [_nearest(d) for d in items(pieces["nearest"].get("distances"))],
    }


def _training(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The plots of a training."""
    train, errors, distances, accuracies = (
        [r for r in records if r.get("kind") == kind]
        for kind in ("train", "held_out", "distance", "accuracy")
    )
    return {
        "plots": {
            "levels": error_plot(errors),
            "progress": progress_plot(errors),
            "accuracy": accuracy_plot(accuracies),
            "frechet": distance_plot(distances, "frechet", "Fréchet distance"),
            "kid": distance_plot(distances, "kid", "kernel distance (KID)"),
            "loss": training_plot(train, "loss", "training loss"),
            "rate": training_plot(train, "rate", "images per second"),
        },
        "wait": median(series(train, "wait")[1]),
        "distance": distances[-1] if distances else {},
    }


def _facts(
    records: list[dict[str, Any]], images: int, evaluations: list[dict[str, Any]], model: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """The handful of numbers at the top: name, value, remark."""
    facts = [("images seen", format_short_count(images), "in training")] if images else []
    train = [r for r in records if r.get("kind") == "train"]
    distances = [r for r in records if r.get("kind") == "distance"]
    if train and finite(train[-1].get("seconds")):
        rate = median(series(train, "rate")[1])
        facts.append(("trained for", format_duration(train[-1]["seconds"]), f"{number(rate)} images/s"))
    if finite(model.get("parameters")):
        cost = f"{number(model.get('gflop'))} GFLOP per evaluation"
        facts.append(("parameters", format_short_count(model["parameters"]), cost))
    if evaluations:
        for m in (m for m in evaluations[0]["metrics"] if m.get("key") in ("frechet", "kid")):
            facts.append(
                (str(m.get("name")), number(m.get("value")), f"real images: {number(m.get('baseline'))}")
            )
    elif distances:
        last = distances[-1]
        features = f"features {last.get('features')}"
        facts.append(("quick Fréchet distance", number(last.get("frechet")), features))
    return facts


def _levels(levels: Any) -> list[dict[str, str]]:
    """What stands below the columns of a strip: the time and the signal-to-noise ratio."""
    return [
        {"t": f"{level['t']:.2g}" if finite(level.get("t")) else "", "snr": _ratio(level.get("snr"))}
        for level in mappings(levels)
    ]


def _ratio(snr: Any) -> str:
    if not isinstance(snr, int | float) or math.isnan(snr):
        return "∞" if snr is None else ""
    if snr > 9999:
        return "∞" if math.isinf(snr) else f"1e{math.floor(math.log10(snr))}"
    return f"{snr:.2g}" if snr < 100 else f"{snr:.0f}"


def _nearest(distance: Any) -> str:
    """The smallest of one sample's distances to its neighbors."""
    numbers = [d for d in (distance if isinstance(distance, list) else [distance]) if finite(d)]
    return number(min(numbers)) if numbers else ""


def _grids(folder: Path) -> list[tuple[int, Picture]]:
    """Grids of samples from the same noise along the training: images seen, picture."""
    paths = sorted((p for p in folder.glob("*.png") if p.stem.isdecimal()), key=lambda p: int(p.stem))
    found = [(int(paths[i].stem), read_picture(paths[i], 560)) for i in evenly(len(paths), GRIDS)]
    return [(images, picture) for images, picture in found if picture]
