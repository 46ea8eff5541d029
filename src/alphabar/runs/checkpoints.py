"""The checkpoints of a run: whole and checksummed, the newest two."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from alphabar.files import Damaged, parse_json, read_folder, remove_folder, write_folder
from alphabar.messages import Message, message

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to continue as if it had never stopped.

    images: seen until then. files: name → bytes. path: of the folder.
    """

    images: int
    files: Mapping[str, bytes]
    path: Path

    @property
    def state(self) -> dict[str, Any]:
        """The numbers in state.json. Raises Damaged where it is no such file."""
        file = self.path / "state.json"
        state = parse_json(self.files.get(file.name, b""), file, dict)
        try:
            _State.model_validate(state, strict=True)
        except ValidationError:
            raise Damaged("files.other_content", path=file) from None
        return state


class _Runtime(BaseModel):
    device: Literal["cpu", "cuda", "mps"]
    dtype: Literal["float32", "bfloat16", "float16"] | None
    channels_last: bool
    compile: bool
    fused: bool
    machine: str
    notes: list[Any]


class _State(BaseModel):
    """What a training reads of state.json when it goes on."""

    images: int = Field(ge=0, lt=10**18)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    bad_steps: int = Field(ge=0)
    loss_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    data: str
    runtime: _Runtime
    processes: int = Field(ge=1)


class CheckpointFolder:
    """A folder that holds a checkpoint folder for each number of images, such as 000001024."""

    def __init__(self, path: Path):
        self.path = path

    def folders(self) -> list[Path]:
        """The finished checkpoint folders, oldest first. Raises Damaged where they cannot be listed."""
        return numbered(self.path)

    def newest(self) -> tuple[Checkpoint | None, list[Message]]:
        """The newest checkpoint without a damaged byte, and a sentence for each damaged one that is newer."""
        problems: list[Message] = []
        for folder in reversed(self.folders()):
            try:
                return Checkpoint(int(folder.name), read_folder(folder), folder), problems
            except Damaged as problem:
                problems.append(message("runs.checkpoint_before", problem=problem.message))
        return None, problems

    def save(self, images: int, files: Mapping[str, bytes]) -> Path:
        """Writes a checkpoint. Once it reads back right, all older ones but the last are removed.

        Newer ones are removed too: they were damaged, or the training would have gone on from there.
        """
        folder = self.path / f"{images:09d}"
        write_folder(folder, files)
        read_folder(folder)
        folders = self.folders()
        here = folders.index(folder) + 1
        for other in (*folders[: max(0, here - KEPT)], *folders[here:]):
            remove_folder(other)
        return folder


def numbered(path: Path) -> list[Path]:
    """The folders in a folder that are named by a number of images, in the order of these numbers.

    There are none where the folder does not exist. Raises Damaged where it cannot be listed: a training must
    not mistake that for a beginning.
    """
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if re.fullmatch("[0-9]{1,18}", e.name) and e.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Damaged("files.unreadable", path=path, reason=error.strerror or error) from None
    return [path / name for name in sorted(names, key=int)]
