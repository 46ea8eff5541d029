"""Files that hold tables: their text in whatever encoding, and the rows of CSV, JSON and parquet files."""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from alphabar.codecs.base import one_line
from alphabar.files import marked_encoding

# The columns that name the pictures, the best first; case, spaces and hyphens do not matter.
FILE_COLUMNS = (
    *("file_name", "filename", "file", "file_path", "filepath", "image_path", "image_file", "image_name"),
    *("image", "img_path", "img_file", "img_name", "img", "picture", "path"),
)

DELIMITERS = ",;\t|"

THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")  # in English
THOUSANDS_BY_POINTS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")  # in Spanish, German and others
NUMERAL = re.compile(r"[-+]?[\d.,]*\d")

LONGEST_NUMBER = 400  # digits; longer ones are beyond the range of floats in any case

HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON: without its other half it is no text

CODE_PAGE = "cp1252"  # what spreadsheets write where they do not write Unicode

Row = dict[str, Any]


def read_text(data: bytes, cut: bool = False) -> tuple[str, str]:
    """A file's text and its encoding: what the byte order mark says, else UTF-16 or UTF-8, else cp1252.

    Where only some bytes are no UTF-8, as in files that two programs wrote, only these are read as cp1252.
    cut: UTF-8 may end within a character. UTF-16 and UTF-32 always may, as half of one says nothing.
    Raises UnicodeDecodeError where these are broken before their end.
    """
    encoding = marked_encoding(data)
    odd, even = data[1:200:2], data[:200:2]
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        # A table in Chinese is in Latin letters only in its header and the names of pictures.
        mixed = zeros.count(0) >= 5 + 4 * others.count(0)
        if encoding == "utf-8" and len(data) > 3 and (mixed or zeros.count(0) > 0.6 * len(zeros)):
            encoding = name
    if not encoding.startswith("utf-8"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError as error:
            if error.end < len(data):
                raise
            return data[: error.start].decode(encoding), encoding
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        if cut and error.start > len(data) - 4:
            return data[: error.start].decode(encoding), encoding
    return data.decode(encoding, "alphabar.code_page"), CODE_PAGE


def _as_code_page(error: UnicodeError) -> tuple[str, int]:
    """How the bytes are read that are no UTF-8; five of them are no letters in cp1252 either."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    byte = error.object[error.start : error.start + 1]
    try:
        return byte.decode(CODE_PAGE), error.start + 1
    except UnicodeDecodeError:
        return byte.decode("latin-1"), error.start + 1


codecs.register_error("alphabar.code_page", _as_code_page)


def plain_column(column: str) -> str:
    """The name of a column without the differences that people make: case, spaces, hyphens."""
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def parquet_rows(path: Path) -> list[Row]:
    """The rows of a parquet file, without pictures in it.

    Raises OSError and ValueError where it cannot be read, and ImportError without pyarrow.
    """
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(path)
    return file.read(
        columns=[field.name for field in file.schema_arrow if not holds_bytes(field.type)]
    ).to_pylist()


def holds_bytes(kind: Any) -> bool:
    """Whether a pyarrow type is of bytes, which are no label: binary, or a struct with the field bytes."""
    from pyarrow import types

    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return binary or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def csv_rows(text: str, broken: list[str]) -> Iterator[Row]:
    """The rows of a CSV file with any of `DELIMITERS`.

    broken: what does not fit, each with its line number.
    """
    lines = list(StringIO(text, newline=""))
    skipped = 0
    while lines and _is_preamble(lines[0]):
        lines.pop(0)
        skipped += 1
    if not lines:
        return
    delimiter = _delimiter(lines[0])
    yield from _with_points(
        list(_rows_of_cells(_records(lines, delimiter, skipped, broken), broken)), delimiter
    )


def _rows_of_cells(records: Iterable[tuple[int, list[str]]], broken: list[str]) -> Iterator[Row]:
    """The rows of records of which the first is the header."""
    header: list[str] | None = None
    for number, cells in records:
        if header is None:
            header = _distinct([column.strip() for column in cells])
            continue
        if len(cells) == 1 < len(header):
            cells = _split_otherwise(cells[0], len(header))
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            broken.append(f"{number}: {len(cells)} > {len(header)}")
        yield {column: cell for column, cell in zip(header, cells, strict=False) if column}


def _records(
    lines: Sequence[str], delimiter: str, skipped: int, broken: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each record. A quote that is never closed damages its own line only."""
    at = 0
    while at < len(lines):
        rest = (lines[i] for i in range(at, len(lines)))
        reader = csv.reader(rest, delimiter=delimiter, strict=True, skipinitialspace=True)
        start = at
        try:
            for cells in reader:
                yield start + skipped + 1, cells
                start = at + reader.line_num
            return
        except csv.Error as error:
            broken.append(f"{start + skipped + 1}: {one_line(error)}")
        with suppress(csv.Error):  # a cell of more than 128 kB
            yield start + skipped + 1, _cells(lines[start], delimiter)
        at = start + 1


def _is_preamble(line: str) -> bool:
    """Whether a line before the header says nothing about pictures: blank, Excel's "sep=;", a comment."""
    comment = line.startswith("#") and not any(_names_files(line, delimiter) for delimiter in DELIMITERS)
    return comment or not line.strip(f"{DELIMITERS} \r\n") or line.lower().startswith("sep=")


def _delimiter(header: str) -> str:
    """What separates the columns: with it the header names the files, or has the most columns."""
    return max(DELIMITERS, key=lambda each: (_names_files(header, each), len(_cells(header, each))))


def _names_files(header: str, delimiter: str) -> bool:
    return any(plain_column(column) in FILE_COLUMNS for column in _cells(header, delimiter))


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line, also where a quote in it is not closed."""
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, skipinitialspace=True), [])


def _distinct(header: Sequence[str]) -> list[str]:
    """Columns of one name are numbered, so that none is lost: "tone", "tone.2"."""
    return [
        name if not name or name not in header[:i] else f"{name}.{header[: i + 1].count(name)}"
        for i, name in enumerate(header)
    ]


def _split_otherwise(line: str, columns: int) -> list[str]:
    """The cells of a line that does not have the header's delimiter."""
    splits = [_cells(line, delimiter) for delimiter in DELIMITERS]
    return next((cells for cells in splits if len(cells) == columns), [line])


def _with_points(rows: Sequence[Row], delimiter: str) -> Iterator[Row]:
    """Rows with their numbers as Python writes them.

    A comma is a decimal one, but separates thousands in a column where every comma may: "1,234" beside "987".
    Between semicolons, which spreadsheets write where the comma is the decimal one, points may instead.
    """
    numerals: dict[str, list[str]] = {}
    for row in rows:
        for column, cell in row.items():
            if NUMERAL.fullmatch(cell.strip()):
                numerals.setdefault(column, []).append(cell.strip())
    separate, mark = (_points_separate, ".") if delimiter == ";" else (_commas_separate, ",")
    thousands = {column for column, cells in numerals.items() if separate(cells)}
    for row in rows:
        yield {
            column: _decimal(
                cell.replace(mark, "") if column in thousands and NUMERAL.fullmatch(cell.strip()) else cell
            )
            for column, cell in row.items()
        }


def _commas_separate(cells: Sequence[str]) -> bool:
    """Whether the commas in the numerals of a column separate thousands: each may."""
    found = [cell for cell in cells if "," in cell]
    return bool(found) and all(map(THOUSANDS.fullmatch, found))


def _points_separate(cells: Sequence[str]) -> bool:
    """Whether points do: each may, and some numeral is not as "1.234", which may be one and a bit."""
    found = [cell for cell in cells if "." in cell]
    if not found or not all(map(THOUSANDS_BY_POINTS.fullmatch, found)):
        return False
    return any(cell.count(".") != 1 or "," in cell for cell in cells)


def _decimal(cell: str) -> str:
    """A number with a decimal comma with a point."""
    return cell.replace(",", ".") if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell) else cell


