"""Any folder of pictures, flat or with a sub-folder for each class; captions and attributes beside them."""

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alphabar.codecs.base import Unreadable, one_line
from alphabar.codecs.image_files import looks_like_picture
from alphabar.data.items import Item, Skipped, fingerprint_of
from alphabar.messages import Message, message

# TIFF at heart, so that Pillow would open the thumbnail and call it the picture.
CAMERA_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2")


# Files that a person would call pictures. Those that cannot be decoded are listed with a reason, too.
PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".j2k"),
        *(".jxl", ".ico", ".qoi", ".pcx", ".psd", ".svg", *CAMERA_RAW),
    }
)

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})

METADATA = ("metadata.csv", "metadata.jsonl")

LARGEST_FILE = 512  # MiB

LARGEST_CAPTION = 64 * 2**10  # bytes


class Folder:
    """The pictures under a folder, sorted by path.

    The first folder level is the label, unless there is only one class; a level of splits (train, test, …)
    above it becomes the attribute "split". Captions come from ``NAME.txt`` beside ``NAME.jpg`` or from
    ``metadata.csv`` / ``metadata.jsonl`` in the Hugging Face convention: ``file_name``, then ``text`` or
    ``caption`` → caption, ``label`` → label, all other columns → attributes. Hidden files and folders
    are ignored.
    """

    def __init__(self, root: Path, name: str | None = None):
        self.root = root
        self.name = name or root.resolve().name
        self.skipped: list[Skipped] = []
        self.notes: list[Message] = []
        self._paths: dict[str, Path] = {}
        self._others: Counter[str] = Counter()
        self._metadata: dict[str, dict[str, Any]] = {}
        found = sorted(self._walk(root, set()), key=lambda found: found[0])
        self._paths = dict(found)
        self.items = self._with_metadata(self._with_labels([self._item(key, path) for key, path in found]))
        if self._others:
            suffixes = ", ".join(
                f"{count} {suffix or repr('')}" for suffix, count in self._others.most_common(5)
            )
            self.notes.append(message("data.other_files", count=self._others.total(), suffixes=suffixes))

    def read(self, item: Item) -> bytes:
        """The file's bytes. Raises Unreadable for camera raw files and for those over 512 MiB, OSError."""
        path = self._paths[item.key]
        if path.suffix.lower() in CAMERA_RAW:
            raise Unreadable("data.camera_raw")
        megabytes = path.stat().st_size / 2**20
        if megabytes > LARGEST_FILE:
            raise Unreadable("data.too_large", megabytes=f"{megabytes:,.0f}", limit=LARGEST_FILE)
        return path.read_bytes()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and modification times and of all that is known about them."""
        return fingerprint_of(self.items, self.states(self.items), self.skipped)

    def states(self, items: Sequence[Item]) -> list[tuple[int, int] | None]:
        """(size, modification time) of each item's file: what an edited file cannot keep."""
        return [_state(self._paths[item.key]) for item in items]

    def _skip(self, path: Path, reason: str, **values: Any) -> None:
        self.skipped.append(Skipped(self._key(path), message(reason, **values)))

    def _key(self, path: Path) -> str:
        return _printable(path.relative_to(self.root).as_posix())

    def _walk(self, folder: Path, above: set[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
        """The (key, path) of every picture; what cannot be one goes to ``skipped``."""
        try:
            identity = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._skip(folder, "data.folder_unreadable", error=error.strerror)
            return
        here = (identity.st_dev, identity.st_ino)
        if here in above:
            return  # a link that leads back up
        for entry in entries:
            if entry.name.startswith(".") or entry.name in ("__MACOSX", "@eaDir"):
                continue
            path = folder / entry.name
            suffix = path.suffix.lower()
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                if suffix in PICTURE_SUFFIXES:
                    reason = "data.dead_link" if entry.is_symlink() else "data.cannot_be_read"
                    self._skip(path, reason, error=error.strerror)
                continue
            if suffix in PICTURE_SUFFIXES:
                if stat.S_ISREG(mode):
                    yield self._key(path), path
                else:
                    self._skip(path, "data.is_folder" if stat.S_ISDIR(mode) else "data.is_device")
            elif stat.S_ISDIR(mode):
                yield from self._walk(path, above | {here})
            elif entry.name in METADATA and stat.S_ISREG(mode):
                self._read_metadata(path)
            elif not suffix and stat.S_ISREG(mode) and _begins_like_picture(path):
                yield self._key(path), path
            elif suffix != ".txt":
                self._others[suffix] += 1

    def _item(self, key: str, path: Path) -> Item:
        return Item(key, caption=_sidecar(path.with_suffix(".txt")))

    def _with_labels(self, items: list[Item]) -> list[Item]:
        """The first folder level as label, below a level of splits where there is one."""
        parents = [item.key.split("/")[:-1] for item in items]
        if parents and all(parts and parts[0].lower() in SPLITS for parts in parents):
            splits = [parts.pop(0) for parts in parents]
            if len(set(splits)) > 1:
                used = ", ".join(sorted(set(splits)))
                self.notes.append(message("data.splits_of_folder", splits=used))
            items = [replace(item, attributes={"split": s}) for item, s in zip(items, splits, strict=True)]
        labels = [parts[0] if parts else None for parts in parents]
        if len(set(labels)) < 2:
            return items  # one folder around all pictures is a wrapping, not a class
        return [replace(item, label=label) for item, label in zip(items, labels, strict=True)]

    def _with_metadata(self, items: list[Item]) -> list[Item]:
        described = []
        for item in items:
            row = dict(self._metadata.pop(item.key, {}))
            caption = row.pop("text", None) or row.pop("caption", None) or item.caption
            label = row.pop("label", None)
            described.append(
                replace(
                    item,
                    label=item.label if label in (None, "") else str(label),
                    caption=str(caption) if caption is not None else None,
                    attributes={**item.attributes, **row},
                )
            )
        self.skipped += [Skipped(key, message("data.no_such_picture")) for key in self._metadata]
        return described

    def _read_metadata(self, path: Path) -> None:
        try:
            rows = list(_rows(path))
        except (OSError, ValueError, csv.Error) as error:
            self.notes.append(
                message("data.metadata_unreadable", file=self._key(path), error=one_line(error))
            )
            return
        for row in rows:
            name = row.pop("file_name", None)
            if not isinstance(name, str) or not name:
                self.notes.append(message("data.metadata_without_name", file=self._key(path)))
                return
            # Normalised as text, not by the file system: links must stay what they are.
            beside = path.parent.relative_to(self.root) / name
            self._metadata[_printable(os.path.normpath(beside))] = row


def _printable(path: str) -> str:
    """The path as a key: Linux allows file names that are no text, but a key is shown and stored."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                yield {key: value for key, value in row.items() if isinstance(key, str)}
        return
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def _sidecar(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            text = file.read(LARGEST_CAPTION)
    except OSError:
        return None
    return text.decode("utf-8-sig", "replace").strip() or None


def _begins_like_picture(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_like_picture(file.read(16))
    except OSError:
        return False
