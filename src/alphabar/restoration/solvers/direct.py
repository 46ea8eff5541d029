"""Direct denoising: sampling starts from the noisy image itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.solvers.base import DDIMSolver, Observation, SolverStep, denoise


@dataclass(frozen=True, kw_only=True)
class Direct(DDIMSolver):
    """Plain denoising: y is x_t at sigma = sigma_y already, so sampling (DDIM) starts from it.

    It takes as many steps as times has, from sigma_y down to a twentieth of it, evenly in log SNR, then to
    0; eta as in DDIM. Refuses an A that is not the identity, and y without noise.
    """

    eta: float = 1.0

    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        y, sigma_y, schedule = observation.y, observation.sigma_y, denoiser.schedule
        if not self.linear_operator(observation).is_identity or not sigma_y > 0:
            raise UsageError("restoration.direct_only_denoises")
        log_sigma = math.log(sigma_y) - torch.linspace(0, math.log(20), len(times) - 1, dtype=torch.float64)
        times = torch.cat([schedule.time(-2 * log_sigma), times[-1:]])
        x = broadcast(schedule(times[:1]).alpha, y) * y
        yield from super().solve(denoiser, x, times, noise, observation)

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        return denoise(denoiser, x, step)

    def churn(self, step: SolverStep) -> Tensor:
        return step.fresh_noise(self.eta)
