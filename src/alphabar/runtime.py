"""How a training computes: device, precision, memory format, compilation, processes.

What is fastest is measured (`alphabar.training.probe`): bf16 convolutions are eight times as fast as fp32
ones on a CPU with AMX and several times slower on one without. A run keeps the choice, because a resumed
training is bit-exact only where it computes as it did before.
"""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alphabar.errors import AlphabarError
from alphabar.messages import pack_messages, unpack_messages

T = TypeVar("T")

MOST_COMPILED = 64


@dataclass(frozen=True)
class Runtime:
    """How a training computes. ``Runtime()`` is the plain one: fp32, contiguous, eager, on the CPU.

    device: where, with its index where there are several: "cpu", "cuda:1", "mps".
    dtype: of autocast; None is fp32 throughout.
    channels_last: whether network and images have this memory format.
    compile: whether training steps go through torch.compile.
    fused: whether the optimizer is the fused implementation.
    machine: on which the choice was made (`describe_machine`); empty where nothing was measured.
    notes: sentences that say what was chosen, and what was not and why.
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
        """Of network and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def rank(self) -> int:
        """Which of the processes this is, from 0."""
        return dist.get_rank() if distributed() else 0

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return dist.get_world_size() if distributed() else 1

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
        """Signals (n, c, *spatial) on the device and in the memory format; pinned ones are not waited for."""
        signal = signal.to(self.device, non_blocking="cuda" in self.device)
        return channels_last(signal) if self.channels_last else signal.contiguous()

    def parallel(self, network: nn.Module) -> nn.Module:
        """What training steps call in place of a placed network: compiled, gradients averaged over processes.

        It shares its parameters with ``network``, which remains what is evaluated, sampled and saved.
        """
        step = compiled(network) if self.compile else network
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

    def barrier(self) -> None:
        """Waits until every process has arrived here."""
        if self.world_size > 1:
            dist.barrier()

    def to_dict(self) -> dict[str, Any]:
        """The choice as JSON can hold it; `from_dict` reads it."""
        return asdict(self) | {
            "device": torch.device(self.device).type,
            "dtype": str(self.dtype or torch.float32).removeprefix("torch."),
            "notes": pack_messages(self.notes),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Runtime":
        """The runtime that `to_dict` wrote down, on this process's device of that type."""
        return cls(
            **dict(record)
            | {
                "device": _own(record["device"]),
                "dtype": None if record["dtype"] in (None, "float32") else getattr(torch, record["dtype"]),
                "notes": tuple(unpack_messages(record["notes"])),
            }
        )


def channels_last(signal: Tensor) -> Tensor:
    """Images (n, c, h, w) with the channels last in memory; signals of other dimensions as they are."""
    return signal.to(memory_format=torch.channels_last) if signal.ndim == 4 else signal


def accumulating(network: nn.Module) -> AbstractContextManager[Any]:
    """The context of all but the last pass of an update, in which gradients are not averaged yet."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def processes(patience: timedelta | None = None) -> Iterator[None]:
    """Joins the other processes where torchrun started several (gloo on CPUs, NCCL on GPUs).

    patience: how long one waits for another; by default as PyTorch has it, which is up to half an hour.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed():
        yield
        return
    device = torch.device(default_device())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield
        # Whoever leaves while another still works breaks the connection under it. One that has failed says so
        # itself.
        with suppress(RuntimeError):
            dist.barrier()
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


def machine_memory() -> float | None:
    """The memory of the machine in GiB, None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def machine_load() -> float | None:
    """How many processes wanted to compute, on average over the last minute, this one included.

    None where the system does not tell.
    """
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # not on Windows
        return None


def machine_state() -> dict[str, Any]:
    """What a measured speed depends on besides the code, as JSON holds it: machine, cores, memory, load."""
    return {
        "machine": describe_machine(default_device()),
        "cores": os.cpu_count(),
        "memory": machine_memory(),
        "load": machine_load(),
    }


def compiled(network: nn.Module) -> nn.Module:
    """The network through torch.compile, sharing its parameters; on a GPU with CUDA graphs."""
    import torch._dynamo  # 1.5 s, which only those should wait for who compile

    # Code for so many batch sizes and copies of a class; after that PyTorch would stop compiling, in silence.
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    # "reduce-overhead" is the default mode where there is no GPU.
    return torch.compile(network, dynamic=False, mode="reduce-overhead")  # type: ignore[return-value]


def has_compiler(device: str) -> bool:
    """Whether torch.compile has what it needs; on a GPU it brings its own."""
    return device != "cpu" or any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def synchronize(device: str) -> None:
    """Waits until a GPU has finished; a CPU always has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def broadcast(value: Any) -> Any:
    """The main process's value, in every process. It must be possible to pickle it."""
    if not distributed():
        return value
    holder = [value]
    dist.broadcast_object_list(holder)
    return holder[0]


def share(parts: Sequence[T]) -> Sequence[T]:
    """Those of the main process's parts of a work that fall to this process: every second one of two.

    Every process must call it. Raises AlphabarError where another process has ended.
    """
    runtime = Runtime()
    with _together():
        return broadcast(parts)[runtime.rank :: runtime.world_size]


def wait_for_others() -> None:
    """Waits until every process has arrived here. Raises AlphabarError where another has ended."""
    with _together():
        Runtime().barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does the block before the others do, which find what it wrote."""
    if not Runtime().is_main:
        wait_for_others()
    yield
    if Runtime().is_main:
        wait_for_others()


@contextmanager
def own_share() -> Iterator[None]:
    """A part of a work that this process alone does: it alone can say what goes wrong (`AlphabarError`)."""
    try:
        yield
    except AlphabarError as error:
        error.of_one_process = True
        raise


@contextmanager
def _together() -> Iterator[None]:
    """Raises AlphabarError where a collective operation finds that a process has ended."""
    try:
        yield
    except RuntimeError as error:
        if not distributed():
            raise
        raise AlphabarError("runtime.process_lost") from error


def _own(device: str) -> str:
    """This process's device of a type: GPUs are assigned by local rank."""
    if device != "cuda":
        return device
    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= gpus:
        raise AlphabarError("training.no_gpu", rank=rank, gpus=gpus)
    return f"cuda:{rank}"
