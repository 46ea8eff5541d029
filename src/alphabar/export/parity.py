"""The parity report: how far the samples of an export are from the model's own, and what both cost."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.data.dataset import cache_root
from alphabar.data.sources import open_source
from alphabar.evaluation.samples import read_reference
from alphabar.export.base import Export, MakeItems
from alphabar.files import pack_json, write_file
from alphabar.formatting import format_number
from alphabar.messages import message, pack_messages, reader_language, translated
from alphabar.metrics.distances import kid
from alphabar.metrics.features import EXTRACTORS, Features, extract
from alphabar.metrics.intervals import Z95
from alphabar.metrics.pictures import metric_pictures
from alphabar.progress import Progress, last, staged
from alphabar.runs.run import Run
from alphabar.runtime import extractor_device, machine_state
from alphabar.sampling.sample import sample

BATCH = 16  # samples that either side generates before it is the other's turn
Distance = tuple[float, float, float]
"""A kernel distance with its 95 % interval: (value, low, high)."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    size: bytes on disk. seconds: per sample, the median over batches. distance: from the reference, or None
    where there was none.
    """

    name: str
    size: int
    seconds: float
    distance: Distance | None = None


@dataclass(frozen=True)
class Parity:
    """What an export and the model itself, in float32, generate from the same noise and conditions.

    n: samples. largest, mean: the difference of the values of two items, for pictures of 255.
    distance: between the first half of the model's samples and the second half of the export's, where there
        was no reference. reference: what it was, or None.
    about: what the target tells about the export. machine: where it was measured, and its load.
    """

    target: str
    precision: str
    n: int
    largest: float
    mean: float
    sides: tuple[Side, Side]
    distance: Distance | None
    reference: str | None
    about: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return pack_messages(asdict(self))

    def rows(self) -> list[tuple[str, ...]]:
        """A table to print: what is measured, the model's and the export's."""
        model, export = self.sides
        rows: list[tuple[str, ...]] = [
            ("", model.name, export.name),
            (message("export.size"), *(f"{side.size / 1e6:.1f} MB" for side in self.sides)),
            (message("export.seconds"), *(f"{side.seconds:.3g} s" for side in self.sides)),
        ]
        if self.reference is not None:
            rows.append((message("export.distance"), *(_text(side.distance) for side in self.sides)))
        return rows

    def sentences(self) -> list[str]:
        """What the table does not hold: how far apart the samples are, and what the target tells."""
        found: list[str] = [
            message(
                "export.difference",
                n=self.n,
                mean=format_number(self.mean, 3),
                largest=format_number(self.largest, 3),
            )
        ]
        if self.distance is not None:
            found.append(message("export.distance_between", distance=_text(self.distance)))
        if self.reference is not None:
            found.append(message("export.reference", reference=self.reference))
        if layers := self.about.get("float_layers"):
            found.append(message("export.float_layers", layers=", ".join(layers)))
        return found


def compare_samples(
    export: Export,
    target: str,
    exported: MakeItems,
    folder: Path,
    n: int,
    against: str | Path | None,
    about: Mapping[str, Any],
) -> Generator[Progress[Any], None, Parity]:
    """Generate n samples with the model and with its export, in turns, and compare them.

    folder: of the export. against: data that both are compared with, or None. about: what the target tells.
    """
    items, seconds = yield from generate_in_turns((own_samples(export), exported), n)
    difference = (items[0].double() - items[1].double()).abs()
    codec = export.model.codec
    sets = []
    for each in items:
        sets.append((yield from sample_features(codec, each)))
    reference: str | None = None
    between: Distance | None = None
    distances: tuple[Distance | None, Distance | None] = (None, None)
    if against is None:
        # Samples from one noise are pairs, which this distance must not have: halves share no noise.
        half = n // 2
        between = distance_between(sets[0].chosen(slice(half)), sets[1].chosen(slice(half, None)))
    else:
        reference, real = yield from reference_features(export, against)
        distances = (distance_between(sets[0], real), distance_between(sets[1], real))
    names = ("alphabar fp32", f"{target} {export.precision}")
    sizes = (size_on_disk(model_folder(export.model.path)), size_on_disk(folder))
    sides = tuple(map(Side, names, sizes, seconds, distances))
    return Parity(
        target=target,
        precision=export.precision,
        n=n,
        largest=difference.max().item(),
        mean=difference.mean().item(),
        sides=(sides[0], sides[1]),
        distance=between,
        reference=reference,
        about=about,
        machine=machine_state(),
    )


def write_parity(parity: Parity, folder: Path, language: str | None = None) -> None:
    """Writes parity.json and, in the reader's language, parity.md."""
    said = language or reader_language()
    head, *body = [[translated(cell, said) for cell in row] for row in parity.rows()]
    lines = [f"# {translated(message('export.parity'), said)}", ""]
    lines += [f"{translated(sentence, said)}" for sentence in parity.sentences()]
    lines += ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)), ""]
    write_file(folder / "parity.json", pack_json(parity.to_dict()))
    write_file(folder / "parity.md", "\n".join(lines).encode())


def size_on_disk(path: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def model_folder(path: Path) -> Path:
    """The folder with the model alone, where a path is that of a run."""
    return Run(path).model_folder if Run(path).exists else path


def own_samples(export: Export) -> MakeItems:
    """What the model itself generates, in float32."""

    def make(first: int, count: int) -> Tensor:
        return last(sample(export.model, count, export.settings, first=first, batch=count, precision="fp32"))

    return make


def generate_in_turns(
    sides: Sequence[MakeItems], n: int
) -> Generator[Progress[Any], None, tuple[list[Tensor], list[float]]]:
    """n samples of each side, batch by batch in turns, and each side's median seconds per sample."""
    for side in sides:  # what happens only once is not to be measured
        side(0, 1)
    items: list[list[Tensor]] = [[] for _ in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for first in range(0, n, BATCH):
        count = min(BATCH, n - first)
        for i, side in enumerate(sides):
            before = perf_counter()
            items[i].append(side(first, count))
            seconds[i].append((perf_counter() - before) / count)
        yield Progress(message("export.comparing"), first + count, n)
    return [torch.cat(each) for each in items], [median(each) for each in seconds]


def sample_features(codec: Codec, items: Tensor) -> Generator[Progress[Any], None, Features]:
    """The features (lite0) that distances of samples are measured with. items: (n, *item_shape)."""
    extractor = EXTRACTORS.build("lite0", device=extractor_device())
    pictures = torch.as_tensor(metric_pictures(codec, items))
    return (yield from staged(extract(extractor, pictures), message("evaluation.features_of_samples")))


def reference_features(
    export: Export, against: str | Path
) -> Generator[Progress[Any], None, tuple[str, Features]]:
    """The name of the training part of the data, fitted as for the training, and its features."""
    data, codec = export.model.recipe.data, export.model.codec
    reference = yield from read_reference(open_source(against), codec, data.fit, data.held_out)
    real = metric_pictures(codec, reference.dataset.items)
    extractor = EXTRACTORS.build("lite0", device=extractor_device())
    records = extract(extractor, real, cache=cache_root() / "features")
    features = yield from staged(records, message("evaluation.features_of_reference"))
    return reference.name, features.chosen(reference.train)


def distance_between(a: Features, b: Features) -> Distance:
    """The kernel distance of two sets with its 95 % interval."""
    value, error = kid(a.features, b.features)
    return value, value - Z95 * error, value + Z95 * error


def _text(distance: Distance | None) -> str:
    assert distance is not None
    value, low, high = map(format_number, distance)
    return f"{value} [{low}, {high}]"
