"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.restoration.solvers.base import Observation, _denoise, _moves, _step


def dps(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 1.0,
    zeta: float = 1.0,
) -> Iterator[Step]:
    """DPS (Chung et al. 2022, algorithm 1): an ancestral step, then one of length zeta down ‖y - A(D)‖.

    Each picture has its own norm. The gradient's step is taken where the variance is preserved, as in the
    paper: on z_t/sqrt(1 + sigma²). Any operator with a gradient. One backward pass a step.
    """
    operator, y, _, _ = observation
    for move in _moves(denoiser.schedule, times):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            D = _denoise(denoiser, at, move, cond)
            misfit = (y - operator.A(D)).flatten(1).norm(dim=1)
            (slope,) = torch.autograd.grad(misfit.sum(), at)
        D = D.detach()
        units = torch.hypot(*move.level_t) * torch.hypot(*move.level_s)
        x = _step(x, D, move, move.churn(eta), noise) - broadcast(zeta * units, x) * slope
        yield Step(move.i, move.s, x, D)
