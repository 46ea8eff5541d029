"""Runs side by side: one table for each protocol, and a ranking only where there are enough seeds for it.

Numbers stand in one table only where their whole protocol agrees: feature network, resize, reference, the
number of samples and of real images. A run that was not evaluated by a protocol has an empty cell, never a
number of another.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from alphabar.codecs.latent import codec_parameters, decoding_flops
from alphabar.errors import AlphabarError, UsageError
from alphabar.evaluation.record import read_evaluations
from alphabar.images import image_grid
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.networks.base import Network, flops
from alphabar.progress import Progress, last
from alphabar.recipes.schema import MonitorSettings, Recipe
from alphabar.reporting.evaluation_rows import shown_name
from alphabar.reporting.ranking import Contestant, rank
from alphabar.reporting.report_figures import patient_settings
from alphabar.reporting.values import finite, mapping, mappings, median, series, trained
from alphabar.runs.model import Model, load_model
from alphabar.runs.run import Run
from alphabar.sampling.interpolate import interpolate
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample

SHOWN = 25  # samples of each run

ROWS, COLUMNS = 4, 8  # of the interpolations

PROTOCOL = ("extractor", "protocol", "reference", "n", "reference_n")
"""The keys of an evaluation that must agree for its numbers to compare."""

METRICS = ("kid", "frechet", "frechet_infinite", "score", "precision", "density", "recall", "coverage")
"""The metrics in the order of a table: those of quality first, then those of variety."""


class Cost(NamedTuple):
    """What a run took. flop: floating-point operations; a training step counts three forward passes.

    That of an autoencoder that was trained for the run counts, and its parameters do.
    load: of the machine, while it trained and after it sampled, where that is known.
    """

    images: int
    train_flop: float
    train_seconds: float | None
    parameters: int
    evaluations: int
    sample_flop: float
    sample_seconds: float | None
    train_load: float | None = None
    sample_load: float | None = None


@dataclass(frozen=True)
class Entry:
    """One run: its cost, its evaluations (the newest of each protocol), and its samples.

    settings: the whole recipe but for its seed and its training monitor. distances: the kernel distance
    along the training against its seconds, by everything that decides that number. strip: interpolations.
    problems: sentences about files of the run that are damaged.
    """

    name: str
    path: Path
    recipe: str
    settings: str
    cost: Cost
    evaluations: dict[tuple[Any, ...], dict[str, Any]]
    distances: dict[tuple[Any, ...], list[tuple[float, float]]]
    samples: Image.Image
    strip: Image.Image
    problems: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Table:
    """One protocol, and for each metric its name and the runs' numbers, None where missing."""

    protocol: dict[str, Any]
    metrics: dict[str, tuple[str, list[dict[str, Any] | None]]]
    held_out_kid: list[dict[str, Any] | None]
    memorization: list[dict[str, Any]]
    ranking: tuple[Message, ...]


