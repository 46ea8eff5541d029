"""Work in child processes that can be killed, sent signals, or given a disk that fails.

The program imports PyTorch and alphabar once and forks a child for each piece of work, so that thousands of
trials fit into an hour.
"""

import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

PRELOADED = "ALPHABAR_FAILING_DISK"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 300.0  # seconds; a child that takes longer hangs


class Disk(IntEnum):
    """What happens at the chosen operation: failing_disk.c has the same numbers."""

    COUNT = 0
    FULL = 1
    BROKEN_ONCE = 2
    KILL = 3


@dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit code, or minus the signal. said: stdout and stderr."""

    code: int
    said: str
    seconds: float

    @property
    def crashed(self) -> str:
        """What no command may do: a traceback, an end by a signal that nobody sent, a hang; or ""."""
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {self.said.strip().splitlines()[-1]}"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        return ""


def restart_with_failing_disk() -> None:
    """Starts this program anew under failing_disk.c, compiled by the system's C compiler."""
    if PRELOADED in os.environ:
        return
    library = Path(tempfile.mkdtemp()) / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    os.environ |= {PRELOADED: str(library), "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    os.execv(sys.executable, [sys.executable, *sys.argv])


def arm(folder: Path, at: int, disk: Disk) -> None:
    """In a child: the at-th operation that writes below the folder, from 1, meets this disk."""
    ctypes.CDLL(os.environ[PRELOADED]).failing_disk_arm(
        os.fsencode(folder.resolve()), ctypes.c_long(at), disk
    )


def operations() -> int:
    """In a child: how many operations there were since `arm`."""
    return int(ctypes.CDLL(os.environ[PRELOADED]).failing_disk_count())


def run(
    work: Callable[[], object],
    *,
    folder: Path,
    meanwhile: Callable[[int], None] | None = None,
) -> Ended:
    """Does a piece of work in a child, with ``folder`` as its working folder.

    meanwhile: called with the child's number while it works.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush(), sys.stderr.flush()
        # A signal that comes before the child has set itself up waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        child = os.fork()
        if child == 0:
            _be_the_child(work, folder, said.fileno())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if meanwhile:
            meanwhile(child)
        code = _wait(child, began)
        said.seek(0)
        return Ended(code, said.read().decode(errors="replace"), time.monotonic() - began)


def import_for(work: Callable[[], object], folder: Path) -> None:
    """Imports here what a piece of work imports while it runs, so that later children have it already."""
    with tempfile.NamedTemporaryFile("r") as names:

        def listing() -> None:
            try:
                work()
            finally:
                Path(names.name).write_text("\n".join(sorted(sys.modules)))

        run(listing, folder=folder)
        for name in names.read().splitlines():
            with contextlib.suppress(Exception):  # a part of a package may need another part first
                importlib.import_module(name)


def command(*arguments: object) -> Callable[[], None]:
    """A command of alphabar as work for a child."""

    def work() -> None:
        from alphabar.cli.__main__ import main

        sys.argv = ["alphabar", *map(str, arguments)]
        main()

    return work


def sending(
    numbers: tuple[signal.Signals, ...], after: float, between: float = 0.02
) -> Callable[[int], None]:
    """For ``meanwhile``: sends signals some seconds after the start."""

    def send(child: int) -> None:
        time.sleep(after)
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            time.sleep(between)

    return send


def _be_the_child(work: Callable[[], object], folder: Path, said: int) -> None:
    code = 0
    try:
        os.dup2(said, 1), os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in a process that Python has not started yet
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _wait(child: int, began: float) -> int:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > LONGEST:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
