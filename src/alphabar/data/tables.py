"""Tables of what is known about pictures, as spreadsheets, pandas and the Hugging Face Hub write them."""

import ast
import codecs
import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from alphabar.codecs.base import one_line
from alphabar.formatting import is_infinite, known_value
from alphabar.messages import Message, message

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")

# The columns with a meaning of their own, the best first; case, spaces and hyphens do not matter.
FILE_COLUMNS = (
    *("file_name", "filename", "file", "file_path", "filepath", "image_path", "image_file", "image_name"),
    *("image", "img_path", "img_file", "img_name", "img", "picture", "path"),
)
CAPTION_COLUMNS = ("text", "caption", "captions")
LABEL_COLUMN = "label"

DELIMITERS = ",;\t|"

LONGEST_NUMBER = 400  # digits; longer ones are beyond the range of floats in any case

BYTE_ORDER_MARKS = (  # UTF-32's first: in little endian it begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

CODE_PAGE = "cp1252"  # what spreadsheets write where they do not write Unicode

Row = dict[str, Any]


@dataclass
class Table:
    """The rows of a table by the file name in them, and sentences about what could not be used.

    rows: (file name as it is written, row) with "text" and "label" under these names where there are any.
    """

    rows: list[tuple[str, Row]] = field(default_factory=list)
    notes: list[Message] = field(default_factory=list)


def is_table(name: str) -> bool:
    """Whether a file of this name is read as a table; case does not matter."""
    return name.lower() in TABLES


def read_text(data: bytes, cut: bool = False) -> tuple[str, str]:
    """A file's text and its encoding: what the byte order mark says, else UTF-16 or UTF-8, else cp1252.

    cut: the bytes may end within a character. Raises UnicodeDecodeError for text that breaks its own mark.
    """
    errors = "replace" if cut else "strict"
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors), encoding
    for encoding, zeros in (("utf-16-le", data[1:200:2]), ("utf-16-be", data[:200:2])):
        if len(data) > 3 and zeros.count(0) > 0.6 * len(zeros):
            return data.decode(encoding, errors), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if cut and error.start > len(data) - 4:
            return data[: error.start].decode("utf-8"), "utf-8"
    try:
        return data.decode(CODE_PAGE), CODE_PAGE
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def read_table(path: Path, key: str) -> Table:
    """Reads a table: what can be read of it, and notes that name it by its key for the rest."""
    table = Table()
    try:
        text, encoding = read_text(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        table.notes.append(message("data.metadata_unreadable", file=key, error=one_line(error)))
        return table
    if encoding in (CODE_PAGE, "latin-1"):
        table.notes.append(message("data.metadata_code_page", file=key))
    broken: list[str] = []
    read = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    _add_rows(table, key, read(text, broken))
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
    return str(value)


class Names:
    """Finds the picture that a name in a table means.

    keys: those of all pictures. An exact name wins; then case, Unicode normalization (NFC, NFD) and
    backslashes are overlooked, and of absolute paths as much of the end is used as there is here.
    """

    def __init__(self, keys: Iterable[str], root: Path):
        self._keys = set(keys)
        self._folded: dict[str, list[str]] = {}
        self._root = root.resolve()
        for key in sorted(self._keys):
            self._folded.setdefault(_folded(key), []).append(key)

    def find(self, folder: str, name: str) -> str | None:
        """The key of the picture that a table calls by a name, or None. folder: the table's, as a key."""
        plain = name.strip().replace("\\", "/")
        for each in dict.fromkeys((name, name.strip(), plain)):
            if (key := self.joined(folder, each)) in self._keys:
                return key
        absolute = plain.startswith(("/", "file:")) or re.match(r"[A-Za-z]:", plain) is not None
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        above = {_folded(part) for part in (self._root.name, *folder.split("/")) if part}
        for start in range(len(parts)):
            for place in dict.fromkeys((folder, "")) if "/" in plain else (folder,):
                found = self._folded.get(_folded(self.joined(place, "/".join(parts[start:]))), [])
                if len(found) == 1:
                    return found[0]
            if not absolute and _folded(parts[start]) not in above:
                break
        return None

    @staticmethod
    def joined(folder: str, name: str) -> str:
        """The key of a name in a folder, normalised as text and not by the file system: links stay."""
        parts: list[str] = []
        for part in f"{folder}/{name}".split("/"):
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _add_rows(table: Table, key: str, rows: Iterator[Row]) -> None:
    columns: dict[str, None] = {}
    unnamed, unusable, example = 0, Counter[str](), ""
    for row in rows:
        columns |= dict.fromkeys(row)
        if all(known_value(value) is None for value in row.values()):
            continue  # an empty line of a spreadsheet
        name = _take_name(row)
        if name is None:
            unnamed += 1
            continue
        row = _with_known_names(row)
        for column, value in row.items():
            if column != "text" and not isinstance(value, bool) and is_infinite(value):
                example = example or (value[:20] if isinstance(value, str) else "inf")
                unusable[column] += 1
                row[column] = None
            elif isinstance(value, float) and known_value(value) is None:
                row[column] = None
        table.rows.append((name, row))
    if unnamed and not table.rows:
        names = ", ".join(columns)
        table.notes.append(message("data.metadata_without_column", file=key, columns=names))
    elif unnamed:
        table.notes.append(message("data.metadata_without_name", file=key, count=unnamed))
    if unusable:
        table.notes.append(
            message(
                "data.metadata_numbers",
                file=key,
                count=unusable.total(),
                columns=", ".join(unusable),
                first=example,
            )
        )


def _take_name(row: Row) -> str | None:
    """Removes the file name from a row: its column depends on which there are."""
    known = {_plain(column): column for column in reversed(row)}
    for column in FILE_COLUMNS:
        if column in known:
            value = row[known[column]]
            if isinstance(value, Mapping):  # as the Hub's library writes pictures
                value = value.get("path")
            if isinstance(value, str) and value.strip():
                del row[known[column]]
                return value
    return None


def _with_known_names(row: Row) -> Row:
    """The row with its caption under "text" and its label under "label", whatever their case."""
    named = {}
    for column, value in row.items():
        plain = _plain(column)
        named[plain if plain in (*CAPTION_COLUMNS, LABEL_COLUMN) and plain not in row else column] = value
    captions = [caption_of(named.pop(column, None)) for column in CAPTION_COLUMNS]
    named["text"] = next((caption for caption in captions if caption is not None), None)
    return named


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def _json_rows(text: str, broken: list[str]) -> Iterator[Row]:
    def whole(digits: str) -> int | float:
        return int(digits) if len(digits) <= LONGEST_NUMBER else float("inf")

    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=whole)
        except (ValueError, RecursionError) as error:
            broken.append(f"{number}: {one_line(error)}")
            continue
        if isinstance(row, dict):
            yield row
        else:
            broken.append(f"{number}: {line.strip()[:40]}")


