"""A run: the folder that holds a recipe and all that came of it; and the model one loads from it."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import Damaged, pack_json, read_folder, write_file, write_folder, writing
from alphabar.recipes.schema import Recipe, read_recipe
from alphabar.runs.ema import SIGMA_RELS, post_hoc_weights
from alphabar.tensor_files import unpack_tensors


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on as if it had never stopped."""

    images: int
    files: Mapping[str, bytes]

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.files["state.json"])


class Run:
    """The folder of one training. Reading needs no lock; training does."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / "recipe.toml").is_file()

    @property
    def recipe(self) -> Recipe:
        return read_recipe(self.path / "recipe.toml")

    @property
    def start(self) -> Path:
        """The weights that the training begins with, where it goes on from another model."""
        return self.path / "start.safetensors"

    def create(self, recipe: Recipe) -> None:
        """Begin a new run. Raises AlphabarError where the folder holds something else."""
        if self.path.exists() and (not self.path.is_dir() or any(_visible(self.path))):
            raise AlphabarError(f"{self.path} holds something that is no run; choose another --run folder")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / "recipe.toml", recipe.to_toml().encode())

    @property
    def data(self) -> str | None:
        """What the pictures were read from, where the run remembers it."""
        try:
            return json.loads((self.path / "data.json").read_text(encoding="utf-8"))["data"]
        except (OSError, ValueError, KeyError):
            return None

    def remember_data(self, data: str) -> None:
        """Note what the pictures were read from, for the report: a name, or a path made absolute."""
        named = str(Path(data).resolve()) if Path(data).exists() else data
        write_file(self.path / "data.json", pack_json({"data": named}))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while training, so that two trainings never write into one run."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlphabarError(
                    f"another process is training in {self.path}; wait for it or choose another --run"
                ) from None
            yield

    def checkpoints(self) -> list[Path]:
        """The finished checkpoint folders, oldest first."""
        return sorted(p for p in (self.path / "checkpoints").glob("[0-9]*") if p.is_dir())

    def newest_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint whose every byte is right, and a sentence for each one passed over."""
        problems: list[str] = []
        for folder in reversed(self.checkpoints()):
            try:
                return Checkpoint(int(folder.name), read_folder(folder)), problems
            except Damaged as problem:
                problems.append(f"{problem}; using the checkpoint before it")
        return None, problems

    def save(self, images: int, files: Mapping[str, bytes]) -> Path:
        """Write a checkpoint; older ones go, but for the one before, once this one reads back right."""
        folder = self.path / "checkpoints" / f"{images:09d}"
        write_folder(folder, files)
        read_folder(folder)
        for old in self.checkpoints()[:-2]:
            _remove_checkpoint(old)
        return folder

    def snapshots(self) -> dict[int, Path]:
        """The files of the averages that were kept for a choice afterwards, by the images seen until then."""
        return {int(path.stem): path for path in sorted((self.path / "averages").glob("*.safetensors"))}

    def keep(self, images: int, averages: bytes) -> None:
        """Keep the averages as they are now."""
        (self.path / "averages").mkdir(exist_ok=True)
        write_file(self.path / "averages" / f"{images:09d}.safetensors", averages)

    def average(self, length: float) -> dict[str, Tensor]:
        """The parameters averaged over another length of the training (`ema.combination`).

        Raises UsageError where the run kept nothing for it, or for a length out of reach.
        """
        kept = self.snapshots()
        if not kept:
            raise UsageError(
                f"{self.path} kept no averages to make another from: train it with --set ema.snapshots=8"
            )
        if not 0.01 <= length <= 0.25:
            raise UsageError(f"--ema {length:g}: choose a share of the training from 0.01 to 0.25")
        times, lengths = zip(*product(kept, SIGMA_RELS), strict=True)
        shares = post_hoc_weights(times, lengths, max(kept), length)
        total: dict[str, Tensor] = {}
        for images, path in kept.items():
            of = {(t, each): c for t, each, c in zip(times, lengths, shares, strict=True)}
            for name, value in unpack_tensors(path.read_bytes()).items():
                each, _, key = name.partition("/")
                c = of[images, float(each)]
                total[key] = total.get(key, 0) + c * value.double()
        return {key: value.float() for key, value in total.items()}

    def export(
        self, recipe: Recipe, weights: bytes, statistics: bytes, images: int, more: Mapping[str, bytes]
    ) -> None:
        """Write ``model/``, the folder that others load. more: files that only some models have."""
        about = {"images": images, "recipe": recipe.model_dump(mode="json")}
        write_folder(
            self.path / "model",
            {
                "recipe.json": pack_json(about),
                "model.safetensors": weights,
                "statistics.safetensors": statistics,
                **more,
            },
        )

    def log(self, kind: str, images: int, **values: Any) -> None:
        """Append one record to log.jsonl."""
        path = self.path / "log.jsonl"
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "images": images, **values}) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The records of log.jsonl; a line cut short by a kill is passed over."""
        try:
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
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
        """Drop what was logged and kept after a checkpoint, so that a resumed run does it once."""
        for at, path in self.snapshots().items():
            if at > images:
                path.unlink()
        kept = [r for r in self.records() if r["images"] <= images]
        if (self.path / "log.jsonl").exists():
            text = "".join(json.dumps(r) + "\n" for r in kept)
            write_file(self.path / "log.jsonl", text.encode())


def _visible(path: Path) -> Iterator[str]:
    return (name for name in os.listdir(path) if not name.startswith("."))


def _remove_checkpoint(folder: Path) -> None:
    # Without its manifest a half-removed checkpoint is seen as damaged, never as good.
    (folder / "MANIFEST.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
