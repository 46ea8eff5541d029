"""The training loop: batches in, records out, and a folder that survives whatever happens.

Everything random is a function of (seed, images seen), so the state of a training is its weights, its
optimizer and one number.
"""

import hashlib
import math
import os
import platform
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphabar.conditioning.clusters import clusters, number_of_clusters
from alphabar.conditioning.conditioning import Conditioning, columns, describe
from alphabar.data.cache import Dataset, cache_root
from alphabar.data.pixels import flip, to_signal
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.densities import DENSITIES, stratified
from alphabar.diffusion.loss import drop_labels
from alphabar.diffusion.noise import Noise, stream_seed
from alphabar.diffusion.schedules import terminal_warning
from alphabar.diffusion.start import PictureStatistics, fit_gaussian
from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.networks import NETWORKS, Network
from alphabar.training.checkpoint import (
    pack_json,
    pack_optimizer,
    pack_tensors,
    unpack_optimizer,
    unpack_tensors,
    write_file,
)
from alphabar.training.ema import LENGTHS, Ema, PowerAverage
from alphabar.training.methods import METHODS, diffuses
from alphabar.training.muon import Muon
from alphabar.training.recipe import Recipe, differences
from alphabar.training.run import Model, Run, build_denoiser, load_weights
from alphabar.training.runtime import Runtime, accumulating, extractor_device, probe
from alphabar.training.watch import Watcher

LARGEST_RUN_OF_BAD_STEPS = 20
# In fp16 gradients below 6e-8 are zero and those above 65,504 infinite. So the loss is scaled for the
# backward pass: by half as much after an infinite gradient, by twice as much after so many steps
# (Micikevicius et al. 2018, 3.2).
LOSS_SCALE, STEPS_TO_DOUBLE = 2.0**16, 2_000
BLOCK = 8  # pictures whose noise is drawn together
LOADERS = 8  # threads that make pictures ready for an accelerator, at most
SEEN = 512  # training pictures of which a conditional model keeps what they are
EARLY = 1 / 8  # share of the training after which weights are kept for autoguidance
# Trainings from which a minute of compiling is worth trying: in seconds, and in updates.
WORTH_COMPILING = 600.0, 500


@dataclass(frozen=True)
class Note:
    """A sentence for the person who trains."""

    text: str


@dataclass(frozen=True)
class Progress:
    """One update of the weights."""

    images: int  # seen since the beginning of the run
    total: int | None  # images the training will see; None where the budget is in seconds
    seconds: float  # of training since the beginning of the run
    eta: float  # seconds left
    loss: float  # mean over the batch
    rate: float  # images a second, over the last updates
    wait: float  # share of the time spent waiting for data, over the last updates
    share: float  # of the training that is done


@dataclass(frozen=True)
class Watched:
    """A look at the model: a grid of samples and measurements, also in log.jsonl."""

    images: int
    grid: Path | None  # None of a classifier
    distance: dict[str, Any] | None
    accuracy: dict[str, Any] | None = None  # of a classifier


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk and reads back right."""

    images: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The training has ended."""

    images: int
    seconds: float
    reason: str


Record = Note | Progress | Watched | Saved | Finished


class Batch(NamedTuple):
    x0: Tensor  # (n, 3, size, size) in [-1, 1]
    t: Tensor  # (n,) float64
    eps: Tensor  # like x0
    cond: Tensor  # (n, columns), NaN where unknown; no column where the model is unconditional


