"""DPS: an ancestral step, then a gradient step towards the measurement; for any operator with a gradient."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.restoration.solvers.base import Observation, Solver, ddim_step, denoise, trajectory


@dataclass(frozen=True, kw_only=True)
class DPS(Solver):
    """DPS (Chung et al. 2022, algorithm 1): x_s = step(x_t, D) - zeta·grad ‖y - A(D)‖.

    Each sample has its own norm. The gradient's step is taken where the variance is preserved, as in the
    paper: on z_t/sqrt(1 + sigma²). eta: as in DDIM. One backward pass a step. The loop is its own: the
    gradient follows the step.
    """

    differentiates: ClassVar[bool] = True

    eta: float = 1.0
    zeta: float = 1.0

    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        for step in trajectory(denoiser.schedule, times):
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                D = denoise(denoiser, at, step)
                misfit = (observation.y - observation.operator.A(D)).flatten(1).norm(dim=1)
                (slope,) = torch.autograd.grad(misfit.sum(), at)
            D = D.detach()
            units = torch.hypot(*step.level_t) * torch.hypot(*step.level_s)
            x = (
                ddim_step(x, D, step, step.fresh_noise(self.eta), noise)
                - broadcast(self.zeta * units, x) * slope
            )
            yield Step(step.i, step.s, x, D)
