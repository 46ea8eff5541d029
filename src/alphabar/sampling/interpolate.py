"""TODO-DOC from editing"""

from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.random import Noise
from alphabar.diffusion.schedules import broadcast
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.conditions import condition_rows
from alphabar.sampling.edit import _device, _refuse_noise, _walk, deterministic
from alphabar.sampling.guided import guided_denoiser
from alphabar.sampling.settings import SamplingSettings


def interpolate(
    model: Model, settings: SamplingSettings | None = None, *, rows: int = 4, columns: int = 8
) -> Iterator[Progress[Tensor]]:
    """Rows of pictures that go over into one another.

    With two things to ask for in ``how`` a row is one noise, and goes from the first to the second: of each
    picture D is the mean of both answers, by its place. Otherwise it goes from one start noise to another,
    along the sphere (`slerp`), which keeps their norm.

    Yields a record a sampler step, and one more that carries the pictures, (rows·columns, size, size, 3)
    uint8. Raises UsageError for a sampler that adds noise of its own, for fewer than one row or two columns,
    and for three things to ask for.
    """
    settings = settings or deterministic(model)
    if rows < 1 or columns < 2:
        raise UsageError(f"{rows} rows of {columns} pictures: choose at least 1 of 2")
    if len(settings.conditions) > 2:
        raise UsageError(
            f"an interpolation goes from one thing to another: {len(settings.conditions)} were asked for"
        )
    _refuse_noise(settings)
    asked = condition_rows(model, settings, range(2))
    return _interpolate(model, settings, rows, columns, guided_denoiser(model, settings), asked)


def _interpolate(
    model: Model,
    settings: SamplingSettings,
    rows: int,
    columns: int,
    denoiser: Denoiser,
    asked: Condition | None,
) -> Iterator[Progress[Tensor]]:
    schedule, size = model.denoiser.schedule, model.recipe.data.size
    times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)
    between = len(settings.conditions) == 2
    ends = INITIAL_NOISES.build(settings.initial_noise, statistics=model.statistics)(
        schedule(times[0]),
        Noise(settings.seed, range(rows if between else 2 * rows), "interpolation"),
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
    noise = Noise(settings.seed, range(len(x)), "sample")
    yield from _walk(denoiser, x, times, noise, cond, settings, total=settings.steps)


def mixed(denoiser: Denoiser, a: Tensor, b: Tensor, along: Tensor) -> Denoiser:
    """(1 - w) D(x | a) + w D(x | b) for conditions a, b (columns,) and w (n,), one a picture."""

    def answer(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
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