class Feed:
    """Training batches as a function of the images seen, over any number of processes.

    dataset: the decoded pictures; index: (m,) which of them are for training; cond: (n, columns), what is
    known about each picture of the data set, NaN where unknown; fields: how many columns each field has.
    """

    def __init__(
        self,
        dataset: Dataset,
        index: np.ndarray,
        recipe: Recipe,
        denoiser: NetworkDenoiser,
        cond: Tensor | None = None,
        fields: Sequence[int] = (),
    ):
        self.dataset, self.index, self.recipe, self.fields = dataset, index, recipe, fields
        self.cond = torch.empty(len(dataset.pictures), 0) if cond is None else cond
        self.schedule = denoiser.schedule
        self.density = DENSITIES.build(recipe.density)
        self.permutation = lru_cache(2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        key = stream_seed(self.recipe.seed, "order", epoch)
        return torch.randperm(len(self.index), generator=torch.Generator().manual_seed(key)).numpy()

    def pictures(self, positions: range) -> np.ndarray:
        """Which picture of the data set stands at each position of the endless shuffled sequence."""
        epochs, places = np.divmod(np.asarray(positions), len(self.index))
        return np.array(
            [self.index[self.permutation(int(e))[p]] for e, p in zip(epochs, places, strict=True)]
        )

    def noise(self, positions: range) -> Tensor:
        """Standard normal numbers, a picture each, drawn by the block: an accelerator outruns single ones."""
        size = self.recipe.data.size
        blocks = range(positions[0] // BLOCK, positions[-1] // BLOCK + 1)
        drawn = []
        for block in blocks:
            generator = torch.Generator().manual_seed(stream_seed(self.recipe.seed, "train", block))
            drawn.append(torch.randn(BLOCK, 3, size, size, generator=generator))
        first = blocks[0] * BLOCK
        return torch.cat(drawn)[positions[0] - first : positions[-1] + 1 - first]

    def batch(self, positions: range) -> Batch:
        seed = self.recipe.seed
        pictures = self.pictures(positions)
        chosen = torch.from_numpy(self.dataset.pictures[pictures])
        if self.recipe.data.flip:
            chosen = flip(chosen, Noise(seed, positions, "flip").uniform(0) < 0.5)
        x0 = to_signal(chosen)
        u = Noise(seed, positions, "level").uniform(0)
        if self.recipe.stratified:
            u = stratified(u, torch.tensor(positions), self.recipe.batch)
        eps = self.noise(positions).to(memory_format=torch.channels_last)
        labels = Noise(seed, positions, "label")
        cond = drop_labels(self.cond[pictures], labels.uniform(0), self.recipe.condition.drop)
        if len(self.fields) > 1 and self.recipe.condition.drop:
            # A model that only ever saw all labels or none could not be asked for some of them.
            parted = labels.uniform(1) < 0.5
            for i, part in enumerate(cond.split(list(self.fields), dim=1)):
                part[parted & (labels.uniform(2 + i) < 0.5)] = torch.nan
        return Batch(x0, self.density(self.schedule, u), eps, cond)


def loading_threads(device: str) -> int:
    """How many threads make pictures ready: an accelerator leaves the processor free, and outruns one."""
    return 1 if device == "cpu" else min(LOADERS, os.cpu_count() or 1)


def conditions_of(dataset: Dataset, recipe: Recipe) -> tuple[Conditioning, Tensor] | None:
    """What the recipe's model may be asked for, and what is known of each picture, (n, columns).

    None for an unconditional recipe. Raises as `known_columns` does, and UsageError for a classifier of
    nothing.
    """
    kind = recipe.condition.on
    if kind is None:
        if recipe.method["name"] == "classifier":
            raise UsageError("a classifier needs something to tell: give --condition class or attributes")
        return None
    known = known_columns(dataset, kind)
    conditioning = describe(kind, known)
    train, _ = dataset.split(recipe.data.held_out)
    if len(train):
        at = Noise(recipe.seed, range(SEEN), "seen").uniform(0) * len(train)
        seen = conditioning.wording(known, train[at.long().numpy()].tolist())
        conditioning = replace(conditioning, seen=tuple(seen))
    return conditioning, conditioning.rows(known, cache_root() / "text")


def known_columns(dataset: Dataset, kind: str) -> Mapping[str, Sequence[Any]]:
    """What is known about the pictures, by field name.

    Raises AlphabarError or UsageError where the data knows nothing of the kind.
    """
    if kind == "clusters":
        extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
        pictures = torch.from_numpy(dataset.pictures[:])
        *_, done = extract(extractor, pictures, cache=cache_root() / "features")
        assert done.features is not None
        found = clusters(done.features.features, number_of_clusters(len(pictures)))
        return {"cluster": [f"cluster {i}" for i in found.tolist()]}
    return columns(kind, dataset.labels.tolist(), dataset.classes, dataset.attributes, dataset.captions)


def mirror_warning(dataset: Dataset, recipe: Recipe) -> str | None:
    """A sentence where pictures are mirrored at random and what is learnt of them says left or right."""
    on = recipe.condition.on
    if not recipe.data.flip or on not in ("class", "attributes", "text"):
        return None
    known = columns(on, dataset.labels.tolist(), dataset.classes, dataset.attributes, dataset.captions)
    for name, values in known.items():
        for value in values:
            if isinstance(value, str) and {"left", "right"} & set(re.findall(r"[a-z]+", value.lower())):
                return (
                    f"half of the pictures are mirrored, and {name} says left or right ({value!r}):"
                    " --set data.flip=false keeps it true"
                )
    return None


class _Training:
    """The state of a training and the one step that moves it."""

    def __init__(self, dataset: Dataset, recipe: Recipe, runtime: Runtime):
        self.recipe, self.runtime = recipe, runtime
        if recipe.batch % (runtime.world_size * recipe.accumulate):
            raise UsageError(
                f"batch = {recipe.batch} cannot be shared by {runtime.world_size} processes"
                f" in {recipe.accumulate} equal pieces each"
            )
        train_index, _ = dataset.split(recipe.data.held_out)
        if len(train_index) == 0:
            raise AlphabarError(
                f"no picture is left for training: {len(dataset.pictures)} in all,"
                f" data.held_out = {recipe.data.held_out}"
            )
        self.conditioning: Conditioning | None = None
        self.cond: Tensor | None = None
        if conditions := conditions_of(dataset, recipe):
            self.conditioning, self.cond = conditions
        self.fingerprint = dataset.fingerprint
        if self.cond is not None:
            # Labels are no part of the pictures' fingerprint, but a resumed training must see the same ones.
            known = dataset.fingerprint.encode() + self.cond.numpy().tobytes()
            self.fingerprint = hashlib.sha256(known).hexdigest()
        denoiser = build_denoiser(recipe, self.conditioning)
        self.network = denoiser.network
        runtime.place(self.network)
        # Looked up once: a GPU would wait for it at every step.
        self.parameters, self.buffers = list(self.network.parameters()), list(self.network.buffers())
        self.denoiser = NetworkDenoiser(
            runtime.parallel(self.network), denoiser.parameterization, denoiser.schedule
        )
        self.method = METHODS.build(
            recipe.method,
            denoiser=self.denoiser if diffuses(recipe) else denoiser,
            recipe=recipe,
            runtime=runtime,
        )
        self.optimizer = _optimizer(recipe, self.parameters, runtime)
        self.ema = (
            Ema(self.network, half_life=recipe.ema.half_life, ramp=recipe.ema.ramp)
            if recipe.ema.half_life
            else None
        )
        kept = LENGTHS if recipe.ema.snapshots else ()
        self.averages = {length: PowerAverage(self.network, length) for length in kept}
        self.early: bytes | None = None
        fields = self.conditioning.columns if self.conditioning else ()
        self.feed = Feed(dataset, train_index, recipe, denoiser, self.cond, fields)
        self.loaders = loading_threads(runtime.device)
        self.loader = ThreadPoolExecutor(self.loaders)
        self.images = 0
        self.seconds = 0.0
        self.bad_steps = 0
        self.loss_scale = LOSS_SCALE if runtime.dtype is torch.float16 else 1.0
        self.pending: list[Future[Batch]] | None = None

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with the weights of a trained model instead of random ones."""
        assert isinstance(self.network, Network)
        self.network.adopt(weights)
        averages = [average.network for average in self.averages.values()]
        for network in (*([self.ema.network] if self.ema else []), *averages):
            network.load_state_dict(self.network.state_dict())

    def positions(self, images: int) -> range:
        local = self.recipe.batch // self.runtime.world_size
        first = images + self.runtime.rank * local
        return range(first, first + local)

    def load(self, images: int) -> "list[Future[Batch]]":
        """The batch after so many images, in as many pieces as there are threads to make them ready."""
        positions = self.positions(images)
        piece = math.ceil(len(positions) / self.loaders)
        pieces = [positions[i : i + piece] for i in range(0, len(positions), piece)]
        return [self.loader.submit(self.piece, each) for each in pieces]

    def piece(self, positions: range) -> Batch:
        """A part of a batch, in memory that a GPU takes from while it computes."""
        batch = self.feed.batch(positions)
        return Batch(*(part.pin_memory() for part in batch)) if "cuda" in self.runtime.device else batch

    def next_batch(self) -> Batch:
        """The batch for the images seen so far, its signals on the device; the one after it is prepared
        meanwhile."""
        pending = self.pending or self.load(self.images)
        self.pending = self.load(self.images + self.recipe.batch)
        x0, t, eps, cond = zip(*(piece.result() for piece in pending), strict=True)
        there = [torch.cat([self.runtime.put(piece) for piece in signal]) for signal in (x0, eps)]
        return Batch(there[0], torch.cat(t), there[1], torch.cat(cond))

    def step(self, batch: Batch, learning_rate: float, share: float) -> float:
        """One update. Returns the loss; where it or the gradient is not finite nothing is changed."""
        recipe, runtime = self.recipe, self.runtime
        # Dropout and augmentation draw where the loss is computed.
        torch.manual_seed(stream_seed(recipe.seed, "dropout", self.images, runtime.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.method.prepare(batch.x0, batch.eps, self.images, share, learning_rate)
        buffers = [b.clone() for b in self.buffers]
        if not self.network.training:
            self.network.train()
        local = recipe.batch // runtime.world_size
        total = torch.zeros((), device=runtime.device)
        pieces = zip(*(part.chunk(recipe.accumulate) for part in batch), strict=True)
        for i, (x0, t, eps, cond) in enumerate(pieces):
            last = i == recipe.accumulate - 1
            with nullcontext() if last else accumulating(self.denoiser.network):
                with runtime.autocast():
                    asked = cond.to(runtime.device) if self.conditioning else None
                    losses = self.method.losses(x0, t, eps, asked)
                value = losses.sum() / local
                (self.loss_scale * value).backward()
            if i == 0 and not last and "cuda" in runtime.device:
                # The next piece's recorded kernels write where these did.
                for p in self.parameters:
                    p.grad = None if p.grad is None else p.grad.clone()
            total += value.detach()
        if self.loss_scale != 1:
            for p in self.parameters:
                if p.grad is not None:
                    p.grad /= self.loss_scale
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip or math.inf)
        mean_loss, norm = torch.stack([runtime.mean(total), norm]).tolist()  # a GPU is waited for once
        if math.isfinite(mean_loss) and math.isfinite(norm):
            self.optimizer.step()
            self.bad_steps = 0
        else:
            for buffer, before in zip(self.buffers, buffers, strict=True):
                buffer.copy_(before)
            if self.loss_scale > 1:
                self.loss_scale /= 2
            else:
                self.bad_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.images += recipe.batch
        if runtime.dtype is torch.float16 and self.images % (STEPS_TO_DOUBLE * recipe.batch) == 0:
            self.loss_scale = min(2 * self.loss_scale, LOSS_SCALE)
        if self.ema:
            self.ema.update(self.images, recipe.batch)
        for average in self.averages.values():
            average.update(self.images, recipe.batch)
        return mean_loss

    def keep_early(self) -> None:
        """Keep the weights as they are now, at half the precision, for autoguidance."""
        network = self.ema.network if self.ema else self.network
        half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
        self.early = pack_tensors(half)

    def averaged(self) -> dict[str, Tensor]:
        """The parameters averaged over each of `LENGTHS`, by length and name."""
        return {
            f"{length}/{name}": value
            for length, average in self.averages.items()
            for name, value in average.network.named_parameters()
        }

    def lasting(self) -> dict[str, bytes]:
        """The files that a checkpoint and the model folder share, where the training has them."""
        files = {}
        if self.conditioning:
            files["conditioning.json"] = pack_json(self.conditioning.to_dict())
        if self.early:
            files["early.safetensors"] = self.early
        return files

    def files(self, statistics: bytes) -> dict[str, bytes]:
        """The bytes of a checkpoint."""
        state = {
            "images": self.images,
            "seconds": self.seconds,
            "bad_steps": self.bad_steps,
            "loss_scale": self.loss_scale,
            "data": self.fingerprint,
            "runtime": self.runtime.to_dict(),
            "processes": self.runtime.world_size,
        }
        files = {
            "model.safetensors": pack_tensors(self.network.state_dict()),
            "optimizer.safetensors": pack_optimizer(self.optimizer),
            "statistics.safetensors": statistics,
            "state.json": pack_json(state),
            **self.method.files(),
            **self.lasting(),
        }
        if self.ema:
            files["ema.safetensors"] = pack_tensors(self.ema.network.state_dict())
        if self.averages:
            files["averages.safetensors"] = pack_tensors(self.averaged())
        return files

    def restore(self, files: dict[str, bytes], state: dict[str, Any], path: Path) -> None:
        load_weights(self.network, unpack_tensors(files["model.safetensors"]), path)
        if self.ema:
            load_weights(self.ema.network, unpack_tensors(files["ema.safetensors"]), path)
        if self.averages:
            kept = unpack_tensors(files["averages.safetensors"])
            for name, value in self.averaged().items():
                value.copy_(kept[name])
        unpack_optimizer(files["optimizer.safetensors"], self.optimizer)
        self.method.restore(files)
        self.early = files.get("early.safetensors")
        self.images, self.seconds, self.bad_steps = state["images"], state["seconds"], state["bad_steps"]
        if state["runtime"]["dtype"] == "float16" and self.runtime.dtype is torch.float16:
            self.loss_scale = state["loss_scale"]


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
        network.adopt(start.denoiser.network.state_dict())
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
    if dataset.pictures.shape[1] != recipe.data.size:
        raise UsageError(
            f"the pictures are {dataset.pictures.shape[1]} px, the recipe wants {recipe.data.size} px"
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
            recipe.data.size,
            batch=recipe.batch // (Runtime().world_size * recipe.accumulate),
            try_compile=diffuses(recipe)
            and (budget or math.inf) >= WORTH_COMPILING[0]
            and (total or math.inf) >= WORTH_COMPILING[1] * recipe.batch,
            fp16=diffuses(recipe),
            recorded=state["runtime"] if state else None,
        )
    yield from (Note(text) for text in runtime.notes)
    if "cuda" in runtime.device:
        torch.set_float32_matmul_precision("high")  # as convolutions compute anyway
    training = _Training(dataset, recipe, runtime)
    if state and state["data"] != training.fingerprint:
        raise AlphabarError(
            f"the pictures{' or their labels' if training.conditioning else ''} are not those that {run.path}"
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
            to_signal(torch.from_numpy(dataset.pictures[np.sort(index[i : i + 256])]))
            for i in range(0, len(index), 256)
        )
        statistics = pack_tensors(fit_gaussian(batches)._asdict())
    main = runtime.is_main
    if main:
        run.rewind(training.images)
        write_file(run.path / "environment.json", pack_json(_environment(dataset, runtime)))
    known = PictureStatistics(**unpack_tensors(statistics))
    watcher = Watcher(dataset, recipe, run, runtime, known, training.cond) if main else None
    events = _Events(run.path, training.images) if main else None

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
            learning_rate = _learning_rate(recipe, training.images, share())
            value = training.step(batch, learning_rate, share())
            recent.append((time.monotonic() - begun, waited))
            training.seconds = elapsed()
            if training.early is None and share() >= EARLY and diffuses(recipe):
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


def _watch(watcher: Watcher, training: _Training, events: "_Events | None") -> Watched:
    network = training.ema.network if training.ema else training.network
    denoiser = NetworkDenoiser(network, training.denoiser.parameterization, training.denoiser.schedule)
    with training.runtime.autocast():
        if training.recipe.method["name"] == "classifier":
            accuracy = watcher.accuracy(denoiser.eval(), training.images, lambda: training.seconds)
            return Watched(training.images, None, None, accuracy)
        grid, values = watcher.look(denoiser.eval(), training.images, lambda: training.seconds)
    if events:
        events.scalars(training.images, {k: v for k, v in (values or {}).items() if isinstance(v, float)})
    return Watched(training.images, grid, values)


def _optimizer(
    recipe: Recipe, parameters: list[torch.nn.Parameter], runtime: Runtime
) -> torch.optim.Optimizer:
    o = recipe.optimizer
    if o.name == "muon":
        return Muon(parameters, o.learning_rate, o.betas, o.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
    return kind(
        parameters,
        lr=o.learning_rate,
        betas=o.betas,
        weight_decay=o.weight_decay,
        fused=runtime.fused,
    )


def _learning_rate(recipe: Recipe, images: int, spent: float) -> float:
    """The learning rate after ``images`` images and a share ``spent`` of the training."""
    o = recipe.optimizer
    warm = min(1.0, (images + recipe.batch) / o.warm_up) if o.warm_up else 1.0
    fall = 1.0 if spent <= o.decay_from else max(0.0, (1 - spent) / (1 - o.decay_from))
    return o.learning_rate * warm * fall


def _environment(dataset: Dataset, runtime: Runtime) -> dict[str, Any]:
    here = Path(__file__).parent
    git = (
        subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        if (here.parents[2] / ".git").exists()
        else None
    )
    return {
        "alphabar": version("alphabar"),
        "commit": git.stdout.strip() if git and git.returncode == 0 else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "runtime": runtime.to_dict(),
        "data": {
            "fingerprint": dataset.fingerprint,
            "pictures": len(dataset.pictures),
            "skipped": len(dataset.skipped),
        },
    }


class _Events:
    """TensorBoard events beside log.jsonl, where the extra is installed."""

    def __init__(self, path: Path, images: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(path / "tensorboard"), purge_step=images or None)

    def scalars(self, images: int, values: dict[str, Any]) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, images)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
