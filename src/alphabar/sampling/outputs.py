"""What is told about a sampling: its settings in its files, and pictures of the reverse process."""

from typing import Any

import torch
from torch import Tensor

from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, uses_training_conditions

TRAINING_CONDITIONS = "as the data"
"""What stands for the conditions in the description of a sampling with those of training samples."""


OVERVIEW = "overview"
"""The folder of overview pictures beside samples."""


class ReverseProcessRecorder:
    """Collects the reverse process of the first samples: ten moments from noise to the end.

    steps: of the sampler. chosen: the numbers of the steps that are recorded.
    """

    COLUMNS, ROWS = 10, 8

    def __init__(self, model: Model, steps: int):
        self.schedule, self.codec = model.denoiser.schedule, model.codec
        self.chosen = {round(i * (steps - 1) / (self.COLUMNS - 1)) for i in range(self.COLUMNS)}
        self._parts: dict[int, dict[int, Tensor]] = {}  # step → first sample of a batch → previews

    @property
    def columns(self) -> list[Tensor]:
        """For each recorded step the previews of the samples, uint8 (rows, h, w, 3 or 4)."""
        return [torch.cat(list(parts.values())) for parts in self._parts.values()]

    def record(self, progress: Progress[Tensor]) -> Progress[Tensor]:
        """Takes what it needs from a record of a sampling and hands it on."""
        if progress.result is None and (first := progress.preview.first) < self.ROWS:
            step = progress.preview.step
            if step.i in self.chosen:
                # Where the variance explodes, x leaves the bounds; scaled to unit variance it does not.
                norm = torch.hypot(*self.schedule(step.t)).item()
                items = self.codec.decode(step.x[: self.ROWS - first].cpu() / norm)
                # A batch that memory did not suffice for is begun again, in smaller ones.
                self._parts.setdefault(step.i, {})[first] = self.codec.preview(items)
        return progress


def sampling_metadata(model: Model, settings: SamplingSettings, name: str, **more: Any) -> dict[str, Any]:
    """What is written into files and printed about a sampling. name: the model's, as it was given."""
    about = {"model": name, "images": model.images, **more, **settings.to_dict()}
    if uses_training_conditions(model, settings):
        about["conditions"] = TRAINING_CONDITIONS
    return about
