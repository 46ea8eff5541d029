"""Does a model copy? The training picture nearest to each sample, and how near is too near.

How near two different pictures come depends on the data, so the threshold comes from the data too: pictures
that the model never saw, compared with the training pictures in the same way, say how often chance looks
like a copy.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from alphabar.errors import AlphabarError
from alphabar.messages import Message, message
from alphabar.metrics.distances import TILE, squared_distances
from alphabar.metrics.intervals import wilson
from alphabar.metrics.pictures import channels_first
from alphabar.parts import Rows

FALSE_ALARMS = 0.01
"""The share of unseen pictures that may be called copies, over both spaces."""

NEIGHBORS = 8  # training pictures to whose mean distance a distance is relative

THUMBNAIL, SIDE = 16, 64  # pixels

MAX_PAIRS = 64  # that are kept


class FeaturePair(NamedTuple):
    """Pictures (n, h, w, 3) uint8 and the features of them and of their mirror images, (n, d) each."""

    pictures: Tensor | Rows
    features: Tensor
    mirrored: Tensor


class Nearest(NamedTuple):
    """For each picture its nearest training picture: how near, which, and whether mirrored; (n,) each.

    distance: to the nearest over the mean distance to the eight nearest (Carlini et al. 2023, section 5.1):
    0 for a copy, near 1 where many are about as near, as they are in a crowded region without any copying.
    Training pictures that show the same count once among the eight: of a picture that the data holds often,
    which is copied the soonest, all eight would be as near as the nearest.
    """

    distance: Tensor
    which: Tensor
    mirrored: Tensor


@dataclass(frozen=True)
class CopyPair:
    """A sample and the training picture nearest to it, by their indices.

    space: where they are near, "pixels" or "features". closeness: their distance there over the threshold:
    below 1 is a copy. mirrored: whether the sample is nearest as its mirror image.
    """

    sample: int
    train: int
    space: str
    closeness: float
    mirrored: bool


class Thresholds(NamedTuple):
    """Distances below which a picture is called a copy, set by held_out_n pictures that are not copies.

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
    nearest: tuple[CopyPair, ...]

    @property
    def sentence(self) -> Message:
        """The finding in words."""
        chance = self.thresholds.false_alarms
        finding = "metrics.copies" if self.share[1] > chance else "metrics.no_copies"
        share = f"{self.share[0]:.1%}"
        return message(finding, copies=self.copies, n=self.n, share=share, chance=f"{chance:.1%}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        thresholds, nearest = self.thresholds._asdict(), [asdict(pair) for pair in self.nearest]
        return {**asdict(self), "thresholds": thresholds, "nearest": nearest, "sentence": self.sentence}


def thresholds(
    held_out: FeaturePair, train: Tensor | Rows, train_features: Tensor, same: Tensor | None = None
) -> Thresholds:
    """How near pictures that are not copies come to training pictures (m, h, w, 3) of features (m, d).

    same: (m,) a number for each training picture, equal where they show the same; None where all differ.
    Each space gets half of the false alarms: its threshold is the r-th smallest distance of N held-out
    pictures, below which an unseen one falls with probability r/(N + 1), r the largest that keeps this within
    half of FALSE_ALARMS, and at least 1: with fewer than 199 held-out pictures there are more false alarms.
    Raises AlphabarError without held-out pictures.
    """
    n = len(held_out.pictures)
    if n == 0:
        raise AlphabarError("metrics.nothing_held_out")
    rank = max(1, math.floor(FALSE_ALARMS / 2 * (n + 1)))
    near = _nearest(held_out, train, train_features, same)
    pixels, features = (float(near[s].distance.kthvalue(rank).values) for s in ("pixels", "features"))
    return Thresholds(pixels, features, 2 * rank / (n + 1), n)


def memorization(
    samples: FeaturePair,
    train: Tensor | Rows,
    train_features: Tensor,
    below: Thresholds,
    same: Tensor | None = None,
) -> Memorization:
    """Which samples are copies of training pictures (m, h, w, 3) of features (m, d).

    A sample is one where it is nearer than the threshold to a training picture in pixels
    (``nearest_pixels``) or in features (``nearest_features``), mirrored or not. same: as of `thresholds`.
    """
    n = len(samples.pictures)
    near = _nearest(samples, train, train_features, same)
    limits = {"pixels": below.pixels, "features": below.features}
    closeness = torch.stack([near[space].distance / max(limits[space], 1e-9) for space in limits], dim=1)
    closest = closeness.min(dim=1)
    nearest = []
    for i in closest.values.argsort()[:MAX_PAIRS].tolist():
        space = list(limits)[int(closest.indices[i])]
        index, mirrored = int(near[space].which[i]), bool(near[space].mirrored[i])
        nearest.append(CopyPair(i, index, space, float(closest.values[i]), mirrored))
    copies = int((closest.values < 1).sum())
    return Memorization(n, len(train), copies, (copies / n, *wilson(copies, n)), below, tuple(nearest))


def _nearest(
    pair: FeaturePair, train: Tensor | Rows, train_features: Tensor, same: Tensor | None
) -> dict[str, Nearest]:
    return {
        "pixels": nearest_pixels(pair.pictures, train, same),
        "features": nearest_features(pair.features, pair.mirrored, train_features, same),
    }


def nearest_features(
    features: Tensor, mirrored: Tensor, train: Tensor, same: Tensor | None = None
) -> Nearest:
    """The nearest of train (m, d) to each picture by its features or those of its mirror image, (n, d).

    same: as of `thresholds`.
    """
    center, groups = train.mean(dim=0, dtype=torch.float64), _numbered(same, len(train))

    def nearest(features: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
        own = train if len(among) == len(train) else train[among]
        parts = [_nearest_rows(rows.double() - center, own, center) for rows in features.split(TILE)]
        distances, indices = zip(*parts, strict=True)
        return torch.cat(distances), among[torch.cat(indices)]

    choices = _choices(groups)
    plain, flipped = ([nearest(x, among) for among in choices] for x in (features, mirrored))
    return _nearer(plain, flipped, groups)


def nearest_pixels(pictures: Tensor | Rows, train: Tensor | Rows, same: Tensor | None = None) -> Nearest:
    """The nearest of train (m, h, w, 3) uint8 to each picture (n, h, w, 3), pixel by pixel.

    Distances are √(1 − correlation) over all pixels and channels, which brightness and contrast do not
    change, after means that take the sharpness off (``_soft``), at the best of the nine shifts by at most a
    pixel. Pictures above 64 px are shrunk to 64. They are computed for the eight training pictures whose
    16×16 thumbnails correlate best, of the picture and of its mirror image. same: as of `thresholds`.
    """
    thumbnails = torch.cat([_unit(_shrunk(part, THUMBNAIL)) for part in train.split(TILE)])
    groups = _numbered(same, len(train))
    choices, found = _choices(groups), []
    for part in pictures.split(64):
        plain, flipped = (
            [_nearest_by_pixels(x, thumbnails, train, among) for among in choices]
            for x in (part, part.flip(2))
        )
        found.append(_nearer(plain, flipped, groups))
    return Nearest(*(torch.cat(values) for values in zip(*found, strict=True)))


def _numbered(same: Tensor | None, m: int) -> Tensor:
    return torch.arange(m) if same is None else same


def _choices(groups: Tensor) -> list[Tensor]:
    """The numbers of all training pictures, and where some show the same those of the first of each."""
    everything = torch.arange(len(groups))
    firsts = torch.full((int(groups.max()) + 1,), len(groups)).scatter_reduce(0, groups, everything, "amin")
    firsts = firsts[firsts < len(groups)]
    return [everything] if len(firsts) == len(groups) else [everything, firsts.sort().values]


def _nearer(
    plain: list[tuple[Tensor, Tensor]], flipped: list[tuple[Tensor, Tensor]], groups: Tensor
) -> Nearest:
    """From distances to candidates and their numbers, (n, k) each, of pictures and their mirror images."""
    distances, indices = (torch.cat(parts, dim=1) for parts in zip(*plain, *flipped, strict=True))
    mirrored = torch.arange(distances.shape[1]) >= sum(part.shape[1] for part, _ in plain)
    near = distances.sort(dim=1)
    group = groups[indices.gather(1, near.indices)]
    again = (group[:, :, None] == group[:, None, :]).tril(-1).any(dim=2)
    others = near.values.masked_fill(again, torch.inf).sort(dim=1).values[:, :NEIGHBORS]
    counted = others.isfinite()
    mean = others.where(counted, 0).sum(dim=1) / counted.sum(dim=1)
    first = near.indices[:, :1]
    relative = near.values[:, 0] / mean.clamp(min=1e-12)
    return Nearest(relative, indices.gather(1, first)[:, 0], mirrored[first[:, 0]])


def _nearest_rows(rows: Tensor, train: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    k = min(NEIGHBORS, len(train))
    distances = torch.full((len(rows), k), torch.inf, dtype=torch.float64)
    indices = torch.zeros(len(rows), k, dtype=torch.long)
    for start in range(0, len(train), TILE):
        others = train[start : start + TILE] - center
        apart = squared_distances(rows, others).clamp(min=0).sqrt()
        numbers = torch.arange(start, start + len(others)).expand(len(rows), -1)
        best = torch.cat([distances, apart], dim=1).topk(k, dim=1, largest=False)
        distances = best.values
        indices = torch.cat([indices, numbers], dim=1).gather(1, best.indices)
    return distances, indices


def _nearest_by_pixels(
    part: Tensor, thumbnails: Tensor, train: Tensor | Rows, among: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances of a few pictures to their candidates, and the candidates' numbers, (n, k) each.

    among: the numbers of the training pictures that may be candidates.
    """
    alike = _unit(_shrunk(part, THUMBNAIL)) @ thumbnails[among].T
    candidates = among[alike.topk(min(NEIGHBORS, len(among)), dim=1).indices]
    middle = _unit(_soft(part)[:, :, 1:-1, 1:-1])
    best = torch.full(candidates.shape, -1.0)
    for k in range(candidates.shape[1]):
        other = _soft(train[candidates[:, k]])
        h, w = other.shape[-2:]
        for dy in range(3):
            for dx in range(3):
                shifted = _unit(other[:, :, dy : dy + h - 2, dx : dx + w - 2])
                best[:, k] = torch.maximum(best[:, k], (middle * shifted).sum(dim=1))
    return (1 - best).clamp(min=0).double().sqrt(), candidates


def _shrunk(pictures: Tensor, side: int) -> Tensor:
    """(n, 3, side, side) float32 by the mean over areas, or as they are where they are no larger."""
    x = channels_first(pictures).float()
    return interpolate(x, size=(side, side), mode="area") if max(x.shape[-2:]) > side else x


def _soft(pictures: Tensor) -> Tensor:
    """(n, 3, h, w): lightness by 3×3 means, and color by 9×9 means, all that a JPEG keeps of it."""
    x = _shrunk(pictures, SIDE)
    light = x.mean(dim=1, keepdim=True)
    color = avg_pool2d(x - light, 9, 1, 4, count_include_pad=False)
    return avg_pool2d(light, 3, 1, 1, count_include_pad=False) + color


def _unit(x: Tensor) -> Tensor:
    """Flat, of mean 0 and length 1: products are correlations. A picture of one color becomes 0."""
    flat = x.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, flat / length.clamp(min=1e-3), torch.zeros_like(flat))
