"""Samplers: from noise to a sample with a denoiser, along falling times, one `Step` at a time."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.diffusion.forward import posterior
from alphabar.diffusion.initial_noise import InitialNoise
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.schedules import Level, Schedule
from alphabar.registry import Registry


class Step(NamedTuple):
    """What a sampler yields: step number i (from 0) has led to x at time t.

    t: (); x: (n, ...); x0: (n, ...), the denoised signal that the step was made with.
    """

    i: int
    t: Tensor
    x: Tensor
    x0: Tensor


class Preview(NamedTuple):
    """What a progress record shows of a batch that is being generated.

    first: the number of its first sample in the whole set. step: the sampler's last step, signals and times.
    """

    first: int
    step: Step


Sampler = Callable[[Denoiser, Tensor, Tensor, Noise, Condition | None], Iterator[Step]]
"""(denoiser, x, times, noise, cond) -> steps.

x (n, ...) is at the level of times[0]; times (steps + 1,) fall; noise gives the random numbers of step i, of
which the deterministic samplers take none.
"""

SamplerFunction = TypeVar("SamplerFunction", bound=Callable[..., Iterator[Step]])


def never(spec: Mapping[str, Any]) -> bool:
    """False, for any spec."""
    return False


def always(spec: Mapping[str, Any]) -> bool:
    """True, for any spec."""
    return True


@dataclass(frozen=True)
class SamplerTraits:
    """What is known about a sampler beside what it does.

    timesteps, steps: what it works well with on a model whose recipe was made for another sampler.
    adds_noise: (its resolved spec) -> whether it adds noise of its own, so that its result is not a function
        of the initial noise alone.
    """

    timesteps: str = "linear_beta"
    steps: int = 20
    adds_noise: Callable[[Mapping[str, Any]], bool] = never


def with_traits(traits: SamplerTraits) -> Callable[[SamplerFunction], SamplerFunction]:
    """Decorates a sampler that is not as `SamplerTraits` has it by default."""

    def mark(sampler: SamplerFunction) -> SamplerFunction:
        sampler.traits = traits  # type: ignore[attr-defined]
        return sampler

    return mark


def sampler_traits(name: str) -> SamplerTraits:
    """The traits of the sampler of that name."""
    return getattr(SAMPLERS[name], "traits", SamplerTraits())


def adds_noise(spec: Mapping[str, Any]) -> bool:
    """Whether the sampler of a resolved spec adds noise of its own."""
    return sampler_traits(spec["name"]).adds_noise(spec)


def _intervals(schedule: Schedule, times: Tensor) -> Iterator[tuple[Tensor, Tensor, Level, Level]]:
    levels = [Level(*level) for level in zip(*schedule(times))]
    for (t, s), (level_t, level_s) in zip(pairwise(times), pairwise(levels)):
        yield t, s, level_t, level_s


@with_traits(SamplerTraits(timesteps="uniform", steps=250, adds_noise=always))
def ancestral(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    cond: Condition | None = None,
    *,
    clamp: bool = False,
) -> Iterator[Step]:
    """DDPM sampling (Ho et al. 2020, algorithm 2, variance beta-tilde): x_s ~ q(x_s | x_t, x0 = D).

    clamp: hold x, not only x0, within [-1, 1] after every step, as some tutorials do. It biases the result.
    """
    for i, (t, s) in enumerate(pairwise(times)):
        x0 = denoiser(x, t.expand(len(x)), cond)
        mean, std = posterior(denoiser.schedule, x, x0, t, s)
        x = mean + std * noise.normal(i, x) if s > 0 else mean
        if clamp:
            x = x.clamp(-1, 1)
        yield Step(i, s, x, x0)


@with_traits(SamplerTraits(timesteps="uniform", adds_noise=lambda spec: spec["eta"] > 0))
def ddim(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    cond: Condition | None = None,
    *,
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, eq. 12 and 16): eta = 0 is deterministic, eta = 1 is `ancestral` sampling.

    The equalities with `euler` (eta = 0) and `ancestral` hold up to rounding, so all three are kept.
    """
    for i, (t, s, level_t, level_s) in enumerate(_intervals(denoiser.schedule, times)):
        x0 = denoiser(x, t.expand(len(x)), cond)
        eps = (x - level_t.alpha * x0) / level_t.sigma
        c = eta * level_s.sigma * (-torch.expm1(level_t.log_snr - level_s.log_snr)).sqrt()
        x = level_s.alpha * x0 + (level_s.sigma**2 - c**2).sqrt() * eps
        if c > 0:
            x = x + c * noise.normal(i, x)
        yield Step(i, s, x, x0)


