"""Codecs: what a sample is. One class for each kind of data; nothing else knows shapes, ranges or files.

An *item* is a sample as the data cache stores it, a NumPy row of some shape and dtype (for images uint8 (h,
w, c)). A *signal* is the same sample as the network sees it, a float32 tensor (channels, *spatial) with one
to three spatial dimensions.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import Message

Box = tuple[float, float, float, float]
"""An annotated object: (x0, y0, x1, y1) in pixels of the upright picture, x1 and y1 exclusive."""

Raw = bytes | Image.Image
"""What a source has for one item: the bytes of its file, or a picture that was never a file."""


class Unreadable(AlphabarError):
    """Why one file cannot be used. Where a data set is read, it becomes a skipped item.

    An extension, whose reasons are not in the catalogue, raises ``Unreadable.because("it has no header")``.
    """

    message: Message

    @classmethod
    def because(cls, reason: str) -> Self:
        """The error for a reason in plain words, in one language."""
        return cls("codecs.reason", reason=reason)


class Unread(Unreadable):
    """The file itself could not be read; it may be readable another time."""


class Reading(NamedTuple):
    """An item that was read from a file, *codec.item_shape of codec.item_dtype.

    remarks: identifiers of messages about what reading changed, such as "codecs.laid_on_white". Their fields
    are {count} and {total}: of how many items of a data set they are true; and {size}, of an item.
    """

    item: NDArray[Any]
    remarks: tuple[str, ...] = ()


class Codec(ABC):
    """Items of one kind and size ↔ signals, and the files that they come from and go to.

    name: as in the registry. version: raise it when reading the same file gives another item.
    shape: of a signal, (channels, *spatial). item_shape, item_dtype: of an item as it is stored.
    bounds: the least and the largest value of a signal, or None where the values have no range.
    fits: names of the ways in which `read` fits a file to the item's shape, the default first.
    suffix: of the files that `write` makes, such as ".png".
    tolerance: how far an item may be from decode(encode(item)), in the item's own units. It holds for items
        as `read` and `decode` make them.
    """

    name: str
    version: int = 1
    shape: tuple[int, ...]
    item_shape: tuple[int, ...]
    item_dtype: np.dtype
    bounds: tuple[float, float] | None
    fits: tuple[str, ...]
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

    @property
    def cache_key(self) -> list[Any]:
        """Everything that decides which items `read` makes of the same files, as JSON values.

        A codec with further settings that `read` depends on adds them.
        """
        return [self.name, self.version, list(self.item_shape), self.item_dtype.str]

    @abstractmethod
    def read(self, data: Raw, fit: str, box: Box | None = None) -> Reading:
        """The item in a file's bytes.

        fit: one of `fits`. box: the annotated object, which the fit "box" shows.

        Raises Unreadable, with the reason, for everything that is not a whole file of this kind. Thread-safe.
        """

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

    @abstractmethod
    def coarsen(self, signals: Tensor) -> Tensor:
        """Signals (n, *shape) → their coarse content (n, m), a few hundred numbers, by a linear map.

        Initial noise of the kind "gaussian" has coarse content of the mean and covariance of the data's.
        """

    @abstractmethod
    def refine(self, coarse: Tensor) -> Tensor:
        """Coarse content (n, m) → smooth signals (n, *shape), by a linear map."""

    def flip(self, items: Tensor, mask: Tensor) -> Tensor:
        """Items (n, *item_shape), mirrored where the mask (n,) says so, if items of this kind can be."""
        return items

    def clamp(self, signals: Tensor) -> Tensor:
        """Signals with their values held within the bounds, where there are any."""
        return signals if self.bounds is None else signals.clamp(*self.bounds)


class LearnedCodec(Codec):
    """A codec whose signals are made by trained networks, of items that another codec reads.

    reader: that codec, which needs no weights.
    """

    reader: Codec

    @abstractmethod
    def load(self, weights: Mapping[str, Tensor], device: str | torch.device = "cpu") -> None:
        """Takes over what `weights` gave, to compute on a device. Raises UsageError where it does not fit."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The trained weights by name. Raises UsageError where there are none yet."""

    def read(self, data: Raw, fit: str, box: Box | None = None) -> Reading:
        return self.reader.read(data, fit, box)

    def preview(self, items: Tensor) -> Tensor:
        return self.reader.preview(items)

    def write(self, item: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        self.reader.write(item, path, metadata)

    def flip(self, items: Tensor, mask: Tensor) -> Tensor:
        return self.reader.flip(items, mask)


def reader_of(codec: Codec) -> Codec:
    """The codec that reads the items of a codec, without any weights: itself, unless it is learned."""
    return codec.reader if isinstance(codec, LearnedCodec) else codec


def check_item(codec: Codec, item: NDArray[Any]) -> None:
    """Raises UsageError for what a codec has read in another shape or type than that of its items."""
    if item.shape != tuple(codec.item_shape) or item.dtype != codec.item_dtype:
        wanted = f"{tuple(codec.item_shape)} {np.dtype(codec.item_dtype)}"
        raise _wrong_form(codec, "read", f"{item.shape} {item.dtype}", wanted)


def check_codec(codec: Codec, items: NDArray[Any]) -> None:
    """Check on a few items (n, *item_shape) that a codec keeps its promises.

    Raises UsageError where signals or decoded items have the wrong shape or type, where signals leave the
    bounds or are not finite, and where decode does not invert encode within the codec's tolerance.
    """
    given = torch.from_numpy(np.array(items))
    signals = codec.encode(given)
    _check_form(codec, "encode", signals, codec.shape, torch.float32)
    if not signals.isfinite().all():
        raise UsageError("codecs.not_finite", codec=codec.name)
    if codec.bounds is not None and not torch.equal(codec.clamp(signals), signals):
        low, high = codec.bounds
        raise UsageError("codecs.out_of_bounds", codec=codec.name, low=low, high=high)
    back = codec.decode(signals)
    _check_form(codec, "decode", back, codec.item_shape, given.dtype)
    error = (back.double() - given.double()).abs().max().item() if given.numel() else 0.0
    if not error <= codec.tolerance:
        raise UsageError(
            "codecs.no_inverse", codec=codec.name, error=f"{error:.3g}", tolerance=f"{codec.tolerance:.3g}"
        )


def _check_form(codec: Codec, method: str, made: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(made.shape[1:]) != tuple(shape) or made.dtype is not dtype:
        raise _wrong_form(codec, method, f"{tuple(made.shape[1:])} {made.dtype}", f"{tuple(shape)} {dtype}")


def _wrong_form(codec: Codec, method: str, made: str, wanted: str) -> UsageError:
    return UsageError("codecs.wrong_form", codec=codec.name, method=method, made=made, wanted=wanted)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of decoders about oddities of files; what matters is raised as Unreadable.

    Filters are process-wide, so this goes around work that other threads wait for and never across a yield.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_line(error: Exception) -> str:
    """What an error says, as part of a reason: libraries write paragraphs."""
    return " ".join(str(error).split())[:200] or type(error).__name__
