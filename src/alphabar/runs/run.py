"""A run: the folder that holds a recipe and everything that its training writes."""

import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from alphabar.errors import AlphabarError
from alphabar.files import (
    Damaged,
    check_name,
    is_file,
    is_locked,
    locked,
    read_folder,
    read_optional,
    remove_abandoned,
    write_document,
    write_file,
    write_folder,
    writing,
)
from alphabar.messages import Message, pack_messages, unpack_messages
from alphabar.recipes.schema import Recipe, read_recipe
from alphabar.runs.checkpoints import CheckpointFolder
from alphabar.runs.ema import EmaSnapshots
from alphabar.runs.log import RunLog

WEIGHTS = "weights.safetensors"  # in the folders of initial weights and of a learned codec


class Run:
    """The folder of one training. Reading it needs no lock; training does.

    log: of training and evaluations. checkpoints: what the training continues from. snapshots: averages of
    the weights for post-hoc EMA. initial_weights: the checksummed folder with the weights that the training
    begins with, in the file `WEIGHTS`, where it starts from another model. codec: the checksummed folder with
    the weights of a learned codec, in the file `WEIGHTS`; first_stage: the folder of the run that trains it,
    where none was given. model_folder: the model in the
    form that others load.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.log = RunLog(self.path / "log.jsonl")
        self.checkpoints = CheckpointFolder(self.path / "checkpoints")
        self.snapshots = EmaSnapshots(self.path / "averages")
        self.initial_weights = self.path / "start"
        self.codec = self.path / "codec"
        self.first_stage = self.path / "autoencoder"
        self.model_folder = self.path / "model"
        self._original = self.path / ".recipe"  # a checksummed copy of the recipe

    @property
    def exists(self) -> bool:
        """Whether there is a run in the folder. Raises AlphabarError where it cannot be looked into."""
        return is_file(self.path / "recipe.toml")

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run.

        Raises AlphabarError where it cannot be read, and where it is not the one that the run began with.
        """
        file = self.path / "recipe.toml"
        with suppress(Damaged, OSError):  # a copy that is missing or damaged says nothing about the recipe
            original = read_folder(self._original).get(file.name)
            if file.is_file() and original != file.read_bytes():
                raise AlphabarError("runs.other_recipe", path=file, original=self._original / file.name)
        return read_recipe(file)

    def create(self, recipe: Recipe) -> None:
        """Begins a new run. Raises AlphabarError where the folder holds something else."""
        check_free(self)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._write(recipe)

    def change(self, recipe: Recipe) -> None:
        """Gives the run the recipe that it continues with.

        Raises AlphabarError while another process trains in the run.
        """
        with self.lock():
            shutil.rmtree(self._original, ignore_errors=True)  # a kill must not leave two recipes
            self._write(recipe)

    def _write(self, recipe: Recipe) -> None:
        """Writes the recipe, and then its copy."""
        text = recipe.to_toml().encode()
        write_file(self.path / "recipe.toml", text)
        write_folder(self._original, {"recipe.toml": text})

    @property
    def data(self) -> str | None:
        """What the run was trained on, as `remember_data` wrote it, or None."""
        data = (read_optional(self.path / "data.json") or {}).get("data")
        return data if isinstance(data, str) else None

    @property
    def data_fingerprint(self) -> str | None:
        """The fingerprint of the data set that the run was trained on, or None where it is not known."""
        environment = read_optional(self.path / "environment.json") or {}
        try:
            return str(environment["data"]["fingerprint"])
        except (KeyError, TypeError):
            return None

    def remember_data(self, data: str, notes: Iterable[Message] = ()) -> None:
        """Writes down what the run is trained on: a name, or a path, which is made absolute.

        notes: what is to be said of it, which `data_notes` reads again.
        """
        named = str(Path(data).resolve()) if Path(data).exists() else data
        write_document(self.path / "data.json", {"data": named, "notes": pack_messages([*notes])})

    @property
    def preparation(self) -> float:
        """The seconds before the first update that count as part of the budget, as the run remembers them."""
        seconds = (read_optional(self.path / "preparation.json") or {}).get("seconds")
        return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else 0.0

    def remember_preparation(self, seconds: float) -> None:
        """Writes down the seconds before the first update, which count whenever the training goes on."""
        write_document(self.path / "preparation.json", {"seconds": seconds})

    def lock(self) -> AbstractContextManager[None]:
        """Held while training, so that two trainings never write into one run.

        Raises AlphabarError where another process trains in the run.
        """
        return locked(self.path / ".lock", AlphabarError("runs.locked", path=self.path))

    def is_training(self) -> bool:
        """Whether a process trains in the run at this moment."""
        return is_locked(self.path / ".lock")

    def rewind(self, images: int) -> None:
        """Removes what was logged and saved after a checkpoint, and what a kill left unfinished.

        A training that continues from the checkpoint writes it again. The lock must be held.
        """
        remove_abandoned(self.checkpoints.path, older_than=0)
        self.snapshots.rewind(images)
        self.log.rewind(images)


def check_free(run: Run) -> None:
    """Raises AlphabarError where the folder of a run holds something that is no run, or cannot be made."""
    taken = not run.exists and os.path.exists(run.path)
    if taken and (not run.path.is_dir() or any(_visible(run.path))):
        raise AlphabarError("runs.not_a_run", path=run.path)
    check_name(run.path)


def without_checkpoints(run: Run, damaged: AlphabarError) -> AlphabarError:
    """What to raise where every checkpoint of a run is damaged: it names the model where that is whole.

    damaged: what to raise where it is not; its value ``problem`` is what is damaged in the newest checkpoint.
    """
    assert isinstance(damaged.message, Message)
    try:
        read_folder(run.model_folder)
    except Damaged:
        return damaged
    problem = damaged.message.values["problem"]
    return AlphabarError("runs.only_the_model", path=run.path, problem=problem, model=run.model_folder)


def data_notes(run: Run) -> list[str]:
    """What the training said of its data, such as rows of a table that it could not use, as messages."""
    notes = unpack_messages((read_optional(run.path / "data.json") or {}).get("notes"))
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _visible(path: Path) -> Iterator[str]:
    return (name for name in os.listdir(path) if not name.startswith("."))
