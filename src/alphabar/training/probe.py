"""What is fastest on this machine: precision, memory format and compilation, timed on the training itself."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from alphabar.errors import UsageError
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, broadcast, default_device, describe_machine, has_compiler
from alphabar.training.labels import Conditions
from alphabar.training.trial import Trial, wrong_gradient

# By how much something must be faster than what is simpler, to be chosen over it. Repetitions on a busy
# machine differ by less, so that the same machine chooses the same again.
FASTER = 1.1
TURNS = 5  # in which what is compared is timed by turns; the fastest time of each counts
TURNS_COMPILED = 3
SECONDS = 0.4  # that a timed step takes, at most
CHECKED = 8  # samples, at least, whose gradients are compared: those of a GAN's critic nearly cancel in fewer


class Stopped(Exception):
    """The person stopped the training while the machine was measured: nothing is chosen."""


def probe(
    recipe: Recipe,
    conditions: Conditions | None = None,
    *,
    try_compile: bool = True,
    recorded: Mapping[str, Any] | None = None,
    stop: threading.Event | None = None,
) -> Runtime:
    """Chooses how to train a recipe on this machine by timing training steps on noise.

    conditions: of the data set; None for a recipe without. try_compile: whether torch.compile is worth
    trying; it takes about a minute. Only for methods that train a denoiser is it tried at all.
    recorded: what `Runtime.to_dict` gave when this training began. It is used again wherever this machine
        can; where it cannot, the choice is made anew. The notes say so.
    stop: set, it ends the measurements; raises `Stopped` then, on all processes.

    What is compared is timed by turns, the fastest time of each counts, and of what is about as fast the
    simplest is chosen: contiguous before channels_last, float32 before bf16, eager before compiled. So the
    choice is the same again on the same machine, whatever else runs on it for a moment, unless two are just
    so far apart. Takes some ten seconds on two CPU cores without compilation, and leaves torch's random state
    as it was.
    Of several processes the main one measures for all, and nothing it does waits for the others.
    Raises UsageError where the method does not go with several processes.
    """
    device = default_device()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        trial = Trial(recipe, conditions)
        trial.method(Runtime())  # raises on all processes
        choice = None
        if Runtime().is_main:
            try:
                choice = _choose(trial, device, try_compile, recorded, stop).to_dict()
            except Stopped:
                choice = None
    choice = broadcast(choice)
    if choice is None:
        raise Stopped
    return Runtime.from_dict(choice)


def check_runtime(
    runtime: Runtime, recipe: Recipe, conditions: Conditions | None = None, *, compiled: bool = True
) -> None:
    """Raises UsageError where this machine cannot train a recipe in a runtime that a person gives.

    That is where something is missing (`impossible`), or where gradients come out wrong; compiled: compile to
    see that, which takes about a minute. Of several processes all must call it; the main one checks for all.
    """
    reason = None
    if Runtime().is_main:
        with torch.random.fork_rng(devices=[]):
            reason = impossible(runtime, recipe)
            tried = runtime if compiled else replace(runtime, compile=False)
            reason = reason or _wrong(Trial(recipe, conditions), tried)
    if reason := broadcast(reason):
        raise UsageError("training.runtime_refused", reason=reason)


def impossible(runtime: Runtime, recipe: Recipe) -> Message | None:
    """What this machine or the recipe's method lacks for a runtime, as a sentence; None where nothing is."""
    kind, here = torch.device(runtime.device).type, torch.device(default_device()).type
    if kind not in ("cpu", here):
        return message("training.no_such_device", device=kind, here=here)
    if kind == "mps" and (runtime.dtype or runtime.channels_last or runtime.compile):
        return message("training.mps")
    if runtime.dtype is torch.float16 and (kind != "cuda" or not method_of(recipe).trains_denoiser):
        return message("training.fp16_only_cuda")
    if runtime.dtype is torch.bfloat16 and kind == "cuda" and (why := bf16_refused(kind)):
        return message("training.no_bf16", reason=why)
    if runtime.compile and not method_of(recipe).trains_denoiser:
        return message("training.compile_method", method=recipe.method["name"])
    if runtime.compile and not has_compiler(kind):
        return message("training.compile_no_compiler")
    if runtime.fused and not _fused_works(runtime.device):
        return message("training.optimizer_plain")
    return None


