"""The plan of a sampling: all that its sampler, timesteps and guidance come to, as numbers for NumPy.

A sampler is linear in the initial noise, in the denoiser's estimates and in the noise that it adds. So its
steps can be read off by running it once on symbols: on coordinates in the space that these span.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.base import reader_of
from alphabar.codecs.image import ImageCodec
from alphabar.conditioning.fields import Categorical, Numeric
from alphabar.diffusion.denoiser import FunctionDenoiser, NetworkDenoiser, interpolation
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Sampler, count_nfe, last_step
from alphabar.diffusion.schedules import Level, Schedule
from alphabar.errors import UsageError
from alphabar.export.base import Export
from alphabar.guidance.base import EVERYWHERE, Guidance, within
from alphabar.sampling.bound import bind_settings

NEGLIGIBLE = 1e-10  # of a step's weights: what is smaller is rounding


@dataclass(frozen=True)
class Plan:
    """document: the steps and what else JSON holds. arrays: by name, float32."""

    document: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass
class _Symbols:
    """Stands for the noise of a sampler that runs on coordinates: unit vectors of a space of that size."""

    size: int
    noises: dict[int, int] = field(default_factory=dict)  # number of the noise -> its coordinate
    used: int = 1

    def unit(self) -> Tensor:
        """The next unit vector, (1, size)."""
        self.used += 1
        return torch.eye(self.size, dtype=torch.float64)[self.used - 1 : self.used]

    def normal(self, step: int, like: Tensor) -> Tensor:
        """The symbol of the noise of a step."""
        vector = self.unit()
        self.noises[step] = self.used - 1
        return vector


def sampling_plan(export: Export) -> Plan:
    """The plan of an export's default sampling.

    Raises UsageError for samples that are no pictures, for a sampler or an initial noise that is not linear,
    and for a guidance that is more than a difference of the network's estimates.
    """
    model, settings = export.model, export.settings
    pictures = reader_of(model.codec)
    if not isinstance(pictures, ImageCodec):
        raise UsageError("export.no_pictures", codec=model.codec.name)
    bound = bind_settings(model, settings)
    schedule = model.denoiser.schedule
    steps = sampler_steps(bound.sampler, schedule, bound.times)
    vocabulary = model.vocabulary
    columns = sum(vocabulary.widths) if vocabulary else 0
    rows, away = _condition_rows(bound, columns), torch.full((columns,), math.nan)
    guidances = bound.guidances
    for step in steps:
        terms = guidance_terms(guidances, schedule, step["t"], settings.guidance_interval)
        step |= {"terms": terms, **_preconditioning(model.denoiser, step.pop("t"))}
    for guidance in guidances:
        if (worse := guidance.worse()) is not None and worse.condition is not None:
            away = worse.condition.expand(columns) if columns else away
    scale, arrays = initial_noise(bound.initial_noise, schedule(bound.times[0]), model.shape)
    arrays |= {"conditions": rows.numpy(), "away": away.numpy()}
    if model.denoiser.coarse > 1:
        arrays |= _matrices(model.shape, model.denoiser.coarse)
    document = {
        "shape": list(model.shape),
        "channels": pictures.channels,
        "latents": pictures is not model.codec,
        "seed": settings.seed,
        "scale": scale,
        "kept": max(len(step["weights"]) for step in steps),
        "steps": steps,
        "fields": _fields(vocabulary),
    }
    return Plan(document, {name: value.astype(np.float32) for name, value in arrays.items()})


def _matrices(shape: tuple[int, ...], k: int) -> dict[str, np.ndarray]:
    """What pictures are multiplied with from both sides: for their means enlarged, and for their means."""
    found = {}
    for name, size in zip(("rows", "columns"), shape[1:], strict=True):
        squares = torch.eye(size // k, dtype=torch.float64).repeat_interleave(k, 1) / k
        enlarging, means = interpolation(size // k, k) @ squares, k * squares.mT @ squares
        found[name], found[f"mean_{name}"] = enlarging.numpy(), means.numpy()
    found["columns"] = found["columns"].T
    return found


def _condition_rows(bound: Any, columns: int) -> Tensor:
    """The conditions (n, columns) that samples have in turn; one of unknown fields where there are none."""
    n = len(bound.settings.conditions)
    rows = bound.condition_rows(range(n)) if n and columns else None
    return torch.full((1, columns), math.nan) if rows is None else rows.cpu()


def _fields(vocabulary: Any) -> dict[str, Any]:
    """What the fields of a condition can be, by name; a sentence needs its encoder and is left out."""
    fields, column = {}, 0
    for each, width in zip(vocabulary.fields, vocabulary.widths) if vocabulary else ():
        if isinstance(each, Categorical):
            fields[each.name] = {"column": column, "names": list(each.names)}
        elif isinstance(each, Numeric):
            fields[each.name] = {"column": column, "mean": each.mean, "std": each.std}
        column += width
    return fields


def _preconditioning(denoiser: NetworkDenoiser, t: float) -> dict[str, float]:
    coeffs = denoiser.coeffs(torch.tensor([t], dtype=torch.float64))
    return {name: value.item() for name, value in coeffs._asdict().items()}


def sampler_steps(sampler: Sampler, schedule: Schedule, times: Tensor) -> list[dict[str, Any]]:
    """A sampler on these times, as one step for each evaluation of the denoiser, in order.

    The denoiser is evaluated at x and t and gives D; then x becomes keep·x + the sum of weights·(D, the D
    before, and so on) + the sum of the noises [number, weight]. Raises UsageError for a sampler that is not
    linear.
    """
    evaluations = count_nfe(sampler, schedule, times)
    symbols = _Symbols(2 * evaluations + len(times) + 1)
    inputs: list[tuple[float, Tensor]] = []
    estimates: list[int] = []

    def denoise(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        inputs.append((t.flatten()[0].item(), x[0]))
        D = symbols.unit()
        estimates.append(symbols.used - 1)
        return D

    x = torch.zeros(1, symbols.size, dtype=torch.float64)
    x[0, 0] = 1.0
    noise = cast(Noise, symbols)
    end = last_step(sampler(FunctionDenoiser(schedule, denoise), x, times, noise, None)).x[0]
    after = [vector for _, vector in inputs[1:]] + [end]
    steps = []
    for k, ((t, before), vector) in enumerate(zip(inputs, after, strict=True)):
        keep = (vector[0] / before[0]).item() if before[0] != 0 else 0.0
        rest = vector - keep * before
        rest = torch.where(rest.abs() > NEGLIGIBLE * (1 + vector.abs().max()), rest, 0.0)
        weights = [rest[i].item() for i in reversed(estimates[: k + 1])]
        while len(weights) > 1 and weights[-1] == 0:
            weights.pop()
        added = [[number, rest[i].item()] for number, i in symbols.noises.items() if rest[i] != 0]
        steps.append({"t": t, "keep": keep, "weights": weights, "noise": added})
    _check_linear(sampler, schedule, times, steps)
    return steps


def _check_linear(sampler: Sampler, schedule: Schedule, times: Tensor, steps: Sequence[Any]) -> None:
    """Raises UsageError where the steps do not do what the sampler does with a denoiser of numbers."""
    x = plain = 4 * torch.linspace(-1, 1, 8, dtype=torch.float64)[None]
    noise = Noise(0, [0], "plan")

    def denoise(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return torch.tanh(3 * x) + torch.cos(t.flatten()[0]) * torch.sin(x)

    expected = last_step(sampler(FunctionDenoiser(schedule, denoise), x, times, noise, None)).x
    known: list[Tensor] = []
    for step in steps:
        known = [denoise(plain, torch.tensor(step["t"], dtype=torch.float64)), *known]
        plain = step["keep"] * plain + sum(w * D for w, D in zip(step["weights"], known))
        plain = plain + sum(w * noise.normal(i, plain) for i, w in step["noise"])
    if not torch.allclose(plain, expected, rtol=1e-5, atol=1e-5):
        raise UsageError("export.sampler_not_linear")


def guidance_terms(
    guidances: Sequence[Guidance], schedule: Schedule, t: float, interval: tuple[float, float] | None
) -> list[dict[str, Any]]:
    """The evaluations whose weighted sum is the guided estimate at time t.

    Each has a weight, the name of its network, whether the middle attention is the identity (1.0 or 0.0), and
    whether it has the condition that samples are led away from. Raises UsageError for a guidance that is more
    than that.
    """
    level = schedule(torch.tensor([t], dtype=torch.float64))
    ratio = level.sigma / level.alpha
    own: dict[str, Any] = {"weight": 1.0, "network": "network", "identity": 0.0, "away": False}
    terms = [own]
    for guidance in guidances:
        factor = guidance.scale - guidance.neutral
        if not factor or not (within(interval or EVERYWHERE, ratio) & guidance.acts_at(ratio)).item():
            continue
        worse = guidance.worse()
        if worse is None:
            raise UsageError("export.guidance", option=guidance.option)
        own["weight"] += factor
        name = "early" if worse.early else "network"
        away = worse.condition is not None
        terms.append({"weight": -factor, "network": name, "identity": float(worse.identity), "away": away})
    return terms


class _GivenNoise:
    """Noise whose numbers are given, by the number of the step; those not given are zero."""

    def __init__(self, given: dict[int, Tensor]):
        self.given = given
        self.asked: dict[int, int] = {}  # step -> numbers of one sample

    def normal(self, step: int, like: Tensor) -> Tensor:
        self.asked[step] = like[0].numel()
        return self.given[step].expand_as(like) if step in self.given else torch.zeros_like(like)


def initial_noise(
    make: Callable[..., Tensor], level: Level, shape: Sequence[int]
) -> tuple[float, dict[str, np.ndarray]]:
    """What sampling starts from: x = scale·noise + mean + the core's smooth signals of further normal noise.

    Those are core (m, channels, i, j) times height (h, i) and width (w, j), the axes of its smooth signals.
    Raises UsageError for an initial noise that is not of this form.
    """

    def at(given: dict[int, Tensor], n: int = 1) -> tuple[Tensor, dict[int, int]]:
        noise = _GivenNoise(given)
        return make(level, noise, torch.zeros(n, *shape, dtype=torch.float64)), noise.asked

    mean, asked = at({})
    scale = (at({0: torch.ones(1, *shape, dtype=torch.float64)})[0] - mean).mean().item()
    arrays = {"mean": mean[0].numpy()}
    if m := asked.get(1):
        smooth = (at({1: torch.eye(m, dtype=torch.float64)}, m)[0] - mean).numpy()
        core = smooth
        for axis, name in ((2, "height"), (3, "width")):
            unfolded = np.moveaxis(smooth, axis, 0).reshape(smooth.shape[axis], -1)
            directions, sizes, _ = np.linalg.svd(unfolded, full_matrices=False)
            arrays[name] = directions[:, sizes > 1e-7 * sizes[0]]
            core = np.moveaxis(np.tensordot(core, arrays[name], (axis, 0)), -1, axis)
        arrays["core"] = core
    _check_initial_noise(at, scale, arrays, shape, m)
    return scale, arrays


def _check_initial_noise(
    at: Callable[..., Any], scale: float, arrays: dict[str, np.ndarray], shape: Sequence[int], m: int | None
) -> None:
    """Raises UsageError where the arrays do not give what the initial noise does, for two samples."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *shape))
    z = random.normal(size=(2, m or 0))
    expected = at({0: torch.from_numpy(x), 1: torch.from_numpy(z)}, 2)[0].numpy()
    found = scale * x + arrays["mean"]
    if m:
        found += np.einsum("nm,mcij,hi,wj->nchw", z, arrays["core"], arrays["height"], arrays["width"])
    if not np.allclose(found, expected, rtol=1e-5, atol=1e-5):
        raise UsageError("export.initial_noise")
