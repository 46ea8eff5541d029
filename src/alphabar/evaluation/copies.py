"""The third stage of an evaluation: whether samples are copies of training data."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from alphabar.data.near_duplicates import THUMBNAIL, near_duplicates
from alphabar.evaluation.distances import FeatureSets
from alphabar.metrics.distances import TILE
from alphabar.metrics.memorization import FeaturePair, Memorization, memorization, thresholds
from alphabar.metrics.pictures import channels_first
from alphabar.parts import Rows

SHOWN = 8  # samples beside the training pictures nearest to them


class NearestPairs(NamedTuple):
    """The samples nearest to training pictures, (k, h, w, 3) uint8, and those; a sample may be mirrored."""

    samples: Tensor
    originals: Tensor


def find_copies(sets: FeatureSets) -> tuple[Memorization, NearestPairs] | None:
    """Count the samples that are nearer to training pictures than chance brings held-out ones.

    Which training pictures show the same is found as ``inspect`` finds it.
    Returns the count, and the nearest pairs as pictures; None where too little was held out.
    """
    if sets.mirrored is None or sets.held_mirrored is None:
        return None
    held = FeaturePair(sets.held_pictures, sets.held.features, sets.held_mirrored.features)
    same = pictures_of_the_same(sets.train_pictures)
    below = thresholds(held, sets.train_pictures, sets.train.features, same)
    samples = FeaturePair(sets.pictures, sets.fake.features, sets.mirrored.features)
    found = memorization(samples, sets.train_pictures, sets.train.features, below, same)
    shown = found.nearest[:SHOWN]
    near = [sets.pictures[p.sample].flip(1) if p.mirrored else sets.pictures[p.sample] for p in shown]
    return found, NearestPairs(torch.stack(near), sets.train_pictures[[p.train for p in shown]])


def pictures_of_the_same(pictures: Rows) -> Tensor:
    """(m,) a number for each of the pictures (m, h, w, 3) uint8, equal where they show the same."""
    thumbnails = [
        interpolate(channels_first(part).float(), size=(THUMBNAIL, THUMBNAIL), mode="area").round().byte()
        for part in pictures.split(TILE)
    ]
    same = torch.arange(len(pictures))
    for first, *others in near_duplicates(torch.cat(thumbnails).permute(0, 2, 3, 1).numpy()):
        same[others] = first
    return same