def _csv_rows(text: str, broken: list[str]) -> Iterator[Row]:
    lines = text.splitlines(keepends=True)
    while lines and (not lines[0].strip(f"{DELIMITERS} \r\n") or lines[0].lower().startswith("sep=")):
        lines.pop(0)
    if not lines:
        return
    delimiter = _delimiter(lines[0])
    reader = csv.reader(StringIO("".join(lines), newline=""), delimiter=delimiter)
    header: list[str] = []
    try:
        header = [column.strip() for column in next(reader)]
        for cells in reader:
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                broken.append(f"{reader.line_num}: {len(cells)} > {len(header)}")
            row = {column: cell for column, cell in zip(header, cells, strict=False) if column}
            yield {k: _decimal(v) for k, v in row.items()} if delimiter == ";" else row
    except csv.Error as error:
        broken.append(f"{reader.line_num}: {one_line(error)}")


def _delimiter(header: str) -> str:
    """What separates the columns: with it the header names the files, or has the most columns."""

    def columns(delimiter: str) -> list[str]:
        return [_plain(column) for column in chain.from_iterable(csv.reader([header], delimiter=delimiter))]

    return max(DELIMITERS, key=lambda each: (bool({*columns(each)} & {*FILE_COLUMNS}), len(columns(each))))


def _decimal(cell: str) -> str:
    """A number with a decimal comma, as tables with semicolons have them, with a point."""
    return cell.replace(",", ".") if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell) else cell
