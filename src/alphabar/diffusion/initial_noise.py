"""Initial noise: what sampling starts from, at the level of the first time that it visits.

A schedule that does not end at pure noise (`terminal_warning`) leaves the coarse content of the data, for
images the overall brightness, in x_T. Plain noise then fixes that content wrongly; Gaussian initial noise
takes it from a Gaussian fitted to the training data.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alphabar.diffusion.random import Noise
from alphabar.diffusion.schedules import Level, broadcast
from alphabar.errors import AlphabarError, UsageError
from alphabar.registry import Registry


class CoarseContent(Protocol):
    """What is coarse in a signal; every codec says it. Both methods are linear."""

    def coarsen(self, signals: Tensor) -> Tensor:
        """Signals (n, *shape) -> their coarse content (n, m)."""
        ...

    def refine(self, coarse: Tensor) -> Tensor:
        """Coarse content (n, m) -> smooth signals (n, *shape)."""
        ...


class DataStatistics(NamedTuple):
    """A Gaussian over signals: x_G = mean + refine(factor @ z), z standard normal.

    mean: the mean signal, (*shape). factor: (m, m), for the m numbers of the coarse content. Both float32.
    `_asdict()` gives the two tensors to store, `DataStatistics(**tensors)` takes them back.
    """

    mean: Tensor
    factor: Tensor


InitialNoise = Callable[[Level, Noise, Tensor], Tensor]
"""(level, noise, like) -> x at that level, of the shape (n, *shape), type and device of like."""


def standard_normal(
    level: Level,
    noise: Noise,
    like: Tensor,
    *,
    statistics: DataStatistics | None,
    codec: CoarseContent | None,
) -> Tensor:
    """Normal noise of variance alpha² + sigma²: N(0, I) where that is 1, and about sigma elsewhere.

    statistics, codec: not needed; every initial noise is built with both.
    """
    return broadcast(torch.hypot(*level), like) * noise.normal(0, like)


def gaussian(
    level: Level,
    noise: Noise,
    like: Tensor,
    *,
    statistics: DataStatistics | None,
    codec: CoarseContent | None,
) -> Tensor:
    """alpha·x_G + sigma·eps with x_G from the Gaussian fitted to the training data.

    It has the same eps as `standard_normal`. Raises UsageError where there are no statistics or they are of
    signals of another shape.
    """
    if statistics is None or codec is None:
        raise UsageError("diffusion.no_statistics")
    if statistics.mean.shape != like.shape[1:]:
        raise UsageError(
            "diffusion.other_statistics", wanted=tuple(like.shape[1:]), fitted=tuple(statistics.mean.shape)
        )
    mean, factor = statistics.mean.to(like), statistics.factor.to(like)
    z = noise.normal(1, like.new_empty(len(like), len(factor)))
    x_G = mean + codec.refine(z @ factor.T)
    return broadcast(level.alpha, like) * x_G + broadcast(level.sigma, like) * noise.normal(0, like)


def fit_gaussian(batches: Iterable[Tensor], codec: CoarseContent) -> DataStatistics:
    """The mean, and the covariance of the coarse content, of signals that come in batches (n, *shape).

    Signals x_G have coarse content of exactly this mean and covariance. Raises AlphabarError for fewer than
    two signals.
    """
    n, total, outer = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        signals = batch.double()
        coarse = codec.coarsen(signals)
        n = n + len(signals)
        total = total + signals.sum(0)
        outer = outer + coarse.T @ coarse
    if n < 2:
        raise AlphabarError("diffusion.too_few_signals", n=n)
    mean = total / n
    coarse_mean = codec.coarsen(mean[None])[0]
    covariance = (outer - n * coarse_mean.outer(coarse_mean)) / (n - 1)
    variances, directions = torch.linalg.eigh(covariance)
    factor = directions * variances.clamp(min=0).sqrt()
    # Refining smooths: the coarse content of a refined signal is weaker than what it was made of.
    # Dividing the factor by that response makes up for it.
    response = codec.coarsen(codec.refine(torch.eye(len(factor), dtype=factor.dtype))).T
    return DataStatistics(mean.float(), torch.linalg.solve(response, factor).float())


INITIAL_NOISES = Registry("initial noise", {"standard_normal": standard_normal, "gaussian": gaussian})
