"""Parquet files as the Hugging Face Hub keeps data sets, on disk or fetched from there."""

import json
import os
import re
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from alphabar.codecs.base import Raw, Unreadable, one_line
from alphabar.data.items import Item, Skipped, fingerprint_of
from alphabar.data.levels import SPLITS
from alphabar.data.table_files import holds_bytes, plain_column
from alphabar.data.tables import LABEL_COLUMNS, Cleaning
from alphabar.errors import AlphabarError
from alphabar.messages import Message, message

PICTURES = ("image", "img", "picture", "jpg", "png")

GROUPS_KEPT = 2  # row groups in memory: the one being read and the one that slower threads still need


def parquet_files(path: Path) -> list[Path]:
    """The parquet files under a folder, or the one that the path names; hidden ones left out."""
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*.parquet") if os.path.isfile(file))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts))


def pictures_inside(file: Path) -> int:
    """How many pictures a parquet file holds itself: cells that only name a file are none.

    0 for a file that cannot be read, also without pyarrow. Only its footer is read.
    """
    try:
        parquet = _open_parquet(file)
        column = _picture_column(parquet.schema_arrow, _features(parquet.schema_arrow))
    except (OSError, ValueError, AlphabarError):
        return 0
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    paths = (column, f"{column}.bytes")
    cells = [
        chunk for chunk in chunks if chunk.path_in_schema in paths and chunk.physical_type == "BYTE_ARRAY"
    ]
    empty = sum(chunk.statistics.null_count or 0 for chunk in cells if chunk.is_stats_set)
    return sum(chunk.num_values for chunk in cells) - empty


DEEPEST = 100  # parts of a path in a cell that are looked for


class _Place(NamedTuple):
    """Where one picture is."""

    file: Path
    column: str
    group: int  # row group within the file
    row: int  # row within the group


