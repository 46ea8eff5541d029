"""PiGDM: the estimate follows the gradient of log p(y | x_t), for a Gaussian guess of x0 given x_t."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.restoration.solvers.base import (
    DDIMSolver,
    Observation,
    SolverStep,
    denoise_with_vjp,
    prior_variance,
)


@dataclass(frozen=True, kw_only=True)
class PiGDM(DDIMSolver):
    """PiGDM (Song et al. 2023, eq. 7): xhat = D + sigma²·Jᵀ Aᵀ (r²·A Aᵀ + sigma_y²)⁻¹ (y - A D).

    r² = sigma²s²/(sigma² + s²), the variance of x0 given x_t were pixels independent of standard deviation
    s = data_std. The paper has s = 1. eta: as in DDIM. One backward pass a step.
    """

    differentiates: ClassVar[bool] = True

    eta: float = 1.0
    data_std: float = 0.5

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        A = self.linear_operator(observation)
        D, vjp = denoise_with_vjp(denoiser, x, step)
        r2 = prior_variance(step.sigma, self.data_std)
        guide = A.regularized_pinv(observation.y - A.A(D), observation.sigma_y**2 / r2) / r2
        return observation.clamp(D + step.sigma**2 * vjp(guide))

    def churn(self, step: SolverStep) -> Tensor:
        return step.fresh_noise(self.eta)
