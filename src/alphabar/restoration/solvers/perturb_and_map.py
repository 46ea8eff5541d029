"""Perturb and MAP: the estimate is a sample of x0 given x_t and y, for a Gaussian guess of x0 given x_t."""

from dataclasses import dataclass

from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.restoration.solvers.base import DDIMSolver, Observation, SolverStep, denoise, prior_variance


@dataclass(frozen=True, kw_only=True)
class PerturbAndMAP(DDIMSolver):
    """Perturb and MAP (Papandreou & Yuille 2010) inside decoupled annealing (Zhang et al. 2024, algorithm 1).

    xhat is a sample of x0 given x_t and y where the first is N(D, r²), r² as in `PiGDM`: the sample between
    D + r·e and y + sigma_y·e'. Then x_s = alpha_s·xhat + sigma_s·z. No backward pass.
    """

    data_std: float = 0.5

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        A, y, sigma_y = self.linear_operator(observation), observation.y, observation.sigma_y
        D = denoise(denoiser, x, step)
        r2 = prior_variance(step.sigma, self.data_std)
        guess = D + r2**0.5 * noise.normal(step.noise_numbers[1], D)
        seen = y + sigma_y * noise.normal(step.noise_numbers[2], y) if sigma_y > 0 else y
        return A.prox(guess, seen, sigma_y**2 / r2)

    def churn(self, step: SolverStep) -> Tensor:
        return step.level_s.sigma
