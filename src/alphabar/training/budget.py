"""The budget planner: from a machine, a data set and a time to a network, a batch and a number of images.

The rule: a training of C FLOPs is best spent on a network of ``OPTIMAL_FORWARD * sqrt(C / OPTIMAL_COMPUTE)``
FLOPs a sample, so model and data grow alike. Hoffmann et al. 2022 found this for language (exponents 0.5 and
0.5), and Liang et al. 2024 nearly so for diffusion transformers (0.57 and 0.43). The constant was measured at
one point: with 5e13 FLOPs on Stanford Cars at 64×64 networks of 0.13 and of 0.49 GFLOP gave the same quality
(docs/results/quality_vs_compute.md), so a quarter of a GFLOP is the optimum there.
"""

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from alphabar.codecs import build_codec
from alphabar.codecs.base import LearnedCodec
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.formatting import format_count, format_memory, format_range
from alphabar.memory import free_memory
from alphabar.messages import Message, message
from alphabar.progress import Progress, staged
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.runtime import Runtime, default_device
from alphabar.training.batches import TrainingBatches, loading_threads
from alphabar.training.fitting import Smaller, fitting_sizes
from alphabar.training.labels import Conditions
from alphabar.training.model_sizes import (
    BYTES_PER_PARAMETER,
    MEMORY_SHARE,
    Size,
    nearest,
    size_of,
    sizes,
)
from alphabar.training.rates import contradictory, training_rates
from alphabar.training.signals import Signals, StoredLatents

OPTIMAL_FORWARD, OPTIMAL_COMPUTE = 0.25e9, 5e13
PASSES = 3  # of a training step, in forward passes: the backward pass takes two
UPDATES = 30_000  # long enough for the learning rate to decay
BATCHES = (32, 2048)  # least and most, powers of two
# A rule of thumb of ours: from so many epochs on the held-out error should be watched, and dropout is used.
# With it a network of 8 M parameters still improved after 294 epochs of 6,409 images
# (docs/results/quality_vs_compute.md).
MANY_EPOCHS, DROPOUT = 200, 0.1
TIMED_FLOPS = (0.2e9, 1.5e9, 6e9)  # of a forward pass of the networks that are timed
# Seconds over which the timed steps are spread, at least, so that a load of some seconds does not hit all;
# of a short budget so large a share.
SPREAD, SPREAD_SHARE = 12.0, 0.03
LOADED, LOADED_TURNS = 128, 3  # items prepared to time that, and how often
CANDIDATES_SHOWN = 2  # on either side of the chosen one


@dataclass(frozen=True)
class Machine:
    """What was measured on a machine.

    speeds: (FLOPs of a network's forward pass, samples trained a second) for a few networks. loading: samples
    that are prepared a second. memory: free bytes. overhead: seconds that an update takes whatever the batch,
    because kernels are started one by one on a GPU. slower: how much longer than the fastest the timed steps
    took on average, 1 on an idle machine. contradictory: whether a smaller network was slower than a larger
    one, however often they were timed.
    """

    device: str
    speeds: tuple[tuple[float, float], ...]
    loading: float
    memory: int
    overhead: float = 0.0
    slower: float = 1.0
    contradictory: bool = False

    def rate(self, forward: float) -> float:
        """Samples a second that a network of so many FLOPs trains on, once an update has started.

        FLOP/s are interpolated between the networks that were timed; beyond them those of the nearest are
        used.
        """
        known = sorted((math.log(f), math.log(f * rate)) for f, rate in self.speeds)
        at = min(max(math.log(forward), known[0][0]), known[-1][0])
        speed = known[-1][1]
        for (f0, s0), (f1, s1) in pairwise(known):
            if f0 <= at <= f1:
                speed = s0 + (s1 - s0) * (at - f0) / (f1 - f0)
                break
        return math.exp(speed) / forward


@dataclass(frozen=True)
class Candidate:
    """A network of one size and what training it in the budget comes to.

    rate: samples a second. memory: bytes. off: by what factor the network is larger than the rule says.
    recompute: whether blocks are computed again in the backward pass, without which one sample does not fit.
    """

    size: Size
    rate: float
    images: int
    epochs: float
    batch: int
    accumulate: int
    memory: int
    off: float
    recompute: bool = False