def json_rows(text: str, broken: list[str]) -> Iterator[Row]:
    """The rows of a file with one JSON value that holds them all, or with a JSON object in each line.

    broken: what is damaged or no row, each with its line number.
    """
    try:
        whole = _parse(text)
    except (ValueError, RecursionError):
        pass
    else:
        yield from _rows_in(whole, broken)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() in ("", "[", "]"):
            continue
        try:
            row = _parse(line.strip().removesuffix(","))  # of a damaged list, the lines that are sound
        except (ValueError, RecursionError) as error:
            broken.append(f"{number}: {one_line(error)}")
            continue
        if isinstance(row, dict):
            yield row
        else:
            broken.append(f"{number}: {line.strip()[:40]}")


def _parse(text: str) -> Any:
    def whole(digits: str) -> int | float:
        return int(digits) if len(digits) <= LONGEST_NUMBER else float("inf")

    value = json.loads(text, parse_int=whole)
    if HALF_CHARACTER.search(text):
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
        value = json.loads(text, parse_int=whole)
    return value


def _rows_in(whole: Any, broken: list[str]) -> Iterator[Row]:
    """The rows in a JSON value: COCO, columns, objects or values by file name, a list of objects or pairs."""
    images, notes, labels = (
        whole.get(k) if isinstance(whole, dict) else 0 for k in ("images", "annotations", "labels")
    )
    if isinstance(images, list) and isinstance(notes, list):
        categories = whole.get("categories")
        yield from _coco_rows(images, notes, categories if isinstance(categories, list) else [])
    elif isinstance(labels, list) and not _is_row(whole):
        yield from _rows_in(labels, broken)
    elif isinstance(whole, dict) and _is_row(whole):
        yield from _rows_of_columns(whole)
    elif isinstance(whole, dict):
        for name, value in whole.items():
            yield _row_of(name, value)
    else:
        for row in whole if isinstance(whole, list) else [whole]:
            if isinstance(row, dict):
                yield row
            elif isinstance(row, list) and len(row) == 2:  # as StyleGAN's dataset.json
                yield _row_of(*row)
            else:
                broken.append(f"1: {str(row)[:40]}")


