"""Image files as tasks: read with what happened to them; and degraded, to try restoring on."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.random import Noise, Purpose
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import fitting_name, is_file, pack_json, writing, writing_file
from alphabar.messages import Message, message
from alphabar.progress import Progress
from alphabar.restoration.degradation import Degradation
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.base import ROUNDING_STD, Operator
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.separable import grayscale
from alphabar.restoration.photo import Photo, image_files, on_white, read_photo, signal_to_levels
from alphabar.result_folder import ResultFolder

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
    """`photo_task` of an image file. Raises AlphabarError for a file that cannot be read."""
    return photo_task(read_photo(path), degradation, channels)


def photo_task(photo: Photo, degradation: Degradation, channels: int = 3) -> Task:
    """A degraded image and what is known of its degradation, for a model of so many channels.

    The noise is estimated where the degradation says so. Whatever is not merely masked was rounded to 8
    bits after it was degraded, which counts as noise of standard deviation `ROUNDING_STD`. For a grey model
    a file in colour is taken in grey. Raises UsageError where the degradation does not fit, and where a mask
    hides nothing or everything.
    """
    notes: list[Message] = []
    if channels == 1 and not photo.grey:
        photo = photo.without_color()
        notes.append(message("restoration.grey_model", file=photo.name))
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


class DegradedFolder(ResultFolder):
    """A folder of PNG files for an image file or all in a folder, degraded, and degradation.json.

    Images in the folder itself are none of those to degrade. Raises AlphabarError where there is none, and
    for a file of the degradation that cannot be read.
    """

    def __init__(self, path: Path, source: Path, degradation: Degradation, seed: int = 0):
        found, self.skipped = image_files(source)
        inside = Path(os.path.realpath(path))  # also where links lead in a circle
        images = {name: file for name, file in found.items() if not file.resolve().is_relative_to(inside)}
        self.images, self.degradation, self.seed = images, degradation, seed
        about = {"degradation": degradation.text, "seed": seed, "contents": degradation.contents}
        names = png_names(images)
        # Each image has noise of its own by its place among the others.
        about["images"] = hashlib.sha256(pack_json(names)).hexdigest()
        super().__init__(path, "degradation.json", about, list(names.values()))


def degrade_into(folder: DegradedFolder) -> Iterator[Progress[int]]:
    """Degrades the images of a folder, as they come; those that are there stay. Image i has its own noise.

    Yields a record for each image, with a message where it cannot be used: the others are degraded all the
    same. The last one's result is the number of images in the folder, which is made with the first one.
    Raises AlphabarError where no image can be degraded, with the reason of the last, and as
    `ResultFolder.begin` does; UsageError for noise that is to be estimated.
    """
    if folder.degradation.sigma is None:
        raise UsageError("restoration.auto_only_restores")
    stage, n = message("restoration.stage_degrading"), folder.n
    for skip in folder.skipped:
        text = message("restoration.unusable_image", path=skip.key, reason=skip.reason)
        yield Progress(stage, 0, n, message=text)
    begun = folder.begun()
    failed = 0
    for i, path in enumerate(folder.images.values()):
        if is_file(folder.file(i)):
            continue
        degraded = _degraded(path, folder.degradation, folder.seed, i)
        error = degraded if isinstance(degraded, AlphabarError) else None
        failed += error is not None
        if error and failed == n:
            raise error
        if not isinstance(degraded, AlphabarError):
            if not begun:
                folder.begin()
                begun = True
            with writing(folder.file(i)):
                folder.file(i).parent.mkdir(parents=True, exist_ok=True)
            with writing_file(folder.file(i)) as beside:
                degraded.save(beside)
        yield Progress(stage, i + 1, n, message=error.message if error else None)
    yield Progress(stage, n, n, n - failed)


def _degraded(path: Path, degradation: Degradation, seed: int, position: int) -> Image.Image | AlphabarError:
    """A file degraded, or the error where it cannot be."""
    try:
        return degrade(read_photo(path), degradation, seed=seed, position=position)
    except UsageError as error:
        return UsageError("restoration.image_not_degradable", path=path, problem=error.message)
    except AlphabarError as error:
        return error


def png_names(names: Iterable[str]) -> dict[str, str]:
    """For each file name one that ends in .png: "a.jpg" becomes "a.png", or "a.jpg.png" beside "a.webp".

    No two are equal, whether or not case matters, and none is too long.
    """
    plain = {name: str(Path(name).with_suffix(".png")) for name in names}
    shared = Counter(target.casefold() for target in plain.values())
    targets: dict[str, str] = {}
    taken: set[str] = set()
    for name, target in plain.items():
        if shared[target.casefold()] > 1 and target != name:
            target = f"{name}.png"
        while (fitting := _fitting(target)).casefold() in taken:
            target = f"{target}.png"
        taken.add(fitting.casefold())
        targets[name] = fitting
    return targets


def _fitting(target: str) -> str:
    folder, slash, name = target.rpartition("/")
    return folder + slash + fitting_name(name.removesuffix(".png"), ".png")
