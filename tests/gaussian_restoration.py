"""The law of a solver on Gaussian data in closed form, beside the exact posterior."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.samplers import last_step
from alphabar.restoration.operators.base import Linear
from alphabar.restoration.solvers.base import Observation
from alphabar.restoration.solvers.registry import SOLVERS
from exact import GaussianDenoiser

SIDE = 8
SHAPE = (1, SIDE, SIDE)
D = SIDE * SIDE


def pictures() -> tuple[Tensor, Tensor]:
    """Mean (64,) and covariance (64, 64) of smooth grey pictures of 8 × 8, float64.

    Neighbours are correlated by exp(-distance / 3); the standard deviation of a pixel is 0.5.
    """
    y, x = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float64)] * 2, indexing="ij")
    at = torch.stack([x.flatten(), y.flatten()], 1)
    return 0.2 * torch.sin(at[:, 0] / 2), 0.25 * torch.exp(-torch.cdist(at, at) / 3)


@dataclass(frozen=True)
class Affine:
    """What comes out for y: mean(y) = gain·y + offset, covariance cov whatever y is."""

    gain: Tensor
    offset: Tensor
    cov: Tensor


class Impulses:
    """Random numbers of which row k has a one at number k of all that are taken, and the other rows none."""

    def __init__(self, draws: int, before: int, after: int):
        self.draws, self.before, self.after = draws, before, after

    def normal(self, step: int, like: Tensor) -> Tensor:
        d = like[0].numel()
        z = torch.zeros(self.before + self.draws * D + self.after, d, dtype=like.dtype)
        first = self.before + step * D
        z[first : first + d] = torch.eye(d, dtype=like.dtype)
        return z.reshape(like.shape)


def matrix(operator: Linear) -> Tensor:
    """A as a matrix (m, 64)."""
    return operator.A(torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)).flatten(1).T


WHOLE = {"ddrm", "direct"}
"""Solvers whose steps depend on more than x: ddrm remembers its modes, direct chooses its own times."""


def law(spec, denoiser: Denoiser, mean: Tensor, cov: Tensor, times: Tensor, operator: Linear, sigma_y: float):
    """The `Affine` law of a solver's result, from x ~ N(mean, cov) at times[0].

    With an affine denoiser every step of a linear solver is affine in x, in y and in the noise, so running
    it on a basis of all three gives its matrices: step by step, but for those that are one whole.
    """
    name = spec if isinstance(spec, str) else spec["name"]
    pieces = [times] if name in WHOLE or "repeats" in spec else [*pairwise(times)]
    m = int(torch.tensor(operator.measurement_shape).prod())
    found = Affine(torch.zeros(D, m, dtype=torch.float64), mean, cov)
    for piece in pieces:
        A, B, G, b = _basis(spec, denoiser, torch.as_tensor(piece), operator, sigma_y)
        found = Affine(A @ found.gain + G, A @ found.offset + b, A @ found.cov @ A.T + B @ B.T)
    return found


def _basis(spec, denoiser: Denoiser, times: Tensor, operator: Linear, sigma_y: float):
    m = int(torch.tensor(operator.measurement_shape).prod())
    draws = (3 if "perturb" in str(spec) else 1) * (len(times) - 1) * (8 if "repeats" in spec else 1)
    n = 1 + D + draws * D + m
    x = torch.zeros(n, D, dtype=torch.float64)
    x[1 : 1 + D] = torch.eye(D)
    y = torch.zeros(n, m, dtype=torch.float64)
    y[n - m :] = torch.eye(m)
    observation = Observation(operator, y.reshape(n, *operator.measurement_shape), sigma_y)
    solver, noise = SOLVERS.build(spec), Impulses(draws, 1 + D, m)
    rows = last_step(solver.solve(denoiser, x.reshape(n, *SHAPE), times, noise, observation)).x.flatten(1)
    b = rows[0]
    return (rows[1 : 1 + D] - b).T, (rows[1 + D : n - m] - b).T, (rows[n - m :] - b).T, b


def posterior(mean: Tensor, cov: Tensor, operator: Linear, sigma_y: float) -> Affine:
    """p(x0 | y) by Bayes' rule."""
    A = matrix(operator)
    K = cov @ A.T @ torch.linalg.pinv(A @ cov @ A.T + sigma_y**2 * torch.eye(len(A)), hermitian=True)
    return Affine(K, mean - K @ A @ mean, cov - K @ A @ cov)


@dataclass(frozen=True)
class Nearness:
    """How near a solver's law is to the posterior; for the posterior itself 0, 1 and 1.

    decibels: the mean squared error of its mean over the least there is.
    variance: the ratio of total variances. chi2: E‖A x - y‖² / (m·sigma_y²), m the number of known values.
    """

    decibels: float
    variance: float
    chi2: float


def nearness(found: Affine, mean: Tensor, cov: Tensor, operator: Linear, sigma_y: float) -> Nearness:
    """Over y as the data gives it."""
    exact, A = posterior(mean, cov, operator, sigma_y), matrix(operator)
    seen = A.abs().sum(1) > 0
    y_mean, y_cov = A @ mean, A @ cov @ A.T + sigma_y**2 * torch.diag(seen.double())
    gap, off = found.gain - exact.gain, (found.gain - exact.gain) @ y_mean + found.offset - exact.offset
    least = exact.cov.trace()
    excess = (gap @ y_cov @ gap.T).trace() + off @ off
    # A x - y = (A·gain - I)(y - E y) + its mean + A·(x's own noise)
    miss = A @ found.gain - torch.eye(len(A))
    mean_miss = miss @ y_mean + A @ found.offset
    total = (miss @ y_cov @ miss.T + A @ found.cov @ A.T)[seen][:, seen].trace() + (
        mean_miss[seen] ** 2
    ).sum()
    chi2 = total / (seen.sum() * sigma_y**2) if sigma_y > 0 else torch.tensor(torch.nan)
    ratio = found.cov.trace() / least
    return Nearness((10 * torch.log10(1 + excess / least)).item(), ratio.item(), chi2.item())


def exact_denoiser(schedule) -> GaussianDenoiser:
    return GaussianDenoiser(schedule, *pictures())
