"""Walks between pictures, and from a given picture to another: what the noise and the condition hold."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from alphabar.data.pixels import to_pictures
from alphabar.diffusion import (
    GRIDS,
    SAMPLERS,
    STARTS,
    Cond,
    Denoiser,
    FunctionDenoiser,
    Noise,
    broadcast,
)
from alphabar.errors import UsageError
from alphabar.sampling import Sampled, Settings, asked_for, guided_denoiser, settings
from alphabar.training.methods import check_denoises
from alphabar.training.run import Model

INVERTING = 50  # steps of Heun's method from a picture up to its noise


def interpolate(
    model: Model, how: Settings | None = None, *, rows: int = 4, columns: int = 8
) -> Iterator[Sampled]:
    """Rows of pictures that go over into one another.

    With two things to ask for in ``how`` a row is one noise, and goes from the first to the second: of each
    picture D is the mean of both answers, by its place. Otherwise it goes from one start noise to another,
    along the sphere (`slerp`), which keeps their norm.

    Yields a record a sampler step, and one more that carries the pictures, (rows·columns, size, size, 3)
    uint8. Raises UsageError for a sampler that adds noise of its own, for fewer than one row or two columns,
    and for three things to ask for.
    """
    how = how or deterministic(model)
    if rows < 1 or columns < 2:
        raise UsageError(f"{rows} rows of {columns} pictures: choose at least 1 of 2")
    if len(how.ask) > 2:
        raise UsageError(f"an interpolation goes from one thing to another: {len(how.ask)} were asked for")
    _refuse_noise(how)
    asked = asked_for(model, how, range(2))
    return _interpolate(model, how, rows, columns, guided_denoiser(model, how), asked)


def _interpolate(
    model: Model, how: Settings, rows: int, columns: int, denoiser: Denoiser, asked: Cond | None
) -> Iterator[Sampled]:
    schedule, size = model.denoiser.schedule, model.recipe.data.size
    times = GRIDS.build(how.grid)(schedule, how.steps)
    between = len(how.ask) == 2
    ends = STARTS.build(how.start, statistics=model.statistics)(
        schedule(times[0]),
        Noise(how.seed, range(rows if between else 2 * rows), "interpolation"),
        torch.empty(rows if between else 2 * rows, 3, size, size, device=_device(model)),
    )
    cond = None
    if between:
        assert asked is not None
        x = ends.repeat_interleave(columns, dim=0)
        along = torch.linspace(0, 1, columns, device=x.device).repeat(rows)
        denoiser = mixed(denoiser, asked[0], asked[1], along)
    else:
        x = torch.cat([slerp(a, b, columns) for a, b in ends.split(2)])
        cond = None if asked is None else asked[:1].expand(len(x), -1)
    noise = Noise(how.seed, range(len(x)), "sample")
    yield from _walk(denoiser, x, times, noise, cond, how, total=how.steps)


def edit(
    model: Model,
    picture: Tensor,
    how: Settings | None = None,
    *,
    strength: float = 0.6,
    invert: bool = False,
    n: int = 1,
) -> Iterator[Sampled]:
    """Other pictures from a given one: what it looks like from afar stays, the rest is drawn anew.

    picture: a signal (3, size, size) in [-1, 1]. strength: the share of the sampler's steps that are walked,
        from noise added to the picture (Meng et al. 2022, SDEdit); 1 leaves nothing of it.
    invert: instead of by new noise, go up by the deterministic flow, with nothing asked, to the very noise
        that leads to this picture (Song et al. 2021, DDIM), and down again with what ``how`` asks for.
    n: how many; inverted there is but one.

    Yields a record a step, and one more that carries the pictures, (n, size, size, 3) uint8. Raises
    UsageError for a GAN, a VAE or a shortened model, another size, or a strength outside (0, 1].
    """
    how = how or deterministic(model, settings(model, ask=(), pag=0.0 if invert else None))
    size = model.recipe.data.size
    check_denoises(model.path, model.recipe, "edit pictures")
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g}: choose a share above 0, up to 1")
    if tuple(picture.shape) != (3, size, size):
        raise UsageError(f"a picture of shape {tuple(picture.shape)}: the model's are (3, {size}, {size})")
    if n < 1 or (invert and n > 1):
        raise UsageError(f"-n {n}: choose at least 1, and 1 with --invert, which leads to one picture")
    if invert:
        _refuse_noise(how)
    asked_for(model, how, range(1))
    return _edit(model, picture, how, strength, invert, n, guided_denoiser(model, how))


def _edit(
    model: Model, picture: Tensor, how: Settings, strength: float, invert: bool, n: int, denoiser: Denoiser
) -> Iterator[Sampled]:
    schedule = model.denoiser.schedule
    times = GRIDS.build(how.grid)(schedule, how.steps)[how.steps - math.ceil(strength * how.steps) :]
    x0 = picture.to(_device(model)).expand(n, -1, -1, -1)
    cond = asked_for(model, how, range(n))
    noise = Noise(how.seed, range(n), "edit")
    up = 0
    if invert:
        # Pure noise has forgotten the picture; next to it the flow still knows.
        first = times[0] if schedule(times[0]).alpha > 0 else times[1]
        grid = GRIDS.build("log_snr")(schedule, INVERTING)[:-1]
        climb = torch.cat([grid[grid < first].flip(0), first[None]])
        up = len(climb) - 1
        level = schedule(climb[0])
        x = broadcast(level.alpha, x0) * x0
        for step in SAMPLERS.build("heun")(model.denoiser, x, climb, noise, None):
            yield Sampled(step.i + 1, up + len(times) - 1, 0, step)
        x, times = step.x, torch.cat([first[None], times[times < first]])
    else:
        level = schedule(times[0])
        eps = noise.normal(how.steps, x0)
        x = broadcast(level.alpha, x0) * x0 + broadcast(level.sigma, x0) * eps
    yield from _walk(denoiser, x, times, noise, cond, how, total=len(times) - 1, before=up)


def _walk(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    cond: Cond | None,
    how: Settings,
    *,
    total: int,
    before: int = 0,
) -> Iterator[Sampled]:
    with torch.no_grad():
        for step in SAMPLERS.build(how.sampler)(denoiser, x, times, noise, cond):
            yield Sampled(before + step.i + 1, before + total, 0, step)
    yield Sampled(before + total, before + total, 0, step, to_pictures(step.x.cpu()))


def mixed(denoiser: Denoiser, a: Tensor, b: Tensor, along: Tensor) -> Denoiser:
    """(1 - w) D(x | a) + w D(x | b) for conditions a, b (columns,) and w (n,), one a picture."""

    def answer(x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        w = broadcast(along, x)
        return (1 - w) * denoiser(x, t, a.expand(len(x), -1)) + w * denoiser(x, t, b.expand(len(x), -1))

    return FunctionDenoiser(denoiser.schedule, answer)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(steps, …) tensors from a to b along the great circle through both (Shoemake 1985)."""
    cosine = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12)
    angle = torch.acos(cosine.clamp(-1, 1))
    along = torch.linspace(0, 1, steps, device=a.device).reshape(-1, *[1] * a.ndim)
    if angle < 1e-4:
        return a + along * (b - a)
    return (torch.sin((1 - along) * angle) * a + torch.sin(along * angle) * b) / torch.sin(angle)


def deterministic(model: Model, how: Settings | None = None) -> Settings:
    """The settings with a sampler that adds no noise of its own: the recipe's, or DPM-Solver++(2M).

    how: by default the recipe's, with nothing asked.
    """
    how = how or settings(model, ask=())
    if how.sampler["name"] == "ancestral":
        return replace(how, sampler=SAMPLERS.resolve("dpmpp_2m"), grid=GRIDS.resolve("log_snr"), steps=20)
    return how


def _refuse_noise(how: Settings) -> None:
    if how.sampler["name"] == "ancestral" or how.sampler.get("eta"):
        raise UsageError(
            f"the sampler {how.sampler['name']} adds noise of its own: choose dpmpp_2m, for example"
        )


def _device(model: Model) -> torch.device:
    return next(model.denoiser.parameters()).device