@dataclass(frozen=True)
class Plan:
    """What to train in a budget of seconds: the recipe, and the candidates it was chosen from.

    pictures: items to train on. notes: sentences for the person.
    """

    recipe: Recipe
    budget: float
    pictures: int
    machine: Machine
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    notes: tuple[Message, ...]

    @property
    def fewest(self) -> int:
        """The images that are seen if the machine stays as busy as it was while it was measured."""
        return round(self.chosen.images / self.machine.slower)

    def rows(self) -> list[tuple[str, ...]]:
        """A table to print: a head and the candidates around the chosen one, which has an arrow."""
        at = self.candidates.index(self.chosen)
        head = ("", "widths", "parameters", "GFLOP", "images/s", "images", "epochs", "batch", "memory")
        body: list[tuple[str, ...]] = [
            (
                "→" if candidate is self.chosen else "",
                candidate.size.shape,
                f"{candidate.size.parameters / 1e6:.1f} M",
                f"{candidate.size.flops / 1e9:.2f}",
                format_range(candidate.rate / self.machine.slower, candidate.rate),
                format_count(candidate.images),
                f"{candidate.epochs:.1f}",
                f"{candidate.batch}" + (f" / {candidate.accumulate}" if candidate.accumulate > 1 else ""),
                f"{candidate.memory / 2**30:.1f} GiB",
            )
            for candidate in self.candidates[max(0, at - CANDIDATES_SHOWN) : at + CANDIDATES_SHOWN + 1]
        ]
        return [head, *body]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON can hold it."""
        values = asdict(replace(self, recipe=None))  # type: ignore[arg-type]
        finish = datetime.now() + timedelta(seconds=self.budget)
        return values | {
            "recipe": self.recipe.model_dump(mode="json"),
            "finish": finish.isoformat(timespec="minutes"),
            "notes": [str(note) for note in self.notes],
        }


def measure(
    dataset: Dataset,
    recipe: Recipe,
    conditions: Conditions | None = None,
    *,
    budget: float = math.inf,
    own_size: bool = False,
    runtime: Runtime | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Progress[Machine]]:
    """Times this machine for about half a minute: training three sizes of the network, loading data, memory.

    conditions: of the data set, for a recipe with one. budget: seconds of the training; a short one is
    measured in less time. own_size: time the recipe's network as it is, and no other size. runtime, stop: as
    of `training_rates`. Of several processes all must call it, because it times them at work together.
    Yields records; the last has the result. Steps are timed without torch.compile, which a longer training
    tries and which can only add to the rate.
    Raises AlphabarError where no item is left for training, `Stopped` where the person stops it.
    """
    timed = _timed_sizes(recipe, own_size)
    stage = message("training.stage_measuring")
    yield Progress(stage, 0, 1)
    loading = _loading_rate(dataset, recipe)
    timings = yield from staged(
        training_rates(
            [recipe.model_copy(update={"network": size.network}) for size in timed],
            seconds=min(SPREAD, SPREAD_SHARE * budget),
            most=recipe.batch,
            conditions=conditions,
            runtime=runtime,
            stop=stop,
        )
    )
    device = runtime.device if runtime else default_device()
    processes = Runtime().world_size if device.startswith("cuda") else 1
    machine = Machine(
        device,
        tuple((float(size.flops), t.rate * processes) for size, t in zip(timed, timings, strict=True)),
        max(loading, _loading_rate(dataset, recipe)),
        free_memory(device),
        max(t.overhead for t in timings),
        max(t.slower for t in timings),
        bool(contradictory([t.rate for t in timings])),
    )
    yield Progress(stage, 1, 1, machine)


def _timed_sizes(recipe: Recipe, own_size: bool) -> list[Size]:
    if own_size:
        return [size_of(recipe)]
    choices = sizes(recipe)
    flops = [size.flops for size in choices]
    return [choices[i] for i in sorted({nearest(flops, wanted) for wanted in TIMED_FLOPS})]


def _loading_rate(dataset: Dataset, recipe: Recipe) -> float:
    """Samples a second that this machine prepares for training; the fastest of some times counts."""
    train_index, _ = dataset.split(recipe.data.held_out)
    if len(train_index) == 0:
        raise AlphabarError("training.no_items", n=len(dataset.items), held_out=recipe.data.held_out)
    signals: Signals | None = None
    if isinstance(codec := build_codec(recipe.data), LearnedCodec):  # whose signals will be stored
        signals = StoredLatents(np.broadcast_to(np.float16(0), (len(dataset.items), *codec.shape)))
    schedule = build_denoiser(recipe).schedule
    batches = TrainingBatches(dataset, train_index, recipe, schedule, signals=signals)
    batches.batch(range(8))
    times = []
    for _ in range(LOADED_TURNS):
        began = time.perf_counter()
        batches.batch(range(LOADED))
        times.append(time.perf_counter() - began)
    return loading_threads(str(default_device())) * LOADED / min(times)


def plan(
    machine: Machine,
    recipe: Recipe,
    pictures: int,
    budget: float,
    *,
    own_size: bool = False,
    smaller: Smaller | None = None,
) -> Plan:
    """Chooses by the rule at the top of this file. A pure function of what was measured.

    recipe: for everything that is not chosen here; pictures: how many items to train on; budget: seconds.
    own_size: keep the recipe's network, and choose batch and number of images for it. smaller: the recipe for
    another size, to advise one.
    Raises UsageError where not even the smallest network fits into the memory, and as `sizes` does.
    """
    seconds = budget * (1 - recipe.monitor.share)
    candidates = [
        candidate
        for size in ([size_of(recipe)] if own_size else sizes(recipe))
        if (candidate := _candidate(size, machine, pictures, seconds)) is not None
    ]
    if not candidates:
        raise _no_memory(machine, recipe, own_size, smaller)
    chosen = candidates[nearest([candidate.off for candidate in candidates], 1.0)]
    scale = math.sqrt(chosen.batch / recipe.batch)
    network = dict(chosen.size.network)
    if chosen.epochs > MANY_EPOCHS:
        network["dropout"] = max(DROPOUT, network.get("dropout", 0.0))
    planned = with_settings(
        recipe,
        [
            f"network={json.dumps(network)}",
            f"batch={chosen.batch}",
            f"accumulate={chosen.accumulate}",
            f"recompute={json.dumps(chosen.recompute)}",
            # The learning rate grows with the square root of the batch (Malladi et al. 2022).
            f"optimizer.learning_rate={recipe.optimizer.learning_rate * scale:.3g}",
            f"optimizer.warm_up={min(recipe.optimizer.warm_up, chosen.images // 20)}",
            f"images={max(chosen.images, chosen.batch)}",
        ],
    )
    notes = _notes(chosen, machine, None if own_size else candidates)
    return Plan(planned, budget, pictures, machine, chosen, tuple(candidates), notes)


def _no_memory(machine: Machine, recipe: Recipe, own_size: bool, smaller: Smaller | None) -> UsageError:
    """What is needed, what is free, and what would fit: another network in place of one's own, or a size."""
    room = MEMORY_SHARE * machine.memory

    def fitting(made: Recipe) -> list[Size]:
        return [size for size in sizes(made) if size.memory(1, recompute=True) <= room]

    least = size_of(recipe) if own_size else sizes(recipe)[0]
    remedy = message("training.fits_nothing")
    if own_size and (found := fitting(recipe)):
        remedy = message("training.fits_widths", widths=json.dumps(found[-1].network["widths"]))
    elif smaller:
        remedy = next(fitting_sizes(recipe, smaller, lambda made: bool(fitting(made))), remedy)
    needed = least.memory(1, recompute=True) / MEMORY_SHARE
    told = {"needed": format_memory(needed), "free": format_memory(machine.memory), "remedy": remedy}
    return UsageError("training.no_memory", size=recipe.data.size, **told)


