"""What is fastest on this machine: precision, memory format and compilation, timed on the network itself."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.messages import Message, message
from alphabar.networks.base import Network
from alphabar.runtime import (
    Runtime,
    broadcast,
    compiled,
    default_device,
    describe_machine,
    distributed,
    synchronize,
)

LARGEST_TRIAL = 2048  # samples at once
FASTER = 1.05  # by how much something must be faster than what is simpler, to be chosen over it
# How near to those of eager float32 the gradients of each parameter must be: least cosine, largest ratio of
# norms either way. A network with ReLUs and batch normalisation has cosines down to 0.93 in eager bf16, which
# is rounding; where code is compiled wrongly, single parameters have 0.
EXACT, ROUNDED = (0.9, 1.25), (0.5, 2.0)
NO_WORSE = 0.05  # by so much a compiled gradient may be worse than an eager one beyond those bounds


def probe(
    network: Network,
    spatial: Sequence[int],
    *,
    batch: int,
    try_compile: bool = True,
    fp16: bool = True,
    recorded: Mapping[str, Any] | None = None,
) -> Runtime:
    """Chooses how to train this network on this machine by timing forward and backward passes of a copy.

    spatial: the sizes of a signal's spatial dimensions.
    batch: samples that one process puts through the network at once.
    try_compile: whether torch.compile is worth trying; it takes about a minute.
    fp16: whether a GPU without bf16 may compute in fp16, which needs a scaled loss.
    recorded: what `Runtime.to_dict` gave when this training began. It is used again on the same machine; on
        another one the choice is made anew and its notes say so.

    Takes some ten seconds on two CPU cores without compilation, and leaves torch's random state as it was.
    Of several processes the main one measures for all.
    """
    choice = None
    if not distributed() or dist.get_rank() == 0:
        choice = _choose(network, spatial, batch, try_compile, fp16, recorded).to_dict()
    return Runtime.from_dict(broadcast(choice))


class Timing(NamedTuple):
    """What a forward and backward pass takes: ``overhead`` seconds and n / ``rate`` for n samples."""

    rate: float
    overhead: float


def training_rate(network: Network, spatial: Sequence[int], runtime: Runtime, *, most: int) -> Timing:
    """Samples a second of forward and backward passes, timed for about a second.

    most: samples at once; fewer where so many take longer than half a second. On a GPU one sample takes
    nearly as long as many, because kernels are started one by one: there ``overhead`` is timed as well.
    """
    gpu = runtime.device.startswith("cuda")
    with torch.random.fork_rng(devices=[runtime.device] if gpu else []):
        trial = Trial(network, spatial)

        def seconds(n: int) -> float:
            step = trial.step(runtime, n)
            step()
            return min(step(), step())

        one = seconds(1)
        n = max(1, min(most, round(0.5 / one)))
        took = seconds(n)
        while gpu and n < LARGEST_TRIAL and took < 2 * one:
            n *= 2
            took = seconds(n)
    if not gpu:
        return Timing(n / took, 0.0)
    each = max(took - one, 0.1 * took) / max(n - 1, 1)
    return Timing(1 / each, max(0.0, one - each))


def _choose(
    network: Network,
    spatial: Sequence[int],
    batch: int,
    try_compile: bool,
    fp16: bool,
    recorded: Mapping[str, Any] | None,
) -> Runtime:
    device = default_device()
    machine = describe_machine(device)
    notes: list[str] = [machine]
    if recorded is not None:
        if recorded["machine"] in (machine, ""):
            return Runtime.from_dict(recorded)
        notes.append(message("training.other_machine", machine=recorded["machine"]))
    runtime = Runtime(device, machine=machine)
    if device == "mps":
        notes.append(message("training.mps"))
    else:
        with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
            trial = Trial(network, spatial)
            runtime, speed = _fastest_eager(runtime, trial, batch, precisions(device, fp16, notes), notes)
            if not try_compile:
                notes.append(message("training.compile_short"))
            elif device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
                notes.append(message("training.compile_no_compiler"))
            else:
                # Code is compiled for a batch size: for the true one, unless its steps take too long to time.
                n = batch if batch < 8 * speed else max(1, round(speed))
                runtime = _compiled_if_faster(runtime, trial, n, notes)
    runtime = replace(runtime, fused=_fused_works(device))
    notes.append(message("training.optimizer_fused" if runtime.fused else "training.optimizer_plain"))
    return replace(runtime, notes=tuple(notes))


class Trial:
    """Training steps of a copy of the network on noise, to be timed and compared."""

    def __init__(self, network: Network, spatial: Sequence[int]):
        self.network = deepcopy(network).train()
        self.spatial = spatial
        generator = torch.Generator().manual_seed(0)
        for parameter in self.network.parameters():
            # Branches that start at zero would hide from the comparison of gradients.
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.02 * noise.to(parameter)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # eager and compiled steps must be comparable

    def step(self, runtime: Runtime, n: int) -> Callable[[], float]:
        """A training step on n samples, to be called for the seconds that it takes."""
        runtime.place(self.network)
        step = compiled(self.network) if runtime.compile else self.network
        generator = torch.Generator().manual_seed(0)
        x = runtime.put(torch.randn(n, self.network.channels, *self.spatial, generator=generator))
        c_noise = torch.rand(n, generator=generator).to(runtime.device)

        def seconds() -> float:
            self.network.zero_grad()
            synchronize(runtime.device)
            began = time.perf_counter()
            with runtime.autocast():
                out = step(x, c_noise)
            # Times a thousand, or gradients in fp16 would vanish.
            (1e3 * out.float().square().mean()).backward()
            synchronize(runtime.device)
            return time.perf_counter() - began

        return seconds

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by parameter, in float32; zeros where there is none."""
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.float().clone()
            for name, p in self.network.named_parameters()
        }


