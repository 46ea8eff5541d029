"""MMPS: as PiGDM, with the covariance that the denoiser's own Jacobian gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.restoration.operators.base import dot
from alphabar.restoration.solvers.base import (
    DDIMSolver,
    Observation,
    SolverStep,
    denoise_with_vjp,
    prior_variance,
)


@dataclass(frozen=True, kw_only=True)
class MMPS(DDIMSolver):
    """MMPS (Rozet et al. 2024, algorithm 3): as PiGDM, with the denoiser's own covariance of x0, sigma²·J.

    xhat = D + sigma²·J Aᵀ v where (A sigma²J Aᵀ + sigma_y²) v = y - A D, by so many iterations of conjugate
    gradients. eta: as in DDIM. One backward pass for each iteration, and one more.

    damping: how much of PiGDM's variance of independent pixels is added to the matrix, at least 0. The
        Jacobian of a network is no exact covariance; where it is far from symmetric, conjugate gradients
        diverge without. data_std: as in PiGDM, for the damping.
    """

    differentiates: ClassVar[bool] = True

    eta: float = 1.0
    iterations: int = 2
    damping: float = 0.0
    data_std: float = 0.5

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        A, sigma_y = self.linear_operator(observation), observation.sigma_y
        D, vjp = denoise_with_vjp(denoiser, x, step)
        variance = step.sigma**2
        independent = sigma_y**2 + self.damping * prior_variance(step.sigma, self.data_std)

        def covariance(v: Tensor) -> Tensor:
            return A.A(variance * vjp(A.adjoint(v))) + independent * v

        v = conjugate_gradients(covariance, observation.y - A.A(D), self.iterations)
        return observation.clamp(D + variance * vjp(A.adjoint(v)))

    def churn(self, step: SolverStep) -> Tensor:
        return step.fresh_noise(self.eta)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """v (n, …) with matrix(v) = b for a symmetric matrix, each sample with its own step lengths.

    A sample stops where it is solved, or where the matrix turns out not to be positive. Solved means to the
    precision of its floating-point type: where the matrix is singular, what is left beyond that has any
    direction.
    """
    solved = max(1e-24, (10 * torch.finfo(b.dtype).eps) ** 2)
    v, r, p = torch.zeros_like(b), b, b
    first = last = dot(r, r)
    for _ in range(iterations):
        q = matrix(p)
        curvature = dot(p, q)
        sound = (curvature > 0) & (last > solved * first)
        step = torch.where(sound, last / curvature, 0)
        v, r = v + step * p, r - step * q
        last, before = dot(r, r), last
        p = r + torch.where(sound, last / before, 0) * p
    return v