def _wrong(trial: Trial, runtime: Runtime) -> Message | None:
    """A sentence about a gradient that is wrong in a runtime, or about its failure; None for neither."""
    if runtime.dtype is None and not runtime.compile:
        return None
    plain = Runtime(runtime.device)
    n = min(CHECKED, _local_batch(trial.recipe))
    right = trial.gradients_in(plain, n)
    eager = replace(runtime, compile=False)
    rounded = trial.gradients_in(eager, n)
    if runtime.dtype and (wrong := wrong_gradient(rounded, right, rounded=True)):
        return message("training.precision_wrong", name=name_of(eager), **wrong._asdict())
    if not runtime.compile:
        return None
    try:
        compiled = trial.gradients_in(runtime, n)
    except Exception as failure:
        return _failure(failure)
    wrong = wrong_gradient(compiled, right, rounded)
    return message("training.compile_wrong", **wrong._asdict()) if wrong else None


def _local_batch(recipe: Recipe) -> int:
    """Samples that one process puts through the network at once."""
    return max(1, recipe.batch // (Runtime().world_size * recipe.accumulate))


def _choose(
    trial: Trial,
    device: str,
    try_compile: bool,
    recorded: Mapping[str, Any] | None,
    stop: threading.Event | None,
) -> Runtime:
    machine = describe_machine(device)
    notes: list[str] = [machine]
    if recorded is not None and (kept := _kept(recorded, trial, notes)):
        return kept
    runtime = Runtime(device, machine=machine)
    if device == "mps":
        notes.append(message("training.mps"))
    else:
        denoises = method_of(trial.recipe).trains_denoiser
        batch, dtypes = _local_batch(trial.recipe), precisions(device, denoises, notes)
        runtime, rate = _fastest_eager(runtime, trial, batch, dtypes, notes, stop)
        if not (try_compile and denoises):
            notes.append(message("training.compile_short"))
        elif not has_compiler(device):
            notes.append(message("training.compile_no_compiler"))
        else:
            # Code is compiled for a batch size: for the true one, unless its steps take too long to time.
            n = batch if batch < 8 * rate else max(1, round(rate))
            runtime = _compiled_if_faster(runtime, trial, n, notes, stop)
    runtime = replace(runtime, fused=_fused_works(device))
    notes.append(message("training.optimizer_fused" if runtime.fused else "training.optimizer_plain"))
    return replace(runtime, notes=tuple(notes))


def _kept(recorded: Mapping[str, Any], trial: Trial, notes: list[str]) -> Runtime | None:
    """The runtime that a training began in, where this machine can do it; else None and why not in notes."""
    before = recorded["machine"]
    kind, here = torch.device(recorded["device"]).type, torch.device(default_device()).type
    reason: Message | None = None
    if kind not in ("cpu", here):  # a training that began on the CPU goes on there, whatever else there is
        reason = message("training.no_such_device", device=kind, here=here)
    else:
        runtime = Runtime.from_dict(recorded)
        machine = describe_machine(runtime.device)
        if before in (machine, ""):
            return runtime
        reason = impossible(runtime, trial.recipe)
        if not reason and runtime.dtype is torch.bfloat16 and (why := bf16_refused(runtime.device)):
            reason = message("training.no_bf16", reason=why)
        reason = reason or _wrong(trial, runtime)
        if not reason:
            note = message("training.other_machine", machine=before)
            return replace(runtime, machine=machine, notes=(machine, note))
    notes += [message("training.other_machine", machine=before), reason]
    return None


def precisions(device: str, fp16: bool, notes: list[str]) -> list[torch.dtype | None]:
    """What is worth timing: fp32, and bf16, or fp16 on a GPU without bf16 (a T4). notes: gets the reason."""
    if why := bf16_refused(device):
        notes.append(message("training.no_bf16", reason=why))
        return [None, torch.float16] if fp16 and device.startswith("cuda") else [None]
    return [None, torch.bfloat16]


def _seconds(
    trial: Trial, runtimes: Sequence[Runtime], n: int, turns: int, stop: threading.Event | None
) -> dict[Runtime, float]:
    """What a step on n samples takes in each runtime: they take turns, and the fastest time counts.

    The load of a moment thus hits all of them or only times that do not count. Raises `Stopped`.
    """
    steps = {runtime: trial.step(runtime, n) for runtime in runtimes}
    for _ in range(2):  # the first ones set up; a GPU's kernels are recorded in the second
        for step in steps.values():
            unless_stopped(stop)
            step()
    found = []
    for _ in range(turns):
        unless_stopped(stop)
        found.append({runtime: step() for runtime, step in steps.items()})
    return {runtime: min(turn[runtime] for turn in found) for runtime in runtimes}


def unless_stopped(stop: threading.Event | None) -> None:
    """Raises `Stopped` where the person stops what is being done."""
    if stop is not None and stop.is_set():
        raise Stopped


def simplest(seconds: Mapping[Runtime, float]) -> Runtime:
    """The first of the runtimes, which come in order of preference, that is about as fast as the fastest."""
    fastest = min(seconds.values())
    return next(runtime for runtime, took in seconds.items() if took <= FASTER * fastest)


def _fastest_eager(
    plain: Runtime,
    trial: Trial,
    batch: int,
    dtypes: Sequence[torch.dtype | None],
    notes: list[str],
    stop: threading.Event | None,
) -> tuple[Runtime, float]:
    """The fastest of precisions and memory formats, with its samples a second."""
    step = trial.step(plain, 1)
    step()
    n = max(1, min(batch, round(SECONDS / min(step(), step()))))
    runtimes = [replace(plain, dtype=d, channels_last=c) for d in dtypes for c in (False, True)]
    seconds = _seconds(trial, runtimes, n, TURNS, stop)
    best = choose_right(trial, seconds, min(max(n, CHECKED), batch), notes)
    measured = ", ".join(f"{name_of(runtime)} {n / took:.1f}" for runtime, took in seconds.items())
    notes.append(message("training.precision", chosen=name_of(best), measured=measured))
    return best, n / seconds[best]


def choose_right(trial: Trial, seconds: Mapping[Runtime, float], n: int, notes: list[str]) -> Runtime:
    """The `simplest` of the runtimes, the first of which is plain, whose gradients on n samples are right.

    notes: gets a sentence about each whose gradients are wrong.
    """
    plain, left, right = next(iter(seconds)), dict(seconds), None
    while (best := simplest(left)) != plain:
        right = right or trial.gradients_in(plain, n)
        wrong = wrong_gradient(trial.gradients_in(best, n), right, rounded=best.dtype is not None)
        if wrong is None:
            break
        notes.append(message("training.precision_wrong", name=name_of(best), **wrong._asdict()))
        del left[best]
    return best


def _compiled_if_faster(
    eager: Runtime, trial: Trial, n: int, notes: list[str], stop: threading.Event | None
) -> Runtime:
    candidate = replace(eager, compile=True)
    right, rounded = trial.gradients_in(Runtime(eager.device), n), trial.gradients_in(eager, n)
    unless_stopped(stop)
    try:
        began = time.perf_counter()  # a compiler works in processes of its own
        found = trial.gradients_in(candidate, n)
        compilation = time.perf_counter() - began
        wrong = wrong_gradient(found, right, rounded)
        seconds = _seconds(trial, [eager, candidate], n, TURNS_COMPILED, stop)
    except Stopped:
        raise
    except Exception as failure:  # a compiler has many ways to fail, and training works without one
        notes.append(_failure(failure))
        return eager
    if wrong is not None:
        notes.append(message("training.compile_wrong", **wrong._asdict()))
        return eager
    ratio = seconds[eager] / seconds[candidate]
    chosen = simplest(seconds)
    identifier = "training.compile_chosen" if chosen.compile else "training.compile_slow"
    notes.append(message(identifier, ratio=ratio, seconds=compilation))
    return chosen


def _failure(failure: Exception) -> Message:
    reason = str(failure).strip().partition("\n")[0]
    return message("training.compile_fails", error=type(failure).__name__, reason=reason)


def bf16_refused(device: str) -> Message | None:
    """Why bf16 is not worth timing, found with one convolution: emulated bf16 would make the probe slow."""
    if device.startswith("cuda"):
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return None if supported else message("training.bf16_missing")
    signals, weight = torch.randn(4, 128, 32, 32), torch.randn(128, 128, 3, 3)
    signals = signals.to(memory_format=torch.channels_last)

    def seconds(dtype: torch.dtype) -> float:
        x, w = (part.to(dtype).requires_grad_() for part in (signals, weight))
        began = time.perf_counter()
        F.conv2d(x, w, padding=1).sum().backward()
        return time.perf_counter() - began

    times = [(seconds(torch.float32), seconds(torch.bfloat16)) for _ in range(TURNS)]
    ratio = min(fp32 for fp32, _ in times) / min(bf16 for _, bf16 in times)
    return None if ratio >= 1 else message("training.bf16_slow", ratio=ratio)


def _fused_works(device: str) -> bool:
    parameter = torch.zeros(1, device=device, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    try:
        torch.optim.AdamW([parameter], fused=True).step()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def name_of(runtime: Runtime) -> str:
    """Precision and memory format, such as "bf16 channels_last"."""
    precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[runtime.dtype]
    return precision + (" channels_last" if runtime.channels_last else "")
