"""The training loop: batches in, records out, and a folder that survives whatever happens.

Everything random is a function of (seed, images seen), so the state of a training is its weights, its
optimizer and one number.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from alphabar.codecs import build_codec
from alphabar.codecs.image import to_signal
from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.initial_noise import DataStatistics, fit_gaussian
from alphabar.diffusion.schedules import terminal_warning
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json, write_file
from alphabar.methods.registry import is_diffusion
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network
from alphabar.recipes.overrides import differences
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import Model, build_denoiser
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors
from alphabar.training.environment import describe_environment
from alphabar.training.labels import mirror_warning
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.optimizers import learning_rate_at
from alphabar.training.probe import probe
from alphabar.training.records import Finished, Monitored, Note, Progress, Record, Saved
from alphabar.training.state import TrainingState
from alphabar.training.tensorboard import TensorBoardLog

LARGEST_RUN_OF_BAD_STEPS = 20


EARLY = 1 / 8  # share of the training after which weights are kept for autoguidance


# Trainings from which a minute of compiling is worth trying: in seconds, and in updates.
WORTH_COMPILING = 600.0, 500


def begin(path: str | Path, recipe: Recipe, *, start: Model | None = None) -> Run:
    """The run at ``path``, created with ``recipe`` or, where it exists, checked against it.

    start: the model whose weights the training begins with, of the recipe's network or a narrower one.
    Raises UsageError where the run was made with another recipe, naming what differs, and where the weights
    do not fit.
    """
    run = Run(path)
    if start:
        network = build_denoiser(recipe).network
        assert isinstance(network, Network)
        network.load_compatible(start.denoiser.network.state_dict())
    if not run.exists:
        run.create(recipe)
    elif changed := differences(run.recipe, recipe):
        shown = "; ".join(changed[:3]) + ("; …" if len(changed) > 3 else "")
        raise UsageError(
            f"{path} was made with another recipe ({shown}): use another --run, or the same recipe"
        )
    if start and not run.checkpoints():
        write_file(run.start, pack_tensors(start.denoiser.network.state_dict()))
    return run


def train(
    dataset: Dataset,
    run: Run,
    *,
    images: int | None = None,
    budget: float | None = None,
    runtime: Runtime | None = None,
    checkpoint_every: float = 300.0,
    stop: threading.Event | None = None,
) -> Iterator[Record]:
    """Train the run's recipe on a data set, going on from its newest whole checkpoint.

    images: end after this many images since the beginning of the run (rounded up to whole batches);
        without it and without a budget, the recipe's number.
    budget: end after this many seconds of training since the beginning of the run. With ``images`` the
        result is a function of recipe and data; with a budget the clock has its say.
    runtime: how to compute; by default the machine is probed, once a run.
    checkpoint_every: seconds between checkpoints.
    stop: set it, from a signal handler for example, to save and leave after the current update on all
        processes. Closing the generator does the same on one process.

    Yields records; the last is ``Finished``. Raises AlphabarError where the data changed since the run
    began, every checkpoint is damaged, or the loss stays non-finite.
    """
    for name, value in (("--images", images), ("--budget", budget)):
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be more than zero, not {value:g}")
    recipe = run.recipe
    total = images if images or budget else recipe.images
    if dataset.items.shape[1] != recipe.data.size:
        raise UsageError(
            f"the pictures are {dataset.items.shape[1]} px, the recipe wants {recipe.data.size} px"
        )
    with run.lock() if Runtime().is_main else nullcontext():
        yield from _train(dataset, run, recipe, total, budget, runtime, checkpoint_every, stop)


def _train(
    dataset: Dataset,
    run: Run,
    recipe: Recipe,
    total: int | None,
    budget: float | None,
    runtime: Runtime | None,
    checkpoint_every: float,
    stop: threading.Event | None,
) -> Iterator[Record]:
    checkpoint, problems = run.newest_checkpoint()
    for problem in problems:
        yield Note(problem)
    if checkpoint is None and problems:
        raise AlphabarError(f"every checkpoint in {run.path} is damaged; begin again in another --run folder")
    state = checkpoint.state if checkpoint else None
    if runtime is None:
        with torch.random.fork_rng(devices=[]):
            network = NETWORKS.build(recipe.network, channels=3)
        runtime = probe(
            network,
            build_codec(recipe.data).spatial,
            batch=recipe.batch // (Runtime().world_size * recipe.accumulate),
            try_compile=is_diffusion(recipe)
            and (budget or math.inf) >= WORTH_COMPILING[0]
            and (total or math.inf) >= WORTH_COMPILING[1] * recipe.batch,
            fp16=is_diffusion(recipe),
            recorded=state["runtime"] if state else None,
        )
    yield from (Note(text) for text in runtime.notes)
    if "cuda" in runtime.device:
        torch.set_float32_matmul_precision("high")  # as convolutions compute anyway
    training = TrainingState(dataset, recipe, runtime)
    if state and state["data"] != training.fingerprint:
        raise AlphabarError(
            f"the pictures{' or their labels' if training.vocabulary else ''} are not those that {run.path}"
            " was trained on: give the same pictures, or another --run"
        )
    if warning := terminal_warning(training.denoiser.schedule):
        yield Note(warning)
    if warning := mirror_warning(dataset, recipe):
        yield Note(warning)
    if checkpoint and state:
        training.restore(dict(checkpoint.files), state, run.path)
        if state["processes"] != runtime.world_size:
            yield Note(
                f"began with {state['processes']} processes, goes on with {runtime.world_size}:"
                " the same pictures and noise, sums in another order"
            )
        statistics = checkpoint.files["statistics.safetensors"]
        yield Note(f"resuming {run.path} at {training.images:,} images")
    else:
        if run.start.exists():
            training.start_from(unpack_tensors(run.start.read_bytes()))
        elif recipe.method["name"] == "distillation":
            raise AlphabarError(
                f"{run.path} lacks the weights it is to begin with: remove it and begin again"
            )
        index = training.feed.index
        batches = (
            to_signal(torch.from_numpy(dataset.items[np.sort(index[i : i + 256])]))
            for i in range(0, len(index), 256)
        )
        statistics = pack_tensors(fit_gaussian(batches)._asdict())
    main = runtime.is_main
    if main:
        run.rewind(training.images)
        write_file(run.path / "environment.json", pack_json(describe_environment(dataset, runtime)))
    known = DataStatistics(**unpack_tensors(statistics))
    watcher = TrainingMonitor(dataset, recipe, run, runtime, known, training.cond) if main else None
    events = TensorBoardLog(run.path, training.images) if main else None

    losses: list[float] = []

    def log_losses() -> None:
        """Log the mean loss since the last time. A checkpoint's log reaches as far as it does."""
        if not losses:
            return
        record = {
            "seconds": round(training.seconds, 2),
            "loss": sum(losses) / len(losses),
            "rate": progress.rate,
            "lr": learning_rate,
            "wait": progress.wait,
        }
        run.log("train", training.images, **record)
        events.scalars(training.images, record)  # type: ignore[union-attr]
        losses.clear()

    def save() -> Saved:
        log_losses()
        files = training.files(statistics)
        path = run.save(training.images, files)
        weights = files.get("ema.safetensors", files["model.safetensors"])
        run.export(recipe, weights, statistics, training.images, training.lasting())
        return Saved(training.images, path)

    def keep() -> None:
        """Keep the averages as they are now, at half the precision."""
        run.keep(training.images, pack_tensors({k: v.half() for k, v in training.averaged().items()}))

    saved_at = training.images if checkpoint else None
    clock = time.monotonic()
    already = training.seconds

    def elapsed() -> float:
        return already + time.monotonic() - clock

    def share() -> float:
        """How much of the training is done, by images or by the clock, whichever is further."""
        by_images = training.images / total if total else 0.0
        return min(1.0, max(by_images, elapsed() / budget if budget else 0.0))

    def agreed(flag: bool) -> bool:
        """Whether any process raises its flag: all must leave the loop at the same update."""
        if runtime.world_size == 1:
            return flag
        return bool(runtime.mean(torch.tensor(float(flag), device=runtime.device)) > 0)

    moment = int(share() * recipe.ema.snapshots)
    last_save = time.monotonic()
    last_log = time.monotonic()
    recent: deque[tuple[float, float]] = deque(maxlen=50)  # (seconds, seconds waiting) of the last updates
    trained = False  # in this sitting
    watched_at: int | None = None
    reason = "already trained that far; give more --images or a longer --budget to go on"
    try:
        while True:
            out_of_time = budget is not None and elapsed() >= budget
            out_of_images = total is not None and training.images >= total
            asked = stop is not None and stop.is_set()
            if agreed(out_of_time or out_of_images or asked):
                break
            begun = time.monotonic()
            batch = training.next_batch()
            waited = time.monotonic() - begun
            learning_rate = learning_rate_at(recipe, training.images, share())
            value = training.step(batch, learning_rate, share())
            recent.append((time.monotonic() - begun, waited))
            training.seconds = elapsed()
            if training.early is None and share() >= EARLY and is_diffusion(recipe):
                training.keep_early()
            if training.bad_steps >= LARGEST_RUN_OF_BAD_STEPS:
                raise AlphabarError(
                    f"the loss was not finite {training.bad_steps} times in a row"
                    f" at {training.images:,} images:"
                    " begin again with a lower optimizer.learning_rate or optimizer.clip=1;"
                    " the weights before it are in the last checkpoint"
                )
            if training.bad_steps:
                yield Note(f"a non-finite loss at {training.images:,} images: that update was left out")
            elif main and math.isfinite(value):
                losses.append(value)
            busy, waiting = (sum(column) for column in zip(*recent, strict=True))
            rate = len(recent) * recipe.batch / busy
            left = [(total - training.images) / rate] if total else []
            left += [budget - training.seconds] if budget else []
            progress = Progress(
                images=training.images,
                total=total,
                seconds=training.seconds,
                eta=max(min(left), 0.0),
                loss=value,
                rate=rate,
                wait=waiting / busy,
                share=share(),
            )
            trained, reason = True, "finished"
            yield progress
            now = time.monotonic()
            try:
                if main and (reached := int(share() * recipe.ema.snapshots)) > moment:
                    moment = reached
                    keep()
                if main and now - last_log >= 2.0:
                    last_log = now
                    log_losses()
                if watcher and watcher.due(training.seconds, rate):
                    watched_at = training.images
                    yield _watch(watcher, training, events)
                if main and now - last_save >= checkpoint_every:
                    last_save = now
                    saved = save()
                    saved_at = saved.images
                    yield saved
            except AlphabarError as error:
                last_log = now + 60.0
                yield Note(f"{error}; training goes on, and will try again")
        if main and trained and not asked and recipe.ema.snapshots:
            keep()
        if asked:
            reason = "stopped; the same command goes on from here"
        elif watcher and trained and watched_at != training.images:
            yield _watch(watcher, training, events)
        training.seconds = elapsed() if saved_at != training.images else training.seconds
        if main and saved_at != training.images:
            saved = save()
            saved_at = saved.images
            yield saved
        yield Finished(training.images, training.seconds, reason)
    except GeneratorExit:
        if main and saved_at != training.images:
            save()
        raise
    finally:
        training.loader.shutdown(cancel_futures=True)
        if events:
            events.close()


def _watch(watcher: TrainingMonitor, training: TrainingState, events: TensorBoardLog | None) -> Monitored:
    network = training.ema.network if training.ema else training.network
    denoiser = NetworkDenoiser(network, training.denoiser.parameterization, training.denoiser.schedule)
    with training.runtime.autocast():
        if training.recipe.method["name"] == "classifier":
            accuracy = watcher.accuracy(denoiser.eval(), training.images, lambda: training.seconds)
            return Monitored(training.images, None, None, accuracy)
        grid, values = watcher.look(denoiser.eval(), training.images, lambda: training.seconds)
    if events:
        events.scalars(training.images, {k: v for k, v in (values or {}).items() if isinstance(v, float)})
    return Monitored(training.images, grid, values)
