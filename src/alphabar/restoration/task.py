"""Image files as tasks: read with what happened to them, and written; degraded, to try restoring on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.codecs.png_metadata import png_metadata
from alphabar.diffusion.random import Noise, Purpose
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json, writing_folder
from alphabar.messages import Message, message
from alphabar.progress import Progress
from alphabar.restoration.degradation import Degradation
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.base import ROUNDING_STD, Operator
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.separable import grayscale
from alphabar.restoration.photo import Photo, image_files, on_white, read_photo, signal_to_levels

LARGEST_SIDE = 16_384  # pixels of an image that is made larger


@dataclass(frozen=True)
class Task:
    """An image file and what happened to it, ready for `restore`.

    y: (1, *operator.measurement_shape). sigma_y: with the rounding to 8 bits, where that matters.
    colored: whether the degradation took the colours away, so that restored files have some and this one not.
    notes: what a person should know about how the file was taken.
    """

    photo: Photo
    degradation: Degradation
    operator: Operator
    y: Tensor
    sigma_y: float
    colored: bool
    notes: tuple[Message, ...] = ()

    @property
    def known(self) -> Tensor | None:
        """(h, w) bool: the pixels that are known exactly; None where the file has none."""
        exact = self.operator.is_mask and self.sigma_y == 0
        return ~self.operator.missing(0.0) if exact else None


def read_task(path: Path, degradation: Degradation, channels: int = 3) -> Task:
    """A degraded image file and what is known of its degradation, for a model of so many channels.

    The noise is estimated where the degradation says so. Whatever is not merely masked was rounded to 8
    bits after it was degraded, which counts as noise of standard deviation `ROUNDING_STD`. For a grey model
    a file in colour is taken in grey. Raises AlphabarError for a file that cannot be read, UsageError where
    the degradation does not fit, and where a mask hides nothing or everything.
    """
    photo, notes = read_photo(path), []
    if channels == 1 and not photo.grey:
        photo = photo.without_color()
        notes.append(message("restoration.grey_model", file=path.name))
    h, w = (side * degradation.factor for side in photo.pixels.shape[:2])
    if degradation.factor > 1 and max(h, w) > LARGEST_SIDE:
        raise UsageError("restoration.too_large", image=f"{w}×{h}", most=LARGEST_SIDE)
    operator = degradation.operator((channels, h, w))
    colored = operator.measurement_shape[0] < channels
    exact = operator.is_mask and degradation.sigma == 0
    if photo.grey and operator.measurement_shape[0] >= 3 and operator.linear and not exact:
        # One channel of noise, not three that are equal.
        to_grey = grayscale(operator.shape)
        operator = compose(to_grey, degradation.operator(to_grey.measurement_shape))
    y = photo.signal(operator.measurement_shape[0])
    if operator.is_mask:
        y = operator.A(y)
        notes.append(_share_filled(operator))
    sigma = degradation.sigma
    if sigma is None:
        if not operator.linear or operator.removes_pixels:
            raise UsageError("restoration.noise_not_estimable")
        sigma = estimate_noise(y[0])
    elif sigma < ROUNDING_STD and not operator.is_mask and operator.linear:
        sigma = ROUNDING_STD
    return Task(photo, degradation, operator, y, sigma, colored, tuple(notes))


def _share_filled(mask: Operator) -> Message:
    """What share of the image is filled in. Raises UsageError where that is nothing or everything."""
    share = mask.missing(0.0).double().mean().item()
    if share == 0:
        raise UsageError("restoration.nothing_to_fill")
    if share == 1:
        raise UsageError("restoration.everything_to_fill")
    return message("restoration.share_filled", share=f"{100 * share:.3g} %")


def degrade(photo: Photo, degradation: Degradation, *, seed: int = 0, position: int = 0) -> Image.Image:
    """The image degraded and rounded to 8 bits, grey where the file is; missing pixels are mid-grey.

    position: of the image in the set, for noise of its own. Raises UsageError for noise that is to be
    estimated and where the degradation does not fit.
    """
    if degradation.sigma is None:
        raise UsageError("restoration.auto_only_restores")
    x = photo.signal(1 if photo.grey else 3)
    y = degradation.operator(tuple(x.shape[1:])).A(x)
    y = y + degradation.sigma * Noise(seed, [position], Purpose.DEGRADATION).normal(0, y)
    levels = signal_to_levels(y[0], 255).numpy().astype(np.uint8)
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0])


def sample_std(x: Tensor) -> Tensor:
    """How far n samples (n, b, c, h, w) lie apart at each pixel: (b, h, w), standard deviations."""
    return x.std(0, correction=1).square().mean(1).sqrt()


def panels(task: Task, x: Tensor) -> Tensor:
    """What to show, (k, h, w, 3) uint8: the file as it was given, the n samples (n, c, h, w), their spread.

    The spread (of n > 1) is the standard deviation at each pixel, white where it is largest.
    """
    seen = F.interpolate(on_white(task.y), x.shape[2:], mode="nearest")
    shown = [seen, on_white(x)]
    if len(x) > 1:
        apart = sample_std(x[:, None])
        shown.append((2 * apart / apart.max().clamp(min=1e-6) - 1).expand(1, 3, -1, -1))
    return ImageCodec((x.shape[2], x.shape[3])).decode(torch.cat(shown))


def write_restored(
    task: Task, x: Tensor, out: Path, about: Mapping[str, Any], overview: Mapping[str, Image.Image]
) -> None:
    """Write n samples (n, c, h, w) as NAME-1.png …, each with its settings inside, and restoration.json.

    They are of the kind of the file that was restored (`Photo.image`). overview: further images by name.
    The folder appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    if len(x) > 1:
        apart = sample_std(x[:, None])
        about = {**about, "spread": {"mean": apart.mean().item(), "largest": apart.max().item()}}
    with writing_folder(out) as folder:
        for k, sample in enumerate(x):
            image = task.photo.image(sample, task.known, task.colored)
            info = png_metadata({**about, "answer": k})
            image.save(folder / f"{task.photo.name}-{k + 1}.png", pnginfo=info, **task.photo.extras)
        for name, image in overview.items():
            image.save(folder / f"{name}.png")
        (folder / "restoration.json").write_bytes(pack_json({**about, "n": len(x)}))


