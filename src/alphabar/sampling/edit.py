"""Editing: other samples from a given one, whose coarse structure stays."""

import math
from collections.abc import Generator, Iterator
from pathlib import Path

import torch
from torch import Tensor

from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.samplers import SAMPLERS, Preview
from alphabar.diffusion.schedules import broadcast
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.inference.runtime import AUTO, check_precision
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.bound import BoundSettings, bind_settings
from alphabar.sampling.sample_folder import GRID, SampleFolder, batch_size
from alphabar.sampling.settings import (
    SamplingSettings,
    deterministic,
    require_deterministic,
    sampling_settings,
)

INVERSION_STEPS = 50
"""Steps of Heun's method from a signal up to the noise that leads to it."""


def edit(
    model: Model,
    signal: Tensor,
    settings: SamplingSettings | None = None,
    *,
    strength: float = 0.6,
    invert: bool = False,
    n: int = 1,
    first: int = 0,
    precision: str = AUTO,
) -> Iterator[Progress[Tensor]]:
    """Other samples from a given one: its coarse structure stays, the rest is generated again.

    signal: (channels, *spatial), in the bounds of the model's codec.
    strength: in (0, 1], the share of the sampler's steps that are made, from noise added to the signal
        (SDEdit, Meng et al. 2022); with 1 nothing of it stays.
    invert: instead of adding new noise, find by the deterministic flow, without condition and guidance, the
        noise that leads to this signal (DDIM inversion, Song et al. 2021), and sample from it with the
        settings.
    precision: as `choose_runtime` takes it.
    n: how many samples; inversion gives one. first: the number of the first one; each depends on the model,
        the signal, the settings and its number alone.

    Yields a record for each step, and one more that carries the items (n, *item_shape). Raises UsageError for
    a model that does not denoise at every noise level, a signal of another shape, a strength outside (0, 1],
    and for inversion with a sampler that adds noise of its own or with n above 1.
    """
    settings = settings or deterministic(
        model, sampling_settings(model, conditions=(), guidance={} if invert else None)
    )
    if not model.method.denoises:
        raise UsageError("sampling.cannot_edit", model=model.path, method=model.recipe.method["name"])
    if not 0 < strength <= 1:
        raise UsageError("sampling.strength", strength=strength)
    if tuple(signal.shape) != model.shape:
        raise UsageError("sampling.other_shape", given=tuple(signal.shape), shape=model.shape)
    if n < 1 or (invert and n > 1):
        raise UsageError("sampling.edit_count", n=n)
    if invert:
        require_deterministic(settings)
    bound = bind_settings(model, settings)
    bound.condition_rows(range(first, first + n))
    check_precision(precision, model.device)
    return _edit(bound, precision, signal, strength, invert, range(first, first + n))


def edit_into(
    folder: SampleFolder,
    model: Model,
    item: Tensor,
    settings: SamplingSettings,
    *,
    strength: float,
    invert: bool,
) -> Iterator[Progress[Path]]:
    """Other samples than an item, into a folder as they come (`ResultFolder.fill`). Raises as `edit` does.

    Yields records, the last one with the folder.
    """
    signal = model.codec.encode(item[None])[0]

    def make(first: int, count: int) -> Iterator[Progress[Tensor]]:
        return edit(model, signal, settings, strength=strength, invert=invert, n=count, first=first)

    make(0, folder.n)  # raises for what cannot be
    yield from folder.fill(batch_size(model), make, folder.write)
    shown = min(folder.n, GRID)
    yield folder.finish(shown, shown + 1, [item])


def _edit(
    bound: BoundSettings, precision: str, signal: Tensor, strength: float, invert: bool, positions: range
) -> Iterator[Progress[Tensor]]:
    bound = bound.in_runtime(len(positions), len(positions), precision)
    steps = bound.settings.steps
    # 0.28 of 25 steps are 7, and in floating point a little more.
    times = bound.times[steps - max(1, math.ceil(strength * steps - 1e-9)) :]
    x0 = signal.to(bound.model.device).expand(len(positions), *signal.shape)
    noise = Noise(bound.settings.seed, positions, Purpose.EDIT)
    before = 0
    if invert:
        x, times, before = yield from _invert(bound, x0, times, noise)
    else:
        level = bound.denoiser.schedule(times[0])
        eps = noise.normal(steps, x0)  # the sampler's own steps take the numbers 0 to steps - 1
        x = broadcast(level.alpha, x0) * x0 + broadcast(level.sigma, x0) * eps
    yield from bound.run(x, times, noise, bound.condition_rows(positions), before=before)


@torch.no_grad()
def _invert(
    bound: BoundSettings, x0: Tensor, times: Tensor, noise: Noise
) -> Generator[Progress[Tensor], None, tuple[Tensor, Tensor, int]]:
    """From signals x0 to the noise that leads to them, for a sampling at these times.

    Returns x, the times that are left, and how many steps it took.
    """
    denoiser = bound.model.denoiser
    schedule = denoiser.schedule
    # Pure noise (alpha = 0) no longer determines the signal; just below it, the flow is still invertible.
    first = times[0] if schedule(times[0]).alpha > 0 else times[1]
    levels = TIMESTEPS.build("log_snr")(schedule, INVERSION_STEPS)[:-1]
    rising = torch.cat([levels[levels < first].flip(0), first[None]])
    falling = torch.cat([first[None], times[times < first]])
    total = len(rising) + len(falling) - 2
    x = broadcast(schedule(rising[0]).alpha, x0) * x0
    for step in SAMPLERS.build("heun")(denoiser, x, rising, noise, None):
        yield Progress(message("sampling.stage"), step.i + 1, total, preview=Preview(0, step))
    return step.x, falling, len(rising) - 1
