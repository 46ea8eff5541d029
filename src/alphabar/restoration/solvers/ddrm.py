"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Spectral
from alphabar.restoration.solvers.base import Observation, _denoise, _linear, _moves


def ddrm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> Iterator[Step]:
    """DDRM (Kawar et al. 2022, eq. 7 and 8): a walk of its own for each mode, by how well y knows it.

    Raises UsageError for an operator whose singular values are not known.
    """
    operator, (_, y, sigma_y) = _linear(observation, "ddrm"), observation[:3]
    if not isinstance(operator, Spectral):
        raise UsageError("solver 'ddrm' needs the singular values, not known here: choose diffpir or pigdm")
    s = operator.s.to(x)
    seen = s > 0
    sigma_seen = torch.where(seen, sigma_y / s, torch.inf)  # the noise of ybar, mode by mode
    ybar = torch.where(seen, operator.measure(y) / s, 0)
    modes = None
    for move in _moves(denoiser.schedule, times):
        sigma, sigma_s = move.sigma, (move.level_s.sigma / move.level_s.alpha).item()
        if modes is None:
            modes = operator.analyse(x / broadcast(move.level_t.alpha, x))
            known = sigma_seen < sigma
            modes = torch.where(
                known, ybar + (1 - (sigma_seen / sigma) ** 2).clamp(min=0).sqrt() * modes, modes
            )
            x = broadcast(move.level_t.alpha, x) * operator.synthesise(modes)
        D = _denoise(denoiser, x, move, cond)
        Dbar, z = operator.analyse(D), operator.analyse(noise.normal(move.draws[0], x))
        unseen = (modes - Dbar) / sigma
        noisy = torch.where(seen & (sigma_seen > 0), (ybar - Dbar) / sigma_seen, 0)
        down = Dbar + sigma_s * ((1 - eta**2) ** 0.5 * torch.where(seen, noisy, unseen) + eta * z)
        rest = (sigma_s**2 - (eta_b * sigma_seen) ** 2).clamp(min=0).sqrt()
        modes = torch.where(sigma_seen <= sigma_s, (1 - eta_b) * Dbar + eta_b * ybar + rest * z, down)
        x = broadcast(move.level_s.alpha, x) * operator.synthesise(modes)
        yield Step(move.i, move.s, x, D)
