"""Denoisers: D(x, t) = E[x0 | x_t = x], and the one that consists of a network and its preconditioning."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from alphabar.diffusion.preconditioning import Parameterization, Preconditioning
from alphabar.diffusion.schedules import Level, Schedule, broadcast

Condition = Tensor
"""What samples are conditioned on: a float32 row for each, (n, columns), field after field; NaN is unknown.

The columns are those of a model's vocabulary (`alphabar.conditioning`).
"""


class Denoiser(Protocol):
    """What a sampler evaluates: E[x0 | x_t], on a schedule of noise levels."""

    @property
    def schedule(self) -> Schedule:
        """The path through noise levels that t runs along."""
        ...

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """x (n, ...) at times t (n,) in (0, 1] -> the expected clean signal (n, ...)."""
        ...


class NetworkDenoiser(nn.Module):
    """D = c_skip·x + c_out·F with F = network(c_in·x, c_noise, cond) (Karras et al. 2022, eq. 7).

    With coarse = k > 1 the parameterization is for the coarse picture alone, the means over squares of k×k
    pixels. The noise of a mean has the standard deviation sigma / k, and the coefficients are those of the
    level (alpha, sigma / k). The coarse picture is enlarged smoothly, and the detail that is missing then,
    whose means are zero, the network predicts itself. So a network that knows pictures of a k-th of the side
    denoises the coarse picture as it did.

    The network may run in another type under an autocast of the caller; D has the type of x.
    Raises UsageError where the parameterization is undefined at the schedule's end.
    """

    def __init__(
        self, network: nn.Module, parameterization: Parameterization, schedule: Schedule, coarse: int = 1
    ):
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.schedule = schedule
        self.coarse = coarse
        # An undefined parameterization fails here rather than at the first sample, which starts at t = 1.
        self.coeffs(torch.ones(1, dtype=torch.float64))

    def with_network(self, network: nn.Module) -> "NetworkDenoiser":
        """The same denoiser of another network."""
        return NetworkDenoiser(network, self.parameterization, self.schedule, self.coarse)

    def coeffs(self, t: Tensor) -> Preconditioning:
        """The four coefficients at times t (n,), float64; those of the coarse picture where there is one."""
        level = self.schedule(t)
        if self.coarse > 1:
            level = Level(level.alpha, level.sigma / self.coarse)
            t = self.schedule.time(level.log_snr)
        return self.parameterization(level, t.double())

    def predict(self, x: Tensor, coeffs: Preconditioning, cond: Condition | None = None) -> Tensor:
        """F, the network's prediction for x (n, ...) in its own parameterization, in x's type."""
        return self.network(*self.network_input(x, coeffs), cond).to(x.dtype)

    def network_input(self, x: Tensor, coeffs: Preconditioning) -> tuple[Tensor, Tensor]:
        """What the network is given for x (n, ...): c_in·x (n, ...) and c_noise (n,), in x's type."""
        return broadcast(coeffs.c_in, x) * x, coeffs.c_noise.to(x.dtype).to(x.device)

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """D, like x (n, ...), at times t (n,) in (0, 1]."""
        coeffs = self.coeffs(t)
        return self.denoised(x, self.predict(x, coeffs, cond), coeffs)

    def denoised(self, x: Tensor, F: Tensor, coeffs: Preconditioning) -> Tensor:
        """D from the network's prediction F, both like x (n, ...)."""
        D, k = broadcast(coeffs.c_skip, x) * x + broadcast(coeffs.c_out, x) * F, self.coarse
        return D if k == 1 else enlarged(means(D, k), k) + detail(F, k)


def means(x: Tensor, k: int) -> Tensor:
    """The coarse picture: means over squares of k×k pixels, (n, c, k·h, k·w) → (n, c, h, w)."""
    # Twice as fast as avg_pool2d, whose backward pass is slow for the few channels of a picture.
    rows = sum((x[:, :, i::k] for i in range(1, k)), x[:, :, ::k])
    return sum((rows[..., i::k] for i in range(1, k)), rows[..., ::k]) / k**2


def detail(x: Tensor, k: int) -> Tensor:
    """Pictures (n, c, k·h, k·w) without the means over squares of k×k pixels."""
    squares = x.unflatten(3, (-1, k)).unflatten(2, (-1, k))
    return (squares - means(x, k)[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def enlarged(coarse: Tensor, k: int) -> Tensor:
    """Pictures (n, c, k·h, k·w) by linear interpolation that keep these means (n, c, h, w)."""
    rows, columns = (interpolation(size, k).to(coarse) for size in coarse.shape[2:])
    with torch.autocast(coarse.device.type, enabled=False):  # pixels are exact, whatever networks compute in
        return rows @ coarse @ columns.mT


@cache
def interpolation(size: int, k: int) -> Tensor:
    """The matrix (k·size, size), float64, that enlarges a line k times and keeps its values as means.

    Linear interpolation W changes the means over k pixels from m to P W m; the difference is added to them.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # whatever the first caller computes in
        points = torch.eye(size, dtype=torch.float64)[None, :, :, None]
        W = nn.functional.interpolate(points, scale_factor=(k, 1), mode="bilinear")[0, :, :, 0].mT
        missing = torch.eye(size, dtype=torch.float64) - W.unflatten(0, (size, k)).mean(1)
        return W + missing.repeat_interleave(k, 0)


@dataclass(frozen=True)
class FunctionDenoiser:
    """A denoiser given by a function (x, t, cond) -> E[x0 | x_t]: a closed form for example."""

    schedule: Schedule
    function: Callable[[Tensor, Tensor, Condition | None], Tensor]

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return self.function(x, t, cond)


def without_condition(denoiser: Denoiser) -> Denoiser:
    """The denoiser of a network that takes no condition, for a caller that has one: it is left out."""
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t))


def clipped(denoiser: Denoiser, bounds: tuple[float, float] | None) -> Denoiser:
    """The denoiser with its estimates clamped to the signals' bounds; None for signals without."""
    if bounds is None:
        return denoiser
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t, cond).clamp(*bounds))
