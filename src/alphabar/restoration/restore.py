"""Restoring signals of any size: samples of p(x | y) for what a known operator left."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.codecs.base import LearnedCodec, reader_of
from alphabar.codecs.latent import LatentCodec
from alphabar.diffusion.denoiser import NetworkDenoiser, clipped
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.samplers import Preview, Step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import AlphabarError, UsageError
from alphabar.guidance import build_guidances, evaluates_early, guided
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of
from alphabar.inference.runtime import AUTO, check_precision
from alphabar.memory import free_memory, halving
from alphabar.messages import message
from alphabar.progress import Progress, last
from alphabar.restoration.operators.base import Operator, size_text
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.decoded import Decoded
from alphabar.restoration.operators.separable import crop
from alphabar.restoration.settings import RestorationSettings, restoration_settings, restoration_times
from alphabar.restoration.solvers.base import Observation, Solver
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.restoration.tiling import TILES_PER_CALL, tile_corners, tiled, working_sizes
from alphabar.runs.model import Model

IMAGES_HELD, TILE_FLOATS, TILE_FLOATS_OF_GRADIENTS = 16, 200, 1200
"""What a restoration holds at a time, about, as measured with cars64: images of the whole size, and floats
for each value of a tile that the network sees, without and with gradients."""

MEMORY_SHARE = 0.5  # of the free memory that a batch may take

DECODER_ERROR = 0.01
"""The variance of what latents do not tell of a picture, about, in the units of [-1, 1]: held-out pictures
come back from the recipe latent's autoencoder with 25.6 dB, or 0.011 (docs/results/larger_images.md)."""

SIGMA_RESTART = 0.3
"""The noise, sigma / alpha, from which an image is restored again at a larger size."""


def restore(
    model: Model,
    y: Tensor,
    operator: Operator,
    sigma_y: float = 0.0,
    *,
    n: int = 1,
    settings: RestorationSettings | None = None,
    first: int = 0,
    first_sample: int = 0,
    batch: int = 16,
    precision: str = AUTO,
) -> Iterator[Progress[Tensor]]:
    """Signals x of which y = A(x) + sigma_y·noise is known: n samples of p(x | y) for each of b measurements.

    y: (b, *operator.measurement_shape), sigma_y in the units of signals. Where operators differ, they are one
        `PerSampleOperator`, and y is what its ``pack`` gives.
    n: samples for each measurement. settings: of `restoration_settings`; by default what suits the operator.
    Images of another size than the model's are restored through overlapping tiles (`tiling`).
    first, first_sample: the numbers of the first measurement in the whole set and of its first sample.
        Sample k for measurement i depends on the model, the settings, y, i and k alone.
    batch: samples that are restored at a time, at most; fewer where memory does not suffice.
    precision: as `choose_runtime` takes it.

    Yields a record for every step; the last one's result is (n, b, *operator.shape), about within the codec's
    bounds. Raises UsageError for a model that is no denoiser at every noise level, for shapes that do not fit
    and for a solver that cannot take the operator, AlphabarError where a result is not finite.
    """
    model.method.require_denoiser(model.path, "restore")
    if n < 1:
        raise UsageError("restoration.too_few_samples", n=n)
    if not len(y) or tuple(y.shape[1:]) != operator.measurement_shape:
        raise UsageError("restoration.y_shape", given=tuple(y.shape), expected=operator.measurement_shape)
    pictures = reader_of(model.codec)
    if operator.shape[0] != pictures.channels:
        raise UsageError(
            "restoration.channels", model=model.path, channels=pictures.channels, given=operator.shape[0]
        )
    tiles = len(operator.shape) == 3 and not isinstance(model.codec, LearnedCodec)
    if operator.shape[1:] != pictures.spatial and not tiles:
        sizes = {"size": size_text(pictures.spatial), "given": size_text(operator.shape[1:])}
        if isinstance(model.codec, LearnedCodec):
            raise UsageError("restoration.latents_have_one_size", model=model.path, **sizes)
        raise UsageError("restoration.only_images_tile", size=size_text(pictures.spatial))
    if not sigma_y >= 0:
        raise UsageError("restoration.negative_noise", sigma_y=sigma_y)
    check_precision(precision, model.device)
    settings = settings or restoration_settings(model, operator, sigma_y)
    restoration = _Restoration(model, settings, sigma_y)
    rows = [(i, first_sample + k) for k in range(n) for i in range(len(y))]
    return _restore(restoration, operator, y, rows, first, batch, precision)


