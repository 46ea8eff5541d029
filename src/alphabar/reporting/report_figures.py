"""The figures of a report: forward and reverse process, samples, and their nearest training images."""

from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor

from alphabar.codecs.latent import codec_parameters, decoding_flops
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.schedules import Schedule, terminal_warning
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError
from alphabar.files import WRITING, pack_json, with_checksum, writing
from alphabar.images import image_grid, image_strip, nearest_panel
from alphabar.messages import message, pack_messages
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.metrics.pictures import metric_pictures
from alphabar.networks.base import Network, flops
from alphabar.progress import Progress, staged
from alphabar.reporting.exports import save_picture, write_files
from alphabar.reporting.pages import FIGURES, files_folder, report_page
from alphabar.runs.model import Model, load_model
from alphabar.runs.run import Run
from alphabar.runtime import extractor_device
from alphabar.sampling.outputs import ReverseProcessRecorder
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample, sampling_settings

SAMPLES = 64

COLUMNS = 10  # noise levels in the figure of the forward process

SHOWN = 8  # images in the figures of the forward process and of the nearest training images

NEIGHBORS = 3

MAX_STEPS = 50  # of the recipe's sampler in a report; above it, DPM-Solver++(2M) in 20


def make_report_figures(
    run: Run, data: str | Path | None = None, page: Path | None = None
) -> Iterator[Progress[Path]]:
    """Make the figures of a report in the folder of its page, beside figures.json with what they show.

    run: a run, or where a model lies in the folder instead, that. data: the training data, by default the one
    that the run remembers; without it the forward process and the nearest training images are left out, and a
    record's message says why.
    page: the page of the report, by default that of `report_page`. The last record carries the folder.
    Raises AlphabarError where there is no model, where the folder cannot be written, before anything is
    generated, and for data that was given and cannot be read; UsageError where the page is no .html.
    """
    folder = files_folder(page or report_page(run.path))
    model = load_model(run.path)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        beside = TemporaryDirectory(dir=folder, prefix=WRITING)  # fails where it must, before the work
    with beside as temporary:
        work = Path(temporary)
        network = cast(Network, model.denoiser.network)
        about: dict[str, Any] = {
            "terminal_warning": terminal_warning(model.denoiser.schedule),
            "model": {
                "parameters": sum(p.numel() for p in network.parameters()) + codec_parameters(model.codec),
                "gflop": flops(network, model.codec.spatial) / 1e9,
                "decoder_gflop": decoding_flops(model.codec) / 1e9,
            },
        }
        if model.method.samples:
            samples = yield from _samples(model, work, about)
            dataset = yield from _dataset(run, model, data)
            if dataset:
                if not model.method.one_step:
                    about["forward"] = {"levels": _forward(model, dataset, work)}
                about["nearest"] = {"distances": (yield from _nearest(model, dataset, samples, work))}
        with writing(folder):
            for name in FIGURES:  # of an earlier report
                (folder / f"{name}.png").unlink(missing_ok=True)
        made = {path.name: path.read_bytes() for path in work.iterdir()}
    write_files(folder, made | {"figures.json": pack_json(with_checksum(pack_messages(about)))})
    yield Progress(message("reporting.figures_done"), 1, 1, folder)


def _dataset(
    run: Run, model: Model, given: str | Path | None
) -> Generator[Progress[Any], None, Dataset | None]:
    """The training data; None, with a message, where what the run remembers is gone or has changed."""
    stage = message("reporting.reading")
    if not (remembered := given or run.data):
        return None
    try:
        source = open_source(remembered)
        dataset = yield from staged(prepare(source, model.codec, model.recipe.data.fit), stage)
    except AlphabarError as problem:
        if given:
            raise
        yield Progress(stage, 1, 1, message=message("reporting.data_gone", problem=problem.message))
        return None
    if run.data_fingerprint not in (None, dataset.fingerprint):
        yield Progress(stage, 1, 1, message=message("reporting.other_data", data=remembered))
        return None
    return dataset


