"""Is it copying? The training pictures nearest to each sample, and how near is too near.

How near two different pictures come depends on the data, so the threshold comes from them: pictures that the
model never saw, compared with the training pictures in the same way, say how often chance looks like a copy.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from alphabar.errors import AlphabarError
from alphabar.metrics.distances import TILE
from alphabar.metrics.uncertainty import wilson

FALSE_ALARMS = 0.01
"""The share of unseen pictures that may be called copies, over both spaces."""
CANDIDATES = 8  # training pictures looked at pixel by pixel, those whose thumbnails are nearest
THUMBNAIL, SIDE = 16, 64  # pixels
MOST_TOLD = 64


class Seen(NamedTuple):
    """Pictures (n, h, w, 3) uint8 and what one extractor sees in them and in their mirror images, (n, d)."""

    pictures: Tensor
    features: Tensor
    mirrored: Tensor


class Nearest(NamedTuple):
    """For each picture the distance to the nearest training picture, which, and whether mirrored; (n,)."""

    distance: Tensor
    index: Tensor
    mirrored: Tensor


@dataclass(frozen=True)
class Pair:
    """A sample and the training picture nearest to it, by their numbers.

    space: where they are near, "pixels" or "features". closeness: their distance there over the threshold:
    below 1 is a copy. mirrored: whether the sample is nearest as its mirror image.
    """

    sample: int
    train: int
    space: str
    closeness: float
    mirrored: bool


class Thresholds(NamedTuple):
    """Distances below which a picture is called a copy, set by held_out_n pictures that are none.

    false_alarms: the share of unseen pictures that fall below either, at most.
    """

    pixels: float
    features: float
    false_alarms: float
    held_out_n: int


@dataclass(frozen=True)
class Memorization:
    """How many of n samples are nearer to training pictures than chance brings unseen pictures.

    copies: how many. share: copies / n with its 95 % interval (Wilson). nearest: the closest pairs, at most
    64, copies or not.
    """

    n: int
    train_n: int
    copies: int
    share: tuple[float, float, float]
    thresholds: Thresholds
    nearest: tuple[Pair, ...]

    @property
    def sentence(self) -> str:
        """The finding in words."""
        chance = self.thresholds.false_alarms
        told = (
            f"{self.copies} of {self.n} samples are as near to a training picture as a copy;"
            f" by chance up to {chance * self.n:.3g} would be"
        )
        return f"{told}: it copies" if self.share[1] > chance else f"{told}: no sign of copying"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        thresholds, nearest = self.thresholds._asdict(), [asdict(pair) for pair in self.nearest]
        return {**asdict(self), "thresholds": thresholds, "nearest": nearest, "sentence": self.sentence}


def thresholds(held_out: Seen, train: Tensor, train_features: Tensor) -> Thresholds:
    """How near to training pictures (m, h, w, 3), seen by the same extractor (m, d), chance comes.

    Each space gets half of the false alarms: its threshold is the r-th smallest distance of N held-out
    pictures, below which an unseen one falls with probability r/(N + 1), r the largest that keeps this within
    half of FALSE_ALARMS, and at least 1: with fewer than 199 held-out pictures there are more false alarms.
    Raises AlphabarError without held-out pictures.
    """
    n = len(held_out.pictures)
    if n == 0:
        raise AlphabarError("copies cannot be told from chance: no pictures were held out")
    rank = max(1, math.floor(FALSE_ALARMS / 2 * (n + 1)))
    near = _nearest(held_out, train, train_features)
    pixels, features = (float(near[s].distance.kthvalue(rank).values) for s in ("pixels", "features"))
    return Thresholds(pixels, features, 2 * rank / (n + 1), n)


def memorization(samples: Seen, train: Tensor, train_features: Tensor, below: Thresholds) -> Memorization:
    """Which samples are copies of training pictures (m, h, w, 3), seen by the same extractor (m, d).

    A sample is one where it is nearer than the threshold to a training picture in pixels
    (``nearest_pixels``) or in features (``nearest_features``), mirrored or not.
    """
    n = len(samples.pictures)
    near = _nearest(samples, train, train_features)
    limits = {"pixels": below.pixels, "features": below.features}
    closeness = torch.stack([near[space].distance / max(limits[space], 1e-12) for space in limits], dim=1)
    closest = closeness.min(dim=1)
    nearest = []
    for i in closest.values.argsort()[:MOST_TOLD].tolist():
        space = list(limits)[int(closest.indices[i])]
        index, mirrored = int(near[space].index[i]), bool(near[space].mirrored[i])
        nearest.append(Pair(i, index, space, float(closest.values[i]), mirrored))
    copies = int((closest.values < 1).sum())
    return Memorization(n, len(train), copies, (copies / n, *wilson(copies, n)), below, tuple(nearest))


def _nearest(seen: Seen, train: Tensor, train_features: Tensor) -> dict[str, Nearest]:
    return {
        "pixels": nearest_pixels(seen.pictures, train),
        "features": nearest_features(seen.features, seen.mirrored, train_features),
    }


def nearest_features(features: Tensor, mirrored: Tensor, train: Tensor) -> Nearest:
    """The nearest of train (m, d) to each picture by its features or those of its mirror image, (n, d)."""
    plain, flipped = (_nearest_rows(x, train) for x in (features, mirrored))
    return _nearer(plain, flipped)


def nearest_pixels(pictures: Tensor, train: Tensor) -> Nearest:
    """The nearest of train (m, h, w, 3) uint8 to each picture (n, h, w, 3), pixel by pixel.

    The distance is 1 − correlation over all pixels and colours, which brightness and contrast do not change,
    after a 3×3 mean, which takes the sharpness off, at the best of the nine shifts by at most a pixel.
    Pictures above 64 px are shrunk to 64. From 0, the same picture, to 2. It is computed for the eight
    training pictures whose 16×16 thumbnails correlate best, of the picture and of its mirror image.
    """
    thumbnails = _unit(_shrunk(train, THUMBNAIL))
    soft = torch.cat([_soft(part) for part in train.split(TILE)])
    plain = _nearest_by_pixels(pictures, thumbnails, soft)
    flipped = _nearest_by_pixels(pictures.flip(2), thumbnails, soft)
    return _nearer(plain, flipped)


def _nearer(plain: tuple[Tensor, Tensor], flipped: tuple[Tensor, Tensor]) -> Nearest:
    mirrored = flipped[0] < plain[0]
    return Nearest(*(torch.where(mirrored, b, a) for a, b in zip(plain, flipped, strict=True)), mirrored)


def _nearest_rows(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    distance = torch.full((len(x),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(x), dtype=torch.long)
    centre = train.mean(dim=0, dtype=torch.float64)
    rows = x.double() - centre
    for start in range(0, len(train), TILE):
        # by differences, not products: a copy's distance is exactly 0
        others = train[start : start + TILE] - centre
        apart = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
        best = apart.min(dim=1)
        nearer = best.values < distance
        distance = torch.where(nearer, best.values, distance)
        index = torch.where(nearer, best.indices + start, index)
    return distance, index


def _nearest_by_pixels(pictures: Tensor, thumbnails: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    distances, indices = [], []
    for part in pictures.split(64):
        alike = _unit(_shrunk(part, THUMBNAIL)) @ thumbnails.T
        candidates = alike.topk(min(CANDIDATES, len(soft)), dim=1).indices
        middle = _unit(_soft(part)[:, :, 1:-1, 1:-1])
        h, w = soft.shape[-2:]
        best = torch.full(candidates.shape, -1.0)
        for k in range(candidates.shape[1]):
            other = soft[candidates[:, k]]
            for dy in range(3):
                for dx in range(3):
                    shifted = _unit(other[:, :, dy : dy + h - 2, dx : dx + w - 2])
                    best[:, k] = torch.maximum(best[:, k], (middle * shifted).sum(dim=1))
        top = best.max(dim=1)
        distances.append((1 - top.values).double().clamp(min=0))
        indices.append(candidates.gather(1, top.indices[:, None])[:, 0])
    return torch.cat(distances), torch.cat(indices)


def _shrunk(pictures: Tensor, side: int) -> Tensor:
    """(n, 3, side, side) float32 by the mean over areas, or as they are where they are no larger."""
    x = pictures.permute(0, 3, 1, 2).float()
    return interpolate(x, size=(side, side), mode="area") if max(x.shape[-2:]) > side else x


def _soft(pictures: Tensor) -> Tensor:
    return avg_pool2d(_shrunk(pictures, SIDE), 3, 1, 1, count_include_pad=False)


def _unit(x: Tensor) -> Tensor:
    """Flat, of mean 0 and length 1: products are correlations. A picture of one colour becomes 0."""
    flat = x.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, flat / length.clamp(min=1e-3), torch.zeros_like(flat))
