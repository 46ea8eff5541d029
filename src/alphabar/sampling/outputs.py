"""The files of a sampling, with their settings inside, and the pictures of the reverse process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.errors import AlphabarError
from alphabar.files import pack_json, writing, writing_folder
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
    columns: for each of them the previews of the samples, uint8 (rows, h, w, 3 or 4).
    """

    COLUMNS, ROWS = 10, 8

    def __init__(self, model: Model, steps: int):
        self.schedule, self.codec = model.denoiser.schedule, model.codec
        self.chosen = {round(i * (steps - 1) / (self.COLUMNS - 1)) for i in range(self.COLUMNS)}
        self.columns: list[Tensor] = []

    def record(self, progress: Progress[Tensor]) -> Progress[Tensor]:
        """Takes what it needs from a record of a sampling and hands it on."""
        if progress.result is None and progress.preview.first == 0:
            step = progress.preview.step
            if step.i in self.chosen:
                # Where the variance explodes, x leaves the bounds; scaled to unit variance it does not.
                norm = torch.hypot(*self.schedule(step.t)).item()
                items = self.codec.decode(step.x[: self.ROWS].cpu() / norm)
                self.columns.append(self.codec.preview(items))
        return progress


def sampling_metadata(model: Model, settings: SamplingSettings, name: str, **more: Any) -> dict[str, Any]:
    """What is written into files and printed about a sampling. name: the model's, as it was given."""
    about = {"model": name, "images": model.images, **more, **settings.to_dict()}
    if uses_training_conditions(model, settings):
        about["conditions"] = TRAINING_CONDITIONS
    return about


def check_free(out: Path) -> None:
    """Raises AlphabarError where a folder for new samples cannot be made.

    So it is where it holds something, is the working folder or one around it, or lies in a file.
    """
    with writing(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise AlphabarError("sampling.folder_not_empty", path=out)
        place = out.resolve()
        if Path.cwd().resolve().is_relative_to(place):
            raise AlphabarError("sampling.working_folder", path=out)
        parent = next(path for path in place.parents if path.exists())
        if not parent.is_dir():
            raise AlphabarError("sampling.folder_in_file", path=out, file=parent)


def write_samples(
    items: Tensor,
    out: Path,
    codec: Codec,
    metadata: Mapping[str, Any],
    overview: Mapping[str, Image.Image],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Writes items (n, *item_shape) as the files 000000.png … of a new folder, with their settings inside.

    Beside them are samples.json with the metadata, and the pictures of the overview in the folder overview/.
    each: what sets the metadata of each item apart, by default its position.

    The folder appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    with writing_folder(out) as folder:
        (folder / OVERVIEW).mkdir()
        for i, item in enumerate(items):
            own = {"position": i} if each is None else each[i]
            codec.write(item, folder / f"{i:06d}{codec.suffix}", {**metadata, **own})
        for name, image in overview.items():
            image.save(folder / OVERVIEW / f"{name}.png")
        (folder / "samples.json").write_bytes(pack_json({**metadata, "n": len(items)}))
