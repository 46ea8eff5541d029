"""What the commands print: sentences and progress on stderr, results on stdout."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

from alphabar.formatting import format_duration
from alphabar.messages import Message
from alphabar.progress import Progress

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30.0  # of progress, where stderr is no terminal


def language() -> str:
    """The language of the person's locale, "en" or "es"."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "es" if locale.lower().startswith("es") else "en"


def say(text: str) -> None:
    """Print a sentence for the person on stderr, in their language where it is a message."""
    print(localized(text), file=sys.stderr, flush=True)


def localized(text: str) -> str:
    """A message in the person's language; other text as it is."""
    return text.in_language(language()) if isinstance(text, Message) else text


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """While open, SIGTERM or Ctrl-C sets ``stop``: the work saves and ends; a second one ends it at once."""

    def request(number: int, frame: Any) -> None:
        say("\nfinishing this update and saving; once more to leave at once")
        stop.set()
        for each in previous:
            signal.signal(each, previous[each])

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
        TextColumn("left"),
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
                eta = "" if left is None else f"  left {format_duration(left)}"
                say(f"{name} {record.done / record.total:4.0%}  {detail(record)}{eta}")
    return result  # type: ignore[return-value]


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
