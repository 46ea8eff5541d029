"""The log of a run: log.jsonl, one JSON object a line."""

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError
from alphabar.files import read_plain_file, write_file, writing
from alphabar.messages import Message, message

CHECKSUM = "crc32"  # the key of a line's checksum; a line without one was written by somebody else
SHOWN = 5  # numbers of damaged lines that a sentence names


class RunLog:
    """Records of a training and of evaluations, in order. Each has a kind and the images seen until then.

    Where there is no file there are no records yet. Of one that cannot be read none are shown, and nothing is
    removed.
    """

    def __init__(self, path: Path):
        self.path = path

    def append(self, kind: str, images: int, **values: Any) -> None:
        """Adds one record. Raises AlphabarError where it cannot be written."""
        line = _line({"kind": kind, "images": images, **values})
        with writing(self.path), open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a kill cut the last line short
                    line = b"\n" + line
            file.write(line)

    def records(self) -> list[dict[str, Any]]:
        """All records, each with a kind and images. What is none, or cannot be read, is left out."""
        try:
            return self._records()
        except AlphabarError:  # `problem` says it, and all else of a run can still be shown
            return []

    def _records(self) -> list[dict[str, Any]]:
        return [record for record in self._lines().values() if record]

    def problem(self) -> Message | None:
        """A sentence about a file that cannot be read, or about damaged lines, where there are any.

        A last line that a kill cut short is none.
        """
        try:
            lines = self._lines()
        except AlphabarError as error:
            return error.message if isinstance(error.message, Message) else None
        damaged = [str(number) for number, record in lines.items() if not record]
        shown = ", ".join(damaged[:SHOWN]) + ", …" * (len(damaged) > SHOWN)
        return message("runs.log_damaged", path=self.path, lines=shown) if damaged else None

    def _lines(self) -> dict[int, dict[str, Any] | None]:
        """The record of each line by its number from 1; None for a damaged one."""
        try:
            *lines, last = read_plain_file(self.path).split(b"\n")
        except FileNotFoundError:
            return {}
        read = {i: _record(line) for i, line in enumerate(lines, 1) if line.strip()}
        return read | ({len(lines) + 1: cut} if (cut := _record(last)) else {})

    def rewind(self, images: int) -> None:
        """Removes the records made after so many images, and damaged lines.

        Raises AlphabarError where the file cannot be read, which then stays as it is, or not be written.
        """
        kept = [record for record in self._records() if record["images"] <= images]
        if self.path.exists():
            write_file(self.path, b"".join(map(_line, kept)))


def _line(record: Mapping[str, Any]) -> bytes:
    """The line of a record, with a checksum: many damaged bytes leave it readable."""
    return json.dumps({**record, CHECKSUM: _checksum(record)}).encode() + b"\n"


def _checksum(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record).encode()):08x}"


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where there is none or a byte of it has changed."""
    try:
        record = json.loads(line)
        known = isinstance(record["kind"], str) and math.isfinite(record["images"])
        checksum = record.pop(CHECKSUM, None)
        known = known and checksum in (None, _checksum(record))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return record if known else None
