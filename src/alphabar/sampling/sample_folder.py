"""Samples written as they come, which can be stopped and go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import Codec, Unreadable
from alphabar.errors import AlphabarError
from alphabar.files import interpreting, writing, writing_file
from alphabar.images import image_grid, image_strip
from alphabar.messages import message
from alphabar.progress import Progress, staged
from alphabar.result_folder import ResultFolder, check_count
from alphabar.runs.model import Model
from alphabar.runtime import Runtime, main_first
from alphabar.sampling.comparison import per_sample_settings, side_by_side
from alphabar.sampling.outputs import OVERVIEW, ReverseProcessRecorder
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings

GRID = 100  # samples in the overview, or rows of them where settings are compared


class SampleFolder(ResultFolder):
    """A folder of n samples with their settings inside, 000000.png and so on, and samples.json.

    Its folder overview/ holds pictures of all. metadata: what decides the samples, as JSON holds it.
    """

    def __init__(self, path: Path, codec: Codec, metadata: Mapping[str, Any], n: int):
        check_count(n)
        super().__init__(path, "samples.json", metadata, [f"{i:06d}{codec.suffix}" for i in range(n)])
        self.codec = codec

    def write(self, i: int, item: Tensor, own: Mapping[str, Any] | None = None) -> None:
        """Writes sample i, (*item_shape). own: what sets its settings apart, by default its position."""
        with writing_file(self.file(i)) as beside:
            self.codec.write(item, beside, {**self.metadata, **({"position": i} if own is None else own)})

    def read(self, i: int) -> Tensor:
        """Sample i as it was written. Raises AlphabarError where it cannot be read."""
        try:
            with interpreting(self.file(i)):
                return torch.from_numpy(self.codec.read(self.file(i).read_bytes(), self.codec.fits[0]).item)
        except Unreadable as reason:
            raise AlphabarError("sampling.unreadable", file=self.file(i), reason=reason.message) from None

    def overview(self, name: str) -> Path:
        """The file of a picture of the overview."""
        return self.path / OVERVIEW / f"{name}.png"

    def write_overview(self, name: str, image: Image.Image) -> None:
        """Writes a picture of the overview."""
        with writing(self.path):
            self.overview(name).parent.mkdir(exist_ok=True)
        with writing_file(self.overview(name)) as beside:
            image.save(beside)

    def finish(self, n: int, columns: int | None = None, first: Sequence[Tensor] = ()) -> Progress[Path]:
        """Writes the overview of the first n samples, after other items; returns the work's last record."""
        shown = torch.stack([*first, *map(self.read, range(n))])
        self.write_overview("grid", image_grid(self.codec.preview(shown), columns))
        return Progress(message("sampling.stage"), 1, 1, self.path)


def batch_size(model: Model, variants: int = 1) -> int:
    """How many samples are generated at a time: few where that takes long, since a stop loses them.

    variants: settings to compare, each of which needs a batch before any sample is written.
    """
    return max(1, (16 if model.device.type == "cpu" else 64) // variants)


def sample_into(
    folder: SampleFolder, model: Model, n: int, variants: Sequence[SamplingSettings]
) -> Iterator[Progress[Path]]:
    """Generates samples from n initial noises into a folder, as they come (`ResultFolder.fill`).

    variants: one for samples with one setting; several for samples with each of them, side by side.
    Processes that torchrun started share the samples; the main one writes what shows all of them.
    Yields records, in the main process the last one with the folder. Raises as `ResultFolder.begin` and
    `sample` do.
    """
    for variant in variants:
        sample(model, n, variant)  # raises for what cannot be, before the folder is made
    with main_first():
        folder.begin()
    k = len(variants)

    def make(begin: int, total: int) -> Iterator[Progress[Any]]:
        first, count = begin // k, total // k
        sets: list[Tensor] = []
        each: Sequence[Mapping[str, Any]]
        for v, variant in enumerate(variants):
            recorder = ReverseProcessRecorder(model, variant.steps)
            records = map(recorder.record, sample(model, count, variant, first=first, batch=count))
            moved = (replace(r, done=v * r.total + r.done, total=k * r.total) for r in records)
            sets.append((yield from staged(moved)))
        if k == 1:
            items, each = sets[0], per_sample_settings(variants[0], count, first)
        else:
            items, each = side_by_side(sets, variants, first)
            each = [{**own, "n": n} for own in each]  # of the setting, as if it had been sampled alone
        if first == 0 and k == 1:
            folder.write_overview("process", image_strip(recorder.columns))
        yield Progress(message("sampling.stage"), 1, 1, list(zip(items, each, strict=True)))

    yield from folder.fill(batch_size(model, k) * k, make, lambda i, made: folder.write(i, *made))
    if Runtime().is_main:
        yield folder.finish(min(n, GRID) * k, k if k > 1 else None)
