"""The third stage of an evaluation: whether samples are copies of training data."""

from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alphabar.data.dataset import cache_root
from alphabar.evaluation.distances import FeatureSets
from alphabar.messages import message
from alphabar.metrics.features import extract
from alphabar.metrics.memorization import FeaturePair, Memorization, memorization, thresholds
from alphabar.progress import Progress, staged

SHOWN = 8  # samples beside the training pictures nearest to them


class NearestPairs(NamedTuple):
    """The samples nearest to training pictures, (k, h, w, 3) uint8, and those; a sample may be mirrored."""

    samples: Tensor
    originals: Tensor


def find_copies(sets: FeatureSets) -> Generator[Progress[Any], None, tuple[Memorization, NearestPairs]]:
    """Count the samples that are nearer to training pictures than chance brings held-out ones.

    Returns the count, and the nearest pairs as pictures.
    """
    stage = message("evaluation.looking_for_copies")
    mirrored = yield from staged(extract(sets.extractor, sets.pictures.flip(2)), stage)
    held_mirrored = yield from staged(
        extract(sets.extractor, sets.held_pictures.flip(2), cache=cache_root() / "features"), stage
    )
    held = FeaturePair(sets.held_pictures, sets.held.features, held_mirrored.features)
    below = thresholds(held, sets.train_pictures, sets.train.features)
    samples = FeaturePair(sets.pictures, sets.fake.features, mirrored.features)
    found = memorization(samples, sets.train_pictures, sets.train.features, below)
    shown = found.nearest[:SHOWN]
    near = [sets.pictures[p.sample].flip(1) if p.mirrored else sets.pictures[p.sample] for p in shown]
    return found, NearestPairs(torch.stack(near), sets.train_pictures[[p.train for p in shown]])