class Difference(NamedTuple):
    """How the gradient of a parameter differs from the right one: cosine, and ratio of the norms."""

    parameter: str
    cosine: float
    norms: float

    def within(self, bounds: tuple[float, float]) -> bool:
        """Whether it is no larger than (least cosine, largest ratio either way); never, where not finite."""
        return self.cosine >= bounds[0] and 1 / bounds[1] <= self.norms <= bounds[1]


def wrong_gradient(
    found: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    eager: Mapping[str, Tensor] | None = None,
    bounds: tuple[float, float] = EXACT,
) -> Difference | None:
    """The parameter whose gradient is farthest from the right one, if any is out of bounds; else None.

    found, right: gradients by parameter, the latter of eager float32; where those are zero throughout there
    is nothing to compare.
    eager: of an eager step in found's precision. Where it is out of bounds too, found must be no worse.
    bounds: least cosine, largest ratio of norms either way.
    """
    wrong = []
    for name, wanted in right.items():
        if not wanted.any():
            continue
        difference = _difference(name, found[name], wanted)
        allowed = bounds
        if eager is not None:
            rounding = _difference(name, eager[name], wanted)
            if not rounding.within(bounds) and rounding.norms > 0:
                ratio = max(rounding.norms, 1 / rounding.norms)
                allowed = (rounding.cosine - NO_WORSE, ratio * (1 + NO_WORSE))
        if not difference.within(allowed):
            wrong.append(difference)
    return min(wrong, key=lambda difference: difference.cosine, default=None)


def _difference(name: str, found: Tensor, right: Tensor) -> Difference:
    a, b = found.double().flatten(), right.double().flatten()
    norms = (a.norm() / b.norm()).item()
    return Difference(name, (a @ b / (b.norm() * a.norm())).item() if norms else 0.0, norms)


def precisions(device: str, fp16: bool, notes: list[str]) -> list[torch.dtype | None]:
    """What is worth timing: fp32, and bf16, or fp16 on a GPU without bf16 (a T4). notes: gets the reason."""
    if why := bf16_refused(device):
        notes.append(message("training.no_bf16", reason=why))
        return [None, torch.float16] if fp16 and device.startswith("cuda") else [None]
    return [None, torch.bfloat16]


def _fastest_eager(
    plain: Runtime, trial: Trial, batch: int, dtypes: Sequence[torch.dtype | None], notes: list[str]
) -> tuple[Runtime, float]:
    """The fastest of precisions and memory formats, with its samples a second."""
    step = trial.step(plain, 1)
    step()
    n = max(1, min(batch, round(0.4 / step())))
    speeds: dict[Runtime, float] = {}
    for runtime in [replace(plain, dtype=d, channels_last=c) for d in dtypes for c in (False, True)]:
        step = trial.step(runtime, n)
        step()  # the first one sets up
        speeds[runtime] = n / min(step(), step())
    trial.step(plain, n)()
    right = trial.gradients()
    best = plain
    for runtime in sorted(speeds, key=lambda runtime: -speeds[runtime]):
        if speeds[runtime] < FASTER * speeds[plain]:
            break
        trial.step(runtime, n)()
        wrong = wrong_gradient(trial.gradients(), right, bounds=ROUNDED if runtime.dtype else EXACT)
        if wrong is None:
            best = runtime
            break
        notes.append(message("training.precision_wrong", name=_name(runtime), **wrong._asdict()))
    measured = ", ".join(f"{_name(runtime)} {speed:.1f}" for runtime, speed in speeds.items())
    notes.append(message("training.precision", chosen=_name(best), measured=measured))
    return best, speeds[best]


def _compiled_if_faster(eager: Runtime, trial: Trial, n: int, notes: list[str]) -> Runtime:
    candidate = replace(eager, compile=True)
    try:
        trial.step(Runtime(eager.device), n)()
        right = trial.gradients()
        eager_step = trial.step(eager, n)
        eager_seconds = min(eager_step(), eager_step())
        rounded = trial.gradients()
        compiled_step = trial.step(candidate, n)
        compilation = compiled_step()
        compiled_seconds = min(compiled_step() for _ in range(3))  # a GPU's kernels are recorded in the first
        wrong = wrong_gradient(trial.gradients(), right, rounded)
    except Exception as failure:  # a compiler has many ways to fail, and training works without one
        reason = str(failure).strip().partition("\n")[0]
        notes.append(message("training.compile_fails", error=type(failure).__name__, reason=reason))
        return eager
    ratio = eager_seconds / compiled_seconds
    if wrong is not None:
        notes.append(message("training.compile_wrong", ratio=ratio, **wrong._asdict()))
        return eager
    if ratio < FASTER:
        notes.append(message("training.compile_slow", ratio=ratio, seconds=compilation))
        return eager
    notes.append(message("training.compile_chosen", ratio=ratio, seconds=compilation))
    return candidate


def bf16_refused(device: str) -> Message | None:
    """Why bf16 is not worth timing, found with one convolution: emulated bf16 would make the probe slow."""
    if device.startswith("cuda"):
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return None if supported else message("training.bf16_missing")
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4, 128, 32, 32, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(128, 128, 3, 3, dtype=dtype, requires_grad=True)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1).sum().backward()
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    return None if ratio >= 1 else message("training.bf16_slow", ratio=ratio)


def _fused_works(device: str) -> bool:
    parameter = torch.zeros(1, device=device, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    try:
        torch.optim.AdamW([parameter], fused=True).step()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _name(runtime: Runtime) -> str:
    precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[runtime.dtype]
    return precision + (" channels_last" if runtime.channels_last else "")
