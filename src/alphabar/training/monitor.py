"""What is looked at while training: samples from fixed noise, the error per noise level, a quick distance.

Looking draws its own random numbers and never changes the weights, so how often it happens (as often as
a share of the time allows) has no say in the result.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.image import to_pictures, to_signal
from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import Denoiser, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.initial_noise import INITIAL_NOISES, DataStatistics
from alphabar.diffusion.loss import denoising_error
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, generate, last_step
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.files import writing
from alphabar.methods.classifier import accuracy_by_field, log_prob
from alphabar.metrics.distances import frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS, Features, extract
from alphabar.recipes.schema import Recipe
from alphabar.registry import Spec
from alphabar.runs.run import Run
from alphabar.runtime import Runtime, extractor_device

# Noise levels at which the denoising error is measured, as sigma / alpha: the same for every schedule, so
# that recipes compare.
SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)


PICTURES_AT_ONCE = 64


REFERENCE = 2000  # training pictures that the quick distance compares with, at most


class TrainingMonitor:
    """Looks at a denoiser in training and writes what it sees into the run."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        run: Run,
        runtime: Runtime,
        statistics: DataStatistics,
        cond: Tensor | None = None,
    ):
        """cond: (n, columns), what is known about each picture of the data set, for a conditional model."""
        self.statistics = statistics
        self.dataset, self.recipe, self.run, self.runtime = dataset, recipe, run, runtime
        self.cond = None if cond is None else cond.to(runtime.device)
        self.train_index, self.held_out_index = dataset.split(recipe.data.held_out)
        self.next_look: float | None = None
        self.reference: Features | None = None

    def due(self, seconds: float, rate: float) -> bool:
        """Whether a look now keeps looking within its share of the time.

        Before the first look its cost is estimated from ``rate``, the images trained a second: a forward
        pass is about a third of an update.
        """
        monitor = self.recipe.monitor
        if monitor.share == 0:
            return False
        if self.next_look is None:
            passes = max(monitor.samples, monitor.distance) * monitor.steps + 2 * monitor.levels * len(SIGMAS)
            return seconds >= passes / (3 * rate) / monitor.share
        return seconds >= self.next_look

    def look(self, denoiser: Denoiser, images: int, clock: Any) -> tuple[Path, dict[str, Any] | None]:
        """Measure and write. Returns the grid's path and the quick distance, if one is wanted.

        Raises AlphabarError where the run folder cannot be written.
        """
        begun = time.monotonic()
        monitor = self.recipe.monitor
        denoises = self.recipe.method["name"] == "diffusion"  # at every noise level
        error = self.error_by_level(denoiser) if monitor.levels and denoises else None
        n = max(monitor.samples, monitor.distance)
        pictures = torch.cat(
            [
                self.samples(denoiser, range(first, min(first + PICTURES_AT_ONCE, n)))
                for first in range(0, n, PICTURES_AT_ONCE)
            ]
        )
        distance = self.distance(pictures[: monitor.distance]) if monitor.distance else None
        cost = time.monotonic() - begun
        self.next_look = clock() + cost * (1 / monitor.share - 1) if monitor.share else None
        grid = self.run.path / "samples" / f"{images:09d}.png"
        save_grid(pictures[: monitor.samples], grid)
        if error:
            self.run.log("held_out", images, **error)
        if distance:
            self.run.log("distance", images, **distance)
        return grid, distance

    def samples(self, denoiser: Denoiser, positions: range) -> Tensor:
        """Pictures from fixed noise, the same noise at every look.

        A conditional model is asked for what is known about training pictures drawn at random.
        """
        recipe = self.recipe
        of = Noise(recipe.seed, positions, "asked").uniform(0) * len(self.train_index)
        chosen = self.train_index[of.long().numpy()]
        size = recipe.data.size
        sampler: Spec = "dpmpp_2m"
        timesteps: Spec = "linear_beta"
        initial_noise: Spec = "standard_normal"
        steps = recipe.monitor.steps
        if recipe.method["name"] == "distillation":  # which draws in no other way
            own = recipe.sampling
            sampler, timesteps, initial_noise, steps = (
                own.sampler,
                own.timesteps,
                own.initial_noise,
                own.steps,
            )
        end = generate(
            denoiser,
            shape=(3, size, size),
            positions=positions,
            seed=recipe.seed,
            sampler=SAMPLERS.build(sampler),
            times=TIMESTEPS.build(timesteps)(denoiser.schedule, steps),
            initial_noise=INITIAL_NOISES.build(initial_noise, statistics=self.statistics),
            cond=None if self.cond is None else self.cond[chosen],
            device=self.runtime.device,
        )
        return to_pictures(last_step(end).x.cpu())

    @torch.no_grad()
    def error_by_level(self, denoiser: Denoiser) -> dict[str, Any]:
        """Mean squared error of D against x0, for training and held-out pictures at fixed noise.

        Levels that the schedule does not reach are left out.
        """
        sigma = torch.tensor(SIGMAS, dtype=torch.float64)
        log_snr = -2 * sigma.log()
        lowest = denoiser.schedule(torch.ones(1, dtype=torch.float64)).log_snr
        levels = log_snr[log_snr > lowest]
        times = denoiser.schedule.time(levels)
        error: dict[str, Any] = {"levels": levels.tolist()}
        for name, index in (("train_error", self.train_index), ("error", self.held_out_index)):
            chosen = index[: self.recipe.monitor.levels]
            if len(chosen) == 0:
                error[name] = None
                continue
            x0 = self.runtime.put(to_signal(torch.from_numpy(self.dataset.items[chosen])))
            eps = Noise(self.recipe.seed, range(len(chosen)), "held-out").normal(0, x0)
            cond = None if self.cond is None else self.cond[chosen]
            error[name] = [
                denoising_error(denoiser, x0, t.expand(len(x0)), eps, cond).mean().item() for t in times
            ]
        return error

    @torch.no_grad()
    def accuracy(self, classifier: NetworkDenoiser, images: int, clock: Any) -> dict[str, Any]:
        """How well held-out pictures are told apart at each noise level; into the run's log.

        accuracy: the share of labels, over all fields of classes, that were thought the likeliest; None
        where no label is known. log_prob: the mean log p(c | x_t) of a picture.
        """
        begun = time.monotonic()
        monitor, schedule = self.recipe.monitor, classifier.schedule
        chosen = self.held_out_index[: monitor.levels]
        told: dict[str, Any] = {"sigma": list(SIGMAS), "n": len(chosen), "accuracy": [], "log_prob": []}
        for sigma in SIGMAS if len(chosen) else ():
            right: list[Tensor] = []
            likely: list[Tensor] = []
            for at in range(0, len(chosen), PICTURES_AT_ONCE):
                rows = chosen[at : at + PICTURES_AT_ONCE]
                x0 = self.runtime.put(to_signal(torch.from_numpy(self.dataset.items[rows])))
                eps = Noise(self.recipe.seed, range(at, at + len(rows)), "held-out").normal(0, x0)
                t = schedule.time(torch.full((len(rows),), -2 * math.log(sigma), dtype=torch.float64))
                x, cond = diffuse(schedule, x0, t, eps), self.cond[rows]  # type: ignore[index]
                right += accuracy_by_field(classifier, x, t, cond)
                likely.append(log_prob(classifier, x, t, cond))
            share = torch.cat(right).nanmean().item() if right else math.nan
            told["accuracy"].append(None if math.isnan(share) else share)
            told["log_prob"].append(torch.cat(likely).mean().item())
        cost = time.monotonic() - begun
        self.next_look = clock() + cost * (1 / monitor.share - 1) if monitor.share else None
        self.run.log("accuracy", images, **told)
        return told

    def distance(self, pictures: Tensor) -> dict[str, Any]:
        """The quick distance of samples from training pictures. Its network is small: no one's FID."""
        extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
        if self.reference is None:
            index = self.train_index[:REFERENCE]
            *_, done = extract(extractor, torch.from_numpy(self.dataset.items[np.sort(index)]))
            self.reference = done.result
        *_, done = extract(extractor, pictures)
        assert done.result is not None and self.reference is not None
        value = kid(done.result.features, self.reference.features)
        return {
            "features": extractor.name,
            "n": len(pictures),
            "n_reference": len(self.reference.features),
            "frechet": frechet_distance(done.result.features, self.reference.features),
            "kid": value.value,
            "kid_error": value.standard_error,
        }


def save_grid(pictures: Tensor, path: Path) -> None:
    """Write pictures (n, h, w, 3) as one PNG, as square a grid as n allows."""
    from PIL import Image

    n, h, w, _ = pictures.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + 2) - 2, columns * (w + 2) - 2, 3), 255, np.uint8)
    for i, picture in enumerate(pictures.numpy()):
        y, x = divmod(i, columns)
        sheet[y * (h + 2) : y * (h + 2) + h, x * (w + 2) : x * (w + 2) + w] = picture
    beside = path.with_suffix(".writing")
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(sheet).save(beside, format="PNG")
        beside.replace(path)