def euler(
    denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, cond: Condition | None = None
) -> Iterator[Step]:
    """Euler's method for the probability flow of Karras et al. 2022: d(x/alpha) / d(sigma/alpha) = eps.

    Up to rounding it is DDIM with eta = 0.
    """
    for i, (t, s, level_t, level_s) in enumerate(_intervals(denoiser.schedule, times)):
        x0 = denoiser(x, t.expand(len(x)), cond)
        eps = (x - level_t.alpha * x0) / level_t.sigma
        x = level_s.alpha * x0 + level_s.sigma * eps
        yield Step(i, s, x, x0)


def heun(
    denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, cond: Condition | None = None
) -> Iterator[Step]:
    """Heun's second-order method for the same flow (Karras et al. 2022, algorithm 1): two evaluations a step.

    A step that ends at t = 0, or begins at pure noise (alpha = 0), is one of Euler's method.
    """
    for i, (t, s, level_t, level_s) in enumerate(_intervals(denoiser.schedule, times)):
        x0 = denoiser(x, t.expand(len(x)), cond)
        eps = (x - level_t.alpha * x0) / level_t.sigma
        x = level_s.alpha * x0 + level_s.sigma * eps
        if level_s.sigma > 0 and level_t.alpha > 0:
            eps_s = (x - level_s.alpha * denoiser(x, s.expand(len(x)), cond)) / level_s.sigma
            x = x + (level_s.sigma - level_s.alpha * level_t.sigma / level_t.alpha) * (eps_s - eps) / 2
        yield Step(i, s, x, x0)


