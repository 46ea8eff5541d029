"""The checkpoints of a run: whole and checksummed, the newest two."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphabar.files import MANIFEST, Damaged, read_folder, write_folder
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
        """The numbers in state.json."""
        return json.loads(self.files["state.json"])


class CheckpointFolder:
    """A folder that holds a checkpoint folder for each number of images, such as 000001024."""

    def __init__(self, path: Path):
        self.path = path

    def folders(self) -> list[Path]:
        """The finished checkpoint folders, oldest first."""
        return sorted(p for p in self.path.glob("[0-9]*") if p.is_dir())

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
            _remove(old)
        return folder


def _remove(folder: Path) -> None:
    # Without its manifest a half-removed checkpoint counts as damaged, never as whole.
    (folder / MANIFEST).unlink(missing_ok=True)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
