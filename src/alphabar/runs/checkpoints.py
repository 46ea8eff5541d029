"""The checkpoints of a run: whole and checksummed, the newest two."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphabar.files import Damaged, parse_json, read_folder, remove_folder, write_folder
from alphabar.messages import Message, message

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to continue as if it had never stopped.

    images: seen until then. files: name → bytes.
    """

    images: int
    files: Mapping[str, bytes]

    @property
    def state(self) -> dict[str, Any]:
        """The numbers in state.json. Raises Damaged where it is no such file."""
        name = "state.json"
        return parse_json(self.files.get(name, b""), Path(name), dict)


class CheckpointFolder:
    """A folder that holds a checkpoint folder for each number of images, such as 000001024."""

    def __init__(self, path: Path):
        self.path = path

    def folders(self) -> list[Path]:
        """The finished checkpoint folders, oldest first."""
        return numbered(self.path)

    def newest(self) -> tuple[Checkpoint | None, list[Message]]:
        """The newest checkpoint without a damaged byte, and a sentence for each damaged one that is newer."""
        problems: list[Message] = []
        for folder in reversed(self.folders()):
            try:
                return Checkpoint(int(folder.name), read_folder(folder)), problems
            except Damaged as problem:
                problems.append(message("runs.checkpoint_before", problem=problem.message))
        return None, problems

    def save(self, images: int, files: Mapping[str, bytes]) -> Path:
        """Writes a checkpoint. Once it reads back right, all older ones but the last are removed."""
        folder = self.path / f"{images:09d}"
        write_folder(folder, files)
        read_folder(folder)
        for old in self.folders()[:-KEPT]:
            remove_folder(old)
        return folder


def numbered(path: Path) -> list[Path]:
    """The folders in a folder that are named by a number of images, in the order of these numbers."""
    found = (p for p in path.glob("*") if re.fullmatch("[0-9]{1,18}", p.name) and p.is_dir())
    return sorted(found, key=lambda p: int(p.name))
