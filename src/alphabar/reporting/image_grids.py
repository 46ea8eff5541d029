"""TODO-DOC from reporting.figures"""

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alphabar.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    Pictures = np.ndarray | Tensor

COLUMNS = 10
"""Moments in a strip, as many as a telephone's width can show."""


def image_grid(pictures: "Pictures", columns: int | None = None, pad: int = 2, scale: int = 1) -> Image.Image:
    """Pictures (n, h, w, 3) uint8 side by side, row after row; as square as n allows unless columns is given.

    pad: transparent pixels between pictures; scale: each pixel becomes scale × scale pixels.
    Returns an RGBA image. Raises UsageError where there is no picture.
    """
    array = _checked(pictures)
    n, h, w, _ = array.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (h + pad) - pad, columns * (w + pad) - pad, 4), np.uint8)
    for i, picture in enumerate(array):
        y, x = (h + pad) * (i // columns), (w + pad) * (i % columns)
        sheet[y : y + h, x : x + w, :3] = picture
        sheet[y : y + h, x : x + w, 3] = 255
    return Image.fromarray(sheet.repeat(scale, axis=0).repeat(scale, axis=1))


def image_strip(moments: Sequence["Pictures"], pad: int = 2, scale: int = 1) -> Image.Image:
    """One row a sample, one column a moment. moments: for each moment, the samples (n, h, w, 3) uint8."""
    if not len(moments):
        raise UsageError("a strip needs pictures of at least one moment")
    by_sample = np.stack([_checked(pictures) for pictures in moments], axis=1)
    return image_grid(by_sample.reshape(-1, *by_sample.shape[2:]), len(moments), pad, scale)


def forward_strip(pictures_by_level: Sequence["Pictures"], scale: int = 1) -> Image.Image:
    """The forward process: the same pictures (n, h, w, 3), a column a noise level, clean to noise."""
    return image_strip(pictures_by_level, scale=scale)


def reverse_strip(
    pictures_by_step: Sequence["Pictures"], columns: int = COLUMNS, scale: int = 1
) -> Image.Image:
    """The reverse process: samples (n, h, w, 3) after each step, noise to picture.

    Of more steps than columns it shows ``evenly(len(pictures_by_step), columns)``.
    """
    return image_strip([pictures_by_step[i] for i in evenly(len(pictures_by_step), columns)], scale=scale)


def nearest_panel(samples: "Pictures", neighbours: "Pictures", pad: int = 2, scale: int = 1) -> Image.Image:
    """Samples (n, h, w, 3) in the top row, below each its k nearest pictures: neighbours (n, k, h, w, 3)."""
    found = np.asarray(neighbours)
    if found.ndim != 5 or len(found) != len(samples):
        raise UsageError(
            f"neighbours must be of shape (n, k, h, w, 3) for n = {len(samples)} samples, not {found.shape}"
        )
    top = image_grid(samples, len(samples), pad, scale)
    below = image_grid(found.swapaxes(0, 1).reshape(-1, *found.shape[2:]), len(found), pad, scale)
    gap = 4 * pad * scale
    panel = Image.new("RGBA", (top.width, top.height + gap + below.height))
    panel.paste(top, (0, 0))
    panel.paste(below, (0, top.height + gap))
    return panel


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0..count-1, evenly spread, with the first and the last."""
    return [round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()]


def png_data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _checked(pictures: "Pictures") -> np.ndarray:
    array = np.asarray(pictures)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not len(array):
        raise UsageError(
            f"pictures must be uint8 of shape (n, h, w, 3), n ≥ 1, not {array.dtype} {array.shape}"
        )
    return array
