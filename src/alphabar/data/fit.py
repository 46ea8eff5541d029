"""How pictures of other shapes become samples: squashed, cropped or cut to their boxes, as suits the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphabar.codecs.base import Unreadable, quietly
from alphabar.codecs.image_files import upright_size
from alphabar.data.items import Item, Source, read
from alphabar.messages import Message, message
from alphabar.progress import Progress

SIZES = (32, 64, 128, 256)  # that networks here take
LOOKED_AT = 256  # pictures, evenly spaced over the data, whose shapes decide


@dataclass(frozen=True)
class Fit:
    """What suits the shapes of a data set.

    name: of `FITS`. reason: why. pixels: a side that nine pictures in ten fill without being enlarged; most:
    one that nine in ten do not exceed.
    """

    name: str
    reason: Message
    pixels: int
    most: int

    @property
    def size(self) -> int:
        """The largest size of a sample that the pictures have the pixels for."""
        return max([size for size in SIZES if size <= self.pixels], default=SIZES[0])

    @property
    def enough(self) -> int | None:
        """The least size of a sample that keeps the pixels of nine pictures in ten; None beyond the sizes."""
        return min([size for size in SIZES if size >= self.most], default=None)


def suggest_fit(source: Source) -> Iterator[Progress[Fit]]:
    """Look at the sizes of some pictures of a source; the last record has the fit that suits them.

    Pictures that cannot be read are passed over; where none can, they are squashed.
    """
    stage, items = message("data.stage_shapes"), some_of(source.items)
    sides, seen = [], []
    for i, item in enumerate(items):
        yield Progress(stage, i, len(items))
        try:
            with quietly():
                sides.append(upright_size(read(source, item)))
            seen.append(item)
        except Unreadable:
            continue
    yield Progress(stage, len(items), len(items), fit_of(np.array(sides or [(1, 1)]), seen))


def some_of(items: Sequence[Item]) -> list[Item]:
    """The items, evenly spaced, whose shapes decide about the fit."""
    if len(items) <= LOOKED_AT:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, LOOKED_AT).round().astype(int)]


def fit_of(sides: NDArray[np.int64], items: Sequence[Item]) -> Fit:
    """The fit that suits pictures of sizes (n, 2), width and height, and the boxes of their items."""
    width, height = sides.T
    boxed = [i for i, item in enumerate(items) if item.box is not None]
    share = 1.0
    if boxed:
        boxes = np.array([items[i].box for i in boxed])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = float(np.median(areas / (width * height)[boxed]))
    log_aspect = np.log(width / height)
    spread = float(np.exp(np.quantile(log_aspect, 0.95) - np.quantile(log_aspect, 0.05)))
    lost = float(np.median(1 - sides.min(1) / sides.max(1)))
    sharp = sides.min(1).astype(np.float64)
    if len(boxed) > len(items) / 2 and share < 0.75:
        return _fit("box", message("data.fit_box", share=share), np.sqrt(share) * sharp)
    if spread < 1.15:
        return _fit("squash", message("data.fit_squash", ratio=spread), sharp, sides.max(1))
    if lost < 0.3:
        return _fit("crop", message("data.fit_crop", lost=lost), sharp)
    return _fit("squash", message("data.fit_squash_varied", lost=lost), sharp, sides.max(1))


def _fit(name: str, reason: Message, sharp: NDArray[Any], longest: NDArray[Any] | None = None) -> Fit:
    """sharp, longest: the sides (n,) of the squares that pictures fill, and that hold all their pixels."""
    longest = sharp if longest is None else longest
    return Fit(name, reason, round(float(np.quantile(sharp, 0.1))), round(float(np.quantile(longest, 0.9))))
