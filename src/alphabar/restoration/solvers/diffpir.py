"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.restoration.solvers.base import Observation, _denoise, _linear, _moves, _step


def diffpir(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    trust: float = 1.0,
    zeta: float = 0.3,
) -> Iterator[Step]:
    """DiffPIR (Zhu et al. 2023, algorithm 1): xhat is the picture between D and y.

    xhat = argmin ‖A x - y‖² + rho‖x - D‖², rho = trust·sigma_y²/sigma² (the paper's lambda is ``trust``).
    zeta: the share of fresh noise in each step, as variance.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "diffpir")
    for move in _moves(denoiser.schedule, times):
        D = _denoise(denoiser, x, move, cond)
        xhat = observation.clipped(linear.prox(D, y, trust * (sigma_y / move.sigma) ** 2))
        x = _step(x, xhat, move, zeta**0.5 * move.level_s.sigma, noise)
        yield Step(move.i, move.s, x, xhat)
