"""Judging samples, drawn from a model or lying in a folder, against real pictures."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.data.cache import cache_root, prepare, read
from alphabar.data.decode import full_pixels
from alphabar.data.source import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.features import EXTRACTORS, Extractor, Features, extract
from alphabar.metrics.judge import Judgement, judge
from alphabar.sampling import Settings, sample, settings
from alphabar.training.checkpoint import pack_json, write_file
from alphabar.training.run import Model, Run
from alphabar.training.runtime import extractor_device


@dataclass(frozen=True)
class Evaluating:
    """How far an evaluation has come. The last record carries the result."""

    stage: str
    done: int
    total: int
    result: "Evaluation | None" = None


@dataclass(frozen=True)
class Evaluation:
    """A judgement and what was judged."""

    judgement: Judgement
    about: dict[str, Any]  # what drew the samples, and when

    def to_dict(self) -> dict[str, Any]:
        return {**self.about, **self.judgement.to_dict()}


def evaluate(
    what: Model | str | Path,
    against: str | Path,
    *,
    n: int = 2000,
    features: str = "lite0",
    how: Settings | None = None,
    weights: Path | None = None,
) -> Generator[Evaluating, None, None]:
    """Judge n samples against real pictures.

    what: a model, from which n pictures are drawn, or a folder of pictures, of which the first n count.
    against: the data, as for training. Its pictures are fitted as the model's recipe says, or squashed to
        the folder's size; those that the model held out are left out of the reference.
    features: the name of the feature network. weights: its weight file, where it takes one.

    Yields records; the last one carries the ``Evaluation``. Raises AlphabarError where a folder's pictures
    are fewer than n or differ in size.
    """
    if n < 2:
        raise UsageError(f"-n must be at least 2, not {n}")
    spec = {"name": features, "weights": str(weights)} if weights else features
    extractor = EXTRACTORS.build(spec, device=extractor_device())
    source = open_source(against)
    if isinstance(what, Model):
        how = how or settings(what)
        recipe = what.recipe
        size, fit, held_out = recipe.data.size, recipe.data.fit, recipe.data.held_out
        about = {"model": str(what.path), "recipe": recipe.name, "images": what.images, **how.to_dict()}
        pictures = yield from _drawn(what, n, how)
    else:
        pictures = yield from _folder_pictures(Path(what), n)
        size, fit, held_out = pictures.shape[1], "squash", 0.0
        about = {"folder": str(what)}
    for prepared in prepare(source, size, fit):
        yield Evaluating("reading the reference", prepared.done, prepared.total)
    dataset = prepared.dataset
    assert dataset is not None
    index, _ = dataset.split(held_out)
    fake = yield from _features("looking at the samples", extractor, pictures, None)
    real = yield from _features(
        "looking at the reference", extractor, dataset.pictures[index], cache_root() / "features"
    )
    judgement = judge(
        fake,
        real,
        extractor=extractor.name,
        protocol=extractor.protocol,
        reference=f"{len(index)} pictures of {dataset.name}, {fit} to {size} px"
        + (f", without the {held_out:.0%} held out" if held_out else ""),
    )
    about["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    yield Evaluating("done", 1, 1, Evaluation(judgement, about))


def add_to_run(run: Run, evaluation: Evaluation) -> None:
    """Append an evaluation to the run's evaluation.json, which the report shows."""
    path = run.path / "evaluation.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_file(path, pack_json([*earlier, evaluation.to_dict()]))


def _drawn(model: Model, n: int, how: Settings) -> Generator[Evaluating, None, Tensor]:
    for record in sample(model, n, how):
        yield Evaluating("drawing samples", record.done, record.total)
    assert record.pictures is not None
    return record.pictures


def _features(
    stage: str, extractor: Extractor, pictures: Any, cache: Path | None
) -> Generator[Evaluating, None, Features]:
    for record in extract(extractor, pictures, cache=cache):
        yield Evaluating(stage, record.done, record.total)
    assert record.features is not None
    return record.features


def _folder_pictures(folder: Path, n: int) -> Generator[Evaluating, None, Tensor]:
    """The first n pictures that lie in a folder itself, (n, h, w, 3); sub-folders do not count."""
    source = open_source(folder)
    items = [item for item in source.items if "/" not in item.key]
    if len(items) < n:
        raise AlphabarError(
            f"{folder} holds {len(items)} pictures, {n} are asked for: give -n {len(items)} or less"
        )
    pictures: list[np.ndarray] = []
    for item in items[:n]:
        picture = full_pixels(read(source, item))
        if picture.shape != (pictures[0].shape if pictures else (picture.shape[0],) * 2 + (3,)):
            raise AlphabarError(
                f"{folder / item.key} is {picture.shape[1]}×{picture.shape[0]} px:"
                " samples must be square and all of one size; resize them first"
            )
        pictures.append(picture)
        yield Evaluating("reading the samples", len(pictures), n)
    return torch.from_numpy(np.stack(pictures))
