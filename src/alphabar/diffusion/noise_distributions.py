"""Noise distributions: at which noise levels training happens, and the weight of each in the loss."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.schedules import Level, Schedule
from alphabar.registry import Registry

NoiseDistribution = Callable[[Schedule, Tensor], Tensor]
"""(schedule, u) -> times (n,) in (0, 1], for u (n,) uniform in [0, 1)."""

Mean = Annotated[float, Field(ge=-100, le=100)]
Spread = Annotated[float, Field(gt=0, le=100)]

Weight = Callable[[Level], Tensor]
"""level -> the weight (n,) of the loss at n noise levels, positive."""


def uniform(
    schedule: Schedule, u: Tensor, *, discrete: Annotated[int, Field(ge=0, le=1_000_000)] = 0
) -> Tensor:
    """t uniform in (0, 1]; with discrete = T > 0, uniform over 1/T, 2/T, ..., 1 as in DDPM."""
    t = 1 - u
    return (t * discrete).ceil() / discrete if discrete else t


def log_normal(
    schedule: Schedule,
    u: Tensor,
    *,
    mean: Mean = -1.2,
    std: Spread = 1.2,
    uniform_share: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Tensor:
    """ln(sigma / alpha) ~ N(mean, std²), as in Karras et al. 2022, table 1; beyond the end t = 1.

    uniform_share: the share of times that are uniform in (0, 1] instead, so that a narrow normal leaves no
        level out; in [0, 1).
    """
    rest = ((u - uniform_share) / (1 - uniform_share)).clamp(min=0)
    t = schedule.time(-2 * (mean + std * _normal_quantile(rest)))
    return torch.where(u < uniform_share, uniform(schedule, u / uniform_share), t) if uniform_share else t


def logit_normal(schedule: Schedule, u: Tensor, *, mean: Mean = 0.0, std: Spread = 1.0) -> Tensor:
    """ln(t / (1 - t)) ~ N(mean, std²), as in Esser et al. 2024 ("SD3"), section 3.1, for rectified flow."""
    return torch.sigmoid(mean + std * _normal_quantile(u))


def _normal_quantile(u: Tensor) -> Tensor:
    # u is a multiple of 2^-53: half a unit keeps u = 0, and with it t = 0, out.
    return torch.special.ndtri(u.clamp(min=2.0**-54))


def stratified(u: Tensor, places: Tensor, batch: int) -> Tensor:
    """Independent uniforms made to cover [0, 1) evenly over a global batch: one in each of its strata.

    u: (n,) independent, uniform in [0, 1). places: (n,) whole numbers, the place of each item in the global
    batch of ``batch`` items. The stratum is a function of the place alone, so it is the same however the
    batch is divided among processes and accumulation steps.
    """
    # Strata in the order of the golden-ratio sequence, so that any part of the batch is itself spread out.
    golden = torch.arange(batch, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    stratum = golden.argsort().argsort()
    return (stratum[places % batch].to(u.device) + u) / batch


def unit(level: Level) -> Tensor:
    """The same weight at every level for the network's own prediction (for eps: the simple loss of DDPM)."""
    return torch.ones_like(level.sigma)


NOISE_DISTRIBUTIONS = Registry(
    "noise distribution", {"uniform": uniform, "log_normal": log_normal, "logit_normal": logit_normal}
)

WEIGHTS = Registry("weight", {"unit": unit})
