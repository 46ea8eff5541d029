"""TODO-DOC from restoration.posterior"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import Level, Schedule, broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Operator


class Observation(NamedTuple):
    """What is known: y (n, *operator.measured) = A(x0) + sigma_y·n, sigma_y in the units of [-1, 1].

    bound: the largest |x0| that there is. A mean of x0 is no larger, so xhat is clipped to it: what leaves
    the range is amplified from step to step where a network's Jacobian is not quite that of a denoiser.
    """

    operator: Operator
    y: Tensor
    sigma_y: float
    bound: float = math.inf

    def clipped(self, xhat: Tensor) -> Tensor:
        return xhat.clamp(-self.bound, self.bound)


Solver = Callable[[Denoiser, Tensor, Tensor, Noise, Observation, Condition | None], Iterator[Step]]
"""(denoiser, x, times, noise, observation, cond) -> steps; x (n, c, h, w) is at the level of times[0].

x0 of a step is xhat. Raises UsageError where the operator or the noise is not one the solver can take,
and where times begin at pure noise (alpha = 0).
"""


class Move(NamedTuple):
    """One step of a walk, number i, from time t to s. first, second, third: numbers of its noises."""

    i: int
    t: Tensor
    s: Tensor
    level_t: Level
    level_s: Level
    draws: tuple[int, int, int]

    @property
    def sigma(self) -> float:
        """sigma_t / alpha_t."""
        return (self.level_t.sigma / self.level_t.alpha).item()

    def churn(self, eta: float) -> Tensor:
        """c of DDIM, eq. 16: 0 for eta = 0, that of ancestral sampling for eta = 1."""
        share = -torch.expm1(self.level_t.log_snr - self.level_s.log_snr)
        return eta * self.level_s.sigma * share.sqrt()


def _moves(
    schedule: Schedule, times: Tensor, pairs: Iterator[tuple[int, int]] | None = None
) -> Iterator[Move]:
    levels = [Level(*level) for level in zip(*schedule(times))]
    if levels[0].alpha == 0:
        raise UsageError("a posterior solver cannot begin at pure noise: choose the grid log_snr or karras")
    walk = list(pairs or ((i, i + 1) for i in range(len(times) - 1)))
    for i, (a, b) in enumerate(walk):
        draws = (i, len(walk) + i, 2 * len(walk) + i)
        yield Move(i, times[a], times[b], levels[a], levels[b], draws)


def _step(x: Tensor, xhat: Tensor, move: Move, c: Tensor, noise: Noise) -> Tensor:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = move.level_t, move.level_s
    eps = (x - broadcast(alpha_t, x) * xhat) / broadcast(sigma_t, x)
    x = broadcast(alpha_s, x) * xhat + broadcast((sigma_s**2 - c**2).clamp(min=0).sqrt(), x) * eps
    return x + broadcast(c, x) * noise.normal(move.draws[0], x) if c > 0 else x


def _denoise(denoiser: Denoiser, x: Tensor, move: Move, cond: Condition | None) -> Tensor:
    return denoiser(x, move.t.expand(len(x)), cond)


def _denoise_and_vjp(
    denoiser: Denoiser, x: Tensor, move: Move, cond: Condition | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D, and v → Jᵀv by a backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        D = _denoise(denoiser, x, move, cond)

    def vjp(v: Tensor) -> Tensor:
        return broadcast(move.level_t.alpha, v) * torch.autograd.grad(D, x, v, retain_graph=True)[0]

    return D.detach(), vjp


def _linear(observation: Observation, solver: str) -> Linear:
    if not isinstance(observation.operator, Linear):
        raise UsageError(f"solver {solver!r} takes linear degradations only: choose ddnm or dps")
    return observation.operator


def _guessed_variance(sigma: float, data_std: float) -> float:
    return (sigma * data_std) ** 2 / (sigma**2 + data_std**2)
