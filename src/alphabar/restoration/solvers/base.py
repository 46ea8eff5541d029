"""The loop that most solvers share, its steps, and what it knows about the measurement."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import Level, Schedule, broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Operator
from alphabar.restoration.operators.decoded import Decoded


@dataclass(frozen=True)
class Observation:
    """What is known: y (n, *operator.measurement_shape) = A(x0) + sigma_y·n, sigma_y in the units of signals.

    bounds: the least and the largest value of x0, or None. A mean of x0 lies between them, so estimates are
        clamped to them: where a network's Jacobian is not quite that of a denoiser, what leaves the range
        grows at every step.
    """

    operator: Operator
    y: Tensor
    sigma_y: float
    bounds: tuple[float, float] | None = None

    def clamp(self, xhat: Tensor) -> Tensor:
        """Estimates held within the bounds, where there are any."""
        return xhat if self.bounds is None else xhat.clamp(*self.bounds)


class SolverStep(NamedTuple):
    """Step number i of a solver, from time t to s. noise_numbers: of the random numbers that it may use."""

    i: int
    t: Tensor
    s: Tensor
    level_t: Level
    level_s: Level
    noise_numbers: tuple[int, int, int]

    @property
    def sigma(self) -> float:
        """sigma_t / alpha_t."""
        return (self.level_t.sigma / self.level_t.alpha).item()

    @property
    def sigma_s(self) -> float:
        """sigma_s / alpha_s."""
        return (self.level_s.sigma / self.level_s.alpha).item()

    def fresh_noise(self, eta: float) -> Tensor:
        """c of DDIM, eq. 16: 0 for eta = 0, that of ancestral sampling for eta = 1."""
        share = -torch.expm1(self.level_t.log_snr - self.level_s.log_snr)
        return eta * self.level_s.sigma * share.sqrt()


class Solver(ABC):
    """Samples of p(x0 | y) by a denoiser that was trained for generation only.

    Subclasses are frozen dataclasses; their fields, keyword-only and with defaults, are the settings.
    differentiates: whether it takes gradients through the network, which needs more memory.
    """

    differentiates: ClassVar[bool] = False

    @abstractmethod
    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        """The steps from x (n, *shape) at the level of times[0] down times (steps + 1,); a step's x0 is xhat.

        Raises UsageError where the solver cannot take the operator or the noise, and where times begin at
        pure noise (alpha = 0).
        """

    def count(self, steps: int) -> int:
        """How many steps `solve` yields for times of so many steps."""
        return steps

    def linear_operator(self, observation: Observation) -> Linear:
        """The operator of an observation. Raises UsageError where it is not linear, as through a decoder."""
        operator = observation.operator
        if not isinstance(operator, Linear):
            if isinstance(operator, Decoded) and operator.has_prox:
                raise UsageError("restoration.solver_not_of_latents", solver=type(self).__name__)
            raise UsageError("restoration.solver_needs_linear", solver=type(self).__name__)
        return operator


class DDIMSolver(Solver):
    """A solver that takes the steps of DDIM with an estimate xhat of its own for the denoised sample."""

    @abstractmethod
    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        """xhat (n, *shape): an estimate of x0 from x at the level of step.t and from y."""

    @abstractmethod
    def churn(self, step: SolverStep) -> Tensor:
        """c (): the standard deviation of the fresh noise in the step, at most that of level_s."""

    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        for step in trajectory(denoiser.schedule, times):
            xhat = self.estimate(denoiser, x, step, noise, observation)
            x = ddim_step(x, xhat, step, self.churn(step), noise)
            yield Step(step.i, step.s, x, xhat)


def trajectory(
    schedule: Schedule, times: Tensor, pairs: Iterable[tuple[int, int]] | None = None
) -> Iterator[SolverStep]:
    """The steps between neighbouring times, or between those of the pairs of indices given.

    Raises UsageError where times begin at pure noise.
    """
    levels = [Level(*level) for level in zip(*schedule(times))]
    if levels[0].alpha == 0:
        raise UsageError("restoration.pure_noise")
    walk = list(pairwise(range(len(times))) if pairs is None else pairs)
    for i, (a, b) in enumerate(walk):
        numbers = (i, len(walk) + i, 2 * len(walk) + i)
        yield SolverStep(i, times[a], times[b], levels[a], levels[b], numbers)


def ddim_step(x: Tensor, xhat: Tensor, step: SolverStep, c: Tensor, noise: Noise) -> Tensor:
    """x (n, *shape) at the level of step.s: DDIM (Song et al. 2021, eq. 12) with xhat as the denoised sample.

    c: the standard deviation of the fresh noise.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = step.level_t, step.level_s
    eps = (x - broadcast(alpha_t, x) * xhat) / broadcast(sigma_t, x)
    x = broadcast(alpha_s, x) * xhat + broadcast((sigma_s**2 - c**2).clamp(min=0).sqrt(), x) * eps
    return x + broadcast(c, x) * noise.normal(step.noise_numbers[0], x) if c > 0 else x


def denoise(denoiser: Denoiser, x: Tensor, step: SolverStep) -> Tensor:
    """D = E[x0 | x_t] at the beginning of a step."""
    return denoiser(x, step.t.expand(len(x)), None)


def denoise_with_vjp(
    denoiser: Denoiser, x: Tensor, step: SolverStep
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D, and the function v → Jᵀv, which makes one backward pass through the denoiser."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        D = denoise(denoiser, x, step)

    def vjp(v: Tensor) -> Tensor:
        return broadcast(step.level_t.alpha, v) * torch.autograd.grad(D, x, v, retain_graph=True)[0]

    return D.detach(), vjp


def prior_variance(sigma: float, data_std: float) -> float:
    """The variance of x0 given x_t, were pixels independent of standard deviation data_std."""
    return (sigma * data_std) ** 2 / (sigma**2 + data_std**2)
