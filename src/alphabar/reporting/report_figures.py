"""The pictures that a report shows of a model: what noise does, what sampling does, samples, neighbours."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alphabar.codecs.image import to_pictures, to_signal
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.diffusion.schedules import Schedule, terminal_warning
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.files import pack_json, write_file
from alphabar.images import image_grid, image_strip, nearest_panel
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.networks.base import Network, flops
from alphabar.progress import Progress
from alphabar.runs.model import Model, load_model
from alphabar.runs.run import Run
from alphabar.runtime import extractor_device
from alphabar.sampling.outputs import ReverseProcessRecorder
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample, sampling_settings

SAMPLES = 64


COLUMNS = 10  # noise levels in the forward strip, as many as a telephone's width can show


SHOWN = 8  # pictures in the forward strip and in the panel of neighbours


NEIGHBOURS = 3


PATIENCE = 50  # evaluations a sample that a report may take; above it, DPM-Solver++(2M) in 20


def make_report_figures(run: Run, data: str | Path | None = None) -> Iterator[Progress[Path]]:
    """Draw the pictures of a run's report into RUN/report/, next to figures.json with what they show.

    data: the training pictures, by default those that the run remembers; without them the forward strip and
        the neighbours are left out.
    """
    model = load_model(run.path)
    schedule, network = model.denoiser.schedule, model.denoiser.network
    assert isinstance(network, Network)
    settings = patient_settings(model)
    folder = run.path / "report"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    reverse = ReverseProcessRecorder(model, settings.steps)
    for record in sample(model, SAMPLES, settings):
        reverse.record(record)
        yield Progress("drawing samples", record.done, record.total)
    assert record.result is not None
    image_grid(record.result).save(folder / "samples.png")
    if model.method.trains_denoiser:
        image_strip(reverse.columns).save(folder / "reverse.png")
    times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)
    about: dict[str, Any] = {
        "samples": {
            "sampler": settings.sampler["name"],
            "steps": settings.steps,
            "evaluations": nfe_per_sample(model, settings),
            "seed": settings.seed,
            "n": SAMPLES,
            "images": model.images,
        },
        "reverse": {"levels": _levels(schedule, times[1:][sorted(reverse.chosen)])},
        "terminal_warning": terminal_warning(schedule),
        "model": {
            "parameters": sum(p.numel() for p in model.denoiser.parameters()),
            "gflop": flops(network, model.codec.spatial) / 1e9,
        },
    }
    given = data or run.data
    if given:
        for prepared in prepare(open_source(given), model.codec, model.recipe.data.fit):
            yield Progress("reading pictures", prepared.done, prepared.total)
        dataset = prepared.result
        assert dataset is not None
        if model.method.trains_denoiser:
            about["forward"] = {"levels": _forward(model, dataset, folder)}
        about["nearest"] = {"distances": (yield from _nearest(model, dataset, record.result, folder))}
    write_file(folder / "figures.json", pack_json(about))


def patient_settings(model: Model) -> SamplingSettings:
    """The recipe's own sampling, or a quick one where that takes too many evaluations to wait for."""
    settings = sampling_settings(model)
    return settings if settings.steps <= PATIENCE else sampling_settings(model, sampler="dpmpp_2m", steps=20)


def _levels(schedule: Schedule, times: torch.Tensor) -> list[dict[str, float | None]]:
    levels = []
    for t, alpha, sigma in zip(times.tolist(), *(part.tolist() for part in schedule(times)), strict=True):
        snr = (alpha / sigma) ** 2 if sigma else None
        levels.append({"t": t, "alpha": alpha, "sigma": sigma, "snr": snr})
    return levels


def _forward(model: Model, dataset: Dataset, folder: Path) -> list[dict[str, float | None]]:
    index, _ = dataset.split(model.recipe.data.held_out)
    x0 = to_signal(torch.from_numpy(dataset.items[index[:SHOWN]]))
    eps = Noise(model.recipe.seed, range(len(x0)), "forward").normal(0, x0)
    schedule = model.denoiser.schedule
    times = torch.linspace(0, 1, COLUMNS, dtype=torch.float64)
    noised = (diffuse(schedule, x0, t.expand(len(x0)), eps) for t in times)
    # A variance-exploding x_t leaves the range of pictures; shown at the variance of a picture it does not.
    norms = (torch.hypot(*schedule(t)).item() for t in times)
    image_strip([to_pictures(x_t / norm) for x_t, norm in zip(noised, norms, strict=True)]).save(
        folder / "forward.png"
    )
    return _levels(schedule, times)


def _nearest(model: Model, dataset: Dataset, samples: torch.Tensor, folder: Path) -> Any:
    """The samples that lie closest to real pictures, as a network sees them, and those pictures."""
    extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
    index, _ = dataset.split(model.recipe.data.held_out)
    pictures = dataset.items[index]
    for record in extract(extractor, pictures, cache=cache_root() / "features"):
        yield Progress("looking for neighbours", record.done, record.total)
    assert record.result is not None
    *_, seen = extract(extractor, samples)
    assert seen.result is not None
    apart = torch.cdist(seen.result.features.double(), record.result.features.double())
    k = min(NEIGHBOURS, len(pictures))
    distances, neighbours = apart.topk(k, largest=False)
    best = distances[:, 0].argsort()[:SHOWN]
    panel = nearest_panel(samples[best], np.stack([pictures[neighbours[i].numpy()] for i in best]))
    panel.save(folder / "nearest.png")
    return distances[best].tolist()
