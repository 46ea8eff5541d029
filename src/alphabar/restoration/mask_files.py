"""Mask pictures: which pixels a person meant, whatever program the mask was painted or computed with."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphabar.errors import UsageError
from alphabar.restoration.photo import Photo, read_photo

NOTICEABLE = 12
"""Levels of 255 by which alpha or grey must differ to mean something; less is the noise of a compression."""

COLORFUL = 64
"""Levels of 255 between the largest and the smallest channel of a pixel that has a colour."""

STRAY = 0.001
"""Share of the pixels below which alpha that is clear nowhere is an accident."""

FEW = 16
"""Values that a mask without soft edges has at most."""


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Which pixels a mask picture marks to be filled in, (h, w) bool.

    Where its transparency varies, that alone counts: what is painted, in any colours, on a layer most of
    whose border is clear; else the hole in a photograph or in a layer of one colour. Without, in colours,
    whatever differs from the background. In grey, white; where the file holds no white beside black (0 and 1,
    16 bits that go to 255, two greys), the lighter part. Raises AlphabarError for a file that cannot be read,
    and UsageError for a photograph and for a mask that marks nothing or everything.
    """
    photo = read_photo(path)
    filled = _by_transparency(photo)
    by_color = filled is None
    if filled is None:
        filled = _by_color(photo)
    if not filled.any():
        raise UsageError("restoration.mask_marks_nothing", file=path)
    if filled.all():
        raise UsageError("restoration.mask_marks_everything", file=path)
    if by_color and _is_scattered(photo.pixels * (255 / photo.white), filled):
        raise UsageError("restoration.mask_is_photograph", file=path)
    return filled


def _by_transparency(photo: Photo) -> NDArray[np.bool_] | None:
    """What the transparency of a mask marks; None where it says nothing: it is alike all but everywhere."""
    if photo.alpha is None:
        return None
    alpha = photo.alpha.astype(int)
    lowest, highest = alpha.min(), alpha.max()
    if highest - lowest <= NOTICEABLE:
        return None
    painted, hole = alpha > lowest + NOTICEABLE, alpha < highest - NOTICEABLE
    if lowest > 127 and min(painted.mean(), hole.mean()) < STRAY:
        return None
    # Strokes may have many colours (gradients, textures, lossy files); a photograph reaches the border.
    if _border(painted).mean() < 0.25:
        return painted
    # A layer of one colour with a hole is painted all around it; strokes leave some of the border clear.
    if _is_photograph(photo.pixels[~hole] / photo.white) or _border(painted).all():
        return hole
    return painted


def _is_photograph(colors: NDArray[np.float64]) -> bool:
    """Whether colours (n, channels) from 0 to 1 are many; a brush has one, varied by compression alone."""
    if len(np.unique(colors, axis=0)) <= FEW:
        return False
    apart = np.abs(colors - np.median(colors, axis=0)).max(1)
    return bool((apart > NOTICEABLE / 255).mean() > 0.1)


def _is_scattered(pixels: NDArray[Any], filled: NDArray[np.bool_]) -> bool:
    """Whether colours are those of a photograph: many, and not all but those of edges near one of two.

    A soft mask in grey has every level too, but they change slowly along its edges.
    """
    groups = [np.median(pixels[part], axis=0) for part in (filled, ~filled)]
    apart = np.minimum(*(np.abs(pixels - color).max(2) for color in groups))
    if (apart > 2 * NOTICEABLE).mean() <= 0.25:
        return False
    if not np.ptp(pixels, axis=2).any():
        grey = pixels[..., 0]
        return _share_of_few((grey.astype(int) + 2) // 4) < 0.7 and _roughness(grey) > 0.15
    # Labels in a lossy file vary by less than 16 levels.
    return _share_of_few((pixels.astype(int) + 8) // 16 @ [1 << 16, 1 << 8, 1]) < 0.85


def _share_of_few(values: NDArray[np.int_]) -> float:
    """The share of the pixels that have one of the `FEW` most frequent values."""
    counts = np.sort(np.unique(values, return_counts=True)[1])
    return float(counts[-FEW:].sum() / values.size)


def _roughness(grey: NDArray[Any]) -> float:
    """The share of the pixels that noticeably differ from the mean of their four neighbours."""
    around = np.pad(grey, 1, mode="edge")
    neighbours = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    return float((np.abs(grey - neighbours / 4) > NOTICEABLE / 2).mean())


def _by_color(photo: Photo) -> NDArray[np.bool_]:
    if not photo.grey and (np.ptp(photo.pixels, axis=2) >= COLORFUL).any():
        return _colored(photo.pixels.astype(int))
    grey = photo.without_color() if not photo.grey else photo
    return _light(grey.pixels[..., 0].astype(int), grey.white)


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels (n, ...) along the four sides."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


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
    if len(values) == 2 or (len(values) <= FEW and not filled.any() and _is_flat(grey)):
        return grey > values[0]
    if (filled.all() or not filled.any()) and values[-1] - values[0] > NOTICEABLE:
        return 2 * grey >= values[0] + values[-1]
    return filled


def _is_flat(levels: NDArray[np.int_]) -> bool:
    """Whether levels form areas, as labels do; those of noise change from pixel to pixel."""
    steps = np.concatenate([np.diff(levels, axis=axis).ravel() for axis in (0, 1)])
    return bool((steps == 0).mean() > 0.8)
