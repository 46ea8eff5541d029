"""TODO-DOC from restoration.posterior"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Operator
from alphabar.restoration.operators.separable import Separable
from alphabar.restoration.solvers.base import Observation, _denoise, _moves, _step


def direct(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Plain denoising needs no solver: y is a noisy picture already, so sampling starts from it at sigma_y.

    As many steps as times has, from sigma_y down to a twentieth of it, evenly in log SNR, then to 0; eta as
    in DDIM. Raises UsageError where A is not the identity or there is no noise.
    """
    operator, y, sigma_y, _ = observation
    if not is_identity(operator) or not sigma_y > 0:
        raise UsageError("solver 'direct' is for plain denoising: noise, and nothing else")
    schedule = denoiser.schedule
    log_sigma = math.log(sigma_y) - torch.linspace(0, math.log(20), len(times) - 1, dtype=torch.float64)
    times = torch.cat([schedule.time(-2 * log_sigma), times[-1:]])
    x = broadcast(schedule(times[:1]).alpha, y) * y
    for move in _moves(schedule, times):
        D = _denoise(denoiser, x, move, cond)
        x = _step(x, D, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, D)


def is_identity(operator: Operator) -> bool:
    """Whether the operator leaves pictures as they are."""
    return isinstance(operator, Separable) and all(matrix is None for matrix in operator.matrices)
