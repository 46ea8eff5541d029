"""Any folder of pictures, flat or with a sub-folder for each class; captions and attributes beside them."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import looks_like_picture
from alphabar.data.items import Item, Skipped, fingerprint_of
from alphabar.data.levels import with_labels
from alphabar.data.tables import CODE_PAGE, Names, Row, is_table, read_table, read_text
from alphabar.formatting import known_value
from alphabar.messages import Message, message

# TIFF at heart, so that Pillow would open the thumbnail and call it the picture.
CAMERA_RAW = (
    *(".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".srw", ".dng", ".raf", ".orf", ".rw2", ".rwl"),
    *(".pef", ".dcr", ".kdc", ".3fr", ".iiq", ".erf", ".mrw", ".x3f"),
)


# Files that a person would call pictures. Those that cannot be decoded are listed with a reason, too.
PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".heic", ".heif", ".jp2", ".j2k"),
        *(".jxl", ".ico", ".qoi", ".pcx", ".psd", ".svg", *CAMERA_RAW),
    }
)

LARGEST_FILE = 512  # MiB

LARGEST_CAPTION = 64 * 2**10  # bytes

# Names that browsers and download tools make of pictures: "a.jpg_large", "c.jpg?w=640", "d.jpeg.1".
DOWNLOADED = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?|avif)([?:@!;&=].*|[_-][a-z]+|\.\d+)$", re.I)

RUN, MODEL = {"recipe.toml", "log.jsonl"}, {"recipe.json", "MANIFEST.json"}  # files that tell their folders


class Folder:
    """The pictures under a folder, sorted by path.

    The first folder level is the label, unless there is only one class; a level of splits (train, test, …)
    above it becomes the attribute "split", folders around everything count for nothing (`with_labels`).
    Captions come from ``NAME.txt`` beside ``NAME.jpg`` or from ``metadata.csv``, ``.tsv`` or ``.jsonl`` in
    the Hugging Face convention: ``file_name`` (or another of `FILE_COLUMNS`), then ``text`` or ``caption`` →
    caption, ``label`` → label, all other columns → attributes. Hidden files and folders are ignored, and so
    are the folders of runs and models below the root; notes say what could not be used.
    """

    def __init__(self, root: Path, name: str | None = None):
        self.root = root
        self.name = name or root.resolve().name
        self.skipped: list[Skipped] = []
        self.notes: list[Message] = []
        self._paths: dict[str, Path] = {}
        self._others: Counter[str] = Counter()
        self._rows: list[tuple[str, str, Row]] = []  # (folder of the table, name in it, row)
        self._code_page: list[str] = []  # captions that are no Unicode
        found = sorted(self._walk(root, set()), key=lambda found: found[0])
        self._paths = dict(found)
        self.items = with_labels([self._item(key, path) for key, path in found], self.notes)
        if self._rows:
            self.items = self._with_metadata(self.items)
        if self._code_page:
            count, first = len(self._code_page), self._code_page[0]
            self.notes.append(message("data.captions_code_page", count=count, first=first))
        if self._others:
            suffixes = ", ".join(
                f"{count} {suffix or repr('')}" for suffix, count in self._others.most_common(5)
            )
            self.notes.append(message("data.other_files", count=self._others.total(), suffixes=suffixes))

    @property
    def paths(self) -> dict[str, Path]:
        """The file of each item, by its key."""
        return dict(self._paths)

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
        names = {entry.name for entry in entries}
        if above and (names >= RUN or names >= MODEL):
            self._skip(folder, "data.is_run")
            return
        for entry in entries:
            if entry.name.startswith(".") or entry.name in ("__MACOSX", "@eaDir"):
                continue
            path = folder / entry.name
            suffix = path.suffix.lower()
            try:
                mode = entry.stat().st_mode
            except OSError as error:
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
            elif is_table(entry.name) and stat.S_ISREG(mode):
                self._read_table(path)
            elif stat.S_ISREG(mode) and _may_be_picture(path):
                yield self._key(path), path
            elif suffix != ".txt":
                self._others[suffix] += 1

    def _item(self, key: str, path: Path) -> Item:
        caption, encoding = _sidecar(path)
        if encoding == CODE_PAGE:
            self._code_page.append(key)
        return Item(key, caption=caption)

    def _read_table(self, path: Path) -> None:
        table = read_table(path, self._key(path))
        self.notes += table.notes
        folder = _printable(path.parent.relative_to(self.root).as_posix())
        self._rows += [(folder, name, row) for name, row in table.rows]

    def _with_metadata(self, items: list[Item]) -> list[Item]:
        """The items with what tables say about them; the last row of a picture counts."""
        names = Names(self._paths, self.root)
        rows: dict[str, Row] = {}
        twice: list[str] = []
        for folder, name, row in self._rows:
            printable = _printable(name.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace"))
            key = names.find(folder, printable)
            if key is None:
                missing = printable if printable.startswith("/") else names.joined(folder, printable)
                self.skipped.append(Skipped(missing, message("data.no_such_picture")))
                continue
            if key in rows:
                twice.append(key)
            rows[key] = row
        if twice:
            self.notes.append(message("data.metadata_twice", count=len(set(twice)), first=twice[0]))
        return [_described(item, rows[item.key]) if item.key in rows else item for item in items]


def _described(item: Item, row: Row) -> Item:
    attributes = {name: value for name, value in row.items() if name not in ("text", "label")}
    label = row.get("label")
    return replace(
        item,
        label=item.label if known_value(label) is None else str(label),
        caption=item.caption if row["text"] is None else row["text"],
        attributes={**item.attributes, **attributes},
    )


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


def _sidecar(path: Path) -> tuple[str | None, str]:
    """The caption in the text file beside a picture, None where there is none; and the file's encoding."""
    for suffix in (".txt", ".TXT"):
        beside = path.with_suffix(suffix)
        try:
            if beside.is_file():
                with open(beside, "rb") as file:
                    data = file.read(LARGEST_CAPTION)
                text, encoding = read_text(data, cut=len(data) == LARGEST_CAPTION)
                return text.strip() or None, encoding
        except OSError:
            continue
    return None, ""


def _may_be_picture(path: Path) -> bool:
    """Whether a file without a picture's suffix is one all the same: it begins like one."""
    if path.suffix and not DOWNLOADED.search(path.name):
        return False
    try:
        with open(path, "rb") as file:
            return looks_like_picture(file.read(16))
    except OSError:
        return False
