"""Tables of what is known about pictures, as spreadsheets, pandas and the Hugging Face Hub write them."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from alphabar.codecs.base import one_line
from alphabar.data.names import Names, stem
from alphabar.data.table_files import (
    CODE_PAGE,
    FILE_COLUMNS,
    Row,
    csv_rows,
    json_rows,
    parquet_rows,
    plain_column,
    read_text,
)
from alphabar.formatting import is_infinite, known_value
from alphabar.messages import Message, message

TABLES = tuple(f"metadata.{suffix}" for suffix in ("csv", "tsv", "jsonl", "ndjson", "json", "parquet"))
"""Tables that are about the pictures beside and below them, without a doubt."""

OTHER_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")
"""How other files end that are tables of the pictures where they turn out to name them."""

UNREAD_TABLES = (".xlsx", ".xls", ".ods", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz")
"""How files end that are tables, too, but in a form that is not read."""

# The columns with a meaning of their own, the best first; case, spaces and hyphens do not matter.
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "comment")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "fine_label")

SOME_ROWS = 50  # on which the column of names is looked for


@dataclass
class Table:
    """The rows of a table as they are written, and sentences about what could not be read.

    key: of its file. rows: without empty ones.
    """

    key: str
    rows: list[Row] = field(default_factory=list)
    notes: list[Message] = field(default_factory=list)

    def find(self, names: Names, called: Iterable[str | None]) -> list[str | None]:
        """The keys of the pictures that cells of the table name, None for each that names none."""
        return names.find_all(self.folder, called, near=stem(self.key).rpartition("/")[2])

    @property
    def folder(self) -> str:
        """The key of the folder that the table lies in, "" for the root."""
        return self.key.rpartition("/")[0]

    @property
    def columns(self) -> list[str]:
        """The names of its columns, in their order."""
        return list(dict.fromkeys(chain.from_iterable(self.rows)))

    def column_of_names(self, names: Names) -> str | None:
        """The column that names the pictures: by its own name, else by what is in it; None if none."""
        known = {plain_column(column): column for column in reversed(self.columns)}
        for column in FILE_COLUMNS:
            if column in known and any(_name_in(row.get(known[column])) for row in self.rows):
                return known[column]
        some = self.rows[:SOME_ROWS]
        for column in self.columns:
            found = self.find(names, [_name_in(row.get(column)) for row in some])
            if 2 * sum(key is not None for key in found) >= len(some) > 0:
                if self.find(names, [column]) != [None]:
                    return self._put_back_first_row(column)
                self.notes.append(message("data.metadata_column", file=self.key, column=column))
                return column
        return None

    def _put_back_first_row(self, column: str) -> str:
        """Gives a table without a header one; its first row was taken for it. Returns the column of names.

        Of two columns the other is the label or, where there are several words in it, the caption.
        """
        columns = self.columns
        new = {name: f"column_{i}" for i, name in enumerate(columns, 1)} | {column: FILE_COLUMNS[0]}
        rows = [{name: name for name in columns}, *self.rows]
        others = [name for name in columns if name != column]
        if len(others) == 1:
            words = any(" " in str(row.get(others[0], "")).strip() for row in rows)
            new[others[0]] = "text" if words else "label"
        self.rows = [{new[name]: value for name, value in row.items()} for row in rows]
        made = ", ".join(new.values())
        self.notes.append(message("data.metadata_without_header", file=self.key, columns=made))
        return new[column]

    def matched(self, names: Names) -> list[tuple[str, str | None, Row]] | None:
        """(the picture's name, its key or None, what is known of it) for each row; notes say what is lost.

        The caption is under "text" and the label under "label". None where no column names the pictures.
        """
        column = self.column_of_names(names)
        if column is None:
            return None
        described = []
        cleaning = Cleaning()
        unnamed = 0
        for row in self.rows:
            named = [name for name in row if plain_column(name) in FILE_COLUMNS]
            order = [*sorted(named, key=lambda name: FILE_COLUMNS.index(plain_column(name))), column]
            used = next((each for each in order if _name_in(row.get(each))), None)
            if used is None:
                unnamed += 1
                continue
            others = {name: value for name, value in row.items() if name != used}
            described.append((str(_name_in(row[used])), cleaning.row(others)))
        if unnamed:
            self.notes.append(message("data.metadata_without_name", file=self.key, count=unnamed))
        self.notes += cleaning.notes(self.key)
        keys = self.find(names, [name for name, _ in described])
        return [(name, key, row) for (name, row), key in zip(described, keys, strict=True)]


class Cleaning:
    """Rows with their caption and label under one name each and without values that say nothing.

    What is lost is counted, for `notes`.
    """

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()
        self._example = ""
        self._parts: dict[str, None] = {}

    def row(self, row: Mapping[str, Any]) -> Row:
        """The row with its caption under "text" and its label under "label", both None where unknown."""
        known = {plain_column(column): column for column in reversed(list(row))}
        captions = [known[name] for name in CAPTION_COLUMNS if name in known]
        label = next((known[name] for name in LABEL_COLUMNS if name in known), None)
        made = {name: self._value(name, v) for name, v in row.items() if name not in (*captions, label)}
        made["text"] = next((text for c in captions if (text := caption_of(row[c])) is not None), None)
        if label is not None and isinstance(row[label], float):
            return made | {"label": label_of(self._value(label, row[label]))}
        return made | {"label": None if label is None else label_of(row[label])}

    def _value(self, column: str, value: Any) -> Any:
        if isinstance(value, list | tuple | Mapping):
            self._parts |= {column: None} if value else {}
            return None
        if value is not None and not isinstance(value, str | int | float):
            return str(value)  # a date or a decimal number
        if not isinstance(value, bool) and is_infinite(value):
            self._example = self._example or (value[:20] if isinstance(value, str) else "inf")
            self._numbers[column] += 1
            return None
        if isinstance(value, str):
            return value.strip()
        return None if isinstance(value, float) and known_value(value) is None else value

    def notes(self, file: str) -> list[Message]:
        """What could not be used of the rows of a file."""
        notes = []
        if count := self._numbers.total():
            columns = ", ".join(self._numbers)
            notes.append(
                message("data.metadata_numbers", file=file, count=count, columns=columns, first=self._example)
            )
        if self._parts:
            notes.append(message("data.metadata_parts", file=file, columns=", ".join(self._parts)))
        return notes


def is_table(name: str) -> bool:
    """Whether a file of this name is about the pictures without a doubt; case does not matter."""
    return name.lower() in TABLES


def may_be_table(name: str) -> bool:
    """Whether a file of this name may be a table of the pictures; a form to hand in answers on is none."""
    return name.lower().endswith(OTHER_TABLES) and "submission" not in name.lower()


def read_table(path: Path, key: str) -> Table:
    """Reads a table: what can be read of it, and notes that name it by its key for the rest."""
    table = Table(key)
    broken: list[str] = []
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            rows = iter(parquet_rows(path))
        else:
            data = path.read_bytes()
            text, encoding = read_text(data)
            if encoding == CODE_PAGE:
                table.notes.append(message("data.metadata_code_page", file=key))
            if len(data) % {"utf-16": 2, "utf-32": 4}.get(encoding[:6], 1):
                broken.append(str(text.count("\n") + 1))  # half a character at the end
            rows = (json_rows if "json" in suffix else csv_rows)(text, broken)
        table.rows += (row for row in rows if any(known_value(value) is not None for value in row.values()))
    except (OSError, ValueError, ImportError) as error:  # pyarrow's ArrowInvalid is a ValueError
        table.notes.append(message("data.metadata_unreadable", file=key, error=one_line(error)))
    if broken:
        table.notes.append(message("data.metadata_lines", file=key, count=len(broken), first=broken[0]))
    return table


def caption_of(value: Any) -> str | None:
    """The caption in a cell: its text, or the first of several sentences; None where there is none."""
    if isinstance(value, str) and value.strip()[:2] in ("['", '["'):
        with suppress(SyntaxError, ValueError, MemoryError, RecursionError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, list | tuple):
        return next((text for each in value if (text := caption_of(each)) is not None), None)
    if isinstance(value, Mapping) or known_value(value) is None:
        return None
    return str(value).strip()


def label_of(value: Any) -> str | None:
    """The label in a cell; several are one label together. 3.0, as pandas writes classes, is 3."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(label_of, value))) or None
    if isinstance(value, Mapping) or known_value(value) is None:
        return None
    text = str(value).strip()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def _name_in(value: Any) -> str | None:
    """The picture's name in a cell, which the Hub's library writes as {"path": …}; None if there is none."""
    if isinstance(value, Mapping):
        value = value.get("path")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None
