"""The models and runs of the folder that was opened; one model at a time is in memory."""

import re
import secrets
import shutil
import threading
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import read_given_file, writing
from alphabar.methods.registry import METHODS
from alphabar.runs.model import Model, holds_model, load_model, locate, shipped
from alphabar.runs.run import Run

DELETED = ".deleted-"  # before the name of a run that is being deleted
NAME = re.compile(r"[^\W_][\w. -]{0,59}")  # of a run: what every system takes as the name of a folder


class ModelStore:
    """What the studio may open: a model folder, a run folder, or all in a folder and the shipped models.

    path: what was opened. single: whether it is one model or run.
    Raises UsageError for a path that is none of these; a folder that is not there yet is an empty one.
    """

    def __init__(self, path: Path):
        self.path = locate(path).resolve()
        if path.exists() and not path.is_dir():
            raise UsageError("studio.not_a_folder", path=path)
        self.single = holds_model(self.path)
        self._lock = threading.Lock()
        self._loaded: tuple[object, Model] | None = None
        self._renamed: dict[str, str] = {}  # from a former name to the one that came after it

    def _folders(self) -> list[Path]:
        if self.single:
            return [self.path]
        inside = self.path.iterdir() if self.path.is_dir() else ()
        visible = (p for p in inside if not p.name.startswith(".") and not p.is_symlink())
        own = sorted((p for p in visible if holds_model(p)), key=_changed, reverse=True)
        return own + [p for p in shipped() if p.name not in {q.name for q in own}]

    def runs(self) -> list[str]:
        """The names of the runs, the latest first."""
        return [p.name for p in self._folders() if Run(p).exists]

    def models(self) -> list[str]:
        """The names of what can be loaded and generates samples, the latest first."""
        there = (p for p in self._folders() if not Run(p).exists or _saved(p))
        return [p.name for p in there if _generates(p)]

    def run(self, name: str | None) -> Run:
        """Raises AlphabarError for a name that is not of `runs`."""
        return Run(self._folder(name, self.runs()))

    def model(self, name: str | None) -> Path:
        """The folder of a model. Raises AlphabarError for a name that is not of `models`."""
        return self._folder(name, self.models())

    def rename(self, name: str | None, new: str) -> None:
        """Gives a run another name. Raises AlphabarError as `free_place` does, and while it trains."""
        run, place = self._idle(name), self.free_place(new)
        with writing(place):
            run.path.rename(place)
        self._renamed[run.path.name] = new

    def still_there(self, names: Iterable[str], there: Sequence[str]) -> list[str]:
        """Those of the names that are there, by the names that they have now."""
        found = []
        for name in names:
            former = set()
            while name not in there and name in self._renamed and name not in former:
                former.add(name)
                name = self._renamed[name]
            if name in there and name not in found:
                found.append(name)
        return found

    def delete(self, name: str | None) -> None:
        """Deletes a run, and the pictures that were uploaded for it where no other run was trained on them.

        Raises AlphabarError while it trains, and where it cannot be removed.
        """
        run = self._idle(name)
        data = run.data
        for left in self.path.glob(f"{DELETED}*"):  # by a deletion that broke off
            shutil.rmtree(left, ignore_errors=True)
        hidden = self.path / f"{DELETED}{secrets.token_hex(4)}"
        with writing(run.path):
            run.path.rename(hidden)  # at once: a run without half of its files would be a damaged one
            shutil.rmtree(hidden)
        if data and Path(data).parent == self.pictures and not self.uses(Path(data)):
            shutil.rmtree(data, ignore_errors=True)

    def uses(self, pictures: Path) -> bool:
        """Whether a run was trained on the pictures of this folder."""
        return str(pictures) in {self.run(name).data for name in self.runs()}

    @property
    def pictures(self) -> Path:
        """The folder of the pictures that were uploaded for trainings."""
        return self.path / ".pictures"

    def free_place(self, name: str) -> Path:
        """The folder for a run of that name. Raises UsageError for a name that cannot be one, or is taken."""
        if self.single:
            raise UsageError("studio.single_model")
        if not name:
            raise UsageError("studio.no_run_name")
        if not NAME.fullmatch(name):
            raise UsageError("studio.bad_run_name", name=name)
        if (self.path / name).exists():
            raise UsageError("studio.run_exists", name=name)
        return self.path / name

    def disk_bytes(self, name: str) -> int:
        """The disk space that a run takes, without its pictures."""
        folder = self.run(name).path
        return _folder_bytes(folder, _changed(folder))

    def _idle(self, name: str | None) -> Run:
        if self.single:
            raise UsageError("studio.single_model")
        run = self.run(name)
        if run.is_training():
            raise AlphabarError("studio.run_is_training", name=name)
        return run

    def load(self, name: str | None) -> Model:
        """The model of this name as it is now; the model that was in memory before leaves it.

        Raises AlphabarError for a name that is not of `models`, and what `load_model` raises.
        """
        folder = self.model(name)
        with self._lock:
            version = folder, _changed(folder)
            if self._loaded is None or self._loaded[0] != version:
                self._loaded = None
                self._loaded = version, load_model(folder)
            return self._loaded[1]

    def _folder(self, name: str | None, names: list[str]) -> Path:
        if not name:
            raise AlphabarError("studio.no_model", folder=self.path)
        if name not in names:
            raise AlphabarError("studio.unknown_model", name=name, folder=self.path)
        return next(folder for folder in self._folders() if folder.name == name)


def _saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first. Where they cannot be listed there are none to load."""
    try:
        return Run(folder).checkpoints.folders()
    except AlphabarError:
        return []


def _changed(folder: Path) -> float:
    """When a run was last saved, or a model written."""
    saved = _saved(folder) or [folder]
    try:
        return max(path.stat().st_mtime for path in (saved[-1], folder))
    except OSError:  # it was moved away a moment ago
        return 0.0


def _generates(folder: Path) -> bool:
    """Whether a model's method generates samples. What is wrong with its recipe is said when it is loaded."""
    try:
        recipe = tomllib.loads(read_given_file(folder / "recipe.toml").decode())
        method = METHODS[recipe["method"]["name"]]
    except (AlphabarError, OSError, ValueError, KeyError, TypeError):
        return True
    return bool(getattr(method, "samples", True))


@lru_cache(maxsize=256)
def _folder_bytes(folder: Path, changed: float) -> int:
    """The size of a folder's files. changed: when it was last saved; until it is again, nobody counts."""
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            sizes += path.stat().st_size
    return sizes
