"""Which way of computing is fastest for a model here: measured once, checked, and remembered."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from alphabar.data.dataset import cache_root
from alphabar.errors import AlphabarError
from alphabar.inference import openvino
from alphabar.inference.agreement import (
    MOST_APART,
    MOST_APART_GRADIENT,
    MOST_APART_LEVELS,
    PICTURES,
    Reference,
    disagreement,
    reference,
)
from alphabar.inference.engines import built_runtimes, prepare, runtime_of, with_runtime
from alphabar.inference.runtime import AUTO, PLAIN, InferenceRuntime, candidates, check_precision
from alphabar.inference.timings import Timing, read_timings, write_timings
from alphabar.messages import Message, message
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.runtime import Runtime, broadcast, has_compiler, synchronize

SHORT = 200
"""Network evaluations that take a few seconds at most: for fewer nothing is measured or looked up."""

WORTH = 1 / 3
"""The share of a job's time that measuring may take: about what it can save, and what compiling can again."""

FASTER = 1.1
"""By how much the whole job must be faster than in the plain way: repeated timings differ by less."""

TURNS = 3
HOPELESS = 1.5  # times as slow as the fastest after the first turn: not timed again
SETUP = {"openvino": 5.0, "compile": 30.0}
"""Seconds that engines take to be built, about, before it is measured."""
AGAIN = 1 / 4
"""The share of compiling that another process needs, which finds the code in the compiler's own cache."""


def choose_runtime(
    model: Model,
    *,
    evaluations: int,
    batch: int,
    precision: str = AUTO,
    gradients: bool = False,
    early: bool = True,
) -> Iterator[Progress[Model]]:
    """Chooses how a model computes; the last record has the model that computes so (`runtime_of`).

    evaluations: of the network in the whole job, counted for each sample. batch: samples at a time.
    precision: "fp32" is the plain way, to the bit; "bf16" or "fp16" the fastest in that precision; "auto" the
        fastest of all. gradients: whether the job differentiates through the network. early: whether it
        evaluates the model as it was early in its training.

    A job of few evaluations computes the plain way, or in the simplest way in the precision that is given.
    For a longer one what was measured before in this cache folder counts, for the same machine, versions,
    weights and batch; where nothing was, it is measured, unless that takes longer than it can save. What is
    measured are the plain way and those in the precision. Whatever is chosen has been checked against float32
    (`inference.agreement`). A model whose runtime was chosen before keeps it.
    Yields records with a message where something is refused or chosen. Raises UsageError for a precision that
    does not exist or that the device lacks, AlphabarError where every way to compute in it is refused.
    """
    check_precision(precision, model.device)
    return _choose(model, evaluations, batch, precision, gradients, early)


def _choose(
    model: Model, evaluations: int, batch: int, precision: str, gradients: bool, early: bool
) -> Iterator[Progress[Model]]:
    if runtime_of(model) is None:
        outcome: InferenceRuntime | AlphabarError = PLAIN
        if precision != "fp32" and Runtime().is_main:
            evaluated = model if early else replace(model, early=None)
            job = _Job(evaluated, evaluations, batch, precision, gradients)
            try:
                yield from job.choose()
                outcome = job.chosen
            except AlphabarError as error:
                outcome = error
        outcome = broadcast(outcome)  # of several processes the main one chooses for all
        if isinstance(outcome, AlphabarError):
            raise outcome
        model = with_runtime(model, outcome)
    yield Progress(message("inference.stage"), 1, 1, model)


_EVALUATIONS: WeakKeyDictionary[nn.Module, Counter[int]] = WeakKeyDictionary()
"""How often this process was asked to evaluate each network in batches of each size: in the studio many short
jobs are a long one. Of each size, so that a few samples do not wait for what only many repay."""


