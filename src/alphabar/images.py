"""Several pictures as one image: grids, strips and panels; and transparent pictures laid on white."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alphabar.errors import UsageError

Pictures = np.ndarray | Tensor


def image_grid(pictures: Pictures, columns: int | None = None, pad: int = 2, scale: int = 1) -> Image.Image:
    """Pictures (n, h, w, 3 or 4) uint8 side by side, row after row.

    columns: pictures in a row; by default the grid is as square as n allows.
    pad: transparent pixels between pictures; scale: each pixel becomes scale × scale pixels.
    Returns an RGBA image. Raises UsageError for anything that is not pictures.
    """
    array = _checked(pictures)
    n, h, w, channels = array.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = np.zeros((rows * (h + pad) - pad, columns * (w + pad) - pad, 4), np.uint8)
    for i, picture in enumerate(array):
        y, x = (h + pad) * (i // columns), (w + pad) * (i % columns)
        grid[y : y + h, x : x + w, 3] = 255
        grid[y : y + h, x : x + w, :channels] = picture
    return Image.fromarray(grid.repeat(scale, axis=0).repeat(scale, axis=1))


def image_strip(moments: Sequence[Pictures], pad: int = 2, scale: int = 1) -> Image.Image:
    """One row per sample, one column per moment, as an RGBA image.

    moments: for each moment the pictures of all samples, (n, h, w, 3 or 4) uint8.
    """
    if not len(moments):
        raise UsageError("reporting.empty_strip")
    by_sample = np.stack([_checked(pictures) for pictures in moments], axis=1)
    return image_grid(by_sample.reshape(-1, *by_sample.shape[2:]), len(moments), pad, scale)


def nearest_panel(samples: Pictures, neighbors: Pictures, pad: int = 2, scale: int = 1) -> Image.Image:
    """Samples (n, h, w, c) in the top row, below each its k nearest pictures: neighbors (n, k, h, w, c)."""
    found = np.asarray(neighbors)
    if found.ndim != 5 or len(found) != len(samples):
        raise UsageError("reporting.not_neighbors", n=len(samples), shape=found.shape)
    top = image_grid(samples, len(samples), pad, scale)
    below = image_grid(found.swapaxes(0, 1).reshape(-1, *found.shape[2:]), len(found), pad, scale)
    gap = 4 * pad * scale
    panel = Image.new("RGBA", (top.width, top.height + gap + below.height))
    panel.paste(top, (0, 0))
    panel.paste(below, (0, top.height + gap))
    return panel


def on_white(pictures: Tensor) -> Tensor:
    """Pictures (n, h, w, 3 or 4) uint8 as RGB (n, h, w, 3): an alpha channel is laid on white."""
    if pictures.shape[-1] == 3:
        return pictures
    color, alpha = pictures.float().split([3, 1], dim=-1)
    return (255 + (color - 255) * (alpha / 255)).round().to(torch.uint8)


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0..count-1, evenly spaced, including the first and the last."""
    return [round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()]


def _checked(pictures: Pictures) -> np.ndarray:
    array = np.asarray(pictures)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (3, 4) or not len(array):
        raise UsageError("reporting.not_pictures", dtype=array.dtype, shape=array.shape)
    return array