def _candidate(size: Size, machine: Machine, pictures: int, seconds: float) -> Candidate | None:
    """What a size comes to in so many seconds; None where it does not fit into the memory."""
    computed = machine.rate(size.flops)
    least, most = BATCHES
    # At least as many as take as long to compute as an update takes to start.
    wanted = max(min(computed, machine.loading) * seconds / UPDATES, machine.overhead * computed, 1)
    batch = min(max(2 ** round(math.log2(wanted)), least), most)
    rate = min(batch / (machine.overhead + batch / computed), machine.loading)
    images = int(rate * seconds)
    fixed = BYTES_PER_PARAMETER * size.parameters
    room = MEMORY_SHARE * machine.memory - fixed
    accumulate, kept, recompute = 1, size.activations, False
    if kept > room:  # not even one sample fits
        kept, recompute = size.recomputed, True
        rate, images = rate * PASSES / (PASSES + 1), images * PASSES // (PASSES + 1)
    while accumulate < batch and kept * batch / accumulate > room:
        accumulate *= 2
    memory = fixed + kept * batch // accumulate
    if memory > MEMORY_SHARE * machine.memory:
        return None
    optimum = OPTIMAL_FORWARD * math.sqrt(PASSES * size.flops * rate * seconds / OPTIMAL_COMPUTE)
    off = size.flops / optimum
    return Candidate(size, rate, images, images / pictures, batch, accumulate, memory, off, recompute)


def _notes(chosen: Candidate, machine: Machine, candidates: list[Candidate] | None) -> tuple[Message, ...]:
    """Sentences for the person. candidates: None where they chose the network themselves."""
    notes = []
    if machine.contradictory:
        notes.append(message("training.rates_contradict"))
    if chosen.epochs > MANY_EPOCHS:
        notes.append(message("training.many_epochs", epochs=chosen.epochs, dropout=DROPOUT))
    if chosen.rate == machine.loading:
        notes.append(message("training.loading_limits", rate=machine.loading))
    if not 0.5 <= chosen.off <= 2:
        end = "smallest"
        if candidates is None or chosen is candidates[-1]:
            end = "given" if candidates is None else "largest"
        notes.append(message(f"training.rule_beyond_{end}", factor=1 / chosen.off))
    return tuple(notes)
