"""DDRM: sampling in the modes of the operator, each by how well y knows it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Spectral
from alphabar.restoration.solvers.base import Observation, Solver, denoise, trajectory


@dataclass(frozen=True, kw_only=True)
class DDRM(Solver):
    """DDRM (Kawar et al. 2022, eq. 7 and 8): every mode of x is sampled on its own, by how well y knows it.

    With ybar = S⁻¹U*y, whose noise is sigma_y/s, Dbar = V*D and zbar = V*z, a mode of z_s becomes

        (1 - eta_b)·Dbar + eta_b·ybar + sqrt(sigma_s² - eta_b²·sigma_y²/s²)·zbar   where sigma_y/s ≤ sigma_s,
        Dbar + sigma_s·(sqrt(1 - eta²)·e + eta·zbar)                               elsewhere,

    with e = (ybar - Dbar)/(sigma_y/s) where s > 0 and e = (V*z_t - Dbar)/sigma where s = 0.
    Refuses an operator whose singular values are not known. The loop is its own: it remembers its modes.
    """

    eta: float = 0.85
    eta_b: float = 1.0

    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        operator, y, sigma_y = self.linear_operator(observation), observation.y, observation.sigma_y
        if not isinstance(operator, Spectral):
            raise UsageError("restoration.ddrm_needs_singular_values")
        s = operator.s.to(x)
        seen = s > 0
        sigma_seen = torch.where(seen, sigma_y / s, torch.inf)  # the noise of ybar, mode by mode
        ybar = torch.where(seen, operator.Ut(y) / s, 0)
        modes = None
        for step in trajectory(denoiser.schedule, times):
            if modes is None:
                modes = operator.Vt(x / broadcast(step.level_t.alpha, x))
                known = (1 - (sigma_seen / step.sigma) ** 2).clamp(min=0).sqrt()
                modes = torch.where(sigma_seen < step.sigma, ybar + known * modes, modes)
                x = broadcast(step.level_t.alpha, x) * operator.V(modes)
            D = denoise(denoiser, x, step)
            Dbar, z = operator.Vt(D), operator.Vt(noise.normal(step.noise_numbers[0], x))
            unseen = (modes - Dbar) / step.sigma
            noisy = torch.where(seen & (sigma_seen > 0), (ybar - Dbar) / sigma_seen, 0)
            mixed = (1 - self.eta**2) ** 0.5 * torch.where(seen, noisy, unseen) + self.eta * z
            rest = (step.sigma_s**2 - (self.eta_b * sigma_seen) ** 2).clamp(min=0).sqrt()
            known_well = (1 - self.eta_b) * Dbar + self.eta_b * ybar + rest * z
            modes = torch.where(sigma_seen <= step.sigma_s, known_well, Dbar + step.sigma_s * mixed)
            x = broadcast(step.level_s.alpha, x) * operator.V(modes)
            yield Step(step.i, step.s, x, D)
