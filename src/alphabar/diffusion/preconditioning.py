"""Parameterizations: what the network predicts, written as four coefficients of the noise level.

Every parameterization is D = c_skip·x_t + c_out·F with F = network(c_in·x_t, c_noise), as in
Karras et al. 2022, eq. 7; the network's target is then F* = (x0 - c_skip·x_t) / c_out.

On a schedule that preserves neither the variance nor alpha + sigma = 1, c_in scales x_t to the scale that the
parameterization was derived for, so that each of them works on every schedule.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.schedules import Level
from alphabar.errors import UsageError
from alphabar.registry import Registry


class Preconditioning(NamedTuple):
    """D = c_skip·x + c_out·network(c_in·x, c_noise). Each (n,), float64."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


Parameterization = Callable[[Level, Tensor], Preconditioning]
"""(level, t) -> the coefficients; level and t (n,) describe the same n noise levels."""


def eps(level: Level, t: Tensor) -> Preconditioning:
    """The network predicts the noise (DDPM): x0 = (x - sigma·F) / alpha.

    Raises UsageError where alpha = 0: pure noise does not determine x0, and the division fails.
    """
    alpha, sigma = level
    if (alpha == 0).any():
        raise UsageError("diffusion.eps_at_pure_noise")
    return Preconditioning(1 / torch.hypot(alpha, sigma), 1 / alpha, -sigma / alpha, t)


def x0(level: Level, t: Tensor) -> Preconditioning:
    """The network predicts the clean signal."""
    alpha, sigma = level
    return Preconditioning(1 / torch.hypot(alpha, sigma), torch.zeros_like(alpha), torch.ones_like(alpha), t)


def v(level: Level, t: Tensor) -> Preconditioning:
    """The network predicts v = alpha·eps - sigma·x0 (Salimans & Ho 2022), alpha² + sigma² scaled to 1."""
    alpha, sigma = level
    norm = torch.hypot(alpha, sigma)
    return Preconditioning(1 / norm, alpha / norm**2, -sigma / norm, t)


def flow(level: Level, t: Tensor) -> Preconditioning:
    """The network predicts the velocity eps - x0 of the straight path (Lipman et al. 2022)."""
    alpha, sigma = level
    total = alpha + sigma
    return Preconditioning(1 / total, 1 / total, -sigma / total, t)


def edm(
    level: Level, t: Tensor, *, sigma_data: Annotated[float, Field(gt=0, le=1000)] = 0.5
) -> Preconditioning:
    """The preconditioning of Karras et al. 2022, table 1, for x / alpha at noise level sigma / alpha.

    sigma_data: standard deviation of the data. c_noise = ln(sigma / alpha) / 4, held within ±2.5
    so that it stays finite at the ends of every schedule.
    """
    alpha, sigma = level
    norm = torch.hypot(sigma, alpha * sigma_data)
    return Preconditioning(
        c_in=1 / norm,
        c_skip=alpha * sigma_data**2 / norm**2,
        c_out=sigma * sigma_data / norm,
        c_noise=-level.log_snr.clamp(-20, 20) / 8,
    )


PARAMETERIZATIONS = Registry("parameterization", {"eps": eps, "x0": x0, "v": v, "flow": flow, "edm": edm})
