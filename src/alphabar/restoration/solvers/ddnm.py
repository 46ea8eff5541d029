"""DDNM: the part of the estimate that y determines is replaced by what y says, the rest is generated."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.solvers.base import (
    DDIMSolver,
    Observation,
    SolverStep,
    ddim_step,
    denoise,
    trajectory,
)


@dataclass(frozen=True, kw_only=True)
class DDNM(DDIMSolver):
    """DDNM (Wang et al. 2022, algorithms 1 and 2): xhat = D + A⁺(y - A(D)), for y without noise.

    With a mask this is RePaint (Lugmayr et al. 2022). For JPEG, A⁺ is the identity (Kawar et al. 2022b).
    eta: as in DDIM. travel, repeats: after every ``travel`` steps go back up and take them again,
    ``repeats`` times in all. Refuses sigma_y above 0, which it would copy into the sample, unless A is not
    linear.
    """

    eta: float = 0.85
    travel: int = 1
    repeats: int = 1

    def solve(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, observation: Observation
    ) -> Iterator[Step]:
        if observation.sigma_y > 0 and observation.operator.has_prox:
            raise UsageError("restoration.ddnm_noise", sigma_y=f"{observation.sigma_y:.3g}")
        pairs = time_travel_schedule(len(times) - 1, self.travel, self.repeats)
        for step in trajectory(denoiser.schedule, times, pairs):
            if step.s > step.t:
                x = back_in_time(x, step, noise)
                continue
            xhat = self.estimate(denoiser, x, step, noise, observation)
            x = ddim_step(x, xhat, step, self.churn(step), noise)
            yield Step(step.i, step.s, x, xhat)

    def estimate(
        self, denoiser: Denoiser, x: Tensor, step: SolverStep, noise: Noise, observation: Observation
    ) -> Tensor:
        D = denoise(denoiser, x, step)
        return observation.clamp(observation.operator.project(D, observation.y))

    def churn(self, step: SolverStep) -> Tensor:
        return step.fresh_noise(self.eta)

    def count(self, steps: int) -> int:
        return steps * max(self.repeats, 1)


def time_travel_schedule(steps: int, travel: int, repeats: int) -> Iterator[tuple[int, int]]:
    """Time travel as pairs of indices of steps + 1 times: (i, i + 1) denoises, (j, i), i < j, adds noise.

    Numbers below 1 count as 1.
    """
    travel, repeats = max(travel, 1), max(repeats, 1)
    for first in range(0, steps, travel):
        end = min(first + travel, steps)
        for repeat in range(repeats):
            if repeat:
                yield end, first
            yield from ((i, i + 1) for i in range(first, end))


def back_in_time(x: Tensor, step: SolverStep, noise: Noise) -> Tensor:
    """x with as much noise added as takes it up to the level of step.s."""
    ratio = step.level_s.alpha / step.level_t.alpha
    added = (step.level_s.sigma**2 - (ratio * step.level_t.sigma) ** 2).sqrt()
    return broadcast(ratio, x) * x + broadcast(added, x) * noise.normal(step.noise_numbers[0], x)
