"""Interpolation between samples: between two initial noises, or between two conditions."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.inference.runtime import AUTO, check_precision
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.bound import BoundSettings, bind_settings
from alphabar.sampling.sample_folder import SampleFolder, batch_size
from alphabar.sampling.settings import SamplingSettings, deterministic, require_deterministic


def interpolate(
    model: Model,
    settings: SamplingSettings | None = None,
    *,
    rows: int = 4,
    columns: int = 8,
    first: int = 0,
    precision: str = AUTO,
) -> Iterator[Progress[Tensor]]:
    """Rows of samples, each of which goes over from its first sample to its last.

    With two conditions in the settings a row has one initial noise and goes from the first condition to the
    second: D is the mean of both estimates, weighted by the place in the row. Otherwise it goes from one
    initial noise to another along the sphere (`slerp`), which keeps their norm.
    first: the number of the first row. Each row depends on the model, the settings and its number alone.

    precision: as `choose_runtime` takes it.

    Yields a record for each sampler step, and one more that carries the items (rows·columns, *item_shape).
    Raises UsageError for a sampler that adds noise of its own, for fewer than one row or two columns, and for
    more than two conditions.
    """
    settings = settings or deterministic(model)
    if rows < 1 or columns < 2:
        raise UsageError("sampling.interpolation_too_small", rows=rows, columns=columns)
    if len(settings.conditions) > 2:
        raise UsageError("sampling.interpolation_conditions", n=len(settings.conditions))
    require_deterministic(settings)
    bound = bind_settings(model, settings)
    check_precision(precision, model.device)
    return _interpolate(bound, precision, rows, columns, first, bound.condition_rows(range(2)))


def interpolate_into(
    folder: SampleFolder, model: Model, settings: SamplingSettings, *, rows: int, columns: int
) -> Iterator[Progress[Path]]:
    """Interpolates into a folder, as rows come (`ResultFolder.fill`). Raises as `interpolate` does.

    Yields records, the last one with the folder.
    """
    interpolate(model, settings, rows=rows, columns=columns)  # raises for what cannot be

    def make(first: int, count: int) -> Iterator[Progress[Tensor]]:
        return interpolate(model, settings, rows=count // columns, columns=columns, first=first // columns)

    yield from folder.fill(max(1, batch_size(model) // columns) * columns, make, folder.write)
    yield folder.finish(folder.n, columns)


def _interpolate(
    bound: BoundSettings, precision: str, rows: int, columns: int, first: int, conds: Condition | None
) -> Iterator[Progress[Tensor]]:
    bound = bound.in_runtime(rows * columns, rows * columns, precision)
    denoiser, times, seed = bound.denoiser, bound.times, bound.settings.seed
    between = len(bound.settings.conditions) == 2
    ends_of_row = 1 if between else 2
    n = ends_of_row * rows
    ends = bound.initial_noise(
        denoiser.schedule(times[0]),
        Noise(seed, range(ends_of_row * first, ends_of_row * first + n), Purpose.INTERPOLATION),
        torch.empty(n, *bound.model.shape, device=bound.model.device),
    )
    cond = None
    if between:
        assert conds is not None
        x = ends.repeat_interleave(columns, dim=0)
        weights = torch.linspace(0, 1, columns, device=x.device).repeat(rows)
        denoiser = mixed(denoiser, conds[0], conds[1], weights)
    else:
        x = torch.cat([slerp(a, b, columns) for a, b in ends.split(2)])
        cond = None if conds is None else conds[:1].expand(len(x), -1)
    noise = Noise(seed, range(first * columns, first * columns + len(x)), Purpose.SAMPLER)
    yield from bound.run(x, times, noise, cond, denoiser=denoiser)


def mixed(denoiser: Denoiser, a: Condition, b: Condition, weights: Tensor) -> Denoiser:
    """(1 - w) D(x | a) + w D(x | b) for two conditions (columns,) and weights w (n,), one for each sample."""

    def denoise(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        w = broadcast(weights, x)
        return (1 - w) * denoiser(x, t, a.expand(len(x), -1)) + w * denoiser(x, t, b.expand(len(x), -1))

    return FunctionDenoiser(denoiser.schedule, denoise)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(steps, …) tensors from a to b along the great circle through both (Shoemake 1985)."""
    cosine = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12)
    angle = torch.acos(cosine.clamp(-1, 1))
    along = torch.linspace(0, 1, steps, device=a.device).reshape(-1, *[1] * a.ndim)
    if angle < 1e-4:
        return a + along * (b - a)
    return (torch.sin((1 - along) * angle) * a + torch.sin(along * angle) * b) / torch.sin(angle)
