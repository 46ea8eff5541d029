"""Samples written as they come: the folder itself says how far a sampling has come, and it can go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import Codec, Unreadable
from alphabar.errors import AlphabarError
from alphabar.files import Damaged, interpreting, pack_json, parse_json, write_file, writing, writing_file
from alphabar.images import image_grid, image_strip
from alphabar.progress import Progress, staged
from alphabar.runs.model import Model
from alphabar.sampling.comparison import per_sample_settings, side_by_side
from alphabar.sampling.outputs import OVERVIEW, ReverseProcessRecorder, check_free
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings

ABOUT = "samples.json"
GRID = 100  # samples in the overview


class SampleFolder:
    """A folder of n samples with their settings inside, 000000.png and so on.

    samples.json, which is written first, says which samples they are. Each file is whole or not there.
    metadata: what decides the samples, as JSON holds it.
    """

    def __init__(self, path: Path, codec: Codec, metadata: Mapping[str, Any], n: int):
        self.path, self.codec, self.n = path, codec, n
        self.metadata = parse_json(pack_json({**metadata, "n": n}), path / ABOUT, dict)

    def begin(self) -> None:
        """Makes the folder, or finds it begun by the same sampling.

        Raises AlphabarError where it holds anything else, or samples with other settings.
        """
        about = self.path / ABOUT
        if about.is_file():
            try:
                there = parse_json(about.read_bytes(), about, dict)
            except (OSError, Damaged):
                there = {}
            changed = [key for key in {**self.metadata, **there} if self.metadata.get(key) != there.get(key)]
            if changed:
                raise AlphabarError("sampling.other_samples", path=self.path, keys=", ".join(changed[:5]))
            return
        check_free(self.path)
        with writing(self.path):
            (self.path / OVERVIEW).mkdir(parents=True)
        write_file(about, pack_json(self.metadata))

    def file(self, i: int) -> Path:
        """The file of sample i."""
        return self.path / f"{i:06d}{self.codec.suffix}"

    def kept(self) -> int:
        """How many samples are there."""
        return sum(self.file(i).is_file() for i in range(self.n))

    def write(self, i: int, item: Tensor, own: Mapping[str, Any]) -> None:
        """Writes sample i, (*item_shape). own: what sets its settings apart from those of the folder."""
        with writing_file(self.file(i)) as beside:
            self.codec.write(item, beside, {**self.metadata, **own})

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
        with writing_file(self.overview(name)) as beside:
            image.save(beside)


def batch_size(model: Model) -> int:
    """How many samples are generated at a time: few where that takes long, since a stop loses them."""
    return 16 if model.device.type == "cpu" else 64


def sample_into(
    folder: SampleFolder, model: Model, n: int, variants: Sequence[SamplingSettings]
) -> Iterator[Progress[Path]]:
    """Generates samples from n initial noises into a folder, as they come.

    variants: one for samples with one setting; several for samples with each of them, side by side.
    A folder that was begun goes on: what is there stays, and the batches are the same, so that the files are
    those of a sampling that was never stopped, to the bit.
    Yields records, the last one with the folder. Raises as `SampleFolder.begin` and `sample` do.
    """
    for variant in variants:
        sample(model, n, variant)  # raises for what cannot be, before the folder is made
    folder.begin()
    codec, k = model.codec, len(variants)
    size = max(1, batch_size(model) // k)
    for first in range(0, n, size):
        count = min(size, n - first)
        done = range(first * k, (first + count) * k)
        shows_process = first == 0 and k == 1
        files = [*map(folder.file, done), *([folder.overview("process")] if shows_process else [])]
        if all(file.is_file() for file in files):
            continue
        sets: list[Tensor] = []
        each: Sequence[Mapping[str, Any]]
        for v, variant in enumerate(variants):
            recorder = ReverseProcessRecorder(model, variant.steps)
            records = map(recorder.record, sample(model, count, variant, first=first, batch=count))
            before = (first * k + v * count) * variant.steps
            moved = (replace(r, done=before + r.done, total=n * k * variant.steps) for r in records)
            sets.append((yield from staged(moved)))
        if k == 1:
            items, each = sets[0], per_sample_settings(variants[0], count, first)
        else:
            items, each = side_by_side(sets, variants, first)
        if shows_process:
            folder.write_overview("process", image_strip(recorder.columns))
        for i, item, own in zip(done, items, each, strict=True):
            folder.write(i, item, own)
    shown = torch.stack([folder.read(i) for i in range(min(n * k, GRID) if k == 1 else n * k)])
    folder.write_overview("grid", image_grid(codec.preview(shown), *([k] if k > 1 else [])))
    yield Progress("sampling", 1, 1, folder.path)
