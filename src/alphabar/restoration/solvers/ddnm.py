"""TODO-DOC from restoration.posterior"""

from collections.abc import Iterator

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear
from alphabar.restoration.solvers.base import Observation, _denoise, _moves, _step


def ddnm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Condition | None = None,
    *,
    eta: float = 0.85,
    travel: int = 1,
    repeats: int = 1,
) -> Iterator[Step]:
    """DDNM (Wang et al. 2022, algorithms 1 and 2): xhat = D + A⁺(y - A(D)), for y without noise.

    With a mask this is RePaint (Lugmayr et al. 2022). For a JPEG, A⁺ is the identity (Kawar et al. 2022b).
    travel, repeats: after every ``travel`` steps go back up and walk them again, ``repeats`` times in all.
    Raises UsageError for sigma_y above 0, which it would copy into the picture, unless A is not linear.
    """
    operator, y, sigma_y, _ = observation
    if sigma_y > 0 and isinstance(operator, Linear):
        raise UsageError(
            f"solver 'ddnm' is for pictures without noise, not {sigma_y:.3g}: choose diffpir or ddrm"
        )
    steps = len(times) - 1
    pairs = itinerary(steps, max(travel, 1), max(repeats, 1))
    for move in _moves(denoiser.schedule, times, pairs):
        if move.s > move.t:
            ratio = move.level_s.alpha / move.level_t.alpha
            added = (move.level_s.sigma**2 - (ratio * move.level_t.sigma) ** 2).sqrt()
            x = broadcast(ratio, x) * x + broadcast(added, x) * noise.normal(move.draws[0], x)
            continue
        D = _denoise(denoiser, x, move, cond)
        xhat = observation.clipped(D + operator.pinv(y - operator.A(D)))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)


def itinerary(steps: int, travel: int, repeats: int) -> Iterator[tuple[int, int]]:
    """Time travel as moves between the steps + 1 times of a grid: (i, i + 1) goes down, (j, i) back up."""
    for first in range(0, steps, travel):
        end = min(first + travel, steps)
        for repeat in range(repeats):
            if repeat:
                yield end, first
            yield from ((i, i + 1) for i in range(first, end))
