"""Drawing pictures from a model, and putting them on the disk."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.codecs.image import to_pictures
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, Preview, generate
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.conditions import condition_rows
from alphabar.sampling.guided import guided_denoiser
from alphabar.sampling.settings import SamplingSettings, sampling_settings


def sample(
    model: Model, n: int, settings: SamplingSettings | None = None, *, first: int = 0, batch: int = 64
) -> Iterator[Progress[Tensor]]:
    """Draw n pictures, number ``first`` and those that follow.

    Picture i depends on the model, the settings and i alone, not on n, ``first`` or ``batch``.

    Yields a record a sampler step, and one more that carries the pictures, (n, size, size, 3) uint8.
    Raises UsageError for n below one and, before anything is drawn, for what the model cannot be asked for
    or guided by; AlphabarError where the pictures are not finite.
    """
    if n < 1:
        raise UsageError(f"-n must be at least 1, not {n}")
    settings = settings or sampling_settings(model)
    condition_rows(model, settings, range(1))
    guided_denoiser(model, settings)
    return _sample(model, n, settings, first, batch)


def _sample(
    model: Model, n: int, settings: SamplingSettings, begin: int, batch: int
) -> Iterator[Progress[Tensor]]:
    denoiser, size = guided_denoiser(model, settings), model.recipe.data.size
    finished: list[Tensor] = []
    for first in range(0, n, batch):
        positions = range(begin + first, begin + min(first + batch, n))
        for step in generate(
            denoiser,
            shape=(3, size, size),
            positions=positions,
            seed=settings.seed,
            sampler=SAMPLERS.build(settings.sampler),
            times=TIMESTEPS.build(settings.timesteps)(denoiser.schedule, settings.steps),
            initial_noise=INITIAL_NOISES.build(settings.initial_noise, statistics=model.statistics),
            cond=condition_rows(model, settings, positions),
            device=next(model.denoiser.parameters()).device,
        ):
            done = first * settings.steps + (step.i + 1) * len(positions)
            yield Progress("sampling", done, n * settings.steps, preview=Preview(begin + first, step))
        if not torch.isfinite(step.x).all():
            raise AlphabarError(f"the samples of {model.path} are not finite: its training has diverged")
        finished.append(to_pictures(step.x.cpu()))
    yield Progress("sampling", done, n * settings.steps, torch.cat(finished), Preview(begin + first, step))
