"""What every data source offers: items with what is known about them, and the bytes of each."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from PIL import Image

from alphabar.codecs.base import Box, Raw, Unread, one_line
from alphabar.errors import AlphabarError
from alphabar.formatting import composed
from alphabar.messages import Message, message


@dataclass(frozen=True)
class Item:
    """One item of a source and all that is known about it before it is decoded.

    key: unique within its source and the same on every machine, for example ``"cats/001.jpg"``.
    label, caption, attributes: their texts are kept in NFC, so that two ways to write "café" are one name.
    attributes: anything else that the source knows; values are what JSON can hold.
    box: the annotated object as (x0, y0, x1, y1) in pixels of the upright picture, x1 and y1 exclusive.
    """

    key: str
    label: str | None = None
    caption: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    box: Box | None = None

    def __post_init__(self) -> None:
        known = {_composed(name): _composed(value) for name, value in self.attributes.items()}
        object.__setattr__(self, "attributes", known)
        object.__setattr__(self, "label", _composed(self.label))
        object.__setattr__(self, "caption", _composed(self.caption))


def _composed(value: Any) -> Any:
    return composed(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    key: str
    reason: Message

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, with the message's identifier and values: `from_dict` reads it."""
        return {"key": self.key, "identifier": self.reason.identifier, "values": self.reason.values}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Skipped":
        """What `to_dict` made. Raises KeyError for a message that the catalogue does not have."""
        return cls(stored["key"], message(stored["identifier"], **stored["values"]))


class Source(Protocol):
    """A set of files that have not been decoded yet."""

    @property
    def name(self) -> str:
        """What to call it in reports."""

    @property
    def items(self) -> Sequence[Item]:
        """Everything that may be used, in an order that is the same on every machine."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What was found unusable without reading it."""

    @property
    def notes(self) -> Sequence[Message]:
        """Sentences that a person should know, such as a missing piece and what does not work without it."""

    @property
    def fingerprint(self) -> str:
        """A string that changes when the files or anything known about them change."""

    def read(self, item: Item) -> Raw:
        """The file's bytes, or a picture that was never a file. Raises OSError or Unreadable; thread-safe."""


def read(source: Source, item: Item) -> bytes | Image.Image:
    """``source.read`` with Unread for every OSError."""
    try:
        return source.read(item)
    except FileNotFoundError:
        raise Unread("data.vanished") from None
    except PermissionError:
        raise Unread("data.no_permission") from None
    except OSError as error:
        raise Unread("data.cannot_be_read", error=error.strerror or one_line(error)) from None


def content_hash(data: Raw) -> str:
    """SHA-256 of a file's bytes, or of the pixels of a picture that never was a file."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()


def held_out_position(content: str) -> float:
    """The place in [0, 1) of a content hash: items below the held-out share are held out."""
    return (int(content[:16], 16) >> 11) * 2.0**-53


def fingerprint_of(items: Iterable[Item], states: Iterable[Any], skipped: Iterable[Skipped]) -> str:
    """A hash of everything a source knows; states tell an edited file from the one before (size, mtime)."""
    known = [[asdict(item) for item in items], list(states), [asdict(skip) for skip in skipped]]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def skipped_files(skipped: Sequence[Skipped]) -> list[Message]:
    """The sentence about files that are left out, in a list; none where there are none."""
    if not skipped:
        return []
    first = skipped[0]
    return [message("data.skipped", n=len(skipped), key=first.key, reason=first.reason)]


def nothing_in(name: str, skipped: Sequence[Skipped], notes: Sequence[Message] = ()) -> AlphabarError:
    """The error for a source without a single usable file, for the caller to raise; notes: what was seen."""
    if skipped:
        return AlphabarError(
            "data.nothing_readable",
            name=name,
            count=len(skipped),
            key=skipped[0].key,
            reason=skipped[0].reason,
        )
    return AlphabarError("data.nothing_there", name=name, notes="".join(f" {note}" for note in notes))
