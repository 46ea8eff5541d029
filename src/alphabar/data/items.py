"""Where pictures come from: what every source offers. Which there are stands in sources.py."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from PIL import Image

from alphabar.errors import AlphabarError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One picture of a source and all that is known about it before it is decoded.

    key: unique within its source and the same on every machine, for example ``"cats/001.jpg"``.
    attributes: anything else that the source knows; values are what JSON can hold.
    box: the annotated object as (x0, y0, x1, y1) in pixels of the upright picture, x1 and y1 exclusive.
    """

    key: str
    label: str | None = None
    caption: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    box: Box | None = None


@dataclass(frozen=True)
class Skipped:
    """A picture that is not used, and why."""

    key: str
    reason: str


class Unreadable(Exception):
    """Why one picture cannot be used. Never leaves the data room: it becomes a Skipped."""


class Unread(Unreadable):
    """The file itself could not be read: another time it may be."""


class Source(Protocol):
    """A set of pictures that have not been decoded yet.

    name: what to call it in reports.
    skipped: what was found unusable without reading it.
    notes: sentences that a person should know, such as a missing piece and what does not work without it.
    fingerprint: changes when the pictures or anything known about them change.
    """

    @property
    def name(self) -> str: ...
    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def skipped(self) -> Sequence[Skipped]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    def read(self, item: Item) -> bytes | Image.Image:
        """The file's bytes, or a picture that was never a file. Raises OSError or Unreadable; thread-safe."""
        ...


def one_line(error: Exception) -> str:
    """What an error says, as part of a reason: libraries write paragraphs."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def fingerprint_of(items: Iterable[Item], states: Iterable[Any], skipped: Iterable[Skipped]) -> str:
    """A hash of everything a source knows; states tell an edited file from the one before (size, mtime)."""
    known = [[asdict(item) for item in items], list(states), [asdict(skip) for skip in skipped]]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def nothing_in(name: str, skipped: Sequence[Skipped]) -> AlphabarError:
    """The error for a source without a single usable picture, for the caller to raise."""
    if skipped:
        return AlphabarError(
            f"no readable pictures in {name}: {len(skipped)} files skipped,"
            f" first: {skipped[0].key}: {skipped[0].reason}"
        )
    return AlphabarError(
        f"no pictures in {name}: it needs files such as .jpg, .png or .webp, or parquet files"
    )
