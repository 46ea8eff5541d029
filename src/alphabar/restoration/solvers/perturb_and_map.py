"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.restoration.solvers.base import Observation, _denoise, _guessed_variance, _linear, _moves, _step


def perturb_and_map(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    data_std: float = 0.5,
) -> Iterator[Step]:
    """Perturb and MAP (Papandreou & Yuille 2010) inside decoupled annealing (Zhang et al. 2024, algorithm 1).

    xhat is a sample of x0 given x_t and y where the first is N(D, r²), r² as in `pigdm`: the picture between
    D + r·e and y + sigma_y·e'. Then x_s = alpha_s·xhat + sigma_s·z. No backward pass.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "perturb_and_map")
    for move in _moves(denoiser.schedule, times):
        D = _denoise(denoiser, x, move, cond)
        r2 = _guessed_variance(move.sigma, data_std)
        guess = D + r2**0.5 * noise.normal(move.draws[1], D)
        seen = y + sigma_y * noise.normal(move.draws[2], y) if sigma_y > 0 else y
        xhat = linear.prox(guess, seen, sigma_y**2 / r2)
        x = _step(x, xhat, move, move.level_s.sigma, noise)
        yield Step(move.i, move.s, x, xhat)
