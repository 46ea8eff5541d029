"""Walks between pictures, and from a given picture to another: what the noise and the condition hold."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from alphabar.codecs.image import to_pictures
from alphabar.diffusion.denoiser import Condition, Denoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, Preview
from alphabar.diffusion.schedules import broadcast
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.conditions import condition_rows
from alphabar.sampling.guided import guided_denoiser
from alphabar.sampling.settings import SamplingSettings, sampling_settings

INVERTING = 50  # steps of Heun's method from a picture up to its noise


def edit(
    model: Model,
    picture: Tensor,
    settings: SamplingSettings | None = None,
    *,
    strength: float = 0.6,
    invert: bool = False,
    n: int = 1,
) -> Iterator[Progress[Tensor]]:
    """Other pictures from a given one: what it looks like from afar stays, the rest is drawn anew.

    picture: a signal (3, size, size) in [-1, 1]. strength: the share of the sampler's steps that are walked,
        from noise added to the picture (Meng et al. 2022, SDEdit); 1 leaves nothing of it.
    invert: instead of by new noise, go up by the deterministic flow, with nothing asked, to the very noise
        that leads to this picture (Song et al. 2021, DDIM), and down again with what ``how`` asks for.
    n: how many; inverted there is but one.

    Yields a record a step, and one more that carries the pictures, (n, size, size, 3) uint8. Raises
    UsageError for a GAN, a VAE or a shortened model, another size, or a strength outside (0, 1].
    """
    settings = settings or deterministic(
        model, sampling_settings(model, conditions=(), pag=0.0 if invert else None)
    )
    size = model.recipe.data.size
    model.method.require_denoiser(model.path, "edit")
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g}: choose a share above 0, up to 1")
    if tuple(picture.shape) != (3, size, size):
        raise UsageError(f"a picture of shape {tuple(picture.shape)}: the model's are (3, {size}, {size})")
    if n < 1 or (invert and n > 1):
        raise UsageError(f"-n {n}: choose at least 1, and 1 with --invert, which leads to one picture")
    if invert:
        _refuse_noise(settings)
    condition_rows(model, settings, range(1))
    return _edit(model, picture, settings, strength, invert, n, guided_denoiser(model, settings))


def _edit(
    model: Model,
    picture: Tensor,
    settings: SamplingSettings,
    strength: float,
    invert: bool,
    n: int,
    denoiser: Denoiser,
) -> Iterator[Progress[Tensor]]:
    schedule = model.denoiser.schedule
    times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)[
        settings.steps - math.ceil(strength * settings.steps) :
    ]
    x0 = picture.to(_device(model)).expand(n, -1, -1, -1)
    cond = condition_rows(model, settings, range(n))
    noise = Noise(settings.seed, range(n), "edit")
    up = 0
    if invert:
        # Pure noise has forgotten the picture; next to it the flow still knows.
        first = times[0] if schedule(times[0]).alpha > 0 else times[1]
        grid = TIMESTEPS.build("log_snr")(schedule, INVERTING)[:-1]
        climb = torch.cat([grid[grid < first].flip(0), first[None]])
        up = len(climb) - 1
        level = schedule(climb[0])
        x = broadcast(level.alpha, x0) * x0
        for step in SAMPLERS.build("heun")(model.denoiser, x, climb, noise, None):
            yield Progress("sampling", step.i + 1, up + len(times) - 1, preview=Preview(0, step))
        x, times = step.x, torch.cat([first[None], times[times < first]])
    else:
        level = schedule(times[0])
        eps = noise.normal(settings.steps, x0)
        x = broadcast(level.alpha, x0) * x0 + broadcast(level.sigma, x0) * eps
    yield from _walk(denoiser, x, times, noise, cond, settings, total=len(times) - 1, before=up)


def _walk(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    cond: Condition | None,
    settings: SamplingSettings,
    *,
    total: int,
    before: int = 0,
) -> Iterator[Progress[Tensor]]:
    with torch.no_grad():
        for step in SAMPLERS.build(settings.sampler)(denoiser, x, times, noise, cond):
            yield Progress("sampling", before + step.i + 1, before + total, preview=Preview(0, step))
    yield Progress("sampling", before + total, before + total, to_pictures(step.x.cpu()), Preview(0, step))


def deterministic(model: Model, settings: SamplingSettings | None = None) -> SamplingSettings:
    """The settings with a sampler that adds no noise of its own: the recipe's, or DPM-Solver++(2M).

    how: by default the recipe's, with nothing asked.
    """
    settings = settings or sampling_settings(model, conditions=())
    if settings.sampler["name"] == "ancestral":
        return replace(
            settings, sampler=SAMPLERS.resolve("dpmpp_2m"), timesteps=TIMESTEPS.resolve("log_snr"), steps=20
        )
    return settings


def _refuse_noise(settings: SamplingSettings) -> None:
    if settings.sampler["name"] == "ancestral" or settings.sampler.get("eta"):
        raise UsageError(
            f"the sampler {settings.sampler['name']} adds noise of its own: choose dpmpp_2m, for example"
        )


def _device(model: Model) -> torch.device:
    return next(model.denoiser.parameters()).device