def patient_settings(model: Model) -> SamplingSettings:
    """The recipe's own sampling, or a quicker one where that takes too many steps to wait for."""
    settings = sampling_settings(model)
    return settings if settings.steps <= MAX_STEPS else sampling_settings(model, sampler="dpmpp_2m", steps=20)


def _samples(model: Model, folder: Path, about: dict[str, Any]) -> Generator[Progress[Any], None, Tensor]:
    """The grid of samples, and for a model that samples in steps the reverse process; returns the samples."""
    settings = patient_settings(model)
    schedule = model.denoiser.schedule
    reverse = ReverseProcessRecorder(model, settings.steps)
    # In float32 a report shows the same pictures every time, whatever was measured to be fastest since.
    records = (reverse.record(record) for record in sample(model, SAMPLES, settings, precision="fp32"))
    samples = yield from staged(records, message("evaluation.generating"))
    save_picture(image_grid(model.codec.preview(samples)), folder / "samples.png")
    about["samples"] = {
        "sampler": settings.sampler["name"],
        "steps": settings.steps,
        "evaluations": nfe_per_sample(model, settings),
        "seed": settings.seed,
        "n": SAMPLES,
        "images": model.images,
    }
    if not model.method.one_step:
        save_picture(image_strip(reverse.columns), folder / "reverse.png")
        times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)
        about["reverse"] = {"levels": _levels(schedule, times[1:][sorted(reverse.chosen)])}
    return samples


def _levels(schedule: Schedule, times: Tensor) -> list[dict[str, float | None]]:
    levels = []
    for t, alpha, sigma in zip(times.tolist(), *(part.tolist() for part in schedule(times)), strict=True):
        snr = (alpha / sigma) ** 2 if sigma else None
        levels.append({"t": t, "alpha": alpha, "sigma": sigma, "snr": snr})
    return levels


def _forward(model: Model, dataset: Dataset, folder: Path) -> list[dict[str, float | None]]:
    """The figure of the forward process; returns its noise levels."""
    index, _ = dataset.split(model.recipe.data.held_out)
    codec, schedule = model.codec, model.denoiser.schedule
    x0 = codec.encode(torch.from_numpy(dataset.items[index[:SHOWN]]))
    eps = Noise(model.recipe.seed, range(len(x0)), Purpose.FORWARD_PROCESS).normal(0, x0)
    times = torch.linspace(0, 1, COLUMNS, dtype=torch.float64)
    noised = (diffuse(schedule, x0, t.expand(len(x0)), eps) for t in times)
    # Where the variance explodes x_t leaves the bounds of a signal; scaled to unit variance it does not.
    norms = (torch.hypot(*schedule(t)).item() for t in times)
    pictures = [codec.preview(codec.decode(x_t / norm)) for x_t, norm in zip(noised, norms, strict=True)]
    save_picture(image_strip(pictures), folder / "forward.png")
    return _levels(schedule, times)


def _nearest(
    model: Model, dataset: Dataset, samples: Tensor, folder: Path
) -> Generator[Progress[Any], None, list[list[float]]]:
    """The figure of the samples nearest to training images by their features; returns the distances."""
    extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
    index, _ = dataset.split(model.recipe.data.held_out)
    items, stage = dataset.items[index], message("reporting.neighbors")
    real = yield from staged(
        extract(extractor, metric_pictures(model.codec, items), cache=cache_root() / "features"), stage
    )
    fake = yield from staged(extract(extractor, metric_pictures(model.codec, samples)), stage)
    apart = torch.cdist(fake.features.double(), real.features.double())
    distances, neighbors = apart.topk(min(NEIGHBORS, len(items)), largest=False)
    best = distances[:, 0].argsort()[:SHOWN]
    preview = model.codec.preview
    nearest = torch.stack([preview(torch.from_numpy(items[neighbors[i].numpy()])) for i in best])
    save_picture(nearest_panel(preview(samples[best]), nearest), folder / "nearest.png")
    return distances[best].tolist()
