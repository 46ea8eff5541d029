"""The log of a run: log.jsonl, one JSON object a line."""

import json
from pathlib import Path
from typing import Any

from alphabar.files import write_file, writing


class RunLog:
    """Records of a training and of evaluations, in order. Each has a kind and the images seen until then."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, kind: str, images: int, **values: Any) -> None:
        """Adds one record. Raises AlphabarError where it cannot be written."""
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "images": images, **values}) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All records. A line that a kill cut short is left out."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records

    def rewind(self, images: int) -> None:
        """Removes the records made after so many images."""
        if self.path.exists():
            kept = [record for record in self.records() if record["images"] <= images]
            write_file(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())