def _restore(
    job: "_Restoration",
    operator: Operator,
    y: Tensor,
    rows: list[tuple[int, int]],
    first: int,
    batch: int,
    precision: str,
) -> Iterator[Progress[Tensor]]:
    """rows: (measurement, sample) of everything that is to be restored, in the order of the result."""
    batch = job.batch_size(operator, y, batch)
    stages = {i: job.stages(operator.select(y, [i])[0]) for i in range(len(y))}
    counts = [sum(job.solver.count(len(times) - 1) for _, times in stages[i]) for i, _ in rows]
    total = sum(counts)
    job = job.in_runtime(total, batch, precision)
    results = []

    def work(at: range) -> Iterator[tuple[Step, int, Tensor | None]]:
        """The steps of some rows, with how much of the work is done, and last with the result."""
        done = sum(counts[: at.start])
        part = rows[at.start : at.stop]
        A, measured = operator.select(y, [i for i, _ in part])
        measured = measured.to(job.model.device)
        coarse: Tensor | None = None
        positions = [sample_position(first + i, k) for i, k in part]
        noise = Noise(job.settings.seed, positions, Purpose.RESTORATION)
        for size, times in stages[part[0][0]]:
            observation = job.observation(A, measured, size)
            for step in job.solve(observation, times, noise, coarse):
                done += len(part)
                yield step, done, None
            coarse = x = job.finish(observation, step.x)
            noise = replace(noise, purpose=f"{noise.purpose}/{Purpose.NEXT_SIZE}")
        if not torch.isfinite(x).all():
            raise AlphabarError("restoration.not_finite", model=job.model.path)
        yield step, done, x.float().cpu()

    for _, (step, done, x) in halving(range(len(rows)), batch, work):
        if x is not None:
            results.append(x)
        else:
            yield Progress(message("restoration.stage"), done, total, preview=Preview(0, step))
    result = torch.cat(results).reshape(-1, len(y), *operator.shape)
    yield Progress(message("restoration.stage"), total, total, result, Preview(0, step))


class Workload(NamedTuple):
    """What a restoration will do: in how many tiles the image is restored, evaluations of the solver for one
    tile in all and before the first record, about how many bytes of memory it takes, and how many samples are
    restored at a time.
    """

    tiles: int
    total: int
    first: int
    memory: int
    together: int


def workload(
    model: Model,
    y: Tensor,
    operator: Operator,
    sigma_y: float,
    *,
    n: int,
    settings: RestorationSettings,
    batch: int = 16,
) -> Workload:
    """The work of `restore` with these arguments, for one measurement y (1, *operator.measurement_shape)."""
    job = _Restoration(model, settings, sigma_y)
    together = min(n, job.batch_size(operator, y, batch))
    steps = [
        (job.tiles(operator, y, size), job.solver.count(len(times) - 1))
        for size, times in job.stages(operator)
    ]
    total = n * sum(tiles * count for tiles, count in steps)
    tiles = steps[-1][0]
    floats = (together * IMAGES_HELD + n) * math.prod(operator.shape)
    at_once = min(tiles * together, TILES_PER_CALL) * job.floats_of_tile() * math.prod(model.shape)
    return Workload(tiles, total, together * steps[0][0], 4 * int(floats + at_once), together)


def sample_position(measurement: int, sample: int) -> int:
    """The position of a sample in the stream of random numbers, whatever else is restored with it."""
    return (measurement << 20) + sample