def _is_row(value: Mapping[str, Any]) -> bool:
    return any(plain_column(name) in FILE_COLUMNS for name in value)


def _row_of(name: Any, value: Any) -> Row:
    """The row of a picture by its name and a value: an object, a caption (of several words) or a label."""
    if isinstance(value, dict):
        return {**value, FILE_COLUMNS[0]: name}
    caption = isinstance(value, list) or (isinstance(value, str) and " " in value.strip())
    return {FILE_COLUMNS[0]: name, "text" if caption else "label": value}


def _rows_of_columns(columns: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of columns by name, as pandas writes them; a single row, where the columns are its values."""
    lists = {}
    for name, value in columns.items():
        if isinstance(value, dict) and "path" not in value:
            value = list(value.values())
        if isinstance(value, list):
            lists[name] = value
    if not any(plain_column(name) in FILE_COLUMNS for name in lists):
        yield dict(columns)
        return
    for i in range(max(map(len, lists.values()))):
        yield {name: values[i] for name, values in lists.items() if i < len(values)}


def _coco_rows(images: Iterable[Any], notes: Iterable[Any], categories: Iterable[Any]) -> Iterator[Row]:
    """The rows of COCO's captions and categories; of several captions for a picture the first counts.

    The category is the label unless a picture shows things of several: these are no classes of pictures.
    """
    captions: dict[str, Any] = {}
    shown: dict[str, set[str]] = {}
    for note in notes:
        if isinstance(note, dict) and "caption" in note:
            captions.setdefault(str(note.get("image_id")), note["caption"])
        if isinstance(note, dict) and note.get("category_id") is not None:
            shown.setdefault(str(note.get("image_id")), set()).add(str(note["category_id"]))
    names = {str(each.get("id")): each.get("name") for each in categories if isinstance(each, dict)}
    labels = {image: names.get(number, number) for image, (number, *_) in shown.items()}
    if any(len(numbers) > 1 for numbers in shown.values()):
        labels = {}
    for image in images:
        if isinstance(image, dict):
            key = str(image.get("id"))
            yield {
                FILE_COLUMNS[0]: image.get("file_name"),
                "text": captions.get(key),
                "label": labels.get(key),
            }
