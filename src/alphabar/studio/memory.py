"""The server's memory, given back to the system after the jobs. Only the C library glibc has to be told."""

import ctypes
import threading
from collections.abc import Callable

SECONDS_BETWEEN = 10.0
"""Between two times at which freed memory is given back."""

M_ARENA_MAX = -8  # of malloc.h


def share_heaps() -> None:
    """Let all threads share two heaps.

    Each thread would have a heap of its own, and what a heap has had is given back in part only.
    """
    if limit := _of_glibc("mallopt"):
        limit(M_ARENA_MAX, 2)


def give_back(stop: threading.Event) -> None:
    """Until told to stop, give what jobs have freed back to the system."""
    trim = _of_glibc("malloc_trim")
    while trim and not stop.wait(SECONDS_BETWEEN):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # TypeError: on Windows
        return None
    return function
