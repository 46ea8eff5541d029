"""Opening a training: from its newest whole checkpoint, from another model's weights, or from random ones."""

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.data.dataset import Dataset
from alphabar.diffusion.initial_noise import fit_gaussian
from alphabar.diffusion.schedules import terminal_warning
from alphabar.errors import AlphabarError
from alphabar.files import interpreting, read_folder
from alphabar.messages import Message, message
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.runs.checkpoints import Checkpoint
from alphabar.runs.model import codec_of, read_statistics
from alphabar.runs.run import WEIGHTS, Run, without_checkpoints
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors
from alphabar.training.given_runtime import FILE, same_runtime, write_runtime
from alphabar.training.labels import Conditions, left_out_attributes, mirror_warning, others_than_numbers
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.probe import probe
from alphabar.training.records import Limits
from alphabar.training.signals import Signals, signals_of
from alphabar.training.state import TrainingState
from alphabar.training.writer import RunWriter, write_environment

# Trainings shorter than this are not worth a minute of compiling.
MIN_SECONDS_TO_COMPILE, MIN_UPDATES_TO_COMPILE = 600.0, 500
ITEMS_AT_ONCE = 256


@dataclass(frozen=True)
class OpenedTraining:
    """A training that is ready for its next update.

    writer: what writes into the run; None on all processes but the main one. notes: sentences for the person.
    """

    training: TrainingState
    writer: RunWriter | None
    notes: list[str]


def open_training(
    dataset: Dataset,
    run: Run,
    conditions: Conditions | None,
    runtime: Runtime | None,
    limits: Limits,
    checkpoint_every: float,
    stop: threading.Event | None = None,
) -> OpenedTraining:
    """The training of a run, where it stopped or at its beginning.

    The other arguments are those of `train`. Raises AlphabarError where every checkpoint is damaged, where
    data or labels changed since the run began, and where initial weights are missing; `Stopped` where the
    person stops it while the machine is measured.
    """
    checkpoint, problems = run.checkpoints.newest()
    if checkpoint is None and problems:
        problem = problems[0].values["problem"]
        raise without_checkpoints(run, AlphabarError("training.all_damaged", path=run.path, problem=problem))
    recipe, state = run.recipe, checkpoint.state if checkpoint else None
    measured = runtime is None
    runtime = runtime or probe_for(recipe, conditions, limits, state, stop)
    if "cuda" in runtime.device:
        torch.set_float32_matmul_precision("high")  # as convolutions compute anyway
    codec = codec_of(run, checkpoint)
    signals = last(signals_of(dataset, codec))
    training = TrainingState(dataset, recipe, runtime, conditions, signals)
    if state and state["data"] != training.fingerprint:
        identifier = "training.other_labels" if conditions else "training.other_data"
        raise AlphabarError(identifier, path=run.path)
    warnings = (
        terminal_warning(training.denoiser.schedule),
        mirror_warning(dataset, recipe),
        run.log.problem(),
        left_out_attributes(dataset, recipe, conditions),
        *others_than_numbers(dataset, recipe, conditions),
        _runtime_note(run, runtime, measured, state),
    )
    notes: list[str] = [*problems, *runtime.notes, *(warning for warning in warnings if warning)]
    if checkpoint:
        known = read_statistics(checkpoint.files, recipe, checkpoint.path)
        notes += _load(training, checkpoint, run)
    else:
        _set_initial_weights(training, run)
        known = fit_gaussian(_signals(signals, training.train_index), codec)
    if not runtime.is_main:
        return OpenedTraining(training, None, notes)
    run.rewind(training.images)
    write_environment(run, dataset, runtime)
    write_runtime(run.path, runtime)
    rows = conditions.rows if conditions else None
    monitor = TrainingMonitor(dataset, recipe, run, runtime, known, rows, codec)
    share = limits.share(training.images, training.seconds)
    how: Any = {"checkpoint_every": checkpoint_every, "resumed": checkpoint is not None, "share": share}
    writer = RunWriter(run, training, monitor, pack_tensors(known._asdict()), **how)
    return OpenedTraining(training, writer, notes)


def _runtime_note(
    run: Run, runtime: Runtime, measured: bool, state: Mapping[str, Any] | None
) -> Message | None:
    """Where a measured runtime is written down, or that a given one is not that of the checkpoint."""
    if measured and not state:
        return message("training.runtime_written", path=run.path / FILE)
    if not state or measured:  # what is measured says itself where it goes on on another machine
        return None
    if not same_runtime(before := state["runtime"], runtime.to_dict()):
        return message("training.other_runtime", path=run.path)
    if before["machine"] and runtime.machine and before["machine"] != runtime.machine:
        return message("training.other_machine", machine=before["machine"])
    return None


def probe_for(
    recipe: Recipe,
    conditions: Conditions | None,
    limits: Limits,
    state: dict[str, Any] | None,
    stop: threading.Event | None = None,
) -> Runtime:
    """The runtime that suits a recipe and the length of its training, or that a checkpoint records."""
    return probe(
        recipe,
        conditions,
        try_compile=(limits.budget or math.inf) >= MIN_SECONDS_TO_COMPILE
        and (limits.images or math.inf) >= MIN_UPDATES_TO_COMPILE * recipe.batch,
        recorded=state["runtime"] if state else None,
        stop=stop,
    )


def _load(training: TrainingState, checkpoint: Checkpoint, run: Run) -> Iterator[str]:
    """Puts back the state in a checkpoint. Yields sentences about it."""
    state = checkpoint.state
    with interpreting(checkpoint.path):
        training.load(checkpoint.files, state, checkpoint.path)
    if state["processes"] != training.runtime.world_size:
        yield message("training.other_processes", before=state["processes"], now=training.runtime.world_size)
    yield message("training.resuming", path=run.path, images=training.images)


def _set_initial_weights(training: TrainingState, run: Run) -> None:
    """Takes over the weights that the run begins with, where there are any."""
    if run.initial_weights.exists():
        with interpreting(run.initial_weights):
            training.start_from(unpack_tensors(read_folder(run.initial_weights)[WEIGHTS]))
    elif training.method.needs_trained_weights:
        raise AlphabarError("training.no_initial_weights", path=run.path)


def _signals(signals: Signals, index: np.ndarray) -> Iterator[Tensor]:
    """The signals of these items, batch by batch."""
    for first in range(0, len(index), ITEMS_AT_ONCE):
        yield signals(np.sort(index[first : first + ITEMS_AT_ONCE]))
