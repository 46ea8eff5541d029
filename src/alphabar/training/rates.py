"""How fast networks of several sizes train on a machine that may be busy with other work at times.

All networks are timed by turns, each in every runtime that could be the fastest, and the fastest time of each
counts: a program that computes for a moment hits all of them, or only times that do not count.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import torch

from alphabar.messages import message
from alphabar.methods.registry import method_of
from alphabar.progress import Progress
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, default_device
from alphabar.training.labels import Conditions
from alphabar.training.probe import CHECKED, Stopped, choose_right, precisions, unless_stopped
from alphabar.training.trial import Trial

TURNS, MOST_TURNS = 5, 24
LONGEST, LEAST_TURNS = 60.0, 2  # seconds after which so many turns are enough: the machine is overloaded
SECONDS = 0.5  # that a timed step takes, at most
LARGEST = 2048  # samples at once
AGREE = 1.05  # the fastest time of a network counts once another one is within so much of it
AGAIN = 3  # times that rates which contradict each other are measured again


class Timing(NamedTuple):
    """What a training step of one network takes: ``overhead`` seconds and n / ``rate`` for n samples.

    slower: how much longer than the fastest the timed steps took on average; 1 on an idle machine.
    """

    rate: float
    overhead: float
    slower: float


@dataclass
class _Timed:
    """The training steps of one network in one runtime, and the seconds that they took.

    n: samples at once. one: a step on a single sample, on a GPU, where starting the kernels takes longest.
    """

    runtime: Runtime
    n: int
    step: Callable[[], float]
    one: Callable[[], float] | None = None
    times: list[float] = field(default_factory=list)
    ones: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Times a step once more."""
        with _same_random_state(self.runtime):
            self.times.append(self.step())
            if self.one:
                self.ones.append(self.one())

    @property
    def agrees(self) -> bool:
        """Whether the two fastest times are about the same."""
        fastest, second = sorted(self.times)[:2]
        return second <= AGREE * fastest

    @property
    def timing(self) -> Timing:
        """What the fastest times come to."""
        took = min(self.times)
        slower = sum(self.times) / len(self.times) / took
        if not self.one:
            return Timing(self.n / took, 0.0, slower)
        each = max(took - min(self.ones), 0.1 * took) / max(self.n - 1, 1)
        return Timing(1 / each, max(0.0, min(self.ones) - each), slower)


def training_rates(
    recipes: Sequence[Recipe],
    *,
    seconds: float,
    most: int,
    conditions: Conditions | None = None,
    runtime: Runtime | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Progress[list[Timing]]]:
    """Times training steps of recipes whose networks grow from one to the next, on noise.

    There are 5 turns or more, until ``seconds`` are over and each network has two fastest times that agree,
    and at most 24, or after two of them as many as begin in a minute. Where a smaller network comes out
    slower than a larger one, both are timed again.

    most: samples at once; fewer where so many take longer than half a second. conditions: of the data set.
    runtime: to time them in, without torch.compile; by default each network in all precisions and memory
        formats, of which the simplest that is about as fast as the fastest and has right gradients counts.
    stop: set, it ends this; raises `Stopped`, on all processes, which must all call this.
    Yields a record for each timed step; the last has a timing for each recipe.
    """
    stage, chosen = message("training.stage_measuring"), runtime or Runtime(default_device())
    trials = [Trial(recipe, conditions) for recipe in recipes]
    groups: list[list[_Timed]] = []
    try:
        for trial in trials:
            unless_stopped(stop)
            with _same_random_state(chosen):
                groups.append(_prepared(trial, _runtimes(trial.recipe, chosen, runtime is None), most))
        for done in _turns(groups, seconds, stop):
            yield Progress(stage, done, 1)
        with _same_random_state(chosen):
            timings = [_timing(trial, group) for trial, group in zip(trials, groups, strict=True)]
    except Stopped:
        timings = []
    # All processes must leave at the same place.
    if chosen.mean(torch.tensor(float(not timings), device=chosen.device)) > 0:
        raise Stopped
    yield Progress(stage, 1, 1, timings)


def contradictory(rates: Sequence[float]) -> set[int]:
    """Which of the networks, from the smallest to the largest, take part in a contradiction.

    A network that trains on fewer samples a second than a larger one is slower than it can be.
    """
    pairs = combinations(range(len(rates)), 2)
    return {i for smaller, larger in pairs if rates[smaller] < rates[larger] for i in (smaller, larger)}


def _runtimes(recipe: Recipe, given: Runtime, open_choice: bool) -> list[Runtime]:
    """What to time a recipe in, in order of preference."""
    plain = replace(given, compile=False, fused=False)
    if not open_choice or given.device == "mps":
        return [plain]
    dtypes = precisions(given.device, method_of(recipe).trains_denoiser, [])
    return [replace(plain, dtype=dtype, channels_last=last) for dtype in dtypes for last in (False, True)]


def _prepared(trial: Trial, runtimes: Sequence[Runtime], most: int) -> list[_Timed]:
    """What is timed of one network, after steps that set it up."""
    gpu = runtimes[0].device.startswith("cuda")

    def seconds(n: int) -> float:
        step = trial.step(runtimes[0], n, by_the_clock=True)
        step()
        return min(step() for _ in range(3))

    one = seconds(1)
    n = max(1, min(most, round(SECONDS / one)))
    while gpu and n < LARGEST and seconds(n) < 2 * one:
        n *= 2
    timed = []
    for runtime in runtimes:
        single = trial.step(runtime, 1, by_the_clock=True) if gpu else None
        timed.append(_Timed(runtime, n, trial.step(runtime, n, by_the_clock=True), single))
        for step in (timed[-1].step, single):
            if step:
                step()
    return timed


def _turns(
    groups: Sequence[Sequence[_Timed]], seconds: float, stop: threading.Event | None
) -> Iterator[float]:
    """Times all by turns as often as is needed. Yields how much is done, in (0, 1)."""
    began, turns = time.monotonic(), 0

    def passed() -> float:
        return time.monotonic() - began

    def settled() -> bool:
        agree = all(min(group, key=_fastest).agrees for group in groups)
        enough = turns >= TURNS and passed() >= seconds and agree
        return enough or turns >= MOST_TURNS or passed() >= LONGEST

    while turns < LEAST_TURNS or not settled():
        for group in groups:
            for timed in group:
                unless_stopped(stop)
                timed.turn()
                yield turns / MOST_TURNS
        turns += 1
    for again in range(AGAIN):
        if passed() >= LONGEST:
            break
        rates = [max(timed.timing.rate for timed in group) for group in groups]
        for _ in range(TURNS):
            for i in sorted(contradictory(rates)):
                for timed in groups[i]:
                    unless_stopped(stop)
                    timed.turn()
                    yield (MOST_TURNS + again) / (MOST_TURNS + AGAIN + 1)


def _fastest(timed: _Timed) -> float:
    return min(timed.times)


def _timing(trial: Trial, group: Sequence[_Timed]) -> Timing:
    """The timing of a network in the runtime that a training would choose."""
    by_runtime = {timed.runtime: timed for timed in group}
    took = {runtime: _fastest(timed) for runtime, timed in by_runtime.items()}
    if len(group) == 1:  # given
        return group[0].timing
    checked = min(max(group[0].n, CHECKED), trial.recipe.batch)
    return by_runtime[choose_right(trial, took, checked, [])].timing


def _same_random_state(runtime: Runtime) -> AbstractContextManager[Any]:
    return torch.random.fork_rng(devices=[runtime.device] if runtime.device.startswith("cuda") else [])
