"""Codecs: what a sample is. One class for each kind of data; nothing else knows shapes, ranges or files.

An *item* is a sample as the data cache stores it, a NumPy row of some shape and dtype (for images uint8 (h, w, c)).
A *signal* is the same sample as the network sees it, a float32 tensor (channels, *spatial) with one to three
spatial dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor


class Codec(ABC):
    """Items of one kind and size ↔ signals.

    shape: of a signal, (channels, *spatial). item_shape, item_dtype: of an item as it is stored.
    bounds: the least and the largest value of a signal, or None where the values have no range.
    suffix: of the files that `write` makes, such as ".png".
    tolerance: how far an item may be from decode(encode(item)), in the item's own units.
    """

    shape: tuple[int, ...]
    item_shape: tuple[int, ...]
    item_dtype: np.dtype
    bounds: tuple[float, float] | None
    suffix: str
    tolerance: float = 0.0

    @property
    def channels(self) -> int:
        """How many channels a signal has."""
        return self.shape[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The sizes of a signal's spatial dimensions, for images (height, width)."""
        return self.shape[1:]

    @abstractmethod
    def encode(self, items: Tensor) -> Tensor:
        """Items (n, *item_shape) → signals (n, *shape), float32."""

    @abstractmethod
    def decode(self, signals: Tensor) -> Tensor:
        """Signals (n, *shape) → the nearest items (n, *item_shape); values beyond the bounds are clamped."""

    @abstractmethod
    def preview(self, items: Tensor) -> Tensor:
        """Pictures of items for a person, (n, h, w, 3 or 4) uint8."""

    @abstractmethod
    def write(self, item: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write one item (*item_shape) as a file with metadata inside. Raises OSError where it cannot."""

    def flip(self, items: Tensor, mask: Tensor) -> Tensor:
        """Items (n, *item_shape), mirrored where the mask (n,) says so; a codec without mirror images: as they are."""
        return items

    def clamp(self, signals: Tensor) -> Tensor:
        """Signals with their values held within the bounds, where there are any."""
        return signals if self.bounds is None else signals.clamp(*self.bounds)