class _Restoration:
    """A model, settings and a noise level, and what follows from them for every batch."""

    def __init__(self, model: Model, settings: RestorationSettings, sigma_y: float):
        self.model, self.settings, self.sigma_y = model, settings, sigma_y
        self.codec = reader_of(model.codec)
        self.solver: Solver = SOLVERS.build(settings.solver)
        guidances = [g.bind(model, conditioned=False) for g in build_guidances(settings.guidance)]
        # A mean of samples lies in their range. A network's answer may not, and what leaves it is amplified.
        self.denoiser = clipped(guided(model.denoiser, guidances), model.codec.bounds)

    def in_runtime(self, evaluations: int, batch: int, precision: str) -> "_Restoration":
        """The same, with the model computing as is fastest; one whose runtime was chosen before stays."""
        if runtime_of(self.model) is not None or not isinstance(self.model.denoiser, NetworkDenoiser):
            return self
        chosen = choose_runtime(
            self.model,
            evaluations=evaluations,
            batch=batch,
            precision=precision,
            gradients=self.solver.differentiates,
            early=evaluates_early(self.settings.guidance),
        )
        return _Restoration(last(chosen), self.settings, self.sigma_y)

    def batch_size(self, operator: Operator, y: Tensor, largest: int) -> int:
        """How many samples are restored at a time: where there are tiles, they fill the batch."""
        tile = self.codec.spatial
        if all(side <= n for side, n in zip(operator.shape[1:], tile)):
            each = 4 * (self.floats_of_tile() + IMAGES_HELD) * math.prod(self.model.shape)
            fitting = MEMORY_SHARE * free_memory(str(self.model.device)) / each
            return max(1, min(largest, int(fitting)))
        if operator.select(y, [0])[0] is not operator:
            return 1  # of masks that differ each image needs other tiles
        missing = pad_to(operator.missing(self.sigma_y), larger(operator.shape[1:], tile))
        return max(1, TILES_PER_CALL // len(tile_corners(missing, tile)))

    def floats_of_tile(self) -> int:
        """The floats that the network holds for each value of a tile."""
        return TILE_FLOATS_OF_GRADIENTS if self.solver.differentiates else TILE_FLOATS

    def stages(self, operator: Operator) -> list[tuple[tuple[int, ...], Tensor]]:
        """The sizes at which an image is restored in turn (`working_sizes`), each with its times."""
        times = restoration_times(self.denoiser.schedule, self.settings.steps)
        level = self.denoiser.schedule(times)
        noisier = int((level.sigma > SIGMA_RESTART * level.alpha).sum())
        late = times[min(noisier, len(times) - 2) :]
        squash = self.model.recipe.data.fit == "squash"
        sizes = working_sizes(operator, self.codec.spatial, squash)
        return [(size, late if i else times) for i, size in enumerate(sizes)]

    def tiles(self, operator: Operator, y: Tensor, size: tuple[int, ...]) -> int:
        """In how many tiles an image of a size is restored."""
        tile = self.codec.spatial
        if all(side <= n for side, n in zip(size, tile)):
            return 1
        missing = self.observation(operator, y, size).operator.missing(self.sigma_y)
        return len(tile_corners(pad_to(missing, larger(size, tile)), tile))

    def observation(self, operator: Operator, y: Tensor, size: tuple[int, ...]) -> Observation:
        """What is known of images at a size, at most their own."""
        if size != operator.shape[1:]:
            operator, y = operator.shrink(y, size)
        return Observation(operator, y, self.sigma_y, self.codec.bounds)

    @torch.no_grad()
    def solve(
        self, observation: Observation, times: Tensor, noise: Noise, coarse: Tensor | None
    ) -> Iterator[Step]:
        """The solver's steps at one size. coarse: the result at the size before, to begin with."""
        A, y, tile = observation.operator, observation.y, self.codec.spatial
        own, large = A.shape[1:], larger(A.shape[1:], tile)
        denoiser = self.denoiser
        if large != tile:
            exact = A.is_mask and self.sigma_y == 0
            missing = pad_to(A.missing(self.sigma_y), large)
            denoiser = tiled(denoiser, tile, missing, pad_to(y, large) if exact else None)
        A = compose(crop((A.shape[0], *large), own), A)
        # Where the schedule does not reach noise, the start matters: noise around what y and the mean tell.
        guess = self.model.statistics.mean[None].to(y)
        if large != tile:
            guess = F.interpolate(guess, large, mode="bilinear")
        guess = guess.expand(len(y), *guess.shape[1:])
        if coarse is not None:
            finer = self.codec.clamp(F.interpolate(coarse, own, mode="bicubic"))
            guess = pad_to(finer, large, mode="replicate")
        observation = replace(observation, operator=A)
        if isinstance(codec := self.model.codec, LatentCodec):
            A = Decoded(codec, A)
            observation = replace(observation, operator=A, bounds=codec.bounds)
        guess = A.prox(guess, y, self.sigma_y**2 / 0.25)
        level = denoiser.schedule(times[0])
        eps = replace(noise, purpose=f"{noise.purpose}/{Purpose.INITIAL_NOISE}").normal(0, guess)
        x = broadcast(level.alpha, guess) * guess + broadcast(level.sigma, guess) * eps
        yield from self.solver.solve(denoiser, x, times, noise, observation)

    def finish(self, observation: Observation, x: Tensor) -> Tensor:
        """The solver's last x without what was added around it; without noise, y holds to the last digit.

        Latents do not tell all of a picture: what they are decoded to is x with an error of variance
        `DECODER_ERROR`. y tells a part of it, and the mean of p(x | decoded, y) is the prox.
        """
        A = observation.operator
        codec = self.model.codec
        if isinstance(codec, LatentCodec):
            x = self.codec.clamp(codec.picture_signals(x))
        x = x[(slice(None), slice(None), *(slice(side) for side in A.shape[1:]))]
        if A.linear and (isinstance(codec, LatentCodec) or self.sigma_y == 0):
            x = A.prox(x, observation.y, self.sigma_y**2 / DECODER_ERROR)
        return x


def larger(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The larger of two sizes along every dimension."""
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def pad_to(x: Tensor, spatial: Sequence[int], mode: str = "constant") -> Tensor:
    """x (..., *smaller) padded to a size at the end of its last dimensions; mode as in `F.pad`."""
    margins = [(0, n - side) for n, side in zip(spatial, x.shape[-len(spatial) :])]
    return F.pad(x, [side for pair in reversed(margins) for side in pair], mode=mode)
