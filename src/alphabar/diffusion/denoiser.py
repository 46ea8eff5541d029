"""Denoisers: D(x, t) = E[x0 | x_t = x], and the one made of a network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from alphabar.diffusion.preconditioning import Parameterization, Preconditioning
from alphabar.diffusion.schedules import Schedule, broadcast

Condition = Tensor
"""What is asked for: one entry a picture, such as a class number; (n,) or (n, ...)."""


class Denoiser(Protocol):
    """What samplers walk: the schedule it lives on, and E[x0 | x_t]."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """x (n, ...) at times t (n,) in (0, 1] -> the expected picture (n, ...)."""
        ...


class NetworkDenoiser(nn.Module):
    """A denoiser made of a network: D = c_skip·x + c_out·F, F = network(c_in·x, c_noise, cond).

    The network may run in another type under an autocast of the caller; D has the type of x.
    Raises UsageError where the parameterization is undefined at the schedule's end.
    """

    def __init__(self, network: nn.Module, parameterization: Parameterization, schedule: Schedule):
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.schedule = schedule
        # Fails now rather than at the first sample, which starts at t = 1.
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
        coeffs = self.coeffs(t)
        return broadcast(coeffs.c_skip, x) * x + broadcast(coeffs.c_out, x) * self.predict(x, coeffs, cond)


@dataclass(frozen=True)
class FunctionDenoiser:
    """A denoiser made of a function (x, t, cond) -> E[x0 | x_t]: closed forms, and denoisers of denoisers."""

    schedule: Schedule
    function: Callable[[Tensor, Tensor, Condition | None], Tensor]

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return self.function(x, t, cond)


def without_condition(denoiser: Denoiser) -> Denoiser:
    """The denoiser of a network that takes no condition, for a caller that has one: it is left out."""
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t))


def clipped(denoiser: Denoiser, bounds: tuple[float, float] | None) -> Denoiser:
    """The denoiser with its answers clamped to the bounds of the signals; None for signals without bounds."""
    if bounds is None:
        return denoiser
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t, cond).clamp(*bounds))
