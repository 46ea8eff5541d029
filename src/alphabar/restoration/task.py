"""TODO-DOC from restoring"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import signal_to_levels, to_pictures
from alphabar.codecs.png_metadata import png_metadata
from alphabar.diffusion.random import Noise
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json
from alphabar.progress import Progress
from alphabar.restoration.degradation import Degradation
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.base import Linear, Operator
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS
from alphabar.restoration.photo import Photo, read_photo
from alphabar.restoration.settings import ROUNDING
from alphabar.restoration.tiling import spread


@dataclass(frozen=True)
class Task:
    """A picture file and what was done to it, ready for `restore`."""

    photo: Photo
    degradation: Degradation
    operator: Operator
    y: Tensor  # (1, *operator.measured)
    sigma_y: float  # with the rounding to 8 bits, where that matters

    @property
    def coloured(self) -> bool:
        """Whether it is colour that is asked for."""
        return any(part["name"] == "grey" for part in self.degradation.parts)

    @property
    def known(self) -> Tensor | None:
        """(h, w) bool: the pixels that are known exactly."""
        exact = isinstance(self.operator, Mask) and self.sigma_y == 0
        return self.operator.s[0] > 0 if exact else None  # type: ignore[attr-defined]


def read_task(path: Path, degradation: Degradation) -> Task:
    """A spoilt picture file with what is known of how it was spoilt.

    The noise is estimated where the degradation says so. Whatever is not merely masked was rounded to
    8 bits after it was spoilt, which is noise of standard deviation `ROUNDING`.
    """
    photo = read_photo(path)
    h, w = photo.pixels.shape[:2]
    operator = degradation.operator((3, h * degradation.factor, w * degradation.factor))
    exact = isinstance(operator, Mask) and degradation.sigma == 0
    if photo.grey and operator.measured[0] == 3 and isinstance(operator, Linear) and not exact:
        # One channel of noise, not three that are equal.
        to_grey = OPERATORS.build("grey", shape=operator.shape)()
        operator = compose(to_grey, degradation.operator(to_grey.measured))
    y = photo.signal(operator.measured[0])
    if isinstance(operator, Mask):
        y = operator.A(y)
    sigma = degradation.sigma
    if sigma is None:
        if not isinstance(operator, Linear) or _masks(degradation):
            raise UsageError("the noise cannot be estimated through a mask or JPEG: give --noise a number")
        sigma = estimate_noise(y[0])
    elif sigma < ROUNDING and not isinstance(operator, Mask) and isinstance(operator, Linear):
        sigma = ROUNDING
    return Task(photo, degradation, operator, y, sigma)


def _masks(degradation: Degradation) -> bool:
    return any(part["name"] in ("mask", "box", "random", "strokes") for part in degradation.parts)


def degrade(photo: Photo, degradation: Degradation, *, seed: int = 0, position: int = 0) -> Image.Image:
    """The picture spoilt, rounded to 8 bits; missing pixels are grey."""
    if degradation.sigma is None:
        raise UsageError("noise:auto is for restoring: say how much noise to add, such as noise:0.05")
    colour = not photo.grey or any(part["name"] in ("grey", "jpeg") for part in degradation.parts)
    x = photo.signal(3 if colour else 1)
    y = degradation.operator(tuple(x.shape[1:])).A(x)  # type: ignore[arg-type]
    y = y + degradation.sigma * Noise(seed, [position], "degrade").normal(0, y)
    levels = signal_to_levels(y[0], 255).numpy().astype(np.uint8)
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0])


def panels(task: Task, x: Tensor) -> Tensor:
    """What to look at, (k, h, w, 3) uint8: as it was given, the n answers (n, 3, h, w), their spread.

    The spread (of n > 1) is white where the answers lie furthest apart.
    """
    seen = F.interpolate(task.y.expand(-1, 3, -1, -1), x.shape[2:], mode="nearest")
    shown = [seen, x]
    if len(x) > 1:
        apart = spread(x[:, None])
        shown.append((2 * apart / apart.max().clamp(min=1e-6) - 1).expand(1, 3, -1, -1))
    return to_pictures(torch.cat(shown))


def write_answers(
    task: Task, x: Tensor, out: Path, about: dict[str, Any], overview: Mapping[str, Image.Image]
) -> None:
    """Write n answers (n, 3, h, w) as NAME-1.png …, each with its settings inside, and restoration.json.

    They are of the kind of the file they answer (`Photo.image`). overview: further images by name. The folder
    appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    beside = out.with_name(f".writing-{out.name}")
    if len(x) > 1:
        apart = spread(x[:, None])
        about = {**about, "spread": {"mean": apart.mean().item(), "largest": apart.max().item()}}
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for k, answer in enumerate(x):
            image = task.photo.image(answer, task.known, task.coloured)
            info = png_metadata({**about, "answer": k})
            image.save(beside / f"{task.photo.name}-{k + 1}.png", pnginfo=info, **task.photo.extras)
        for name, image in overview.items():
            image.save(beside / f"{name}.png")
        (beside / "restoration.json").write_bytes(pack_json({**about, "n": len(x)}))
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None


def degrade_all(paths: Sequence[Path], names: Sequence[str], degradation: Degradation, out: Path, seed: int):
    """Spoil picture files into a new folder as PNG files, picture i with noise of its own.

    Yields a record a picture. The folder appears when all of it is written; a picture that cannot be spoilt
    ends it with an AlphabarError that names it.
    """
    beside = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        for i, (path, name) in enumerate(zip(paths, names, strict=True)):
            target = (beside / name).with_suffix(".png")
            if target.exists():  # a.jpg beside a.png
                target = beside / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                degrade(read_photo(path), degradation, seed=seed, position=i).save(target)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from None
            yield Progress("degrading", i + 1, len(paths))
        beside.rename(out)
    except OSError as error:
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
