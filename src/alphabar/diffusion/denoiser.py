"""Denoisers: D(x, t) = E[x0 | x_t = x], and the one that consists of a network and its preconditioning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from alphabar.diffusion.preconditioning import Parameterization, Preconditioning
from alphabar.diffusion.schedules import Schedule, broadcast

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

    The network may run in another type under an autocast of the caller; D has the type of x.
    Raises UsageError where the parameterization is undefined at the schedule's end.
    """

    def __init__(self, network: nn.Module, parameterization: Parameterization, schedule: Schedule):
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.schedule = schedule
        # An undefined parameterization fails here rather than at the first sample, which starts at t = 1.
        self.coeffs(torch.ones(1, dtype=torch.float64))

    def coeffs(self, t: Tensor) -> Preconditioning:
        """The four coefficients at times t (n,), float64."""
        return self.parameterization(self.schedule(t), t.double())

    def predict(self, x: Tensor, coeffs: Preconditioning, cond: Condition | None = None) -> Tensor:
        """F, the network's prediction for x (n, ...) in its own parameterization, in x's type."""
        return self.network(*self.network_input(x, coeffs), cond).to(x.dtype)

    def network_input(self, x: Tensor, coeffs: Preconditioning) -> tuple[Tensor, Tensor]:
        """What the network is given for x (n, ...): c_in·x (n, ...) and c_noise (n,), in x's type."""
        return broadcast(coeffs.c_in, x) * x, coeffs.c_noise.to(x.dtype).to(x.device)

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """D, like x (n, ...), at times t (n,) in (0, 1]."""
        coeffs = self.coeffs(t)
        return broadcast(coeffs.c_skip, x) * x + broadcast(coeffs.c_out, x) * self.predict(x, coeffs, cond)


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
