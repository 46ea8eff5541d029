"""What the commands print: sentences and progress on stderr, results on stdout."""

import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from alphabar.formatting import format_duration
from alphabar.messages import message, reader_language, translated
from alphabar.progress import Progress

if TYPE_CHECKING:
    from alphabar.result_folder import ResultFolder

T = TypeVar("T")
STOPPING_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
SECONDS_TO_INSIST = 1.0  # between the first Ctrl-C and one that ends the work at once
SECONDS_BETWEEN_LINES = 30.0  # of progress, where stderr is no terminal


def started_processes() -> int:
    """How many processes torchrun started for this command; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks(on_each_host: bool = False) -> bool:
    """Whether this process speaks to the person: of several that torchrun started, one does.

    on_each_host: whether one does on each host, for what may differ between hosts.
    """
    rank = os.environ.get("LOCAL_RANK" if on_each_host else "RANK", "0")
    return started_processes() == 1 or rank == "0"


def say(text: str, from_each: bool = False) -> None:
    """Print a sentence for the person on stderr, in their language where it is a message.

    from_each: whether of several processes every one prints it, not only the one that speaks.
    """
    if from_each or speaks():
        print(localized(text), file=sys.stderr, flush=True)


def localized(text: str) -> str:
    """A message in the person's language; other text as it is."""
    return translated(text, reader_language())


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """While open, SIGTERM, SIGHUP or Ctrl-C sets ``stop``: the work saves and ends.

    Launchers and closing terminals may deliver a signal twice, so a repeated one changes nothing. Only a
    Ctrl-C at least a second after another one ends the work at once.
    """
    interrupted: float | None = None

    def request(number: int, frame: Any) -> None:
        nonlocal interrupted
        now = monotonic()
        if number == signal.SIGINT:
            if interrupted is not None and now - interrupted >= SECONDS_TO_INSIST:
                signal.signal(signal.SIGINT, previous[signal.SIGINT])
                signal.raise_signal(signal.SIGINT)
            elif interrupted is None:
                interrupted = now
        if not stop.is_set():
            stop.set()
            # The terminal may be gone, and a signal may arrive in the middle of a line.
            with suppress(OSError, RuntimeError):
                print(file=sys.stderr)
                say(message("cli.stopping"))

    # Under nohup a closing terminal is to be ignored.
    heard = [number for number in STOPPING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, request) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stopped(BaseException):
    """A person or a launcher stops a command by a signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def told_when_stopped(kept: Callable[[], str]) -> Iterator[None]:
    """While open, SIGTERM, SIGHUP or Ctrl-C ends the command with one line, which ``kept`` makes then.

    The exit code is 128 plus the number of the signal, as shells have it.
    """

    def stop(number: int, frame: Any) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)  # one is enough; the rest would interrupt the last words
        raise Stopped(number)

    heard = [number for number in STOPPING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.getsignal(number) for number in heard}
    try:
        for number in heard:
            signal.signal(number, stop)
        yield
    except Stopped as stopped:
        with suppress(OSError):  # the terminal may be gone
            print(file=sys.stderr)
            say(message("cli.stopped", kept=kept()))
        raise SystemExit(128 + stopped.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def shared_work() -> Iterator[None]:
    """While open, the processes that torchrun started are joined, to share what the command does."""
    if started_processes() == 1:
        yield
        return
    from alphabar.runtime import processes

    with processes(timedelta(days=1)):
        yield


def kept(folder: "ResultFolder") -> str:
    """What is there of the results of a command that was stopped, and how to go on."""
    if not (count := folder.kept()):
        return message("cli.nothing_kept", out=folder.path)
    return message("cli.results_kept", kept=count, n=folder.n, out=folder.path)


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Any]:
    """Progress bars of rich on stderr; nothing is drawn where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn(localized(message("cli.left"))),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    ) as bars:
        yield bars


def run_to_end(
    records: Iterable[Progress[T]],
    stage: str | None = None,
    quiet: bool = False,
    detail: Callable[[Progress[T]], str] = lambda record: "",
) -> T:
    """Do a piece of work behind progress bars, one for each stage, print its messages, and return its result.

    stage: a name for the bar instead of the records' own. detail: what stands beside the bar.
    """
    result = None
    spoken = monotonic()
    quiet = quiet or not speaks()
    with progress_bars(quiet) as bars:
        tasks: dict[str, Any] = {}
        for record in records:
            result = record.result
            name = stage or localized(record.stage)
            if name not in tasks:
                tasks[name] = bars.add_task(name, detail="")
                if bars.disable and not quiet:
                    say(f"{name} …")
            bars.update(tasks[name], completed=record.done, total=record.total, detail=detail(record))
            if record.message and not quiet:
                bars.console.print(localized(record.message), markup=False, highlight=False, soft_wrap=True)
            if bars.disable and not quiet and monotonic() - spoken > SECONDS_BETWEEN_LINES:
                spoken = monotonic()
                left = bars.tasks[tasks[name]].time_remaining
                eta = "" if left is None else f"  {localized(message('cli.left'))} {format_duration(left)}"
                say(f"{name} {record.done / record.total:4.0%}  {detail(record)}{eta}")
    return result  # type: ignore[return-value]


def is_terminal() -> bool:
    """Whether a person sits at a terminal and can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(yes: bool) -> None:
    """Ask a person at a terminal whether to go on; end the command where they do not. yes: they said so."""
    if yes or not is_terminal():
        return
    print(localized(message("cli.go_on")), end=" ", file=sys.stderr, flush=True)
    if not input().strip().lower().startswith(("y", "s")):
        say(message("cli.cancelled"))
        raise typer.Exit(1)


def has_display() -> bool:
    """Whether a person sits at a terminal of a machine that can show a browser."""
    windows = os.name == "nt" or sys.platform == "darwin"
    return is_terminal() and (windows or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))))


def open_path(path: Path | str, wanted: bool) -> None:
    """Open a file or an address in the system's viewer or browser, where that is wanted."""
    if wanted and not webbrowser.open(path.resolve().as_uri() if isinstance(path, Path) else path):
        say(message("cli.not_opened", path=path))


def print_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> None:
    """Print rows on stdout, their columns aligned."""
    print("\n".join(aligned([head, *body])))


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """The lines of a table, each column as wide as its widest cell; right: numbers stand at the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    pad = str.rjust if right else str.ljust
    return [
        "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def print_json(wanted: bool, result: Mapping[str, Any]) -> None:
    """Print a result as one line of JSON, where it is wanted."""
    if wanted:
        print(json.dumps(result, ensure_ascii=False, default=str))
