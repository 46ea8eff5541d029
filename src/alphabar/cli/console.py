"""TODO-DOC from cli"""

import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphabar.data.dataset import Dataset


def say(text: str) -> None:
    """A line for the person, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """SIGTERM or Ctrl-C asks the training to save and leave; a second one leaves at once."""

    def ask(number: int, frame: Any) -> None:
        say("\nfinishing this update and saving; once more to leave at once")
        stop.set()
        for each in previous:
            signal.signal(each, previous[each])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Any]:
    """A progress bar on stderr; where that is no terminal, nothing moves and nothing is printed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    ) as progress:
        yield progress


def last_with_bar(records: Iterable[Any], stage: str | None, quiet: bool = False) -> Any:
    """Walk a generator of records behind a progress bar and return the last one."""
    record = None
    with progress_bar(quiet) as progress:
        tasks: dict[str, Any] = {}
        for record in records:
            name = stage or record.stage
            if name not in tasks:
                tasks[name] = progress.add_task(name, detail="")
                if progress.disable and not quiet:
                    say(f"{name} …")
            progress.update(tasks[name], completed=record.done, total=record.total)
    return record


def mention_skipped(dataset: "Dataset") -> None:
    if dataset.skipped:
        first = dataset.skipped[0]
        say(
            f"{len(dataset.skipped)} files are left out, the first {first.key}: {first.reason}"
            " (alphabar inspect lists them all)"
        )


def print_numbers(report: Any) -> None:
    print_table(("", "value [95 % interval]", "real pictures", "better"), report.rows())
    print(f"n = {report.n} samples; reference: {report.reference}")
    if report.baseline_n:
        others = report.baseline_reference_n
        print(f"'real pictures': {report.baseline_n} real pictures against {others} others")


def print_table(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> None:
    rows = [head, *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(as_json: bool, result: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False, default=str))
