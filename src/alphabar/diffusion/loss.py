"""The denoising loss."""

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser, means
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.noise_distributions import Weight, unit
from alphabar.diffusion.schedules import broadcast


def loss(
    denoiser: NetworkDenoiser,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    cond: Condition | None = None,
    weight: Weight = unit,
) -> Tensor:
    """The weighted mean squared error of the network's prediction F, one number for each signal, (n,).

    x0: signals (n, ...); t: (n,) in (0, 1]; eps: standard normal, like x0. The target
    (x0 - c_skip·x_t) / c_out serves every parameterization; for eps with weight 1 it is eps, and
    this is DDPM's L_simple (eq. 14). Where the parameterization is for a coarse picture, the detail of D is
    compared with that of x0 (`squared_error`).
    """
    level = denoiser.schedule(t)
    coeffs = denoiser.coeffs(t)
    x_t = diffuse(denoiser.schedule, x0, t, eps)
    # With x_t = alpha·x0 + sigma·eps put in: in float32 the difference would cancel at small sigma.
    c_x0 = (1 - coeffs.c_skip * level.alpha) / coeffs.c_out
    c_eps = -coeffs.c_skip * level.sigma / coeffs.c_out
    target = broadcast(c_x0, x0) * x0 + broadcast(c_eps, x0) * eps
    F = denoiser.predict(x_t, coeffs, cond)
    of_D = F if denoiser.coarse == 1 else denoiser.denoised(x_t, F, coeffs) - x0
    error = squared_error(denoiser.coarse, F - target, of_D)
    return weight(level).to(error.dtype).to(error.device) * error


def squared_error(k: int, of_F: Tensor, of_D: Tensor) -> Tensor:
    """The mean squared error (n,) of what F and D are off by, each (n, ...); where k is 1, of F alone.

    With means over squares of k×k pixels it is that of F in these and that of D in the detail.
    """
    if k == 1:
        return of_F.square().flatten(1).mean(1)
    # Pythagoras: the detail is what the means leave of the whole.
    in_detail = of_D.square().flatten(1).mean(1) - means(of_D, k).square().flatten(1).mean(1)
    return means(of_F, k).square().flatten(1).mean(1) + in_detail


def drop_labels(cond: Condition, u: Tensor, probability: float) -> Condition:
    """The conditions (n, columns), all unknown (NaN) in the rows where u (n,) is below the probability.

    u: uniform in [0, 1). One network learns the conditional and the unconditional denoiser in this way, as
    classifier-free guidance needs (Ho and Salimans 2022, algorithm 1).
    """
    return torch.where((u < probability)[:, None], torch.nan, cond)


def denoising_error(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None = None
) -> Tensor:
    """The mean of (D(x_t) - x0)² of each signal, (n,): comparable between parameterizations.

    x0: signals (n, ...); t: (n,) in (0, 1]; eps: standard normal, like x0.
    """
    x_t = diffuse(denoiser.schedule, x0, t, eps)
    return (denoiser(x_t, t, cond) - x0).square().flatten(1).mean(1)
