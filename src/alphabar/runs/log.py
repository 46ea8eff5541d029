"""The log of a run: log.jsonl, one JSON object a line."""

import json
import math
import os
from pathlib import Path
from typing import Any

from alphabar.files import write_file, writing
from alphabar.messages import Message, message

SHOWN = 5  # numbers of damaged lines that a sentence names


class RunLog:
    """Records of a training and of evaluations, in order. Each has a kind and the images seen until then."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, kind: str, images: int, **values: Any) -> None:
        """Adds one record. Raises AlphabarError where it cannot be written."""
        line = json.dumps({"kind": kind, "images": images, **values}).encode() + b"\n"
        with writing(self.path), open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a kill cut the last line short
                    line = b"\n" + line
            file.write(line)

    def records(self) -> list[dict[str, Any]]:
        """All records, each with a kind and images. Lines that are none are left out."""
        return [record for record in self._lines().values() if record]

    def problem(self) -> Message | None:
        """A sentence about damaged lines, where there are any. A last line that a kill cut short is none."""
        damaged = [str(number) for number, record in self._lines().items() if not record]
        shown = ", ".join(damaged[:SHOWN]) + ", …" * (len(damaged) > SHOWN)
        return message("runs.log_damaged", path=self.path, lines=shown) if damaged else None

    def _lines(self) -> dict[int, dict[str, Any] | None]:
        """The record of each line by its number from 1; None for a damaged one."""
        try:
            *lines, last = self.path.read_bytes().split(b"\n")
        except OSError:
            return {}
        read = {i: _record(line) for i, line in enumerate(lines, 1) if line.strip()}
        return read | ({len(lines) + 1: cut} if (cut := _record(last)) else {})

    def rewind(self, images: int) -> None:
        """Removes the records made after so many images, and damaged lines."""
        if self.path.exists():
            kept = [record for record in self.records() if record["images"] <= images]
            write_file(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where there is none."""
    try:
        record = json.loads(line)
        known = isinstance(record["kind"], str) and math.isfinite(record["images"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return record if known else None
