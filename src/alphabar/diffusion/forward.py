"""The forward process in closed form: q(x_t | x_0) and q(x_s | x_t, x_0)."""

import torch
from torch import Tensor

from alphabar.diffusion.schedules import Schedule, broadcast


def diffuse(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """A sample of q(x_t | x_0): x_t = alpha_t·x0 + sigma_t·eps.

    x0, eps: (n, ...), eps standard normal; t: (n,) in [0, 1]. DDPM, eq. 4.
    """
    alpha, sigma = schedule(t)
    return broadcast(alpha, x0) * x0 + broadcast(sigma, x0) * eps


def posterior(schedule: Schedule, x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(x_s | x_t, x_0) for two times s < t, next to each other or not.

    x_t, x0: (n, ...); t, s: (n,) or (), s at or below t. Returns the mean (n, ...) and the standard
    deviation, shaped to multiply it. DDPM, eq. 6-7 (its beta-tilde is std²), for any alpha and sigma.
    """
    level_t, level_s = schedule(t), schedule(s)
    # With x_t = alpha_ts·x_s + noise of variance var_ts, the share of x_t's noise added since s is
    # var_ts / sigma_t² = 1 - SNR_t / SNR_s. From the SNRs it neither cancels nor divides by alpha.
    share = -torch.expm1(level_t.log_snr - level_s.log_snr)
    c_x = level_t.alpha / level_s.alpha * (level_s.sigma / level_t.sigma).square()
    c_x0 = level_s.alpha * share
    std = level_s.sigma * share.sqrt()
    return broadcast(c_x, x_t) * x_t + broadcast(c_x0, x_t) * x0, broadcast(std, x_t)
