"""The third stage of an evaluation: whether samples are copies of training data."""

from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.evaluation.distances import FeatureSets
from alphabar.metrics.memorization import FeaturePair, Memorization, memorization, thresholds

SHOWN = 8  # samples beside the training pictures nearest to them


class NearestPairs(NamedTuple):
    """The samples nearest to training pictures, (k, h, w, 3) uint8, and those; a sample may be mirrored."""

    samples: Tensor
    originals: Tensor


def find_copies(sets: FeatureSets) -> tuple[Memorization, NearestPairs] | None:
    """Count the samples that are nearer to training pictures than chance brings held-out ones.

    Returns the count, and the nearest pairs as pictures; None where too little was held out.
    """
    if sets.mirrored is None or sets.held_mirrored is None:
        return None
    held = FeaturePair(sets.held_pictures, sets.held.features, sets.held_mirrored.features)
    below = thresholds(held, sets.train_pictures, sets.train.features)
    samples = FeaturePair(sets.pictures, sets.fake.features, sets.mirrored.features)
    found = memorization(samples, sets.train_pictures, sets.train.features, below)
    shown = found.nearest[:SHOWN]
    near = [sets.pictures[p.sample].flip(1) if p.mirrored else sets.pictures[p.sample] for p in shown]
    return found, NearestPairs(torch.stack(near), sets.train_pictures[[p.train for p in shown]])
