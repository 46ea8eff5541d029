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

from alphabar.errors import AlphabarError
from alphabar.evaluation.record import FILE as EVALUATIONS
from alphabar.evaluation.record import entry_content
from alphabar.files import Damaged, read_document, read_given_file
from alphabar.formatting import format_duration, format_short_count
from alphabar.images import evenly
from alphabar.messages import catalogue, message, translated, unpack_messages
from alphabar.methods.base import Method
from alphabar.methods.registry import METHODS
from alphabar.metrics.suite import metric_name
from alphabar.reporting.evaluation_rows import evaluation_rows, known_as
from alphabar.reporting.exports import evaluation_tables, latex_table, log_tables, svg_file
from alphabar.reporting.pages import FIGURES, Picture, download, read_picture
from alphabar.reporting.report_plots import (
    accuracy_plot,
    distance_plot,
    error_plot,
    progress_plot,
    training_plot,
)
from alphabar.reporting.values import (
    finite,
    flat,
    items,
    mapping,
    mappings,
    median,
    number,
    percent,
    series,
    setting,
    trained,
)
from alphabar.runs.run import Run

GRIDS = 12  # of samples along the training that are shown


def report_data(path: Path, folder: Path, argument: str, language: str) -> dict[str, Any]:
    """The values of the template report.html, by name.

    path: of a run or of a model folder. folder: with the figures. argument: what commands call the path.
    language: of the plots and of the LaTeX table.
    """
    problems: list[str] = []
    run = Run(path)
    recipe = _read_recipe(path, problems)
    about = _read_document(folder / "figures.json", problems)
    stored = _read_evaluations(path / EVALUATIONS, problems)[::-1]
    evaluations = [evaluation_rows(e) for e in stored]
    environment = unpack_messages(_read_document(path / "environment.json", problems))
    if about.get("terminal_warning"):
        problems.append(unpack_messages(about["terminal_warning"]))
    records = run.log.records()
    problems += [problem] if (problem := run.log.problem()) else []
    of_figures = mapping(about.get("samples")).get("images")  # all that a model without its run has
    seen = [r["images"] for r in records] or ([of_figures] if finite(of_figures) else [])
    images = max(seen, default=0)
    return {
        "name": path.resolve().name,
        **_method(recipe),
        "argument": shlex.quote(argument),
        "data": shlex.quote(run.data) if run.data else "DATA",
        "trained_here": run.exists,
        "more": format_short_count(2 * images) if images else "500k",
        "facts": _facts(run, records, images, evaluations, mapping(about.get("model")), environment),
        "warnings": problems,
        **_figures(folder, about),
        "copies": read_picture(path / "copies.png"),
        "grids": _grids(path / "samples"),
        **_training(records, environment, language),
        "evaluations": evaluations,
        "recipe": recipe,
        "recipe_rows": [(key, setting(value)) for key, value in recipe.items()],
        "environment": [(known_as(key), value) for key, value in flat(_with_text(environment, language))],
        "files_folder": folder.name,
        "files": (contents := _files(path, run, stored, language)),
        "downloads": [download(name, content) for name, content in contents.items()],
    }