def dpmpp_2m(
    denoiser: Denoiser, x: Tensor, times: Tensor, noise: Noise, cond: Condition | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): second order, one evaluation a step.

    The first step, and one that ends at t = 0, is of first order.
    """
    x0_before = h_before = None
    for i, (t, s, level_t, level_s) in enumerate(_intervals(denoiser.schedule, times)):
        x0 = D = denoiser(x, t.expand(len(x)), cond)
        h = (level_s.log_snr - level_t.log_snr) / 2
        if x0_before is not None and h_before is not None and level_s.sigma > 0:
            D = x0 + h / (2 * h_before) * (x0 - x0_before)
        x = level_s.sigma / level_t.sigma * x - level_s.alpha * torch.expm1(-h) * D
        x0_before, h_before = x0, h
        yield Step(i, s, x, x0)


def unipc(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    cond: Condition | None = None,
    *,
    order: Annotated[int, Field(ge=1, le=10)] = 2,
) -> Iterator[Step]:
    """UniPC (Zhao et al. 2023, algorithms 1 and 2 with B(h) = e^h - 1): order + 1, one evaluation a step.

    A prediction of the given order (with 2 that of `dpmpp_2m`) is corrected to one order more as soon as the
    denoiser has been evaluated at its end, which the next step does anyway. The last prediction is not
    corrected.
    """
    known: list[tuple[Level, Tensor]] = []  # the last estimates and where they were made, newest last
    x_before = x
    for i, (t, s, level_t, level_s) in enumerate(_intervals(denoiser.schedule, times)):
        x0 = denoiser(x, t.expand(len(x)), cond)
        if known:
            x = _multistep(x_before, level_t, known, (level_t, x0))
        known = [*known, (level_t, x0)][-order:]
        x_before, x = x, _multistep(x, level_s, known)
        yield Step(i, s, x, x0)


def _multistep(
    x: Tensor,
    level_t: Level,
    known: Sequence[tuple[Level, Tensor]],
    ahead: tuple[Level, Tensor] | None = None,
) -> Tensor:
    """From x at the level of the newest estimate to level_t: Zhao et al. 2023, eq. 3 (UniC) or 8 (UniP).

    D is approximated by a polynomial in half the log-SNR through the estimates, and its product with
    e^half-log-SNR is integrated exactly; with two estimates the paper and this code take half the slope
    instead.
    known: estimates at levels already visited. ahead: one made at level_t itself.
    """
    level_s, D_s = known[-1]
    h = ((level_t.log_snr - level_s.log_snr) / 2).item()
    x_t = level_t.sigma / level_s.sigma * x + level_t.alpha * -math.expm1(-h) * D_s
    if math.isinf(h):  # from pure noise, or to t = 0
        return x_t
    others = [*known[:-1], *([ahead] if ahead else [])]
    r = [((level.log_snr - level_s.log_snr) / 2).item() / h for level, _ in others]
    slopes = [(D - D_s) / r_m for r_m, (_, D) in zip(r, others) if math.isfinite(r_m)]
    r = [r_m for r_m in r if math.isfinite(r_m)]
    # moments[k] = the integral of (tau / h)^k e^(tau - h) over [0, h], over that of e^(tau - h)
    moments = [1.0]
    for k in range(1, len(r) + 1):
        moments.append(1 / -math.expm1(-h) - k / h * moments[-1])
    a = [0.5]
    if len(r) > 1:
        powers = torch.tensor(r, dtype=torch.float64) ** torch.arange(len(r))[:, None]
        a = torch.linalg.solve(powers, torch.tensor(moments[1:], dtype=torch.float64)).tolist()
    for a_m, slope in zip(a, slopes):
        x_t = x_t + level_t.alpha * -math.expm1(-h) * a_m * slope
    return x_t


SAMPLERS = Registry(
    "sampler",
    {
        "ancestral": ancestral,
        "ddim": ddim,
        "euler": euler,
        "heun": heun,
        "dpmpp_2m": dpmpp_2m,
        "unipc": unipc,
    },
)


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    *,
    shape: Sequence[int],
    positions: Sequence[int],
    seed: int,
    sampler: Sampler,
    times: Tensor,
    initial_noise: InitialNoise,
    cond: Condition | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Step]:
    """New signals from noise: the sampler's steps from the initial noise at times[0].

    shape: of one signal, (channels, *spatial). positions: the number of each sample in the whole set, which
        with the seed decides its noise, whatever the batch. times: (steps + 1,), falling. cond: (n, columns)
        or None.
    `last_step` gives the end.
    """
    like = torch.empty(len(positions), *shape, device=device)
    x = initial_noise(denoiser.schedule(times[0]), Noise(seed, positions, Purpose.INITIAL_NOISE), like)
    yield from sampler(denoiser, x, times, Noise(seed, positions, Purpose.SAMPLER), cond)


def last_step(steps: Iterator[Step]) -> Step:
    """Makes all steps and returns the last one."""
    return deque(steps, maxlen=1).pop()


def count_nfe(
    sampler: Sampler, schedule: Schedule, times: Tensor, each: Callable[[float], int] = lambda ratio: 1
) -> int:
    """The number of network evaluations (NFE) that the sampler makes on these times, for one sample.

    It is counted on a signal of one number. each: how many evaluations the denoiser makes at a noise level
        sigma/alpha, with guidance for example.
    """
    calls = 0

    def count(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        nonlocal calls
        level = schedule(t)
        calls += each((level.sigma / level.alpha).item())
        return torch.zeros_like(x)

    noise = Noise(0, [0], Purpose.COUNT)
    last_step(sampler(FunctionDenoiser(schedule, count), torch.zeros(1, 1), times, noise, None))
    return calls