def degrade_files(path: Path, degradation: Degradation, out: Path, seed: int = 0) -> Iterator[Progress[int]]:
    """Degrade an image file, or all in a folder, into a new folder of PNG files; image i has its own noise.

    Yields a record for each image, with a message where it cannot be used: the others are degraded all the
    same. The last one's result is the number of images in the folder, which appears when all are written.
    Raises AlphabarError where no image can be degraded, with the reason of the first, and where the folder
    cannot be written; UsageError for noise that is to be estimated.
    """
    if degradation.sigma is None:
        raise UsageError("restoration.auto_only_restores")
    stage = message("restoration.stage_degrading")
    images, skipped = image_files(path)
    for skip in skipped:
        text = message("restoration.unusable_image", path=skip.key, reason=skip.reason)
        yield Progress(stage, 0, len(images), message=text)
    errors: list[AlphabarError] = []
    with writing_folder(out) as folder:
        for i, (name, target) in enumerate(png_names(images).items()):
            error = _degrade_file(images[name], folder / target, degradation, seed, i)
            errors += [error] if error else []
            yield Progress(stage, i + 1, len(images), message=error.message if error else None)
        if len(errors) == len(images):
            raise errors[0]
    yield Progress(stage, len(images), len(images), len(images) - len(errors))


def _degrade_file(
    path: Path, target: Path, degradation: Degradation, seed: int, position: int
) -> AlphabarError | None:
    """Degrade one file; the error where it cannot be."""
    try:
        degraded = degrade(read_photo(path), degradation, seed=seed, position=position)
    except UsageError as error:
        return UsageError("restoration.image_not_degradable", path=path, problem=error.message)
    except AlphabarError as error:
        return error
    target.parent.mkdir(parents=True, exist_ok=True)
    degraded.save(target)
    return None


def png_names(names: Iterable[str]) -> dict[str, str]:
    """For each file name one that ends in .png: "a.jpg" becomes "a.png", or "a.jpg.png" beside "a.webp".

    No two are equal, whether or not case matters.
    """
    plain = {name: str(Path(name).with_suffix(".png")) for name in names}
    shared = Counter(target.casefold() for target in plain.values())
    targets: dict[str, str] = {}
    taken: set[str] = set()
    for name, target in plain.items():
        if shared[target.casefold()] > 1 and target != name:
            target = f"{name}.png"
        while target.casefold() in taken:
            target = f"{target}.png"
        taken.add(target.casefold())
        targets[name] = target
    return targets
