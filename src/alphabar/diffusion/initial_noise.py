"""Starts: where sampling begins, at the level of the first time of the grid.

A schedule that does not reach noise (`terminal_warning`) leaves the pictures' overall brightness in
x_T. Starting it from plain noise then fixes that brightness; the Gaussian start draws it from a
Gaussian fitted to the data.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from alphabar.diffusion.random import Noise
from alphabar.diffusion.schedules import Level, broadcast
from alphabar.errors import AlphabarError, UsageError
from alphabar.registry import Registry

THUMBNAIL = 8


class DataStatistics(NamedTuple):
    """A Gaussian over pictures: x_G = mean + smooth(factor @ z), z standard normal.

    mean: the mean picture (c, h, w), a signal. factor: (c·m, c·m), m the number of cells of a
    thumbnail; smooth enlarges thumbnails bicubically. Both float32. `_asdict()` gives the two
    tensors to store, `PictureStatistics(**tensors)` takes them back.
    """

    mean: Tensor
    factor: Tensor


InitialNoise = Callable[[Level, Noise, Tensor], Tensor]
"""(level, noise, like) -> x at that level, of like's shape (n, c, h, w), type and device."""


def standard_normal(level: Level, noise: Noise, like: Tensor, *, statistics: DataStatistics | None) -> Tensor:
    """White noise of variance alpha² + sigma²: N(0, I) where that is 1, as good as sigma elsewhere.

    statistics: not needed; named so that every start is built alike.
    """
    return broadcast(torch.hypot(*level), like) * noise.normal(0, like)


def gaussian(level: Level, noise: Noise, like: Tensor, *, statistics: DataStatistics | None) -> Tensor:
    """alpha·x_G + sigma·eps with x_G from the Gaussian fitted to the training pictures.

    The same eps as `white` has. Raises UsageError where there are no statistics or they are of
    pictures of another shape.
    """
    if statistics is None:
        raise UsageError(
            "start 'gaussian' needs the statistics of the training pictures: this model has none, use 'noise'"
        )
    if statistics.mean.shape != like.shape[1:]:
        raise UsageError(
            f"start 'gaussian': pictures of shape {tuple(like.shape[1:])} asked for, "
            f"the statistics are of shape {tuple(statistics.mean.shape)}"
        )
    mean, factor = statistics.mean.to(like), statistics.factor.to(like)
    z = noise.normal(1, like.new_empty(len(like), len(factor)))
    x_G = mean + _smooth((z @ factor.T).unflatten(1, _thumbnail_shape(mean)), mean)
    return broadcast(level.alpha, like) * x_G + broadcast(level.sigma, like) * noise.normal(0, like)


def fit_gaussian(batches: Iterable[Tensor]) -> DataStatistics:
    """The mean picture, and the covariance of thumbnails, of signals that come in batches (n, c, h, w).

    Drawn pictures have thumbnails of exactly this mean and covariance. Raises AlphabarError for fewer
    than two pictures.
    """
    n, total, outer = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        pictures = batch.double()
        thumbnails = _thumbnails(pictures)
        n = n + len(pictures)
        total = total + pictures.sum(0)
        outer = outer + thumbnails.T @ thumbnails
    if n < 2:
        raise AlphabarError(f"a Gaussian cannot be fitted to {n} pictures: at least 2 are needed")
    mean = total / n
    mean_thumbnail = _thumbnails(mean[None])[0]
    covariance = (outer - n * mean_thumbnail.outer(mean_thumbnail)) / (n - 1)
    variances, directions = torch.linalg.eigh(covariance)
    factor = directions * variances.clamp(min=0).sqrt()
    # Enlarging smooths, so a thumbnail of an enlarged thumbnail is a paler one: undo that beforehand.
    cells = torch.eye(len(factor), dtype=factor.dtype)
    response = _thumbnails(_smooth(cells.unflatten(1, _thumbnail_shape(mean)), mean)).T
    return DataStatistics(mean.float(), torch.linalg.solve(response, factor).float())


def _thumbnail_shape(mean: Tensor) -> tuple[int, int, int]:
    c, h, w = mean.shape
    return c, min(h, THUMBNAIL), min(w, THUMBNAIL)


def _thumbnails(pictures: Tensor) -> Tensor:
    return adaptive_avg_pool2d(pictures, _thumbnail_shape(pictures[0])[1:]).flatten(1)


def _smooth(thumbnails: Tensor, mean: Tensor) -> Tensor:
    return interpolate(thumbnails, size=mean.shape[1:], mode="bicubic")


INITIAL_NOISES = Registry("initial noise", {"standard_normal": standard_normal, "gaussian": gaussian})
