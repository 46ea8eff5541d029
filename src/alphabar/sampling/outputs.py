"""TODO-DOC from sampling"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import to_pictures
from alphabar.codecs.png_metadata import png_metadata
from alphabar.diffusion.schedules import Schedule
from alphabar.errors import AlphabarError
from alphabar.files import pack_json
from alphabar.progress import Progress


class ReverseProcessRecorder:
    """Collects the reverse process of the first pictures: ten moments from noise to the end."""

    COLUMNS, ROWS = 10, 8

    def __init__(self, schedule: Schedule, steps: int):
        self.schedule = schedule
        self.chosen = {round(i * (steps - 1) / (self.COLUMNS - 1)) for i in range(self.COLUMNS)}
        self.columns: list[Tensor] = []  # each (rows, size, size, 3) uint8

    def watch(self, record: Progress[Tensor]) -> Progress[Tensor]:
        """Look at a record and hand it on."""
        if record.preview.first == 0 and record.preview.step.i in self.chosen and record.result is None:
            # Where the variance explodes x leaves the range of pictures; at variance one it is in sight.
            norm = torch.hypot(*self.schedule(record.preview.step.t)).item()
            self.columns.append(to_pictures(record.preview.step.x[: self.ROWS].cpu() / norm))
        return record


def check_free(out: Path) -> None:
    """Raises AlphabarError where a folder for new samples already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AlphabarError(f"{out} is not empty: give a new --out folder, or remove it first")


def write_pictures(
    pictures: Tensor,
    out: Path,
    about: dict[str, Any],
    overview: Mapping[str, Image.Image],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write pictures as 000000.png …, each with its settings inside; beside them samples.json and overview/.

    each: what sets each picture's settings apart from ``about``; by default its position in the set.

    The folder appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    beside = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "overview").mkdir(parents=True)
        for i, picture in enumerate(pictures.numpy()):
            own = {"position": i} if each is None else each[i]
            Image.fromarray(picture).save(beside / f"{i:06d}.png", pnginfo=png_metadata({**about, **own}))
        for name, image in overview.items():
            image.save(beside / "overview" / f"{name}.png")
        (beside / "samples.json").write_bytes(pack_json({**about, "n": len(pictures)}))
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None
