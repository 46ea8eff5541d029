"""The exponential moving average of the weights: sharper samples for free."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Ema:
    """A copy of a network that follows it with a half-life counted in images.

    A fixed half-life longer than the run would average over the random start, so it is capped at
    ``ramp`` of the images seen so far (Karras et al. 2022, "EMA warm-up").

    half_life: images after which a weight's share has halved.
    ramp: cap of the half-life as a share of the images seen.
    """

    def __init__(self, network: nn.Module, *, half_life: int, ramp: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.follow = _follower(self.network, network)
        self.half_life = half_life
        self.ramp = ramp

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Move toward the network after a step of ``batch`` images, ``images`` seen in all."""
        half_life = max(min(self.half_life, self.ramp * images), 1e-9)
        self.follow(0.5 ** (batch / half_life))


# Post-hoc EMA (Karras et al. 2024, section 3 and appendix C): averages of two lengths are kept as they were
# at some moments of the training; after it, their weighted sum is the average of any other length, nearly.
SIGMA_RELS = (0.05, 0.10)


def exponent(length: float) -> float:
    """gamma of the profile t^gamma whose relative standard deviation is ``length`` (EDM2 eq. 123)."""
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


class PowerFunctionEma:
    """An average of the weights at time t of the training in which theirs at tau < t counts as tau^gamma.

    length: the profile's standard deviation as a share of the training, sigma_rel of EDM2.
    """

    def __init__(self, network: nn.Module, length: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.follow = _follower(self.network, network)
        self.gamma = exponent(length)

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Move toward the network after a step of ``batch`` images, ``images`` seen in all (EDM2 eq. 127)."""
        self.follow((1 - batch / images) ** (self.gamma + 1))


def post_hoc_weights(times: Sequence[float], lengths: Sequence[float], time: float, length: float) -> NDArray:
    """The weights with which kept averages come nearest to one of another length (EDM2 algorithm 3).

    times, lengths: of each average that was kept; time, length: of the one that is wanted.
    """
    t, g = np.asarray(times, float), np.array([exponent(each) for each in lengths])
    overlaps = _overlap(t[:, None], g[:, None], t[None], g[None])
    return np.linalg.solve(overlaps, _overlap(t, g, float(time), exponent(length)))


def _overlap(t1: Any, g1: Any, t2: Any, g2: Any) -> Any:
    """The inner product of two profiles, one of them up to time t1, the other to t2."""
    ratio = (t1 / t2) ** np.where(t1 < t2, g2, -np.asarray(g1))
    return (g1 + 1) * (g2 + 1) * ratio / ((g1 + g2 + 1) * np.maximum(t1, t2))


def _follower(mean: nn.Module, network: nn.Module) -> Callable[[float], None]:
    """What moves the parameters of ``mean`` toward those of ``network``, and takes over the buffers."""
    # Looked up once: at every step that would take as long as moving them.
    kept: list[Tensor] = list(mean.parameters())
    values = list(network.parameters())
    own, buffers = list(mean.buffers()), list(network.buffers())

    def follow(beta: float) -> None:
        torch._foreach_lerp_(kept, [v.to(k.dtype) for k, v in zip(kept, values, strict=True)], 1 - beta)
        for mine, buffer in zip(own, buffers, strict=True):
            mine.copy_(buffer)

    return follow
