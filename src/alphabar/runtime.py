"""On what and how a training computes: device, precision, memory format, compilation, processes.

What is fastest is measured, not guessed: bf16 convolutions are eight times as fast as fp32 ones on a CPU
with AMX and several times slower on one without. The choice can be written down and taken up again, since
a resumed training is bit-exact only where it computes as it did before.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alphabar.errors import AlphabarError


@dataclass(frozen=True)
class Runtime:
    """How a training computes. ``Runtime()`` is the plain way: fp32, contiguous, eager, on the CPU.

    device: where, with its index where there are several: "cpu", "cuda:1", "mps".
    dtype: of autocast; None is fp32 throughout.
    channels_last: the memory format of network and signals.
    compile: whether training steps go through torch.compile.
    fused: whether the optimizer is the fused implementation.
    machine: on which the choice was made (``describe_machine``); empty where nothing was measured.
    notes: what was chosen, and what was not and why, in plain words.
    """

    device: str = "cpu"
    dtype: torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False
    fused: bool = False
    machine: str = ""
    notes: tuple[str, ...] = ()

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def rank(self) -> int:
        return dist.get_rank() if _several() else 0

    @property
    def world_size(self) -> int:
        return dist.get_world_size() if _several() else 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which losses are computed; backward passes belong outside."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=self.dtype)

    def place(self, network: nn.Module) -> None:
        """Moves a network to the device and into the memory format."""
        network.to(device=self.device)
        network.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def put(self, signal: Tensor) -> Tensor:
        """A signal (n, c, h, w) on the device and in the memory format; what is pinned is not waited for."""
        return signal.to(self.device, memory_format=self.memory_format, non_blocking="cuda" in self.device)

    def parallel(self, network: nn.Module) -> nn.Module:
        """What training steps call in place of a placed network: compiled, gradients averaged over processes.

        It shares its parameters with ``network``, which remains what is evaluated, sampled and saved.
        """
        step = _compiled(network) if self.compile else network
        if self.world_size == 1:
            return step
        return DistributedDataParallel(step)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes of a tensor on the device."""
        if self.world_size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in every process."""
        return _broadcast(value)

    def barrier(self) -> None:
        """Waits until every process has come here."""
        if self.world_size > 1:
            dist.barrier()

    def to_dict(self) -> dict[str, Any]:
        """The choice as JSON can hold it; ``from_dict`` reads it."""
        return asdict(self) | {
            "device": torch.device(self.device).type,
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Runtime":
        """The runtime that ``to_dict`` wrote down, on this process's device of that type."""
        return cls(
            **dict(record)
            | {
                "device": _own(record["device"]),
                "dtype": None if record["dtype"] is None else getattr(torch, record["dtype"]),
                "notes": tuple(record["notes"]),
            }
        )


def accumulating(network: nn.Module) -> AbstractContextManager[Any]:
    """The context of all but the last forward and backward pass of a step: gradients are not averaged yet."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def processes() -> Iterator[None]:
    """Joins the other processes where torchrun started several (gloo on CPUs, NCCL on GPUs)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _several():
        yield
        return
    device = torch.device(default_device())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def default_device() -> str:
    """The device of this process: the GPU of its local rank, Apple's GPU, or the CPU.

    Raises AlphabarError where torchrun started more processes on this host than it has GPUs.
    """
    if torch.cuda.is_available():
        return _own("cuda")
    return "mps" if torch.backends.mps.is_available() else "cpu"


def extractor_device() -> str:
    """Where feature networks run: the GPU of this process if it is CUDA's, else the CPU.

    Apple's GPU lacks the antialiased resize that they need.
    """
    device = default_device()
    return device if device.startswith("cuda") else "cpu"


def describe_machine(device: str) -> str:
    """What the fastest runtime and the exact bits depend on: processor, threads and torch's version."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{device} {processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _compiled(network: nn.Module) -> nn.Module:
    # "reduce-overhead" records the kernels for a GPU (CUDA graphs) and is the default elsewhere.
    return torch.compile(network, dynamic=False, mode="reduce-overhead")  # type: ignore[return-value]


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _own(device: str) -> str:
    """This process's device of a type: GPUs are dealt out by local rank."""
    if device != "cuda":
        return device
    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= gpus:
        raise AlphabarError(f"process {rank} of this host has no GPU of its own: start at most {gpus}")
    return f"cuda:{rank}"


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _broadcast(value: Any) -> Any:
    if not _several():
        return value
    holder = [value]
    dist.broadcast_object_list(holder)
    return holder[0]
