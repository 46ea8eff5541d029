"""The training loop: batches in, progress records out, and a run folder that survives kills and full disks.

Everything random is a function of (seed, images seen), so the state of a training is its weights, its
optimizer and one number.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import write_folder
from alphabar.formatting import format_duration
from alphabar.messages import Message, message
from alphabar.networks.base import Network
from alphabar.recipes.overrides import changed
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import Model, build_denoiser
from alphabar.runs.run import WEIGHTS, Run
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors
from alphabar.training.budget import Plan
from alphabar.training.changes import check_changes
from alphabar.training.failures import explained, kept
from alphabar.training.labels import Conditions, conditions_of
from alphabar.training.optimizers import learning_rate_at
from alphabar.training.pace import Pace
from alphabar.training.probe import Stopped
from alphabar.training.records import Limits, TrainingProgress, TrainingResult
from alphabar.training.resume import open_training
from alphabar.training.state import TrainingState
from alphabar.training.unmoved import UPDATES
from alphabar.training.writer import RunWriter

MAX_BAD_STEPS = 20  # updates in a row without a finite loss, after which a training gives up
EARLY = 1 / 8  # share of the training after which weights are kept for autoguidance
TOLD_PREPARATION = 0.05  # share of the budget that reading and measuring may take without a word
RECENT = 50  # updates over which rate and waiting time are measured


def begin(
    path: str | Path, recipe: Recipe, *, initial_model: Model | None = None, settings: Iterable[str] = ()
) -> Run:
    """The run at ``path``: created with the recipe or, where it exists, checked against it.

    initial_model: the model whose weights the training begins with, of the recipe's network or narrower.
    settings: "key=value", those of the recipe that a person names. Where the run exists, its recipe takes on
    the changes that `check_changes` lets pass.
    Raises UsageError where the run was made with another recipe, naming what differs, and where the weights
    do not fit; AlphabarError where the folder holds something else, and where a recipe is to change while a
    training runs in the folder.
    """
    run = Run(path)
    if initial_model:
        network = build_denoiser(recipe).network
        assert isinstance(network, Network)
        network.load_compatible(initial_model.denoiser.network.state_dict())
    if not run.exists:
        run.create(recipe)
    elif changed(before := run.recipe, recipe):
        check_changes(path, before, recipe, settings)
        run.change(recipe)
    if initial_model and not run.checkpoints.folders():
        weights = pack_tensors(initial_model.denoiser.network.state_dict())
        write_folder(run.initial_weights, {WEIGHTS: weights})
    return run


def train(
    dataset: Dataset,
    run: Run,
    *,
    images: int | None = None,
    budget: float | None = None,
    runtime: Runtime | None = None,
    conditions: Conditions | None = None,
    checkpoint_every: float = 300.0,
    stop: threading.Event | None = None,
    began: float | None = None,
    planned: Plan | None = None,
) -> Iterator[TrainingProgress]:
    """Trains the run's recipe on a data set, continuing from its newest whole checkpoint.

    images: end after this many images since the beginning of the run (rounded up to whole batches); without
        it and without a budget, the recipe's number.
    budget: end after this many seconds since the beginning of the run. With ``images`` the result is a
        function of recipe and data; with a budget it depends on the clock.
    began: when the command that begins the run was given, as of ``time.monotonic``: what passed until the
        first update (reading, measuring) counts as part of the budget, though at most as half of it.
    runtime: how to compute; by default the machine is probed, once a run.
    conditions: of the data set, where the caller has them already (`conditions_of`).
    checkpoint_every: seconds between checkpoints.
    stop: set it, from a signal handler for example, to save and end after the current update on all
        processes. Closing the generator does the same on one process.
    planned: what the budget planner foresaw; where the training turns out far from it, a record says so.

    Yields records; the last has the result. Raises AlphabarError where the data changed since the run began,
    every checkpoint is damaged, another process trains in the run, the memory is not enough, another of the
    processes is gone, or the loss stays non-finite. The last good checkpoint stays.
    """
    recipe = run.recipe
    limits = Limits(images, budget, run.preparation)
    if images is None and budget is None:
        limits = Limits(recipe.images, None)
    codec = build_codec(recipe.data)
    if dataset.items.shape[1:] != codec.item_shape:
        raise UsageError("training.item_shape", items=dataset.items.shape[1:], recipe=codec.item_shape)
    with run.lock() if Runtime().is_main else nullcontext():
        if conditions is None:
            conditions = conditions_of(dataset, recipe)
        try:
            opened = open_training(dataset, run, conditions, runtime, limits, checkpoint_every, stop)
        except Stopped:
            yield stopped_early(run)
            return
        except Exception as error:
            if (told := explained(error, recipe, run)) is None:
                raise
            raise told from error
        notes: list[Message | str] = [*opened.notes]
        if opened.training.images == 0 and began is not None:
            limits, more = _count_preparation(run, opened.training.runtime, limits, time.monotonic() - began)
            notes += more
        pace = Pace(planned, limits) if planned else None
        trainer = Trainer(run, opened.training, limits, opened.writer, stop, pace)
        yield from (trainer.note(text) for text in notes)
        yield from trainer.run_updates()


def _count_preparation(
    run: Run, runtime: Runtime, limits: Limits, seconds: float
) -> tuple[Limits, list[Message]]:
    """The limits without what passed before the first update, and what to say of it; the run remembers it."""
    if runtime.world_size > 1:  # all processes must end at the same update
        seconds = float(runtime.mean(torch.tensor(seconds, device=runtime.device)))
    if runtime.is_main:
        run.remember_preparation(seconds)
    counted = Limits(limits.images, limits.whole_budget, seconds)
    if counted.budget is None or seconds < TOLD_PREPARATION * counted.budget:
        return counted, []
    spent, left = format_duration(seconds), format_duration(counted.budget)
    if Run(run.first_stage).exists:
        return counted, [message("training.preparation_of_latents", spent=spent, left=left)]
    return counted, [message("training.preparation", spent=spent, left=left)]


def stopped_early(run: Run) -> TrainingProgress:
    """The last record of a training that was stopped before the first update of this command."""
    checkpoint, _ = run.checkpoints.newest()
    images, seconds = (checkpoint.images, checkpoint.state["seconds"]) if checkpoint else (0, 0.0)
    stage = message("training.stage")
    if checkpoint:
        reason = message("training.stopped")
    elif run.codec.exists():
        reason = message("training.stopped_between")
    elif Run(run.first_stage).checkpoints.folders():
        reason, stage = message("training.stopped_between"), message("training.stage_autoencoder")
    else:
        reason = message("training.stopped_before")
    result = TrainingResult(run.path, images, seconds, reason)
    return TrainingProgress(stage, 0.0, 1.0, result, images=images, seconds=seconds)


class Trainer:
    """One sitting of a training: updates until a limit or a stop signal, on one of its processes.

    writer: what writes into the run, on the main process only. pace: what compares it with its plan.
    """

    def __init__(
        self,
        run: Run,
        training: TrainingState,
        limits: Limits,
        writer: RunWriter | None,
        stop: threading.Event | None,
        pace: Pace | None = None,
    ):
        self.run, self.training, self.limits, self.writer, self.stop = run, training, limits, writer, stop
        self.pace = pace
        self._began = time.monotonic() - training.seconds
        self._recent: deque[tuple[float, float]] = deque(
            maxlen=RECENT
        )  # (seconds, seconds waiting) of updates

    def seconds(self) -> float:
        """Spent in training since the beginning of the run, until now."""
        return time.monotonic() - self._began

    def share(self) -> float:
        """How much of the training is done now, in [0, 1]."""
        return self.limits.share(self.training.images, self.seconds())

    def run_updates(self) -> Iterator[TrainingProgress]:
        """Trains until the end. Yields records; the last has the result."""
        try:
            while not self._ends_here():
                record = self.update()
                if self.training.bad_steps:
                    yield self.note(message("training.not_finite", images=self.training.images))
                if names := self.training.unmoved:
                    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
                    yield self.note(message("training.unmoved", updates=UPDATES, names=shown))
                yield record
                if self.pace:
                    took, _ = self._recent[-1]
                    yield from map(self.note, self.pace.after_update(took, record.done))
                if self.writer:
                    yield from self.writer.after_update(record)
            yield from self._finish()
        except GeneratorExit:
            if self.writer:
                self.writer.save_if_new()
            raise
        except Exception as error:
            if explained(error, self.training.recipe, self.run) is None:
                raise
            if self.writer and self.training.whole:
                with suppress(Exception):  # it may fail for the same reason
                    self.writer.save_if_new()
            told = explained(error, self.training.recipe, self.run)  # now that what could be saved is
            assert told is not None
            raise told from error
        finally:
            self.training.loader.close()
            if self.writer:
                self.writer.close()

    def update(self) -> TrainingProgress:
        """One update of the weights. Raises AlphabarError where too many in a row had no finite loss."""
        training, began = self.training, time.monotonic()
        batch = training.loader.batch(training.images)
        waited = time.monotonic() - began
        learning_rate = learning_rate_at(training.recipe, training.images, self.share())
        loss = training.step(batch, learning_rate, self.share())
        self._recent.append((time.monotonic() - began, waited))
        training.seconds = self.seconds()
        if training.early is None and self.share() >= EARLY and training.method.trains_denoiser:
            training.keep_early()
        if training.bad_steps >= MAX_BAD_STEPS:
            raise AlphabarError(
                "training.diverged",
                times=training.bad_steps,
                images=training.images,
                path=self.run.path,
                rate=training.recipe.optimizer.learning_rate / 4,
                kept=kept(self.run, finite=len(self._recent) > training.bad_steps),
            )
        busy, waiting = (sum(column) for column in zip(*self._recent, strict=True))
        rate = len(self._recent) * training.recipe.batch / busy
        return TrainingProgress(
            message("training.stage"),
            self.share(),
            1.0,
            images=training.images,
            seconds=training.seconds,
            loss=loss,
            learning_rate=learning_rate,
            rate=rate,
            wait=waiting / busy,
            eta=self.limits.seconds_left(training.images, training.seconds, rate),
        )

    def note(self, text: Message | str) -> TrainingProgress:
        """A record with a sentence for the person who trains."""
        return TrainingProgress(
            message("training.stage"),
            self.share(),
            1.0,
            message=text,
            images=self.training.images,
            seconds=self.training.seconds,
        )

    def _ends_here(self) -> bool:
        """Whether any process ends: all must leave the loop at the same update."""
        ends = self.limits.reached(self.training.images, self.seconds()) or self._stopped() or self._early()
        runtime = self.training.runtime
        if runtime.world_size == 1:
            return ends
        return bool(runtime.mean(torch.tensor(float(ends), device=runtime.device)) > 0)

    def _stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def _early(self) -> bool:
        """Whether the main process, which measures, has run out of patience."""
        return self.writer is not None and self.writer.patience_over

    def _finish(self) -> Iterator[TrainingProgress]:
        stopped, trained = self._stopped(), bool(self._recent)
        if trained:
            self.training.seconds = self.seconds()
        if self.writer:
            yield from self.writer.finish(stopped)
        reason = "stopped" if stopped else "finished" if trained else "already_trained"
        if self._early():
            reason = "ended_early"
        training = self.training
        result = TrainingResult(
            self.run.path, training.images, training.seconds, message(f"training.{reason}")
        )
        yield TrainingProgress(
            message("training.stage"),
            self.share(),
            1.0,
            result,
            images=training.images,
            seconds=training.seconds,
        )
