"""Mask pictures: which pixels a person meant, whatever program the mask was painted or computed with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alphabar.errors import UsageError
from alphabar.restoration.photo import read_photo

NOTICEABLE = 12
"""Levels of 255 by which alpha or grey must differ to mean something; less is the noise of a compression."""

COLORFUL = 64
"""Levels of 255 between the largest and the smallest channel of a pixel that has a colour."""

FEW = 16
"""Values that a mask without soft edges has at most."""


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Which pixels a mask picture marks to be filled in, (h, w) bool.

    Where its transparency varies, that alone counts: what is painted on a transparent layer, in any colour,
    or the hole in an opaque one (the layer is what most of the border is). In colours, whatever differs from
    the background. In grey, white; where the file holds no white beside black (0 and 1, 16 bits that go to
    255, two greys), the lighter part. Raises AlphabarError for a file that cannot be read, and UsageError for
    a mask that marks nothing or everything.
    """
    photo = read_photo(path)
    alpha = photo.alpha
    if alpha is not None and np.ptp(alpha) > NOTICEABLE:
        layer = _border_median(alpha)
        filled = np.abs(alpha.astype(int) - layer) > NOTICEABLE
    elif not photo.grey and (np.ptp(photo.pixels, axis=2) >= COLORFUL).any():
        filled = _colored(photo.pixels.astype(int))
    else:
        grey = photo.without_color() if not photo.grey else photo
        filled = _light(grey.pixels[..., 0].astype(int), grey.white)
    if not filled.any():
        raise UsageError("restoration.mask_marks_nothing", file=path)
    if filled.all():
        raise UsageError("restoration.mask_marks_everything", file=path)
    return filled


def _border(pixels: NDArray[np.int_] | NDArray[np.uint8]) -> NDArray[np.int_]:
    """The pixels (n, ...) along the four sides."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(int)


def _border_median(alpha: NDArray[np.uint8]) -> int:
    return int(np.median(_border(alpha)))


def _colored(pixels: NDArray[np.int_]) -> NDArray[np.bool_]:
    """What differs from the background: black where there is some, else the colour of most of the border."""
    black = pixels.max(2) < COLORFUL // 2
    background = np.zeros(3, int) if black.mean() >= 0.05 else np.median(_border(pixels), axis=0)
    apart = np.abs(pixels - background).max(2)
    flat = len(np.unique(pixels.reshape(-1, 3), axis=0)) <= FEW
    return apart > (0 if flat else apart.max() / 2)


def _light(grey: NDArray[np.int_], white: int) -> NDArray[np.bool_]:
    """The lighter part of a grey mask: from half of white where that divides it."""
    filled = 2 * grey >= white
    values = np.unique(grey)
    if len(values) == 2 or (len(values) <= FEW and not filled.any()):
        return grey > values[0]
    if (filled.all() or not filled.any()) and values[-1] - values[0] > NOTICEABLE:
        return 2 * grey >= values[0] + values[-1]
    return filled
