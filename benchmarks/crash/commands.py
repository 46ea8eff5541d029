"""The commands of alphabar in a small form, each with a place of its own to write to."""

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from crash.children import command
from crash.material import QUIET, SMALL, Material, weights

IMAGES = 96
RUNS = dict.fromkeys(("train", "finetune", "distill"), ("run",)) | {"train-seeds": ("run-seed0", "run-seed1")}
"""What the commands that train write to."""


@dataclass(frozen=True)
class Command:
    """A command that writes below ``place`` only, its cache too.

    once: whether it refuses to write its result again where that is there.
    """

    name: str
    place: Path
    arguments: tuple[object, ...]
    needs_run: bool = False
    once: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the result is there of a command that writes it once."""
        return self.once and (self.place / "out").exists()

    def result(self) -> object:
        """What it must end with again: the weights that it trains, or the names of files written once."""
        if self.once:
            return sorted(str(file.relative_to(self.place)) for file in (self.place / "out").rglob("*"))
        return [weights(self.place / run, IMAGES) for run in RUNS.get(self.name, ())]

    def prepare(self, material: Material) -> None:
        """Makes the place anew."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        if self.needs_run:
            shutil.copytree(material.model, self.place / "run")

    def work(self, before: Callable[[], None] = lambda: None) -> Callable[[], None]:
        """The command as work for a child. before: called first."""

        def do() -> None:
            os.environ["ALPHABAR_CACHE"] = str(self.place / "cache")
            before()
            command(*self.arguments)()

        return do


def commands(material: Material, place: Path) -> Mapping[str, Command]:
    """All commands that end by themselves, by name."""
    model, pictures, run = material.model, material.pictures, place / "run"
    picture = next(pictures.glob("*/*.png"))
    out = ("--out", place / "out")
    plain = ("--runtime", "plain")
    few = ("--steps", 3, *out)
    small = [part for s in (*QUIET, "data.size=16", "batch=8", *SMALL["ddpm"]) for part in ("--set", s)]
    quiet = [part for s in QUIET for part in ("--set", s)]
    train = (pictures, "--run", run, "--recipe", "ddpm", "--images", IMAGES, *plain, *small)
    given: dict[str, tuple[object, ...]] = {
        "inspect": (pictures,),
        "train": train,
        "train-seeds": (*train, "--seeds", 2),
        "plan": (pictures, "--budget", "1h", *small),
        "finetune": (model, pictures, "--run", run, "--images", IMAGES, *plain, *quiet),
        "distill": (model, pictures, "--run", run, "--images", IMAGES, "--steps", 2, *plain, *quiet),
        "sample": (model, "-n", 6, *few),
        "interpolate": (model, "--rows", 2, "--columns", 3, *few),
        "edit": (model, picture, "--strength", 0.5, *few),
        "inpaint": (model, picture, "--mask", "box:4,4,12,12", "-n", 2, *few),
        "upscale": (model, picture, "--factor", 2, *few),
        "restore": (model, picture, "--degradation", "blur:1", *few),
        "degrade": (picture.parent, "--degradation", "blur:1", *out),
        "export": (model, "--to", "hub", *few),
        "export-onnx": (model, "--to", "onnx", *few),
        "evaluate": (run, "--against", pictures, "-n", 8),
        "report": (run,),
        "compare": (run, model, "--out", place / "comparison.html"),
    }
    if find_spec("onnxruntime") is None:
        del given["export-onnx"]
    return {
        name: Command(
            name,
            place,
            (name.partition("-")[0], *arguments),
            needs_run=name in ("evaluate", "report", "compare"),
            once=name.startswith("export"),
        )
        for name, arguments in given.items()
    }


def chosen(material: Material, place: Path, names: Collection[str] | None) -> Sequence[Command]:
    """The commands of these names; None for all."""
    return [command for name, command in commands(material, place).items() if names is None or name in names]
