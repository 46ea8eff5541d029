"""The first stage of latent diffusion: the autoencoder, trained or given, becomes the codec of the run."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs import build_codec
from alphabar.codecs.base import LearnedCodec
from alphabar.codecs.latent import LatentCodec, measured_codec
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import write_folder
from alphabar.formatting import format_duration
from alphabar.messages import message
from alphabar.networks.autoencoder import Autoencoder
from alphabar.recipes.derive import first_stage
from alphabar.runs.model import Model, codec_of, load_model
from alphabar.runs.run import WEIGHTS, Run
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors
from alphabar.training.loop import begin, train
from alphabar.training.probe import Stopped, unless_stopped
from alphabar.training.records import TrainingProgress

SHARE = 0.3  # of the budget, that the autoencoder is trained for
MEASURED = 2048  # training pictures over which the latents are standardised, at most
AT_ONCE = 32


def needs_first_stage(run: Run) -> bool:
    """Whether a run has no codec yet to encode its data."""
    return isinstance(build_codec(run.recipe.data), LearnedCodec) and not run.codec.exists()


def check_autoencoder(run: Run, given: Model | None) -> None:
    """Raises where a run that exists would go on with latents that its diffusion model was not trained on.

    given: an autoencoder, or a model of latents whose codec the run takes over.
    AlphabarError where the run's autoencoder is missing although there are weights for its latents,
    UsageError where it is another than the given one. Mean and standard deviation follow from the data.
    """
    if not run.exists or not isinstance(build_codec(run.recipe.data), LearnedCodec):
        return
    if not run.codec.exists():
        takes_over = given is not None and given.codec_weights
        if run.checkpoints.folders() or (run.initial_weights.exists() and not takes_over):
            raise AlphabarError("runs.without_autoencoder", path=run.path)
    elif given is not None:
        codec = codec_of(run)
        assert isinstance(codec, LearnedCodec)
        own, theirs = codec.weights(), given.codec_weights or given.denoiser.network.state_dict()
        shared = (own.keys() & theirs.keys()) - {"mean", "std"}
        if not all(torch.equal(own[name].cpu(), theirs[name].cpu()) for name in shared):
            raise UsageError("training.other_autoencoder", path=run.path, given=given.path)


def seconds_of_first_stage(run: Run) -> float:
    """What was spent on the autoencoder so far."""
    checkpoint, _ = Run(run.first_stage).checkpoints.newest()
    return checkpoint.state["seconds"] if checkpoint else 0.0


def train_first_stage(
    dataset: Dataset,
    run: Run,
    *,
    model: Model | None = None,
    images: int | None = None,
    budget: float | None = None,
    runtime: Runtime | None = None,
    checkpoint_every: float = 300.0,
    stop: threading.Event | None = None,
) -> Iterator[TrainingProgress]:
    """Gives a run its codec: a trained one, or one that is trained now in a run of its own inside.

    model: an autoencoder, or a model of latents whose codec the run takes over.
    images, budget: of the whole command; the autoencoder is trained for the same number of images, or for
    `SHARE` of the budget. The other arguments are those of `train`, and what it raises is raised.
    Where the person stops it there is no codec yet.
    """
    if model is not None and model.codec_weights:
        _write_codec(run, model.codec_weights)
        return
    if model is None or not model.method.reconstructs:
        inner = begin(run.first_stage, first_stage(run.recipe))
        seconds = None if budget is None else SHARE * budget
        if seconds:
            yield _note(message("training.first_stage", duration=format_duration(seconds)))
        records = train(
            dataset,
            inner,
            images=None if seconds else images,
            budget=seconds,
            runtime=runtime and replace(runtime, compile=False),
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
        stage = message("training.stage_autoencoder")  # each has a bar of its own, and a time left
        yield from (replace(record, result=None, stage=stage) for record in records)
        if stop is not None and stop.is_set():
            return
        model = load_model(inner.path)
    network = model.denoiser.network
    assert isinstance(network, Autoencoder)
    codec = build_codec(run.recipe.data)
    assert isinstance(codec, LatentCodec)
    train_index, _ = dataset.split(run.recipe.data.held_out)
    try:
        measured_codec(codec, network.cpu(), _pictures(dataset, codec, train_index, stop))
    except Stopped:
        return
    _write_codec(run, codec.weights())


def _write_codec(run: Run, weights: Mapping[str, Tensor]) -> None:
    if Runtime().is_main:
        write_folder(run.codec, {WEIGHTS: pack_tensors(weights)})
    Runtime().barrier()


def _pictures(
    dataset: Dataset, codec: LatentCodec, index: np.ndarray, stop: threading.Event | None
) -> Iterator[Tensor]:
    """The signals of pictures spread evenly over the training data, batch by batch.

    Raises `Stopped` between two of them, once it is wished; of several processes none leaves alone.
    """
    chosen = index[:: max(1, len(index) // MEASURED)]
    for first in range(0, len(chosen), AT_ONCE):
        if Runtime().world_size == 1:
            unless_stopped(stop)
        yield codec.pictures.encode(torch.from_numpy(dataset.items[chosen[first : first + AT_ONCE]]))


def _note(text: str) -> TrainingProgress:
    return TrainingProgress(message("training.stage"), 0.0, 1.0, message=text)
