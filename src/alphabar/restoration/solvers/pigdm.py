"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.restoration.solvers.base import (
    Observation,
    _denoise_and_vjp,
    _guessed_variance,
    _linear,
    _moves,
    _step,
)


def pigdm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 1.0,
    data_std: float = 0.5,
) -> Iterator[Step]:
    """PiGDM (Song et al. 2023, eq. 7): xhat = D + sigma²·Jᵀ Aᵀ (r²·A Aᵀ + sigma_y²)⁻¹ (y - A D).

    r² = sigma²s²/(sigma² + s²), the variance of x0 given x_t were pixels independent of standard
    deviation s = data_std. The paper has s = 1. One backward pass a step.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "pigdm")
    for move in _moves(denoiser.schedule, times):
        D, vjp = _denoise_and_vjp(denoiser, x, move, cond)
        r2 = _guessed_variance(move.sigma, data_std)
        guide = linear.lift(y - linear.A(D), sigma_y**2 / r2) / r2
        xhat = observation.clipped(D + move.sigma**2 * vjp(guide))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)