class Parquet:
    """The rows of parquet files with a picture column: bytes, or a struct of bytes and path.

    Class names come from the file's own Hugging Face metadata; without them, labels are numbers. The caption,
    the label and the attributes are found as in tables (`Cleaning`), and so does the split that a file's name
    begins with become one. Raises AlphabarError where pyarrow is missing.

    confined: whether cells may only name files below the path, as for data that strangers made.
    """

    def __init__(self, path: Path, name: str | None = None, confined: bool = False):
        self.confined = confined
        self.name = name or path.resolve().name
        self.items: list[Item] = []
        self.skipped: list[Skipped] = []
        self.notes: list[Message] = []
        self._root = path if path.is_dir() else path.parent
        self._files = parquet_files(path)
        self._places: dict[str, _Place] = {}
        self._groups: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._lock = threading.Lock()
        for file in self._files:
            key = file.relative_to(self._root).as_posix()
            try:
                self._add(file, key)
            except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
                self.skipped.append(Skipped(key, message("codecs.damaged", error=one_line(error))))
        splits = sorted({item.attributes["split"] for item in self.items if "split" in item.attributes})
        if len(splits) > 1:
            self.notes.append(message("data.splits_of_files", splits=", ".join(splits)))

    def read(self, item: Item) -> Raw:
        """The bytes in the item's cell, or of the file that it names. Raises Unreadable or OSError."""
        place = self._places[item.key]
        cell = self._group(place)[place.row].as_py()
        path = None
        if isinstance(cell, dict):
            path, cell = cell.get("path"), cell.get("bytes")
        elif isinstance(cell, str):
            path, cell = cell, None
        if cell is None and isinstance(path, str) and path.strip():
            return self._find(place.file.parent, path).read_bytes()
        if not isinstance(cell, bytes):
            raise Unreadable("data.empty_cell")
        return cell

    def _find(self, folder: Path, name: str) -> Path:
        """The file that a cell names: as it is written, or as much of the end of a path as there is here.

        Raises Unreadable where there is none: a pipe or a device is no file.
        """
        parts = PurePosixPath(name.strip().replace("\\", "/").removeprefix("file://")).parts[-DEEPEST:]
        ends = [Path(*parts[start:]) for start in range(len(parts))]
        for file in (place / end for end in ends for place in (folder, self._root)):
            below = Path(os.path.normpath(file)).is_relative_to(os.path.normpath(self._root))
            if (below or not self.confined) and _is_file(file):
                return file
        raise Unreadable("data.no_such_picture")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and modification times and of what is known about the rows."""
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self._files]
        return fingerprint_of(self.items, states, self.skipped)

    def _group(self, place: _Place) -> Any:
        """The picture column of one row group; groups are read once, since threads walk them in order."""
        with self._lock:
            key = (place.file, place.group)
            if key not in self._groups:
                if len(self._groups) == GROUPS_KEPT:
                    self._groups.popitem(last=False)
                try:
                    table = _open_parquet(place.file).read_row_group(place.group, columns=[place.column])
                except (OSError, ValueError) as error:  # pyarrow's, for a damaged file without errno
                    if getattr(error, "errno", None) is not None:
                        raise
                    raise Unreadable("data.damaged_rows", error=one_line(error)) from None
                self._groups[key] = table.column(place.column)
            return self._groups[key]

    def _add(self, file: Path, key: str) -> None:
        parquet = _open_parquet(file)
        schema = parquet.schema_arrow
        features = _features(schema)
        column = _picture_column(schema, features)
        if column is None:
            columns = ", ".join(schema.names)
            self.skipped.append(Skipped(key, message("data.no_picture_column", columns=columns)))
            return
        plain = [field.name for field in schema if field.name != column and not holds_bytes(field.type)]
        classes = [name for name in plain if features.get(name, {}).get("_type") == "ClassLabel"]
        named = any(plain_column(name) in LABEL_COLUMNS for name in plain)
        label = None if named or not classes else classes[0]
        names = {name: _class_names(features[name]) for name in classes}
        split = _split(file)
        rows = parquet.read(columns=plain).to_pylist()
        cleaning = Cleaning()
        position = 0
        for group in range(parquet.metadata.num_row_groups):
            for row in range(parquet.metadata.row_group(group).num_rows):
                values = {k: _named(v, names.get(k, {})) for k, v in rows[position].items()} if plain else {}
                known = cleaning.row({"label" if k == label else k: v for k, v in values.items()})
                item = Item(
                    key=f"{key}/{position:07d}",
                    label=known.pop("label"),
                    caption=known.pop("text"),
                    attributes=known | ({"split": split} if split else {}),
                )
                self._places[item.key] = _Place(file, column, group, row)
                self.items.append(item)
                position += 1
        self.notes += cleaning.notes(key)


def _open_parquet(file: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise AlphabarError("data.needs_pyarrow", file=file.name) from None
    return ParquetFile(file)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What the Hugging Face libraries wrote about the columns, by name; empty where they did not."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: feature for name, feature in known.items() if isinstance(feature, dict)}


def _picture_column(schema: Any, features: dict[str, dict[str, Any]]) -> str | None:
    from pyarrow import types

    def is_struct(field: Any) -> bool:
        return types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0

    def is_binary(field: Any) -> bool:
        return types.is_binary(field.type) or types.is_large_binary(field.type)

    declared = [field.name for field in schema if features.get(field.name, {}).get("_type") == "Image"]
    structs = [field.name for field in schema if is_struct(field)]
    binary = [field.name for field in schema if is_binary(field) and field.name.lower() in PICTURES]
    return next(iter(declared + structs + binary), None)


def _class_names(feature: dict[str, Any]) -> dict[int, Any]:
    """The names of a ClassLabel by number: of a list or, as YAML has them, of {"0": name}; else none."""
    names = feature.get("names")
    if isinstance(names, dict):
        return {int(number): name for number, name in names.items() if re.fullmatch("[0-9]{1,9}", number)}
    return dict(enumerate(names)) if isinstance(names, list) else {}


def _named(value: Any, names: dict[int, Any]) -> Any:
    """A class by its name where it has one; -1 is the Hub's way to say unknown."""
    return names.get(value) if names and isinstance(value, int) else value


def _is_file(path: Path) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL in the name
        return False


def _split(file: Path) -> str | None:
    begins = re.match(r"[a-z]+", file.stem)
    return next((name for name in (begins[0] if begins else "", file.parent.name) if name in SPLITS), None)
