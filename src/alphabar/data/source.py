"""Where pictures come from: what every source offers, and how an argument becomes one."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from alphabar.errors import AlphabarError, UsageError

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


def _toycars(argument: str | None) -> Source:
    from alphabar.data.toycars import ToyCars

    if argument is None:
        return ToyCars()
    if not argument.isdecimal() or int(argument) == 0:
        raise UsageError(f"toycars:{argument}: the number of pictures must be a positive integer")
    return ToyCars(int(argument))


# Names that need no file; what follows a colon ("toycars:2000") is handed on.
BUILT_IN: dict[str, Callable[[str | None], Source]] = {"toycars": _toycars}


def open_source(data: str | Path) -> Source:
    """The source that an argument names; nothing is decoded yet.

    data: a built-in name ("toycars", "toycars:2000"), "hf://datasets/owner/name", or the path of a
        folder or a parquet file. A built-in name wins over a folder of that name, which "./toycars" names.
    Raises UsageError where it is none of these, AlphabarError where there is nothing to read.
    """
    if isinstance(data, str):
        if data.startswith("hf://"):
            from alphabar.data.parquet import open_hub

            return open_hub(data)
        name, colon, argument = data.partition(":")
        if name in BUILT_IN:
            return BUILT_IN[name](argument if colon else None)
    path = Path(data).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        from alphabar.data.parquet import Parquet

        return Parquet(path)
    if path.exists():
        raise UsageError(
            f"{data} is a single file; name the folder of pictures (archives: unpack them first)"
        )
    near = get_close_matches(str(data), BUILT_IN, n=1, cutoff=0.5)
    raise UsageError(
        f"no data called {str(data)!r}: "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"give an existing folder or parquet file, a built-in name ({', '.join(BUILT_IN)}),"
        " or hf://datasets/owner/name"
    )


def open_folder(path: Path, name: str | None = None) -> Source:
    """The source in a folder: Stanford Cars in any of its layouts, pictures, or parquet files.

    name: what to call it; default: the folder's name. Raises AlphabarError where it holds none of these.
    """
    from alphabar.data.folder import Folder
    from alphabar.data.parquet import Parquet, parquet_files
    from alphabar.data.stanford_cars import StanfordCars

    cars = StanfordCars.find(path)
    if cars is not None:
        return cars
    folder = Folder(path, name)
    if folder.items:
        return folder
    if parquet_files(path):
        return Parquet(path, name)
    raise nothing_in(str(path), folder.skipped)


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
