"""The budget dial: from a machine, a data set and a time to a model, a batch and a number of images.

The rule. A training of C FLOPs is best spent on a network of ``OPTIMAL_FORWARD * sqrt(C / OPTIMAL_COMPUTE)``
FLOPs a picture: model and data grow alike, which is what Hoffmann et al. 2022 found for language (exponents
0.5 and 0.5) and Liang et al. 2024 nearly so for diffusion transformers (0.57 and 0.43). Where the line
passes was measured at one point: of 5e13 FLOPs on Stanford Cars at 64x64 networks of 0.13 and of 0.49 GFLOP
made the same (docs/results/race.md), so a quarter of a GFLOP is taken for them.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import torch

from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.networks import NETWORKS
from alphabar.progress import Progress
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.runtime import Runtime, default_device
from alphabar.training.batches import TrainingBatches, loading_threads
from alphabar.training.model_sizes import BYTES_A_PARAMETER, Size, _nearest, sizes
from alphabar.training.probe import probe, training_rate

OPTIMAL_FORWARD, OPTIMAL_COMPUTE = 0.25e9, 5e13


# A network's backward pass takes two forward passes.
PASSES = 3


# Long enough for a learning rate to fall, with batches small enough to learn from (powers of two).
UPDATES, BATCHES = 30_000, (32, 2048)


# Of the free memory; the rest is for what convolutions work in.
MEMORY_SHARE = 0.5


# A rule of thumb of ours: from here on the held-out error should be watched, and dropout comes in. With it a
# network of 8 M parameters was still getting better after 294 epochs of 6,409 pictures (race.md).
MANY_EPOCHS, DROPOUT = 200, 0.1


MEASURED = (0.2e9, 1.5e9, 6e9)  # forward FLOPs of the networks that are timed


LOADED = 128  # pictures made ready, for the time it takes


@dataclass(frozen=True)
class Machine:
    """What was measured."""

    device: str
    speeds: tuple[tuple[float, float], ...]  # (forward FLOPs of a network, its training pictures a second)
    loading: float  # pictures a second that are made ready
    memory: int  # free bytes
    start: float = 0.0  # seconds an update takes whatever the batch: a GPU's kernels are started one by one

    def rate(self, forward: float) -> float:
        """Pictures a second that are computed of a network of that many FLOPs, once an update has started.

        The FLOP/s are interpolated between the networks that were timed, and those of the nearest beyond
        them.
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
    """A size of the network and what it would come to in the budget."""

    size: Size
    rate: float  # pictures a second
    images: int
    epochs: float
    batch: int
    accumulate: int
    memory: int  # bytes
    off: float  # by what factor the network is larger than the rule has it


