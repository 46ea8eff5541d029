"""Runs side by side: one table and one page, and a ranking only where the seeds bear it.

Numbers stand in one table only where their whole protocol agrees: feature network, resize, reference, the
number of samples and of reals. What a run was not judged by is an empty cell, never a number of another.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image
from scipy.stats import ttest_ind_from_stats

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import write_file
from alphabar.images import image_grid
from alphabar.networks.base import Network, flops
from alphabar.progress import Progress
from alphabar.recipes.schema import MonitorSettings
from alphabar.reporting.plots import FIRST, SECOND, THIRD, Curve, plot, short_count
from alphabar.reporting.report import page_template, png_data_uri
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model, load_model
from alphabar.runs.run import Run
from alphabar.sampling.interpolate import interpolate
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample

SEEDS = 3
"""Runs of one recipe, alike but for the seed, that a ranking takes on either side."""


SURE = 0.95


SHOWN = 25  # samples of each run


ROWS, COLUMNS = 4, 8  # of the interpolations


PROTOCOL = ("extractor", "protocol", "reference", "n", "reference_n")


QUALITY = ("frechet", "frechet_infinite", "kid", "score", "precision", "density")


DIVERSITY = ("recall", "coverage")


class Cost(NamedTuple):
    """What a run took. flop: floating-point operations; a training step counts three forward passes."""

    images: int
    train_flop: float
    train_seconds: float | None
    parameters: int
    evaluations: int
    sample_flop: float
    sample_seconds: float | None


@dataclass(frozen=True)
class Entry:
    """One run: its cost, its evaluations (the newest of each protocol), and what it draws."""

    name: str
    path: Path
    recipe: str
    settings: str  # the whole recipe but for its seed, and for how it was watched
    cost: Cost
    judged: dict[tuple[Any, ...], dict[str, Any]]
    distances: dict[tuple[Any, ...], list[tuple[float, float]]]  # KID against seconds of training
    samples: Image.Image
    strip: Image.Image


@dataclass(frozen=True)
class Table:
    """One protocol: its words, and for each measure its name and the runs' numbers, None where missing."""

    protocol: dict[str, Any]
    measures: dict[str, tuple[str, list[dict[str, Any] | None]]]
    held_out_kid: list[dict[str, Any] | None]
    copies: list[str | None]
    ranking: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The runs and their tables."""

    entries: tuple[Entry, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = field(default=())

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
                    "measures": {key: row for key, (_, row) in t.measures.items()},
                    "held_out_kid": t.held_out_kid,
                    "copies": t.copies,
                    "ranking": list(t.ranking),
                }
                for t in self.tables
            ],
            "notes": list(self.notes),
        }


def compare(runs: Sequence[str | Path]) -> Iterator[Progress[Comparison]]:
    """Put two or more runs side by side: what evaluations stored in them, and pictures drawn anew.

    Yields records; the last one carries the ``Comparison``. Raises UsageError for fewer than two runs or one
    named twice, AlphabarError where one is no run or holds no model.
    """
    paths = [Path(run) for run in runs]
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise UsageError("compare takes two or more different runs")
    for path in paths:
        if not Run(path).exists:
            raise AlphabarError(
                f"{path} is no run folder: it holds no recipe.toml; `alphabar train` makes one"
            )
    return _compare(paths)


def _compare(paths: list[Path]) -> Iterator[Progress[Comparison]]:
    entries = []
    for i, (path, name) in enumerate(zip(paths, _names(paths), strict=True)):
        yield Progress("drawing", i, len(paths))
        entries.append(_entry(path, name))
    tables = _tables(entries)
    notes = [
        f"{e.name} has not been judged: alphabar evaluate {e.path} --against DATA"
        for e in entries
        if not e.judged
    ]
    if len(tables) > 1:
        notes.append(
            f"the runs were judged by {len(tables)} protocols: each has a table of its own, and numbers of"
            " different tables do not compare"
        )
    if len({e.cost.images for e in entries}) > 1:
        notes.append("the runs have seen unequal numbers of images: mind their cost beside their quality")
    yield Progress("drawing", len(paths), len(paths), Comparison(tuple(entries), tuple(tables), tuple(notes)))


def _names(paths: list[Path]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    parts = [path.resolve().parts for path in paths]
    depth = next(d for d in range(1, 99) if len({p[-d:] for p in parts}) == len(parts))
    return ["/".join(p[-depth:]) for p in parts]


def _entry(path: Path, name: str) -> Entry:
    run, model = Run(path), load_model(path)
    network = model.denoiser.network
    assert isinstance(network, Network)
    judged = {}
    for evaluation in _evaluations(path):
        judged[tuple(evaluation.get(key) for key in PROTOCOL)] = evaluation
    newest = next(reversed(judged.values()), {})
    settings = patient_settings(model)
    # the cost is that of what was judged, where something was; what was asked for has no say in it
    each = nfe_per_sample(model, SamplingSettings.from_dict(settings.to_dict() | newest | {"conditions": ()}))
    pass_flop = flops(network, model.codec.spatial)
    records = [r for r in run.log.records() if r.get("images", 0) <= model.images]
    train = [r for r in records if r.get("kind") == "train" and "seconds" in r]
    cost = Cost(
        images=model.images,
        train_flop=model.method.training_flops(model.recipe) * model.images,
        train_seconds=train[-1]["seconds"] if train else None,
        parameters=sum(p.numel() for p in network.parameters()),
        evaluations=each,
        sample_flop=float(each * pass_flop),
        sample_seconds=newest.get("seconds_per_sample"),
    )
    *_, drawn = sample(model, SHOWN, settings)
    *_, between = interpolate(model, rows=ROWS, columns=COLUMNS)
    assert drawn.result is not None and between.result is not None
    return Entry(
        name=name,
        path=path,
        recipe=model.recipe.name,
        settings=model.recipe.model_copy(update={"seed": 0, "monitor": MonitorSettings()}).to_toml(),
        cost=cost,
        judged=judged,
        distances=_distances(run, model, records, train),
        samples=image_grid(drawn.result),
        strip=image_grid(between.result, COLUMNS),
    )


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """What `evaluate` stored in a run, oldest first. Raises AlphabarError where it cannot be read."""
    file = path / "evaluation.json"
    if not file.exists():
        return []
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return [e for e in stored if isinstance(e, dict) and isinstance(e.get("measures"), list)]
    except (OSError, ValueError) as error:
        raise AlphabarError(f"{file} cannot be read ({error}): remove it and evaluate again") from None


def _distances(
    run: Run, model: Model, records: list[dict[str, Any]], train: list[dict[str, Any]]
) -> dict[tuple[Any, ...], list[tuple[float, float]]]:
    """The quick kernel distance along the training against its seconds, by what decides the number."""
    try:
        environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
        data = environment["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        data = str(run.path)  # of unknown data: comparable with itself only
    curves: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for r in records:
        if r.get("kind") == "distance" and train and "kid" in r:
            seconds = np.interp(r["images"], [t["images"] for t in train], [t["seconds"] for t in train])
            by = (r.get("features"), r.get("n"), r.get("n_reference"), model.recipe.data.size, data)
            curves.setdefault(by, []).append((float(seconds), float(r["kid"])))
    return curves


def _tables(entries: list[Entry]) -> list[Table]:
    """One for each protocol, those that most runs were judged by first."""
    protocols = list(dict.fromkeys(key for e in entries for key in e.judged))
    protocols.sort(key=lambda key: -sum(key in e.judged for e in entries))
    tables = []
    for key in protocols:
        judged = [e.judged.get(key) for e in entries]
        found = [{m["key"]: m for m in e["measures"]} if e else {} for e in judged]
        rows = {
            k: (next(m[k]["name"] for m in found if k in m), [m.get(k) for m in found])
            for k in (*QUALITY, *DIVERSITY)
            if any(k in m for m in found)
        }
        held_out = [_held_out_kid(e) for e in judged]
        # the held-out references, too, must be the same
        if len({row["reference"] for row in held_out if row}) > 1:
            held_out = [None for _ in held_out]
        copies = [((e or {}).get("memorization") or {}).get("sentence") for e in judged]
        told: dict[str, list[str]] = {}
        for name, row in rows.values():
            told.setdefault(_rank(entries, row), []).append(name)
        ranking = tuple(
            f"{'every measure' if len(names) == len(rows) else ', '.join(names)}: {finding}"
            for finding, names in told.items()
        )
        tables.append(Table(dict(zip(PROTOCOL, key, strict=True)), rows, held_out, copies, ranking))
    return tables


def _held_out_kid(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    other = (evaluation or {}).get("held_out")
    if not isinstance(other, dict):
        return None
    found = next((m for m in other["measures"] if m["key"] == "kid"), None)
    return found and {**found, "reference": (other["reference"], other["n"])}


def _rank(entries: list[Entry], row: list[dict[str, Any] | None]) -> str:
    """Which method is better by one measure, or why nobody can say.

    Seeds are what a method's number varies with, more than with the samples drawn: Welch's t-test between the
    seeds of each pair of methods, at 95 % over all pairs (Bonferroni).
    """
    values: dict[str, list[float]] = {}
    better = "higher"
    for method, measure in zip(_methods(entries), row, strict=True):
        if measure:
            values.setdefault(method, []).append(measure["value"])
            better = measure["better"]
    if sum(map(len, values.values())) == 1:
        return "only one run was judged by it"
    pairs = list(combinations(values, 2))
    if not pairs:
        return "not distinguishable: all judged are repeats of one recipe"
    few = [f"{method} has {len(v)}" for method, v in values.items() if len(v) < SEEDS]
    if few:
        return f"not distinguishable: it takes {SEEDS} seeds of each recipe, {', '.join(few)}"
    told = []
    for a, b in pairs:
        p = _welch(values[a], values[b])
        if p * len(pairs) < 1 - SURE:
            a_first = (np.mean(values[a]) < np.mean(values[b])) == (better == "lower")
            first, second = (a, b) if a_first else (b, a)
            told.append(f"{first} is better than {second} (p = {p * len(pairs):.2g})")
        else:
            told.append(f"{a} and {b} are not distinguishable")
    return "; ".join(told)


def _welch(a: Sequence[float], b: Sequence[float]) -> float:
    """p of Welch's t-test; 1 where no seed differs from another of its kind, for that tells no spread."""
    if len(set(a)) == len(set(b)) == 1:
        return 1.0
    (mean_a, std_a), (mean_b, std_b) = ((np.mean(v), np.std(v, ddof=1)) for v in (a, b))
    return float(ttest_ind_from_stats(mean_a, std_a, len(a), mean_b, std_b, len(b), equal_var=False).pvalue)


