"""Any folder of pictures, flat or with a sub-folder for each class; captions and attributes beside them."""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO, Any

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import TIFF_BEGINNINGS, looks_like_picture
from alphabar.data.captions import CAPTION_SUFFIXES, Captions
from alphabar.data.items import Item, Skipped, fingerprint_of
from alphabar.data.levels import with_labels
from alphabar.data.names import Names, printable, stem
from alphabar.data.table_files import Row
from alphabar.data.tables import UNREAD_TABLES, is_table, may_be_table, read_table
from alphabar.files import Damaged, read_document, write_document
from alphabar.formatting import folded
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

LEFT_OUT = ".left_out.json"  # in an uploaded folder: what was not put into it

# A picture's suffix somewhere in a name: "a.jpg_large", "c.tif?w=640", "d.jpeg.1", "e.tif~".
SUFFIX_WITHIN = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?|avif)(?![a-z0-9])", re.I)

NO_PICTURES = frozenset({".txt", ".caption", ".xml", ".md", ".html", ".py"}) | frozenset(
    {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"}
)
"""Files that are not looked into: there is one beside each picture in many a data set."""

LARGEST_TABLE = 2**26  # bytes of a table of another name, which is read whole to see whether it is one

OTHER_FILES = 20  # of one kind that are looked into as tables: of more, each is about one picture

# Files that tell folders of runs and models, and of results; a data set of dishes may have a recipe.json.
RUNS = ({"recipe.toml"}, {"recipe.json", "MANIFEST.json"})
RESULTS = {"samples.json", "restoration.json", "degradation.json"}

OVERVIEW = "overview"  # the folder beside samples.json with pictures of all samples


class Folder:
    """The pictures under a folder, sorted by path.

    The first folder level is the label, unless there is only one class; a level of splits (train, test, …)
    above it becomes the attribute "split", folders around everything count for nothing (`with_labels`).
    Captions come from ``NAME.txt`` beside ``NAME.jpg`` or from ``metadata.csv``, ``.tsv``, ``.jsonl``,
    ``.json`` or ``.parquet`` in the Hugging Face convention: ``file_name`` (or another of `FILE_COLUMNS`),
    then ``text`` or ``caption`` → caption, ``label`` or ``class`` → label, all other columns → attributes. A
    table of another name is used where it names pictures (`Table.column_of_names`). Hidden files and folders
    are ignored, and so are the folders of runs, models and results below the root, and the overview of
    samples; notes say what could not be used.

    other_tables: whether tables of other names are looked for.
    """

    def __init__(self, root: Path, name: str | None = None, other_tables: bool = True):
        self.root = root
        self.name = name or root.resolve().name
        self.skipped: list[Skipped] = []
        self.notes: list[Message] = []
        self._paths: dict[str, Path] = {}
        self._others: Counter[str] = Counter(_left_out(root))
        self._tables: list[Path] = []
        self._unread: list[str] = []  # tables of a form that is not read, by their keys
        self._beside: dict[str, Path] = {}  # files that may be captions or tables, by their keys
        self._paths = dict(sorted(self._walk()))
        self.skipped.sort(key=lambda skipped: skipped.key)
        self._tables.sort(key=lambda path: path.parts)  # of two tables about a picture the last counts
        self._beside = dict(sorted(self._beside.items(), key=lambda file: file[1].parts))
        captions = Captions(self._beside)
        self.items = [Item(key, caption=captions.take(key)) for key in self._paths]
        self.items = with_labels(self.items, self.notes)
        self.notes += captions.notes
        names = Names(self._paths, root) if self._tables or captions.unused else None
        if names is not None:
            rows = self._other_rows(captions.unused, names, other_tables)
            for path in self._tables:
                rows |= _merged(rows, self._metadata_rows(path, names))
            self.items = [
                _described(item, rows[item.key]) if item.key in rows else item for item in self.items
            ]
        if unread := sorted(self._unread):
            self.notes.append(message("data.table_not_read", count=len(unread), first=unread[0]))
        if self._others:
            most = sorted(self._others.items(), key=lambda other: (-other[1], not other[0], other[0]))[:5]
            suffixes = ", ".join(f"{count} {suffix or repr('')}" for suffix, count in most)
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
        """The path as text; a backslash in a name is two, since one stands for what is no text."""
        name = os.fsencode(path.relative_to(self.root).as_posix()).replace(b"\\", b"\\\\")
        return printable(name.decode("utf-8", "backslashreplace"))

    def _walk(self) -> Iterator[tuple[str, Path]]:
        """The (key, path) of every picture; what cannot be one goes to ``skipped``.

        Every folder is read once, however many links lead to it: folders that link to each other would make
        endlessly many paths. Links are followed last, so that a folder has the name of its own.
        """
        read: set[tuple[int, int]] = set()
        folders, links = [self.root], deque[Path]()
        while folders or links:
            folder = folders.pop() if folders else links.popleft()
            try:
                identity = folder.stat()
                if (identity.st_dev, identity.st_ino) in read:
                    self._skip(folder, "data.folder_twice")
                    continue
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self._skip(folder, "data.folder_unreadable", error=error.strerror)
                continue
            read.add((identity.st_dev, identity.st_ino))
            names = {entry.name for entry in entries}
            if folder != self.root and (results := sorted(names & RESULTS)):
                self._skip(folder, "data.is_result", file=results[0])
                continue
            if folder != self.root and any(names >= files for files in RUNS):
                self._skip(folder, "data.is_run")
                continue
            no_data = {"__MACOSX", "@eaDir", *([OVERVIEW] if "samples.json" in names else [])}
            for entry in entries:
                if entry.name.startswith(".") or entry.name in no_data:
                    continue
                path = folder / entry.name
                try:
                    status = entry.stat()
                except OSError as error:
                    reason = "data.dead_link" if entry.is_symlink() else "data.cannot_be_read"
                    self._skip(path, reason, error=error.strerror)
                    continue
                if stat.S_ISDIR(status.st_mode) and path.suffix.lower() not in PICTURE_SUFFIXES:
                    (links if entry.is_symlink() else folders).append(path)
                elif self._sort(path, status):
                    yield self._key(path), path

    def _sort(self, path: Path, status: os.stat_result) -> bool:
        """Whether a file is a picture; what may be a caption or a table is kept, all else counted."""
        suffix = path.suffix.lower()
        if not stat.S_ISREG(status.st_mode):
            if suffix in PICTURE_SUFFIXES:
                self._skip(path, "data.is_folder" if stat.S_ISDIR(status.st_mode) else "data.is_device")
            else:
                self._others[suffix] += 1
            return False
        if suffix in PICTURE_SUFFIXES:
            return True
        if is_table(path.name):
            self._tables.append(path)
        elif suffix in CAPTION_SUFFIXES or (may_be_table(path.name) and status.st_size <= LARGEST_TABLE):
            self._beside[self._key(path)] = path
        elif _may_be_picture(path):
            return True
        elif path.name.lower().endswith(UNREAD_TABLES):
            self._unread.append(self._key(path))
        else:
            self._others[suffix] += 1
        return False

    def _metadata_rows(self, path: Path, names: Names) -> dict[str, Row]:
        """What a table says of the pictures it names, by key; what it cannot say is noted."""
        table = read_table(path, self._key(path))
        matched = table.matched(names)
        if matched is None and table.rows:
            columns = ", ".join(table.columns)
            self.notes.append(message("data.metadata_without_column", file=table.key, columns=columns))
        self.notes += table.notes
        for name, key, _ in matched or ():
            if key is None:
                plain = printable(name)
                missing = plain if plain.startswith("/") else names.joined(table.folder, plain)
                self.skipped.append(Skipped(missing, message("data.no_such_picture")))
        return self._by_key(matched or ())

    def _other_rows(self, files: Mapping[str, Path], names: Names, wanted: bool) -> dict[str, Row]:
        """What tables of other names say of the pictures, by key, where they name mostly pictures.

        files: what may be a table, by keys; those that are none are counted as other files.
        """
        rows: dict[str, Row] = {}
        counts = Counter(path.suffix.lower() for path in files.values())
        stems = {stem(folded(key)) for key in self._paths}
        for file, path in files.items():
            suffix = path.suffix.lower()
            table, matched = None, None
            of_many = counts[suffix] > OTHER_FILES or stem(folded(file)) in stems
            if wanted and not of_many and may_be_table(path.name):
                table = read_table(path, file)
                matched = table.matched(names)
            found = [row for row in matched or () if row[1] is not None]
            if table is None or 2 * len(found) < len(matched or ()) or not found:
                self._others[suffix] += 1
                if table is not None and table.rows and suffix in (".csv", ".tsv"):
                    columns = ", ".join(table.columns)
                    self.notes.append(message("data.table_not_used", file=table.key, columns=columns))
                continue
            named = len(matched or ())
            self.notes.append(message("data.table_used", file=table.key, found=len(found), named=named))
            self.notes += table.notes
            rows |= _merged(rows, self._by_key(found))
        return rows

    def _by_key(self, matched: Iterable[tuple[str, str | None, Row]]) -> dict[str, Row]:
        """The rows of a table by the key of their picture; the last row of a picture counts."""
        rows: dict[str, Row] = {}
        twice: dict[str, None] = {}
        for _, key, row in matched:
            if key is not None:
                twice |= {key: None} if key in rows else {}
                rows[key] = row
        if twice:
            self.notes.append(message("data.metadata_twice", count=len(twice), first=next(iter(twice))))
        return rows


def _merged(rows: Mapping[str, Row], later: Mapping[str, Row]) -> dict[str, Row]:
    """The later rows, with what only earlier ones know of the same pictures."""
    return {
        key: {
            **rows.get(key, {}),
            **{k: v for k, v in row.items() if v is not None or k not in rows.get(key, {})},
        }
        for key, row in later.items()
    }


def _described(item: Item, row: Row) -> Item:
    attributes = {name: value for name, value in row.items() if name not in ("text", "label")}
    return replace(
        item,
        label=item.label if row["label"] is None else row["label"],
        caption=item.caption if row["text"] is None else row["text"],
        attributes={**item.attributes, **attributes},
    )


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def begins_like_picture(name: str, opened: IO[bytes]) -> bool:
    """Whether a file without a picture's suffix is one all the same: it begins like one. It is closed.

    Many kinds of files are TIFF at heart, so that one has to be called so.
    """
    with opened:
        path = PurePath(name)
        if path.suffix.lower() in NO_PICTURES:
            return False
        beginning = opened.read(16)
    called = not path.suffix or SUFFIX_WITHIN.search(path.name)
    return looks_like_picture(beginning) and bool(called or not beginning.startswith(TIFF_BEGINNINGS))


def _may_be_picture(path: Path) -> bool:
    try:
        return path.suffix.lower() not in NO_PICTURES and begins_like_picture(path.name, path.open("rb"))
    except OSError:
        return False


def write_left_out(folder: Path, suffixes: Mapping[str, int]) -> None:
    """Writes into a folder how many files of each suffix were left out of it, for its notes to say."""
    write_document(folder / LEFT_OUT, dict(suffixes))


def _left_out(folder: Path) -> dict[str, int]:
    if not os.path.isfile(folder / LEFT_OUT):
        return {}
    try:
        counts = read_document(folder / LEFT_OUT)
    except (OSError, Damaged):
        return {}
    return {suffix: count for suffix, count in counts.items() if type(count) is int}
