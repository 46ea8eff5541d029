"""The exponential moving average of the weights: sharper samples for free."""

import copy

import torch
from torch import nn


class Ema:
    """A copy of a network that follows it with a half-life counted in images.

    A fixed half-life longer than the run would average over the random start, so it is capped at
    ``ramp`` of the images seen so far (Karras et al. 2022, "EMA warm-up").

    half_life: images after which a weight's share has halved.
    ramp: cap of the half-life as a share of the images seen.
    """

    def __init__(self, network: nn.Module, *, half_life: int, ramp: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life = half_life
        self.ramp = ramp

    @torch.no_grad()
    def update(self, network: nn.Module, images: int, batch: int) -> None:
        """Move toward ``network`` after a step of ``batch`` images, ``images`` seen in all."""
        half_life = max(min(self.half_life, self.ramp * images), 1e-9)
        beta = 0.5 ** (batch / half_life)
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value.to(mean.dtype), 1 - beta)
        for own, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(buffer)