def _read_evaluations(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The evaluations in a file, their messages as sentences; what is damaged is added to the problems."""
    stored = _read(path, json.loads, [], problems)
    contents = [entry_content(entry, path) for entry in stored]
    if damaged := contents.count(None) - stored.count(None):
        problems.append(message("evaluation.damaged_entries", path=path, n=damaged))
    return mappings(unpack_messages(contents))


def report_files(data: dict[str, Any]) -> dict[str, bytes]:
    """The files beside a report, by name: its tables, and its plots as SVG. data: of `report_data`."""
    plots = {f"{name}.svg": svg_file(svg) for name, svg in data["plots"].items() if svg}
    return data["files"] | plots


def _files(path: Path, run: Run, evaluations: list[dict[str, Any]], language: str) -> dict[str, bytes]:
    """The tables of a report as files, by name."""
    tables = evaluation_tables(evaluations) | log_tables(run.log)
    if evaluations and mappings(evaluations[0].get("metrics")):
        tables["metrics.tex"] = latex_table(evaluations[0], language)
    if (stored := path / EVALUATIONS).is_file():
        tables[stored.name] = stored.read_bytes()
    return tables


def _read(path: Path, parse: Callable[[str], Any], empty: Any, problems: list[str]) -> Any:
    """The parsed file; ``empty`` where it is missing, or broken, which is added to the problems."""
    try:
        value = parse(read_given_file(path).decode())
    except FileNotFoundError:
        return empty
    except (AlphabarError, OSError, ValueError, RecursionError) as error:
        problem = error.message if isinstance(error, AlphabarError) else error
        problems.append(message("reporting.unreadable", file=path.name, problem=problem))
        return empty
    if not isinstance(value, type(empty)):
        problems.append(message("reporting.other_content", file=path.name))
        return empty
    return value


def _read_document(path: Path, problems: list[str]) -> dict[str, Any]:
    """The content of a document; {} where it is missing, or damaged, which is added to the problems."""
    try:
        return read_document(path, required=False)
    except FileNotFoundError:
        return {}
    except Damaged as problem:
        problems.append(message("reporting.unreadable", file=path.name, problem=problem.message))
        return {}


def _read_recipe(path: Path, problems: list[str]) -> dict[str, Any]:
    """The recipe of a run or of a model folder."""
    if Run(path).exists:
        return cast(dict[str, Any], _read(path / "recipe.toml", tomllib.loads, {}, problems))
    return mapping(_read(path / "recipe.json", json.loads, {}, problems).get("recipe"))


def _with_text(environment: dict[str, Any], language: str) -> dict[str, Any]:
    """The environment with the notes on the runtime as one text in a language."""
    runtime = mapping(environment.get("runtime"))
    notes = " ".join(translated(note, language) for note in items(runtime.get("notes")))
    return environment | ({"runtime": runtime | {"notes": notes}} if notes else {})


def _method(recipe: dict[str, Any]) -> dict[str, Any]:
    """What the model is called, and which sections its report has."""
    name = str(mapping(recipe.get("method")).get("name", "diffusion"))
    method = cast(type[Method], METHODS.get(name, METHODS["diffusion"]))
    title = f"reporting.method_{name}"
    return {
        "title": message(title) if title in catalogue() else message("reporting.method", name=name),
        "samples_exist": method.samples,
        "reconstructs": method.reconstructs,
        "samples_in_steps": method.samples and not method.one_step,
    }


def _figures(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The figures that `report_figures` made, and the numbers that stand below them."""
    pieces = {name: mapping(about.get(name)) for name in FIGURES}
    return {
        "pictures": {name: read_picture(folder / f"{name}.png") for name in FIGURES},
        "sampling": [(known_as(key), setting(value)) for key, value in pieces["samples"].items()],
        "levels": {name: _levels(pieces[name].get("levels")) for name in ("forward", "reverse")},
        "nearest_distances": [_nearest(d) for d in items(pieces["nearest"].get("distances"))],
    }


def _training(records: list[dict[str, Any]], environment: dict[str, Any], language: str) -> dict[str, Any]:
    """The plots of a training, and what its speed and its distances depend on."""
    train, errors, distances, accuracies, reconstructed = (
        [r for r in records if r.get("kind") == kind]
        for kind in ("train", "held_out", "distance", "accuracy", "reconstruction")
    )
    last = distances[-1] if distances else {}
    features = str(last.get("features", "–"))
    return {
        "plots": {
            "levels": error_plot(errors, language),
            "progress": progress_plot(errors, language),
            "accuracy": accuracy_plot(accuracies, language),
            "kid": distance_plot(distances, "kid", metric_name("kid", features), language),
            "frechet": distance_plot(distances, "frechet", metric_name("frechet", features), language),
            "psnr": training_plot(reconstructed, "psnr", message("reporting.psnr"), language),
            "loss": training_plot(train, "loss", message("reporting.axis_loss"), language),
            "rate": training_plot(train, "rate", message("reporting.axis_rate"), language),
        },
        "speed": message(
            "reporting.rate_caption",
            wait=percent(median(series(train, "wait")[1])),
            load=number(median(series(train, "load")[1])),
            cores=setting(environment.get("cores")),
            memory=setting(environment.get("memory")),
        ),
        "distance": {key: last.get(key, "–") for key in ("n", "n_reference", "features")} if last else {},
    }


Fact = tuple[str, str, tuple[str, ...]]  # name, value, remarks


def _facts(
    run: Run,
    records: list[dict[str, Any]],
    images: int,
    evaluations: list[dict[str, Any]],
    model: dict[str, Any],
    environment: dict[str, Any],
) -> list[Fact]:
    """The handful of numbers at the top: quality first, then cost."""
    facts = [*_reconstruction(records), *_quality(records, evaluations)]
    if images:
        facts.append((message("reporting.images_seen"), format_short_count(images), ()))
    train = [r for r in records if r.get("kind") == "train"]
    if train and finite(train[-1].get("seconds")):
        rate, load = (median(series(train, key)[1]) for key in ("rate", "load"))
        remarks: tuple[str, ...] = (message("reporting.rate", rate=number(rate)),)
        if load is not None:
            cores = setting(environment.get("cores"))
            remarks = (*remarks, message("reporting.at_load", load=number(load), cores=cores))
        _, before = trained(Run(run.first_stage).log.records())
        if before:
            remarks = (message("reporting.of_autoencoder", duration=format_duration(before)), *remarks)
        spent = format_duration(before + train[-1]["seconds"])
        facts.append((message("reporting.trained_for"), spent, remarks))
    if finite(model.get("parameters")):
        costs: tuple[str, ...] = (message("reporting.gflop", gflop=number(model.get("gflop"))),)
        if model.get("decoder_gflop"):
            costs = (*costs, message("reporting.decoder_gflop", gflop=number(model["decoder_gflop"])))
        facts.append((message("reporting.parameters"), format_short_count(model["parameters"]), costs))
    return facts


def _reconstruction(records: list[dict[str, Any]]) -> list[Fact]:
    """The cards of an autoencoder: how near reconstructed pictures are to held-out ones."""
    measured = [r for r in records if r.get("kind") == "reconstruction"][-1:]
    of, of_training = "reporting.reconstruction_of", "reporting.reconstruction_of_training"
    return [
        (
            message(f"reporting.{key}"),
            number(r[key]),
            (message(of if r.get("held_out", True) else of_training, n=setting(r.get("n"))),),
        )
        for r in measured
        for key in ("psnr", "ssim")
        if finite(r.get(key))
    ]


def _quality(records: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> list[Fact]:
    """The cards of the newest evaluation, or without one of the training monitor.

    A distance without an interval is no card: of few samples the Fréchet distance says little. An FID, which
    people look for, is one where the samples are enough for it.
    """
    facts: list[Fact] = []
    distances = [r for r in records if r.get("kind") == "distance"]
    if evaluations:
        newest = evaluations[0]
        for m in newest["metrics"]:
            inception = str(m["name"]) == "FID" and not newest["singular"]
            if m.get("key") in ("kid", "frechet_infinite") or inception:
                baseline = message("reporting.card_baseline", baseline=number(m.get("baseline")))
                about = message("reporting.card", n=newest["n"], better=m["better"])
                facts.append((m["name"], number(m.get("value")), (m["interval"] or "", about, baseline)))
        if finite(newest["copied"]):
            value = message("reporting.share_of", share=newest["copied"], n=newest["n"])
            facts.append((message("reporting.copies"), value, (newest["copied_by_chance"],)))
    elif distances:
        last = distances[-1]
        error = f"± {number(last['kid_error'])}" if finite(last.get("kid_error")) else ""
        baseline = message("reporting.card_baseline", baseline=number(last.get("kid_baseline")))
        about = message("reporting.monitor_card", n=setting(last.get("n")))
        name = metric_name("kid", str(last.get("features", "–")))
        facts.append((name, number(last.get("kid")), (error, about, baseline)))
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