@dataclass(frozen=True)
class Plan:
    """What to train in a budget: the recipe, and the options it was chosen from."""

    recipe: Recipe
    budget: float  # seconds
    machine: Machine
    chosen: Candidate
    options: tuple[Candidate, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The table to print: a head and the options around the chosen one, which has an arrow."""
        at = self.options.index(self.chosen)
        head = ("", "widths", "parameters", "GFLOP", "images/s", "images", "epochs", "batch", "memory")
        options: list[tuple[str, ...]] = [
            (
                "→" if option is self.chosen else "",
                option.size.shape,
                f"{option.size.parameters / 1e6:.1f} M",
                f"{option.size.flops / 1e9:.2f}",
                f"{option.rate:.1f}",
                f"{option.images:,}",
                f"{option.epochs:.1f}",
                f"{option.batch}" + (f" in {option.accumulate}" if option.accumulate > 1 else ""),
                f"{option.memory / 2**30:.1f} GiB",
            )
            for option in self.options[max(0, at - 2) : at + 3]
        ]
        return [head, *options]

    def to_dict(self) -> dict[str, Any]:
        values = asdict(replace(self, recipe=None))  # type: ignore[arg-type]
        finish = datetime.now() + timedelta(seconds=self.budget)
        return values | {
            "recipe": self.recipe.model_dump(mode="json"),
            "finish": finish.isoformat(timespec="minutes"),
        }


def measure(dataset: Dataset, recipe: Recipe) -> Iterator[Progress[Machine]]:
    """Time this machine, in about a minute: the rate for three sizes of network, data, free memory.

    Under several processes all must call it, for it times them at work together.

    Yields records; the last carries the ``Machine``. Steps are timed without torch.compile, which a longer
    training tries and which can only add to the rate.
    """
    codec = build_codec(recipe.data)
    choices = sizes(recipe)
    chosen = [
        choices[i]
        for i in sorted({_nearest([size.flops for size in choices], wanted) for wanted in MEASURED})
    ]
    total = len(chosen) + 2
    yield Progress("measuring this machine", 0, total)
    train_index, _ = dataset.split(recipe.data.held_out)
    if len(train_index) == 0:
        raise AlphabarError(f"no picture is left for training: {len(dataset.items)} in all")
    feed = TrainingBatches(dataset, train_index, recipe, build_denoiser(recipe))
    feed.batch(range(8))
    began = time.perf_counter()
    feed.batch(range(LOADED))
    loading = loading_threads(str(default_device())) * LOADED / (time.perf_counter() - began)
    yield Progress("measuring this machine", 1, total)
    runtime: Runtime | None = None
    speeds, starts = [], [0.0]
    for done, size in enumerate(chosen):
        with torch.random.fork_rng(devices=[]):
            network = NETWORKS.build(size.network, channels=codec.channels)
        runtime = runtime or probe(network, codec.spatial, batch=recipe.batch, try_compile=False)
        timed = training_rate(network, codec.spatial, runtime, most=recipe.batch)
        speeds.append((float(size.flops), timed.rate))
        starts.append(timed.start)
        yield Progress("measuring this machine", done + 2, total)
    assert runtime is not None
    processes = runtime.world_size if runtime.device.startswith("cuda") else 1
    machine = Machine(
        runtime.device,
        tuple((f, rate * processes) for f, rate in speeds),
        loading,
        free_memory(runtime.device),
        max(starts),
    )
    yield Progress("measuring this machine", total, total, machine)


def plan(machine: Machine, recipe: Recipe, pictures: int, budget: float) -> Plan:
    """Choose by the rule at the top of this file. A pure function of what was measured.

    recipe: for everything that is not chosen here; pictures: how many there are to train on; budget: seconds.

    Raises UsageError where not even the smallest network fits the memory, and as `sizes` does.
    """
    seconds = budget * (1 - recipe.monitor.share)
    options = [
        option for size in sizes(recipe) if (option := _option(size, machine, pictures, seconds)) is not None
    ]
    if not options:
        raise UsageError(
            f"{machine.memory / 2**30:.1f} GiB of free memory are too little for pictures of"
            f" {recipe.data.size} px: choose a smaller data.size"
        )
    chosen = options[_nearest([option.off for option in options], 1.0)]
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
            # Steps grow with the square root of the batch (Malladi et al. 2022).
            f"optimizer.learning_rate={recipe.optimizer.learning_rate * scale:.3g}",
            f"optimizer.warm_up={min(recipe.optimizer.warm_up, chosen.images // 20)}",
            f"images={max(chosen.images, chosen.batch)}",
        ],
    )
    return Plan(planned, budget, machine, chosen, tuple(options), _notes(chosen, machine, options))


def _option(size: Size, machine: Machine, pictures: int, seconds: float) -> Candidate | None:
    computed = machine.rate(size.flops)
    least, most = BATCHES
    # About as many at least as take as long to compute as to start.
    wanted = max(min(computed, machine.loading) * seconds / UPDATES, machine.start * computed, 1)
    batch = min(max(2 ** round(math.log2(wanted)), least), most)
    rate = min(batch / (machine.start + batch / computed), machine.loading)
    images = int(rate * seconds)
    fixed = BYTES_A_PARAMETER * size.parameters
    room = MEMORY_SHARE * machine.memory - fixed
    accumulate = 1
    while accumulate < batch and size.activations * batch / accumulate > room:
        accumulate *= 2
    memory = fixed + size.activations * batch // accumulate
    if memory > MEMORY_SHARE * machine.memory:
        return None
    right = OPTIMAL_FORWARD * math.sqrt(PASSES * size.flops * rate * seconds / OPTIMAL_COMPUTE)
    off = size.flops / right
    return Candidate(size, rate, images, images / pictures, batch, accumulate, memory, off)


def _notes(chosen: Candidate, machine: Machine, options: list[Candidate]) -> tuple[str, ...]:
    notes = []
    if chosen.epochs > MANY_EPOCHS:
        notes.append(
            f"every picture is seen {chosen.epochs:.0f} times, with a dropout of {DROPOUT}: watch the"
            " held-out error in log.jsonl, and stop where it rises; more pictures would serve better than"
            " more time"
        )
    if chosen.rate == machine.loading:
        notes.append(f"making pictures ready is the limit, at {machine.loading:.0f} a second")
    if not 0.5 <= chosen.off <= 2:
        end = "largest" if chosen is options[-1] else "smallest"
        notes.append(
            f"the rule asks for a network {1 / chosen.off:.2g} times as costly; this is the {end} here"
        )
    return tuple(notes)


def free_memory(device: str) -> int:
    """Bytes that are free on the device."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            free = next(line for line in lines if line.startswith("MemAvailable"))
        return int(free.split()[1]) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
