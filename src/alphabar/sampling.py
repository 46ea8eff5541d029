"""Drawing pictures from a model, and putting them on the disk."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from alphabar.data.pixels import to_pictures
from alphabar.diffusion.grids import GRIDS
from alphabar.diffusion.samplers import SAMPLERS, Step, draw
from alphabar.diffusion.schedules import Schedule
from alphabar.diffusion.start import STARTS
from alphabar.errors import AlphabarError, UsageError
from alphabar.registry import Spec
from alphabar.training.checkpoint import pack_json
from alphabar.training.run import Model


@dataclass(frozen=True)
class Sampled:
    """How far sampling has come. The last record carries the pictures."""

    done: int  # network evaluations that are through, over all batches
    total: int
    first: int  # number of the batch's first picture
    step: Step  # of the batch: x (n, 3, size, size) and the estimate x0, in [-1, 1]
    pictures: Tensor | None = None  # (n, size, size, 3) uint8


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn: enough, with the model, to draw them again."""

    seed: int
    sampler: dict[str, Any]
    grid: dict[str, Any]
    steps: int
    start: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Strip:
    """Collects the reverse process of the first pictures: ten moments from noise to the end."""

    COLUMNS, ROWS = 10, 8

    def __init__(self, schedule: Schedule, steps: int):
        self.schedule = schedule
        self.chosen = {round(i * (steps - 1) / (self.COLUMNS - 1)) for i in range(self.COLUMNS)}
        self.columns: list[Tensor] = []  # each (rows, size, size, 3) uint8

    def watch(self, record: Sampled) -> Sampled:
        """Look at a record and hand it on."""
        if record.first == 0 and record.step.i in self.chosen and record.pictures is None:
            # Where the variance explodes x leaves the range of pictures; at variance one it is in sight.
            norm = torch.hypot(*self.schedule(record.step.t)).item()
            self.columns.append(to_pictures(record.step.x[: self.ROWS].cpu() / norm))
        return record


def settings(
    model: Model,
    *,
    seed: int = 0,
    sampler: Spec | None = None,
    grid: Spec | None = None,
    steps: int | None = None,
    start: Spec | None = None,
) -> Settings:
    """The settings of a sampling: what is asked for, and the recipe's choice for the rest.

    A sampler other than the recipe's own brings the grid it works best on: log-SNR, unless one is given.
    Raises UsageError for unknown names and for steps below one.
    """
    own = model.recipe.sampling
    chosen = SAMPLERS.resolve(sampler) if sampler else own.sampler
    other = chosen["name"] != own.sampler["name"]
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    default_grid: Spec = own.grid
    if other:
        default_grid = "uniform" if chosen["name"] in ("ancestral", "ddim") else "log_snr"
    default_steps = own.steps if not other else 250 if chosen["name"] == "ancestral" else 20
    return Settings(
        seed=seed,
        sampler=chosen,
        grid=GRIDS.resolve(grid or default_grid),
        steps=steps or default_steps,
        start=STARTS.resolve(start or own.start),
    )


def sample(model: Model, n: int, how: Settings | None = None, *, batch: int = 64) -> Iterator[Sampled]:
    """Draw n pictures. Picture i depends on the model, the settings and i alone, not on n or ``batch``.

    Yields a record a sampler step, and one more that carries the pictures, (n, size, size, 3) uint8.
    Raises UsageError for n below one, AlphabarError where the pictures are not finite.
    """
    if n < 1:
        raise UsageError(f"-n must be at least 1, not {n}")
    return _sample(model, n, how or settings(model), batch)


def _sample(model: Model, n: int, how: Settings, batch: int) -> Iterator[Sampled]:
    denoiser, size = model.denoiser, model.recipe.data.size
    finished: list[Tensor] = []
    for first in range(0, n, batch):
        positions = range(first, min(first + batch, n))
        for step in draw(
            denoiser,
            shape=(3, size, size),
            positions=positions,
            seed=how.seed,
            sampler=SAMPLERS.build(how.sampler),
            times=GRIDS.build(how.grid)(denoiser.schedule, how.steps),
            start=STARTS.build(how.start, statistics=model.statistics),
            device=next(denoiser.parameters()).device,
        ):
            done = first * how.steps + (step.i + 1) * len(positions)
            yield Sampled(done, n * how.steps, first, step)
        if not torch.isfinite(step.x).all():
            raise AlphabarError(f"the samples of {model.path} are not finite: its training has diverged")
        finished.append(to_pictures(step.x.cpu()))
    yield Sampled(done, n * how.steps, first, step, torch.cat(finished))


def check_free(out: Path) -> None:
    """Raises AlphabarError where a folder for new samples already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AlphabarError(f"{out} is not empty: give a new --out folder, or remove it first")


def write_pictures(
    pictures: Tensor, out: Path, about: dict[str, Any], overview: Mapping[str, Image.Image]
) -> None:
    """Write pictures as 000000.png …, each with its settings inside; beside them samples.json and overview/.

    The folder appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    beside = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "overview").mkdir(parents=True)
        for i, picture in enumerate(pictures.numpy()):
            info = PngInfo()
            info.add_text("alphabar", json.dumps({**about, "position": i}))
            Image.fromarray(picture).save(beside / f"{i:06d}.png", pnginfo=info)
        for name, image in overview.items():
            image.save(beside / "overview" / f"{name}.png")
        (beside / "samples.json").write_bytes(pack_json({**about, "n": len(pictures)}))
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None
