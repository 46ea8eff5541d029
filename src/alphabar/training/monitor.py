"""The training monitor: samples from fixed noise, the error per noise level and a quick distance.

It measures during training, with random numbers of its own, and never changes the weights, so how often it
measures (as often as a share of the time allows) has no influence on the trained model.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec
from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import Denoiser, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.initial_noise import INITIAL_NOISES, DataStatistics
from alphabar.diffusion.loss import denoising_error
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.samplers import SAMPLERS, generate, last_step
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.files import write_file, writing
from alphabar.images import image_grid, nearest_panel
from alphabar.messages import Message, message
from alphabar.methods.classifier import accuracy_by_field, log_prob
from alphabar.methods.registry import method_of
from alphabar.metrics.distances import KID_NEEDS, frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS, Features, extract
from alphabar.metrics.pictures import metric_pictures
from alphabar.metrics.reconstruction import WINDOW, psnr, ssim
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.registry import Spec
from alphabar.runs.run import Run
from alphabar.runtime import Runtime, extractor_device

# Noise levels sigma/alpha at which the denoising error is measured: the same for every schedule, so that
# recipes can be compared.
SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
SAMPLES_AT_ONCE = 64
REFERENCE = 2000  # training items that the quick distance compares with, at most
RISEN = 0.05  # by so much the held-out error must lie above its lowest to have risen
TOLD_AFTER = 2  # times in a row that it has, a person is told


@dataclass(frozen=True)
class Measurement:
    """What the monitor measured once.

    message: a sentence for the person who trains. grid: the picture of the samples, None for a classifier.
    values: of the record "distance" in the log, or of "accuracy" for a classifier; None where nothing was
    measured.
    """

    message: Message
    grid: Path | None = None
    values: dict[str, Any] | None = None


class TrainingMonitor:
    """Measures a model during its training and writes the results into the run.

    statistics: of the training data. cond: condition rows (n, columns) of the whole data set, or None.
    codec: of the recipe, with its weights where it is learned.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        run: Run,
        runtime: Runtime,
        statistics: DataStatistics,
        cond: Tensor | None = None,
        codec: Codec | None = None,
    ):
        self.dataset, self.recipe, self.run, self.runtime = dataset, recipe, run, runtime
        self.statistics, self.method = statistics, method_of(recipe)
        self.codec = codec or build_codec(recipe.data)
        self.cond = None if cond is None else cond.to(runtime.device)
        self.train_index, self.held_out_index = dataset.split(recipe.data.held_out)
        self._next: float | None = None  # seconds of training after which to measure again
        self._reference: Features | None = None
        self._baseline: dict[str, float] = {}

    def is_due(self, seconds: float, rate: float) -> bool:
        """Whether measuring now keeps the monitor within its share of the time.

        seconds: of training so far. rate: images trained a second, from which the first measurement's cost is
        estimated: a forward pass takes about a third of an update.
        """
        monitor = self.recipe.monitor
        if monitor.share == 0:
            return False
        if self._next is None:
            passes = max(monitor.samples, monitor.distance) * monitor.steps + 2 * monitor.levels * len(SIGMAS)
            return seconds >= passes / (3 * rate) / monitor.share
        return seconds >= self._next

    def measure(self, denoiser: NetworkDenoiser, images: int, seconds: float) -> Measurement:
        """Measures the model, after so many images and seconds of training, and writes the results.

        Raises AlphabarError where the run folder cannot be written.
        """
        began = time.monotonic()
        try:
            if self.method.classifies:
                return self._measure_classifier(denoiser, images)
            if self.method.reconstructs:
                return self._measure_reconstructions(denoiser, images)
            return self._measure_samples(denoiser, images)
        finally:  # what fails costs its time, too
            share = self.recipe.monitor.share
            self._next = seconds + (time.monotonic() - began) * (1 / share - 1) if share else None

    def _measure_samples(self, denoiser: Denoiser, images: int) -> Measurement:
        monitor = self.recipe.monitor
        error = self.error_by_level(denoiser) if monitor.levels and self.method.denoises else None
        if error:
            self.run.log.append("held_out", images, **error)
        measured = self._measure_distance(denoiser, images)
        if (rise := held_out_rise(self.run.log.records())) is None or rise.times != TOLD_AFTER:
            return measured
        text = message(
            "training.held_out_risen", measured=measured.message, lowest=rise.lowest, rise=rise.share
        )
        return Measurement(text, measured.grid, measured.values)

    @property
    def patience_over(self) -> bool:
        """Whether the held-out error has risen for so long that the training is to end, by the log."""
        patience = self.recipe.monitor.patience
        rise = held_out_rise(self.run.log.records()) if patience else None
        return rise is not None and rise.times >= patience

    def _measure_distance(self, denoiser: Denoiser, images: int) -> Measurement:
        """Writes samples and their quick distance."""
        monitor = self.recipe.monitor
        n = max(monitor.samples, monitor.distance)
        items = torch.cat(
            [
                self.samples(denoiser, range(first, min(first + SAMPLES_AT_ONCE, n)))
                for first in range(0, n, SAMPLES_AT_ONCE)
            ]
        )
        grid = self._write_grid(items[: monitor.samples], images)
        if not monitor.distance:
            return Measurement(message("training.samples", images=images, path=grid), grid)
        sizes = {"samples": monitor.distance, "training": min(len(self.train_index), REFERENCE)}
        if min(sizes.values()) < KID_NEEDS:
            text = message("training.few_for_distance", images=images, path=grid, least=KID_NEEDS, **sizes)
            return Measurement(text, grid)
        distance = self.distance(items[: monitor.distance])
        self.run.log.append("distance", images, **distance)
        baseline = f"{distance['kid_baseline']:.4f}" if "kid_baseline" in distance else "–"
        shown = distance | {"kid_baseline": baseline}
        text = message("training.samples_and_distance", images=images, path=grid, **shown)
        return Measurement(text, grid, distance)

    def _measure_classifier(self, classifier: NetworkDenoiser, images: int) -> Measurement:
        values = self.accuracy(classifier)
        self.run.log.append("accuracy", images, **values)
        at = zip(values["sigma"], values["accuracy"], strict=False)
        shares = [f"{share:.0%} (sigma {sigma:g})" for sigma, share in at if share is not None]
        if not shares:
            return Measurement(message("training.no_held_out_labels", images=images), values=values)
        return Measurement(
            message("training.accuracy", images=images, shares=", ".join(shares)), values=values
        )

    def _measure_reconstructions(self, autoencoder: NetworkDenoiser, images: int) -> Measurement:
        """Writes held-out items above their reconstructions, and how near and how real these are.

        Where no items are held out those of training are shown, and called so.
        The distance of reconstructed items is the best that a model of their latents can reach.
        """
        monitor, index = self.recipe.monitor, self.held_out_index
        index = index if len(index) else self.train_index
        chosen = np.sort(index[: max(monitor.samples, monitor.distance)])
        near, like, made = [], [], []
        for first in range(0, len(chosen), SAMPLES_AT_ONCE):
            x0 = self._signals(chosen[first : first + SAMPLES_AT_ONCE])
            with torch.no_grad():
                x = autoencoder.network(x0, None).float().clamp(-1, 1)
            near.append(psnr(x, x0))
            if min(self.codec.spatial) >= WINDOW:
                like.append(ssim(x.cpu(), x0.cpu()))
            made.append(self.codec.decode(x.cpu()))
        items, n = torch.cat(made), min(len(chosen), monitor.samples)
        preview = self.codec.preview
        originals = preview(torch.from_numpy(self.dataset.items[chosen[:n]]))
        grid = self._write(nearest_panel(originals, preview(items[:n])[:, None]), images)
        values: dict[str, Any] = {
            "n": len(chosen),
            "held_out": len(self.held_out_index) > 0,
            "psnr": torch.cat(near).mean().item(),
            "ssim": torch.cat(like).mean().item() if like else None,
        }
        self.run.log.append("reconstruction", images, **values)
        which = "training.reconstructions" if values["held_out"] else "training.reconstructions_of_training"
        text = message(which, images=images, path=grid, psnr=values["psnr"])
        if min(len(items), monitor.distance, len(self.train_index)) < KID_NEEDS:
            return Measurement(text, grid, values)
        distance = self.distance(items)
        self.run.log.append("distance", images, **distance)
        return Measurement(text, grid, values | distance)

    def samples(self, denoiser: Denoiser, positions: range) -> Tensor:
        """Items (n, *item_shape) sampled from fixed noise, the same noise every time.

        A conditional model is given the conditions of training items chosen at random.
        """
        recipe, monitor = self.recipe, self.recipe.monitor
        chosen = Noise(recipe.seed, positions, Purpose.MONITOR_CONDITIONS).uniform(0) * len(self.train_index)
        rows = self.train_index[chosen.long().numpy()]
        sampler: Spec = "dpmpp_2m"
        timesteps: Spec = "linear_beta"
        initial_noise: Spec = "standard_normal"
        steps = monitor.steps
        if self.method.fixed_sampling:
            own = recipe.sampling
            sampler, timesteps = own.sampler, own.timesteps
            initial_noise, steps = own.initial_noise, own.steps
        end = generate(
            denoiser,
            shape=self.codec.shape,
            positions=positions,
            seed=recipe.seed,
            sampler=SAMPLERS.build(sampler),
            times=TIMESTEPS.build(timesteps)(denoiser.schedule, steps),
            initial_noise=INITIAL_NOISES.build(initial_noise, statistics=self.statistics, codec=self.codec),
            cond=None if self.cond is None else self.cond[rows],
            device=self.runtime.device,
        )
        return self.codec.decode(last_step(end).x.cpu())

    @torch.no_grad()
    def error_by_level(self, denoiser: Denoiser) -> dict[str, Any]:
        """The mean squared error of D against x0 at each noise level, for training and held-out items.

        "levels" are log SNR; those that the schedule does not reach are left out. The noise is always the
        same.
        """
        log_snr = -2 * torch.tensor(SIGMAS, dtype=torch.float64).log()
        lowest = denoiser.schedule(torch.ones(1, dtype=torch.float64)).log_snr
        levels = log_snr[log_snr > lowest]
        times = denoiser.schedule.time(levels)
        error: dict[str, Any] = {"levels": levels.tolist()}
        for name, index in (("train_error", self.train_index), ("error", self.held_out_index)):
            chosen = index[: self.recipe.monitor.levels]
            if len(chosen) == 0:
                error[name] = None
                continue
            x0 = self._signals(chosen)
            eps = Noise(self.recipe.seed, range(len(chosen)), Purpose.HELD_OUT_ERROR).normal(0, x0)
            cond = None if self.cond is None else self.cond[chosen]
            error[name] = [
                denoising_error(denoiser, x0, t.expand(len(x0)), eps, cond).mean().item() for t in times
            ]
        return error

    @torch.no_grad()
    def accuracy(self, classifier: NetworkDenoiser) -> dict[str, Any]:
        """How well a classifier predicts the labels of held-out items at each noise level.

        "accuracy": the share of labels, over all fields of classes, to which it gives the highest
        probability; None where no label is known. "log_prob": the mean log p(c | x_t) of an item.
        """
        chosen = self.held_out_index[: self.recipe.monitor.levels]
        values: dict[str, Any] = {"sigma": list(SIGMAS), "n": len(chosen), "accuracy": [], "log_prob": []}
        for sigma in SIGMAS if len(chosen) else ():
            right: list[Tensor] = []
            logs: list[Tensor] = []
            for x, t, cond in self._noisy(classifier, chosen, sigma):
                right += accuracy_by_field(classifier, x, t, cond)
                logs.append(log_prob(classifier, x, t, cond))
            share = torch.cat(right).nanmean().item() if right else math.nan
            values["accuracy"].append(None if math.isnan(share) else share)
            values["log_prob"].append(torch.cat(logs).mean().item())
        return values

    def _noisy(
        self, classifier: NetworkDenoiser, chosen: np.ndarray, sigma: float
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The chosen items as x_t at one noise level, with times and condition rows, batch by batch."""
        assert self.cond is not None
        for at in range(0, len(chosen), SAMPLES_AT_ONCE):
            rows = chosen[at : at + SAMPLES_AT_ONCE]
            x0 = self._signals(rows)
            eps = Noise(self.recipe.seed, range(at, at + len(rows)), Purpose.HELD_OUT_ERROR).normal(0, x0)
            t = classifier.schedule.time(torch.full((len(rows),), -2 * math.log(sigma), dtype=torch.float64))
            yield diffuse(classifier.schedule, x0, t, eps), t, self.cond[rows]

    def distance(self, items: Tensor) -> dict[str, Any]:
        """The quick distance of samples (n, *item_shape) from training items, in a small feature network.

        "kid_baseline", "frechet_baseline": the real-vs-real baselines, of as many training items against the
        others (of half of them against the other half, where there are fewer than 2n).
        """
        extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
        if self._reference is None:
            index = np.sort(self.train_index[:REFERENCE])
            self._reference = last(extract(extractor, metric_pictures(self.codec, self.dataset.items[index])))
            self._baseline = self._real_distance(self._reference.features, len(items))
        features = last(extract(extractor, metric_pictures(self.codec, items))).features
        reference = self._reference.features
        value = kid(features, reference)
        return {
            "features": extractor.name,
            "n": len(items),
            "n_reference": len(reference),
            "reference": f"{self.dataset.name} ({self.dataset.fingerprint[:8]})",
            "frechet": frechet_distance(features, reference),
            "kid": value.value,
            "kid_error": value.standard_error,
            **self._baseline,
        }

    def _real_distance(self, features: Tensor, n: int) -> dict[str, float]:
        """The baselines: n of the real items in place of the samples; {} where there are too few."""
        n = min(n, len(features) // 2)
        if n < KID_NEEDS:
            return {}
        real = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
        chosen, others = real[:n], real[n:]
        return {
            "kid_baseline": kid(chosen, others).value,
            "frechet_baseline": frechet_distance(chosen, others),
        }

    def _write_grid(self, items: Tensor, images: int) -> Path:
        """Writes items as one picture into the run. Returns its path."""
        return self._write(image_grid(self.codec.preview(items)), images)

    def _write(self, picture: Image, images: int) -> Path:
        path = self.run.path / "samples" / f"{images:09d}.png"
        png = BytesIO()
        picture.save(png, format="PNG")
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        write_file(path, png.getvalue())
        return path

    def _signals(self, rows: np.ndarray) -> Tensor:
        """The signals of these items, on the device."""
        return self.runtime.put(self.codec.encode(torch.from_numpy(self.dataset.items[rows])))


class Rise(NamedTuple):
    """A held-out error that has risen: since how many images, by what share, how many times in a row."""

    lowest: int
    share: float
    times: int


def held_out_rise(records: Iterable[Mapping[str, Any]]) -> Rise | None:
    """The rise of the held-out error up to the newest record of it; None where there is none.

    Errors are geometric means over the noise levels. One has risen where it lies above the lowest before it
    by 5 % or more, while the training error lies below its value there.
    """
    found: Rise | None = None
    best: tuple[int, float, float] | None = None
    for record in records:
        if record["kind"] != "held_out" or not (record.get("error") and record.get("train_error")):
            continue
        error, train = _mean_error(record["error"]), _mean_error(record["train_error"])
        if best is None or error < best[1]:
            best = (record["images"], error, train)
        images, lowest, train_then = best
        risen = error >= (1 + RISEN) * lowest and train < train_then
        found = Rise(images, error / lowest - 1, found.times + 1 if found else 1) if risen else None
    return found


def _mean_error(errors: Sequence[float]) -> float:
    return math.exp(sum(math.log(max(error, 1e-30)) for error in errors) / len(errors))
