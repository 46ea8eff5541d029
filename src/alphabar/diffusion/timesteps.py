"""Timesteps: the times, and with them the noise levels, that a sampler visits. All end at t = 0."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.schedules import Schedule, terminal_snr
from alphabar.errors import UsageError
from alphabar.registry import Registry

LEAST_SIGMA = 1e-9  # sigma_min; samplers compute in float32, in which far smaller levels are zero

Timesteps = Callable[[Schedule, int], Tensor]
"""(schedule, steps) -> times (steps + 1,), float64, falling strictly from the first to 0."""


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """t = 1, 1 - 1/steps, ..., 0: the trained steps of linear_beta, or every k-th of them."""
    return torch.arange(_checked(steps), -1, -1, dtype=torch.float64) / steps


def karras(
    schedule: Schedule,
    steps: int,
    *,
    rho: Annotated[float, Field(ge=0.1, le=100)] = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Tensor:
    """(sigma / alpha)^(1/rho) falls linearly from sigma_max to sigma_min; then 0. Karras 2022, eq. 5."""
    first, final = _reached(schedule, sigma_min, sigma_max)
    root = torch.linspace(first ** (1 / rho), final ** (1 / rho), _checked(steps), dtype=torch.float64)
    return _times(schedule, root**rho)


def log_snr(schedule: Schedule, steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """ln(sigma / alpha) falls linearly from sigma_max to sigma_min; then 0. Lu et al. 2022 (DPM-Solver)."""
    first, final = _reached(schedule, sigma_min, sigma_max)
    log_sigma = torch.linspace(math.log(first), math.log(final), _checked(steps), dtype=torch.float64)
    return _times(schedule, log_sigma.exp())


def linear_beta(schedule: Schedule, steps: int, *, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """The noise levels of DDPM's linear beta at even times u of its own; then 0. Song et al. 2021, eq. 32.

    ln alpha_bar = -(beta_min·u + (beta_max - beta_min)·u²/2). From u = 1, or the u of the schedule's end.
    Few of them lie at noise below 0.1 and above 5, which hardly shows.
    """
    if not 0 < beta_min < beta_max:
        raise UsageError("diffusion.timesteps_beta", beta_min=beta_min, beta_max=beta_max)
    rise = beta_max - beta_min
    total = -F.logsigmoid(schedule(torch.ones(1, dtype=torch.float64)).log_snr).item()
    last = min(1.0, ((beta_min**2 + 2 * rise * total) ** 0.5 - beta_min) / rise)
    u = torch.linspace(last, 0, _checked(steps) + 1, dtype=torch.float64)[:-1]
    log_alpha_bar = -(beta_min * u + rise * u**2 / 2)
    return _times(schedule, (-torch.expm1(log_alpha_bar)).sqrt() * (-log_alpha_bar / 2).exp())


def _checked(steps: int) -> int:
    if steps < 1:
        raise UsageError("diffusion.too_few_steps", steps=steps)
    return steps


def _reached(schedule: Schedule, sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """sigma_max, lowered to the sigma / alpha where the schedule ends, and sigma_min."""
    snr = terminal_snr(schedule)
    reached = min(sigma_max, snr**-0.5) if snr > 0 else sigma_max
    if not LEAST_SIGMA <= sigma_min < reached:
        raise UsageError(
            "diffusion.timesteps_sigma", sigma_min=sigma_min, sigma_max=reached, least=LEAST_SIGMA
        )
    return reached, sigma_min


def _times(schedule: Schedule, sigma: Tensor) -> Tensor:
    t = schedule.time(-2 * sigma.log())
    return torch.cat([t, t.new_zeros(1)])


TIMESTEPS = Registry(
    "timesteps", {"uniform": uniform, "karras": karras, "log_snr": log_snr, "linear_beta": linear_beta}
)