def _methods(entries: list[Entry]) -> list[str]:
    """For each run what it is a repeat of: one recipe but for seed and watching, images seen within a tenth.

    Named by the recipe where that tells them apart, else by the first run of the kind.
    """
    firsts: list[Entry] = []
    of: list[Entry] = []
    for entry in entries:
        alike = (f for f in firsts if f.settings == entry.settings and _near(f, entry))
        first = next(alike, entry)
        if first is entry:
            firsts.append(entry)
        of.append(first)
    recipes = [first.recipe for first in firsts]
    return [first.recipe if recipes.count(first.recipe) == 1 else first.name for first in of]


def _near(a: Entry, b: Entry) -> bool:
    return abs(a.cost.images - b.cost.images) <= 0.1 * max(a.cost.images, b.cost.images)


def rows(comparison: Comparison) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Tables to print: title, and rows of cells, the first row the runs."""
    head = ("", *(e.name for e in comparison.entries))
    costs = [e.cost for e in comparison.entries]
    told = [
        ("recipe", *(e.recipe for e in comparison.entries)),
        ("images seen", *(f"{c.images:,}" for c in costs)),
        ("training, FLOP", *(f"{c.train_flop:.3g}" for c in costs)),
        ("training, wall-clock", *(_seconds(c.train_seconds) for c in costs)),
        ("parameters", *(short_count(c.parameters) for c in costs)),
        ("evaluations a sample", *(str(c.evaluations) for c in costs)),
        ("FLOP a sample", *(f"{c.sample_flop:.3g}" for c in costs)),
        ("seconds a sample", *(_seconds(c.sample_seconds) for c in costs)),
    ]
    result = [("cost", [head, *told])]
    for table in comparison.tables:
        body = [
            (f"{name}, {next(m['better'] for m in row if m)} is better", *map(_cell, row))
            for name, row in table.measures.values()
        ]
        if any(table.held_out_kid):
            body.append(("kernel distance to held-out pictures", *map(_cell, table.held_out_kid)))
        if any(table.copies):
            body.append(
                ("copies", *(told.partition(" samples")[0] if told else "–" for told in table.copies))
            )
        p = table.protocol
        result.append((f"{p['n']} samples, {p['extractor']}, against {p['reference']}", [head, *body]))
    return result


def _cell(measure: dict[str, Any] | None) -> str:
    if not measure:
        return "–"
    interval = measure.get("interval")
    value = f"{measure['value']:.4g}"
    value += f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
    floor = measure.get("floor")
    return value + (f" (real {floor:.3g})" if floor is not None else "")


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as one self-contained HTML page. Raises AlphabarError where it cannot be."""
    html = page_template("compare.html").render(
        names=[e.name for e in comparison.entries],
        tables=rows(comparison),
        protocols=[t.protocol["protocol"] for t in comparison.tables],
        rankings=[t.ranking for t in comparison.tables],
        copies=[
            [(e.name, told) for e, told in zip(comparison.entries, t.copies, strict=True) if told]
            for t in comparison.tables
        ],
        notes=comparison.notes,
        pictures=[
            (e.name, e.recipe, *((png_data_uri(x), x.width, x.height) for x in (e.samples, e.strip)))
            for e in comparison.entries
        ],
        curve=_learning(comparison.entries),
    )
    write_file(path, html.encode())
    return path


def _learning(entries: Sequence[Entry]) -> tuple[Markup, str] | None:
    """The curve that most runs share, and what its numbers are."""
    keys = list(dict.fromkeys(key for e in entries for key in e.distances))
    if not keys:
        return None
    key = max(keys, key=lambda k: sum(k in e.distances for e in entries))
    curves = []
    looks = [(colour, style) for style in ("-", "--", ":") for colour in (FIRST, SECOND, THIRD)]
    for i, entry in enumerate(entries):
        if key in entry.distances:
            x, y = zip(*entry.distances[key], strict=True)
            colour, style = looks[i % len(looks)]
            curves.append(Curve(entry.name, [s / 60 for s in x], y, colour, style, points=True))
    svg = plot(
        "plot-learning",
        curves,
        x_label="minutes of training",
        y_label="kernel distance",
        description="Kernel distance of samples from training pictures against wall-clock time, a line a run",
    )
    missing = [e.name for e in entries if key not in e.distances]
    told = f"{key[1]} samples against {key[2]} training pictures, {key[0]} features"
    if missing:
        told += f"; not measured in this way: {', '.join(missing)}"
    return Markup(svg), told
