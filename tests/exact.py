"""Data whose denoiser is known in closed form: what the mathematics is tested against."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alphabar.diffusion.schedules import Schedule


@dataclass(frozen=True)
class GaussianDenoiser:
    """E[x0 | x_t] for x0 ~ N(mean, cov); signals of any shape (n, ...) with d numbers each.

    mean: (d,); cov: (d, d); both float64.
    """

    schedule: Schedule
    mean: Tensor
    cov: Tensor

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        variances, directions = torch.linalg.eigh(self.cov)
        return variances.clamp(min=0), directions

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        alpha, sigma = (c[:, None] for c in self.schedule(t))
        variances, directions = self.spectrum
        y = (x.double().flatten(1) - alpha * self.mean) @ directions
        y = y * alpha * variances / (alpha**2 * variances + sigma**2)
        return (self.mean + y @ directions.T).reshape(x.shape).to(x.dtype)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of x_t, t ()."""
        alpha, sigma = self.schedule(t)
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        return alpha * self.mean, alpha**2 * self.cov + sigma**2 * eye

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability flow carries x (n, d) from time t to s: it keeps every quantile in place."""
        variances, directions = self.spectrum
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule(t), self.schedule(s)
        y = (x - alpha_t * self.mean) @ directions
        y = y * ((alpha_s**2 * variances + sigma_s**2) / (alpha_t**2 * variances + sigma_t**2)).sqrt()
        return alpha_s * self.mean + y @ directions.T


@dataclass(frozen=True)
class MixtureDenoiser:
    """E[x0 | x_t] for x0 ~ sum_k weights_k N(means_k, std² I).

    weights: (k,); means: (k, d), float64. std = 0 is a data set of k pictures.
    """

    schedule: Schedule
    weights: Tensor
    means: Tensor
    std: float

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        alpha, sigma = (c[:, None, None] for c in self.schedule(t))
        variance = alpha**2 * self.std**2 + sigma**2
        gap = x.double().flatten(1)[:, None] - alpha * self.means
        log_share = self.weights.log() - (gap**2).sum(2) / (2 * variance[..., 0])
        each = self.means + alpha * self.std**2 / variance * gap
        return (log_share.softmax(1)[..., None] * each).sum(1).reshape(x.shape).to(x.dtype)
