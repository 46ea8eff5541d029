"""TODO-DOC from restoration.posterior"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.restoration.solvers.base import Observation, _denoise_and_vjp, _linear, _moves, _step


def mmps(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 1.0,
    iterations: int = 2,
) -> Iterator[Step]:
    """MMPS (Rozet et al. 2024, algorithm 3): as PiGDM, with the denoiser's own covariance of x0, sigma²·J.

    xhat = D + sigma²·J Aᵀ v where (A sigma²J Aᵀ + sigma_y²) v = y - A D, by so many iterations of conjugate
    gradients. One backward pass each, and one more.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "mmps")
    for move in _moves(denoiser.schedule, times):
        D, vjp = _denoise_and_vjp(denoiser, x, move, cond)

        def covariance(v: Tensor, vjp=vjp, variance=move.sigma**2) -> Tensor:
            return linear.A(variance * vjp(linear.adjoint(v))) + sigma_y**2 * v

        v = _conjugate_gradients(covariance, y - linear.A(D), iterations)
        xhat = observation.clipped(D + move.sigma**2 * vjp(linear.adjoint(v)))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """v with matrix·v = b for a symmetric matrix, (n, …), each picture with its own step lengths.

    A picture stops where it is solved, or where the matrix turns out not to be positive. Solved is to the
    digits that numbers have: where the matrix is singular, what is beyond them has any direction.
    """
    solved = max(1e-24, (10 * torch.finfo(b.dtype).eps) ** 2)

    def dot(u: Tensor, w: Tensor) -> Tensor:
        return (u * w).flatten(1).sum(1).reshape(-1, *[1] * (b.ndim - 1))

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
