"""Memory: how much of it is free, and batches that fit into it, halved where they do not."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alphabar.errors import AlphabarError

T = TypeVar("T")

SIGNS = ("DefaultCPUAllocator", "out of memory", "can't allocate memory", "Cannot allocate memory")

USED = 0.5  # the share of free memory that a batch may take; other programs need some too

SCRATCH = 2.0  # the memory of a computation over that of its tensors: copies in other layouts, fragments

PLENTY = 2000  # floats for each value of a signal that no network comes near to

CGROUP = Path("/sys/fs/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on the CPU or a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in SIGNS)
    )


def free_memory(device: str) -> int:
    """Bytes that are free for this process on the device; where nothing tells, half of it all, or 4 GiB.

    On a CPU the least of what the machine, the container and ``ulimit -v`` leave.
    """
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min([*_of_machine(), *_of_container(), *_of_process()]))


def _of_machine() -> Iterator[int]:
    try:
        with open("/proc/meminfo") as lines:
            free = next(line for line in lines if line.startswith("MemAvailable"))
        yield int(free.split()[1]) * 1024
        return
    except (OSError, StopIteration):
        pass
    try:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        yield 4 * 2**30


def _of_container() -> Iterator[int]:
    with suppress(OSError, ValueError):  # there is no limit, or no such file
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        # Pages of files that were read count as used, and are given back when they are needed.
        cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        yield limit - used + cached


def _of_process() -> Iterator[int]:
    with suppress(ImportError, OSError, ValueError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")


class _LiveTensors(TorchDispatchMode):
    """While open, the most bytes that the tensors made meanwhile held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given:  # else a view, or what was written in place
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def fitting_batch(
    batch: int, shape: Sequence[int], device: str, run: Callable[[int], Any], inputs: int = 1
) -> int:
    """The batch that fits into the free memory, from 1 to ``batch``.

    shape: of a signal. run: does the work for a number of signals. inputs: network inputs for each signal.
    Where memory is plenty, by the size of the signals, nothing is run; else one signal and then two, and the
    tensors that they took are counted.
    """
    free = USED * free_memory(device) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    size = 4 * inputs * torch.Size(shape).numel()
    if batch == 1 or batch * size * PLENTY < free:
        return batch
    peaks = []
    for n in (1, 2):
        with _LiveTensors() as live:
            run(n)
        peaks.append(live.peak)
    each = SCRATCH * max(peaks[1] - peaks[0], size)
    return max(1, min(batch, int(free / each)))


def halving(positions: range, batch: int, work: Callable[[range], Iterator[T]]) -> Iterator[tuple[range, T]]:
    """The records of ``work`` on parts of the positions in turn, each with its part, at most ``batch`` long.

    Where memory does not suffice for a part, it is begun again with half as many, and so are those after it.
    Raises AlphabarError where it does not suffice for one.
    """
    first = positions.start
    while first < positions.stop:
        part = range(first, min(first + batch, positions.stop))
        too_large = False
        try:
            for record in work(part):
                yield part, record
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise AlphabarError("runtime.out_of_memory") from None
            too_large = True
        if too_large:  # out of the handler, whose error holds on to what was computed
            batch = (len(part) + 1) // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        else:
            first = part.stop
