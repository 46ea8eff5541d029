"""Answers to an image file written as they come, which can be stopped and go on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.png_metadata import png_metadata
from alphabar.files import fitting_name, writing_file
from alphabar.guidance import evaluates_early
from alphabar.images import image_grid
from alphabar.inference.recorded import choose_or_repeat
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.restoration.photo import read_photo
from alphabar.restoration.restore import restore, workload
from alphabar.restoration.settings import RestorationSettings
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.restoration.task import Task, panels, sample_std
from alphabar.restoration.tiling import TILES_PER_CALL
from alphabar.result_folder import ResultFolder, check_count
from alphabar.runs.model import Model


class RestorationFolder(ResultFolder):
    """A folder of n answers NAME-1.png … with their settings inside, and restoration.json.

    They are of the kind of the file that was restored (`Photo.image`).
    """

    def __init__(self, path: Path, task: Task, metadata: Mapping[str, Any], n: int):
        check_count(n)
        names = [fitting_name(task.photo.name, f"-{k + 1}.png") for k in range(n)]
        super().__init__(path, "restoration.json", metadata, names, later=["spread"])
        self.task = task

    @property
    def overview(self) -> Path:
        """The picture of the file as it was given, the answers and their spread."""
        return self.path / "overview.png"

    def write(self, k: int, x: Tensor) -> None:
        """Writes answer k, (c, h, w)."""
        photo = self.task.photo
        image = photo.image(x, self.task.known, self.task.colored)
        self._save(self.file(k), image, pnginfo=png_metadata({**self.metadata, "answer": k}), **photo.extras)

    def read(self, k: int) -> Tensor:
        """Answer k as it was written, (c, h, w). Raises AlphabarError where it cannot be read."""
        return read_photo(self.file(k)).signal(self.task.operator.shape[0])[0]

    def finish(self) -> None:
        """Writes what all answers together tell: the overview, and from two on their spread."""
        x = torch.stack([self.read(k) for k in range(self.n)])
        shown = panels(self.task, x)
        self._save(self.overview, image_grid(shown, len(shown)))
        if self.n > 1:
            apart = sample_std(x[:, None])
            self._save(self.path / "spread.png", image_grid(shown[-1:]))
            self.conclude(spread={"mean": apart.mean().item(), "largest": apart.max().item()})

    def _save(self, file: Path, image: Image.Image, **how: Any) -> None:
        with writing_file(file) as beside:
            image.save(beside, **how)


def choose_for(
    model: Model,
    task: Task,
    n: int,
    settings: RestorationSettings,
    begun: Path | None = None,
    precision: str | None = None,
) -> Iterator[Progress[tuple[Model, dict[str, Any]]]]:
    """How a model computes n answers to a task, as `choose_or_repeat` chooses; ``begun`` is its."""
    work = workload(model, task.y, task.operator, task.sigma_y, n=n, settings=settings)
    return choose_or_repeat(
        model,
        begun,
        evaluations=work.total,
        batch=min(work.tiles * work.together, TILES_PER_CALL),
        precision=precision,
        gradients=SOLVERS.build(settings.solver).differentiates,
        early=evaluates_early(settings.guidance),
    )


def restore_into(
    folder: RestorationFolder, model: Model, settings: RestorationSettings
) -> Iterator[Progress[Path]]:
    """Restores the task of a folder into it, as answers come (`ResultFolder.fill`).

    Yields records, the last one with the folder. Raises as `restore` and `ResultFolder.begun` do, before
    anything is restored.
    """
    task = folder.task
    arguments = (model, task.y, task.operator, task.sigma_y)
    restore(*arguments, n=folder.n, settings=settings)
    folder.begun()
    size = workload(*arguments, n=folder.n, settings=settings).together

    def make(first: int, count: int) -> Iterator[Progress[Tensor]]:
        return restore(*arguments, n=count, settings=settings, first_sample=first)

    def records() -> Iterator[Progress[Any]]:
        yield from folder.fill(size, make, lambda k, x: folder.write(k, x[0]))
        folder.finish()
        yield Progress(message("restoration.stage"), 1, 1, folder.path)

    return records()