@dataclass(frozen=True)
class Comparison:
    """The runs and their tables. notes: what a reader must know about them."""

    entries: tuple[Entry, ...]
    tables: tuple[Table, ...]
    notes: tuple[Message, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the pictures."""
        return {
            "runs": [
                {"name": e.name, "path": str(e.path), "recipe": e.recipe, **e.cost._asdict()}
                for e in self.entries
            ],
            "tables": [
                {
                    "protocol": t.protocol,
                    "metrics": {key: row for key, (_, row) in t.metrics.items()},
                    "held_out_kid": t.held_out_kid,
                    "copies": [m.get("sentence") for m in t.memorization],
                    "ranking": list(t.ranking),
                }
                for t in self.tables
            ],
            "notes": list(self.notes),
        }


def compare(runs: Sequence[str | Path]) -> Iterator[Progress[Comparison]]:
    """Put two or more runs side by side: the evaluations stored in them, and new samples.

    Yields records; the last one carries the `Comparison`. Raises UsageError for fewer than two runs or one
    named twice, AlphabarError where one is no run or holds no model that generates samples; all are checked
    before samples of the first are generated.
    """
    paths = [Path(run) for run in runs]
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise UsageError("reporting.too_few_runs")
    for path in paths:
        if not Run(path).exists:
            raise AlphabarError("reporting.no_run", path=path)
    return _compare(paths, [_checked(path) for path in paths])


def _checked(path: Path) -> Model:
    """The model of a run. Raises where it could not be compared, before anything is generated."""
    model = load_model(path)
    if not model.method.samples:
        raise AlphabarError("reporting.cannot_sample", path=path, method=model.recipe.method["name"])
    sample(model, SHOWN, patient_settings(model))  # raises for what cannot be
    interpolate(model, rows=ROWS, columns=COLUMNS)
    return model


def _compare(paths: list[Path], models: list[Model]) -> Iterator[Progress[Comparison]]:
    stage = message("evaluation.generating")
    entries = []
    for i, (path, model, name) in enumerate(zip(paths, models, _names(paths), strict=True)):
        yield Progress(stage, i, len(paths))
        entries.append(_entry(path, model, name))
    tables = comparison_tables(entries)
    notes = [problem for e in entries for problem in e.problems]
    notes += [
        message("reporting.not_evaluated", name=e.name, command=_evaluate(e.path))
        for e in entries
        if not e.evaluations
    ]
    if len(tables) > 1:
        notes.append(message("reporting.protocols", n=len(tables)))
    if len({e.cost.images for e in entries}) > 1:
        notes.append(message("reporting.unequal_images"))
    yield Progress(stage, len(paths), len(paths), Comparison(tuple(entries), tuple(tables), tuple(notes)))


def _evaluate(path: Path) -> str:
    """The command that evaluates a run."""
    return f"alphabar evaluate {shlex.quote(str(path))} --against {shlex.quote(Run(path).data or 'DATA')}"


def _names(paths: list[Path]) -> list[str]:
    """The folders' names, or as much of their paths as distinguishes them."""
    parts = [path.resolve().parts for path in paths]
    depth = next(d for d in range(1, 99) if len({p[-d:] for p in parts}) == len(parts))
    return ["/".join(p[-depth:]) for p in parts]


def _entry(path: Path, model: Model, name: str) -> Entry:
    run = Run(path)
    kept, problem = read_evaluations(run)
    evaluations = {tuple(e.get(key) for key in PROTOCOL): e for e in kept}
    newest = next(reversed(evaluations.values()), {})
    records = [r for r in run.log.records() if r["images"] <= model.images]
    train = [r for r in records if r["kind"] == "train" and finite(r.get("seconds"))]
    codec = model.codec
    # In float32 a report shows the same pictures every time, whatever was measured to be fastest since.
    samples = last(sample(model, SHOWN, patient_settings(model), precision="fp32"))
    between = last(interpolate(model, rows=ROWS, columns=COLUMNS, precision="fp32"))
    return Entry(
        name=name,
        path=path,
        recipe=model.recipe.name,
        settings=model.recipe.model_copy(update={"seed": 0, "monitor": MonitorSettings()}).to_toml(),
        cost=_cost(model, newest, train, run),
        evaluations=evaluations,
        distances=_distances(run, model, records, train),
        samples=image_grid(codec.preview(samples)),
        strip=image_grid(codec.preview(between), COLUMNS),
        problems=tuple(p for p in (problem, run.log.problem()) if p),
    )


def _cost(model: Model, evaluation: dict[str, Any], train: list[dict[str, Any]], run: Run) -> Cost:
    """What a model cost, and what the samples of an evaluation cost; without one, those of the report."""
    network = cast(Network, model.denoiser.network)
    settings = patient_settings(model)
    # The conditions of an evaluation decide no cost.
    with suppress(UsageError):  # of an evaluation by other means, such as an extension
        settings = SamplingSettings.from_dict(settings.to_dict() | evaluation | {"conditions": ()})
    evaluations = nfe_per_sample(model, settings)
    first = Run(run.first_stage)
    first_images, first_seconds = trained(first.log.records())
    first_flop = _training_flop(first.recipe, first_images) if first.exists else 0.0
    return Cost(
        images=model.images,
        train_flop=_training_flop(model.recipe, model.images) + first_flop,
        train_seconds=first_seconds + train[-1]["seconds"] if train else None,
        parameters=sum(p.numel() for p in network.parameters()) + codec_parameters(model.codec),
        evaluations=evaluations,
        sample_flop=float(evaluations * flops(network, model.codec.spatial) + decoding_flops(model.codec)),
        sample_seconds=evaluation.get("seconds_per_sample"),
        train_load=median(series(train, "load")[1]),
        sample_load=mapping(evaluation.get("machine")).get("load"),
    )


def _training_flop(recipe: Recipe, images: int) -> float:
    return method_of(recipe).training_flops(recipe) * images


def _distances(
    run: Run, model: Model, records: list[dict[str, Any]], train: list[dict[str, Any]]
) -> dict[tuple[Any, ...], list[tuple[float, float]]]:
    """The quick kernel distance along the training against its seconds, by everything that decides it.

    The seconds are those since the beginning: an autoencoder's come before.
    """
    _, before = trained(Run(run.first_stage).log.records())
    data = run.data_fingerprint or str(run.path)  # unknown data is comparable with itself only
    curves: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for r in records:
        if r["kind"] == "distance" and train and finite(r.get("kid")):
            seconds = np.interp(r["images"], [t["images"] for t in train], [t["seconds"] for t in train])
            by = (r.get("features"), r.get("n"), r.get("n_reference"), model.codec.item_shape, data)
            curves.setdefault(by, []).append((before + float(seconds), float(r["kid"])))
    return curves


def comparison_tables(entries: Sequence[Entry]) -> list[Table]:
    """One table for each protocol, those by which most runs were evaluated first."""
    protocols = list(dict.fromkeys(key for e in entries for key in e.evaluations))
    protocols.sort(key=lambda key: -sum(key in e.evaluations for e in entries))
    return [_table(entries, key) for key in protocols]


def _table(entries: Sequence[Entry], protocol: tuple[Any, ...]) -> Table:
    evaluations = [e.evaluations.get(protocol) or {} for e in entries]
    found = [{m["key"]: m for m in mappings(e.get("metrics"))} for e in evaluations]
    rows = {
        key: (
            shown_name(next(m[key] for m in found if key in m), protocol[PROTOCOL.index("extractor")]),
            [m.get(key) for m in found],
        )
        for key in METRICS
        if any(key in m for m in found)
    }
    held_out = [_held_out_kid(e) for e in evaluations]
    # the held-out references, too, must be the same
    if len({row["reference"] for row in held_out if row}) > 1:
        held_out = [None for _ in held_out]
    contestants = [Contestant(e.name, e.recipe, e.settings, e.cost.images) for e in entries]
    findings: dict[Message, list[str]] = {}
    for name, row in rows.values():
        findings.setdefault(rank(contestants, row), []).append(name)
    every = message("reporting.every_metric")
    ranking = tuple(
        message(
            "reporting.ranking",
            metrics=every if len(names) == len(rows) else _listed(names),
            finding=finding,
        )
        for finding, names in findings.items()
    )
    memorization = [mapping(e.get("memorization")) for e in evaluations]
    return Table(dict(zip(PROTOCOL, protocol, strict=True)), rows, held_out, memorization, ranking)


def _listed(names: Sequence[str]) -> str:
    """Names with commas between them, in any language."""
    return reduce(lambda first, rest: message("reporting.listed", first=first, rest=rest), names)


def _held_out_kid(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    other = evaluation.get("held_out")
    if not isinstance(other, dict):
        return None
    found = next((m for m in mappings(other.get("metrics")) if m["key"] == "kid"), None)
    return found and {**found, "reference": (other["reference"], other["n"])}
