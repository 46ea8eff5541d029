"""The small things that the trials use: pictures, trainings of seconds, one finished run."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alphabar import Run, launch
from alphabar.runtime import Runtime
from crash.children import command, run

QUIET = ("monitor.share=0", "monitor.levels=0", "monitor.distance=0", "monitor.samples=1", "monitor.steps=2")
SMALL: Mapping[str, tuple[str, ...]] = {
    "classic": ("network.widths=[8,16]",),
    "ddpm": ("network.widths=[16,32]", "network.head_dim=16", "network.dropout=0.1"),
    "edm": ("network.widths=[16,32]", "network.head_dim=16"),
    "lean": ("network.widths=[16,32]", "network.head_dim=16", "ema.snapshots=2"),
    "classifier": ("network.widths=[16,32]", "network.head_dim=16", "condition.on=class"),
    "gan": ("network.width=8",),
    "vae": ("network.width=8",),
}
RUNTIMES: Mapping[str, Runtime] = {
    "plain": Runtime(),
    "channels_last, fused": Runtime(channels_last=True, fused=True),
    "bf16": Runtime(dtype=torch.bfloat16),
}


def write_pictures(folder: Path, n: int = 24, side: int = 20) -> None:
    """Smooth pictures of two classes, a folder each."""
    y, x = np.mgrid[:side, :side] / side
    for i in range(n):
        rng = np.random.default_rng(i)
        ramp = 0.5 + 0.5 * np.sin(6 * (x * np.cos(i) + y * np.sin(i)) + i)
        path = folder / ("red" if i % 2 else "blue") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * ramp[..., None] * rng.uniform(0.2, 1, 3)).astype(np.uint8)).save(path)


@dataclass(frozen=True)
class Training:
    """A training of seconds: a recipe, or ``finetune`` or ``distill`` of the run ``model``."""

    recipe: str
    model: Path | None = None

    def work(
        self, pictures: Path, run: Path, images: int, every: float = 0.0, runtime: Runtime = RUNTIMES["plain"]
    ) -> Callable[[], None]:
        """The training as work for a child. every: seconds between checkpoints."""
        settings = [*QUIET, "data.size=16", "batch=8"]
        how: dict[str, Any] = {self.recipe: self.model} if self.model else {"recipe": self.recipe}
        if not self.model:
            settings += SMALL[self.recipe]

        def train() -> None:
            torch.set_num_threads(1)
            more = {} if Run(run).exists else {**how, "settings": settings}
            for _ in launch(
                str(pictures), run=run, images=images, checkpoint_every=every, runtime=runtime, **more
            ):
                pass

        return train


class Material:
    """A folder with pictures, a cache, and a finished run with an evaluation and a report."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pictures = folder / "pictures"
        self.model = folder / "model"
        os.environ["ALPHABAR_CACHE"] = str(folder / "cache")
        if not self.pictures.is_dir():
            write_pictures(self.pictures)
        if not self.model.is_dir():
            self._make_the_run()

    @property
    def derived(self) -> tuple[Training, ...]:
        """A finetuning and a distillation of the finished run."""
        return Training("finetune", self.model), Training("distill", self.model)

    def _make_the_run(self) -> None:
        work = Training("lean").work(self.pictures, self.model, 256, every=1000)
        against = ("--against", self.pictures, "-n", 8)
        for step in (work, command("evaluate", self.model, *against), command("report", self.model)):
            if (ended := run(step, folder=self.folder)).code:
                raise SystemExit(ended.said)


def weights(run: Path, images: int) -> dict[str, str] | str:
    """SHA-256 of every tensor file of the newest checkpoint, or what is wrong with it."""
    newest, problems = Run(run).checkpoints.newest()
    if newest is None or problems or newest.images != images:
        found = "none" if newest is None else newest.images
        return f"the newest checkpoint holds {found} instead of {images} images; {problems}"
    names = sorted(name for name in newest.files if name.endswith(".safetensors"))
    return {name: hashlib.sha256(newest.files[name]).hexdigest() for name in names}


def differences(killed: Path, undisturbed: Path, images: int) -> str:
    """ "" where two runs ended with equal bits, else what differs."""
    a, b = weights(killed, images), weights(undisturbed, images)
    if isinstance(a, str) or isinstance(b, str):
        return str(a if isinstance(a, str) else b)
    wrong = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    return f"other bits: {', '.join(wrong)}" if wrong else ""


def leftovers(folder: Path) -> list[Path]:
    """What was left unfinished below a folder."""
    return list(folder.rglob(".writing-*"))