class _Job:
    """A choice for a model and a job of so many evaluations."""

    def __init__(self, model: Model, evaluations: int, batch: int, precision: str, gradients: bool):
        self.model, self.precision, self.gradients = model, precision, gradients
        self.rows = 1 << (max(1, batch) - 1).bit_length()
        asked = _EVALUATIONS.setdefault(model.denoiser.network, Counter())
        asked[self.rows] += evaluations
        self.evaluations = asked[self.rows]
        # What the measuring builds is not ready in the next process, which must choose the same.
        self.ready = built_runtimes(model)
        self.chosen = PLAIN
        self.timings: list[Timing] = []
        self.right: Reference | None = None

    def choose(self) -> Iterator[Progress[Any]]:
        """Sets ``chosen``, by what is remembered or measured. Raises AlphabarError as `choose_runtime`."""
        if self.precision == AUTO and self.evaluations < SHORT:
            return
        path = self._path()
        self.timings = read_timings(path)
        every = candidates(self.model.device, self.gradients)
        tried = [r for r in every if r == PLAIN or self.precision in (AUTO, r.precision)]
        if not {t.runtime for t in self.timings if t.seconds or t.refused}.issuperset(tried):
            if self._pays(tried):
                self.timings = yield from self._measured(tried)
            elif self.precision == AUTO:
                return
            else:  # without times, so that the simplest is taken
                known = {t.runtime for t in self.timings}
                self.timings += [Timing(r, 0.0, 0.0) for r in tried if r != PLAIN and r not in known]
        best = yield from self._checked_best()
        if (candidate := self._worth_compiling(best)) is not None:
            now, compiled = yield from self._measured([best.runtime, candidate])
            # The machine may be slower now than when the others were measured.
            seconds = compiled.seconds * best.seconds / now.seconds
            self.timings.append(replace(compiled, seconds=seconds, setup=AGAIN * compiled.setup))
            best = yield from self._checked_best()
        write_timings(path, self.timings)
        self.chosen = best.runtime
        if best.runtime != PLAIN and best.seconds:
            ratio = self.timings[0].seconds / best.seconds
            text = message("inference.chosen", runtime=best.runtime.name, ratio=ratio)
            yield Progress(message("inference.stage"), 1, 1, message=text)

    def _checked_best(self) -> Generator[Progress[Any], None, Timing]:
        """The best of what agrees with float32; raises as `_best`."""
        while (best := self._best()).runtime != PLAIN and not best.checked:
            yield Progress(message("inference.stage"), 1, 2)
            yield from self._check(best)
        return best

    def _worth_compiling(self, best: Timing) -> InferenceRuntime | None:
        """The compiled way to measure beside the best, where the job is long enough to save that time."""
        candidate = InferenceRuntime("torch", best.runtime.precision, channels_last=True, compile=True)
        known = any(timing.runtime == candidate for timing in self.timings)
        saved = WORTH * self.evaluations * best.seconds
        if known or saved < SETUP["compile"] or not has_compiler(self.model.device.type):
            return None
        if self.gradients:  # solvers go backward several times through one evaluation, compiled code cannot
            return None
        return candidate

    def _best(self) -> Timing:
        """The fastest for the whole job of what is not refused, or about as fast and simpler."""
        wanted = [t for t in self.timings if self.precision in (AUTO, t.runtime.precision)]
        usable = [t for t in wanted if not t.refused]
        if not usable:
            reasons = [t.refused for t in wanted if t.refused]
            raise AlphabarError("inference.all_refused", precision=self.precision, reason=reasons[-1])
        best = usable[0]  # the simplest comes first
        for timing in usable[1:]:
            if self._seconds(timing) * FASTER < self._seconds(best):
                best = timing
        return best

    def _check(self, timing: Timing) -> Iterator[Progress[Any]]:
        """Compares a runtime with float32, and keeps what was found."""
        self.right = self.right or reference(self.model)
        try:
            model = with_runtime(self.model, timing.runtime)
            refused = disagreement(model, self.model, self.right, timing.runtime, self.gradients)
        except Exception as failure:
            refused = _failing(timing.runtime, failure)
        self.timings[self.timings.index(timing)] = replace(timing, checked=True, refused=refused)
        if refused:
            yield Progress(message("inference.stage"), 1, 1, message=refused)

    def _seconds(self, timing: Timing) -> float:
        setup = 0.0 if timing.runtime in self.ready else timing.setup
        return setup + self.evaluations * timing.seconds

    def _pays(self, tried: list[InferenceRuntime]) -> bool:
        """Whether the job is so long that measuring takes no more than it can save."""
        if self.evaluations < SHORT:
            return False
        seconds = self._plain_seconds()
        return self._cost(tried, seconds) <= WORTH * self.evaluations * seconds

    def _cost(self, tried: list[InferenceRuntime], seconds: float) -> float:
        """Seconds that measuring takes, about, where one evaluation takes so many the plain way."""
        setup = sum(SETUP["openvino"] for r in tried if r.engine == "openvino")
        checks = 3 * PICTURES * self.model.recipe.sampling.steps
        return setup + seconds * (checks + len(tried) * TURNS / 2 * self.rows)

    @torch.no_grad()
    def _time(self, model: Model, rows: int) -> float:
        """Seconds of one evaluation of one sample, in a batch."""
        noise = torch.randn(rows, *model.shape, generator=torch.Generator().manual_seed(0))
        x, t = noise.to(model.device), torch.full((rows,), 0.5, dtype=torch.float64)
        synchronize(str(model.device))
        began = time.perf_counter()
        model.denoiser(x, t)
        synchronize(str(model.device))
        return (time.perf_counter() - began) / rows

    def _plain_seconds(self) -> float:
        self._time(self.model, 1)  # sets up
        return self._time(self.model, self.rows)

    def _measured(self, tried: list[InferenceRuntime]) -> Generator[Progress[Any], None, list[Timing]]:
        """Times what is tried by turns; the fastest time of each counts."""
        stage, total = message("inference.stage"), 2 * len(tried) + TURNS
        built: dict[InferenceRuntime, Model] = {}
        found: dict[InferenceRuntime, Timing] = {}
        for i, runtime in enumerate(tried):
            yield Progress(stage, i, total)
            try:
                prepare(self.model, runtime)  # later jobs find it done
                began = time.perf_counter()
                built[runtime] = with_runtime(self.model, runtime)
                self._time(built[runtime], self.rows if runtime.compile else 1)
                found[runtime] = Timing(runtime, torch.inf, time.perf_counter() - began)
            except Exception as failure:  # an engine has many ways to fail, and the plain way works
                found[runtime] = Timing(runtime, 0.0, 0.0, refused=_failing(runtime, failure))
        left = [runtime for runtime in tried if not found[runtime].refused]
        for turn in range(TURNS):
            yield Progress(stage, len(tried) + turn, total)
            for runtime in left:
                seconds = min(found[runtime].seconds, self._time(built[runtime], self.rows))
                found[runtime] = replace(found[runtime], seconds=seconds)
            fastest = min(found[runtime].seconds for runtime in left)
            left = [r for r in left if r == PLAIN or found[r].seconds < HOPELESS * fastest]
        return list(found.values())

    def _path(self) -> Path:
        """The file of the cache in which the measurements for this machine, model and batch stand."""
        model = self.model
        engine = "openvino" if openvino.installed() else "torch"
        made_from = {
            "alphabar": version("alphabar"),
            "machine": InferenceRuntime(engine).describe(model.device),
            "network": [model.recipe.network, list(model.shape)],
            "weights": model.fingerprint,
            "rows": self.rows,
            "gate": [MOST_APART, MOST_APART_GRADIENT, MOST_APART_LEVELS],
            "gradients": self.gradients,
        }
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
        return cache_root() / "inference" / f"{key}.json"


def _failing(runtime: InferenceRuntime, failure: Exception) -> Message:
    reason = str(failure).strip().partition("\n")[0]
    return message("inference.fails", runtime=runtime.name, reason=reason)
