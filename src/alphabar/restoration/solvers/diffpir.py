"""DiffPIR: the estimate is a compromise between the denoised sample and the measurement."""

from dataclasses import dataclass

from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.restoration.solvers.base import DDIMSolver, Observation, SolverStep, denoise


@dataclass(frozen=True, kw_only=True)
class DiffPIR(DDIMSolver):
    """DiffPIR (Zhu et al. 2023, algorithm 1): xhat is the sample between D and y.

    xhat = argmin ‖A x - y‖² + rho‖x - D‖², rho = trust·sigma_y²/sigma² (the paper's lambda is ``trust``).
    zeta: the share of fresh noise in each step, as variance: c² = zeta·sigma_s².
    """

    trust: float = 1.0
    zeta: float = 0.3

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        A = observation.operator
        if not A.has_prox:
            raise UsageError("restoration.solver_needs_linear", solver=type(self).__name__)
        rho = self.trust * (observation.sigma_y / step.sigma) ** 2
        return observation.clamp(A.prox(denoise(denoiser, x, step), observation.y, rho))

    def churn(self, step: SolverStep) -> Tensor:
        return self.zeta**0.5 * step.level_s.sigma
