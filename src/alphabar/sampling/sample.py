"""Generating samples from a model."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.diffusion.samplers import Preview, Step, generate
from alphabar.errors import UsageError
from alphabar.inference.runtime import AUTO, check_precision
from alphabar.memory import halving
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.bound import BoundSettings, bind_settings
from alphabar.sampling.settings import SamplingSettings, sampling_settings


def sample(
    model: Model,
    n: int,
    settings: SamplingSettings | None = None,
    *,
    first: int = 0,
    batch: int = 64,
    precision: str = AUTO,
) -> Iterator[Progress[Tensor]]:
    """Generates n samples, number ``first`` and those that follow.

    Sample i depends on the model, the settings and i alone, not on n, ``first`` or ``batch``, but for the
    rounding of kernels, which differs between batches: a value in some 20,000 may be another by 1 of 255.
    batch: how many are generated at a time, at most; fewer where memory does not suffice.
    precision: "fp32", "bf16", "fp16" or "auto" (`alphabar.inference.choice.choose_runtime`).

    Yields a record for each sampler step, and one more that carries the items (n, *item_shape), for images
    uint8 (n, h, w, channels). done and total count steps times samples.
    Raises UsageError for n below one and, before anything is generated, for a condition that the model does
    not know and a guidance that it lacks the means for; AlphabarError where the samples are not finite.
    """
    if n < 1:
        raise UsageError("sampling.too_few_samples", n=n)
    bound = bind_settings(model, settings or sampling_settings(model))
    bound.condition_rows(range(first, first + min(n, batch)))
    check_precision(precision, model.device)
    return _sample(bound, n, first, batch, precision)


def _sample(
    bound: BoundSettings, n: int, begin: int, batch: int, precision: str
) -> Iterator[Progress[Tensor]]:
    bound = bound.in_runtime(n, batch, precision)
    steps = bound.settings.steps
    finished: list[Tensor] = []

    def work(positions: range) -> Iterator[tuple[Step, Tensor | None]]:
        for step in generate(
            bound.denoiser,
            shape=bound.model.shape,
            positions=positions,
            seed=bound.settings.seed,
            sampler=bound.sampler,
            times=bound.times,
            initial_noise=bound.initial_noise,
            cond=bound.condition_rows(positions),
            device=bound.model.device,
        ):
            yield step, None
        yield step, bound.decode(step.x)

    batch = bound.fitting_batch(min(n, batch))
    for positions, (step, items) in halving(range(begin, begin + n), batch, work):
        if items is not None:
            finished.append(items)
            continue
        first = positions.start
        done = (first - begin) * steps + (step.i + 1) * len(positions)
        yield Progress(message("sampling.stage"), done, n * steps, preview=Preview(first, step))
    yield Progress(message("sampling.stage"), n * steps, n * steps, torch.cat(finished), Preview(first, step))
