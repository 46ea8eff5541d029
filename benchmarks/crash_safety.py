"""Is anything lost or damaged when processes are killed, disks fill up and bytes flip?

    python benchmarks/crash_safety.py --out crash_safety/

Six parts: ``kills`` (SIGKILL at random moments and inside saves, over all recipes and three runtimes, and
of one process of two), ``flips`` (one byte at a time of every file of a run), ``disk`` (no space, or an
input/output error, at the writes of every command), ``signals`` (SIGTERM, SIGINT, SIGHUP at random moments of
every command), ``folders`` (a folder replaced while the disk fails), ``writers`` (two processes at every
shared file). Outcomes are written down as they come, into outcomes.jsonl of the folder: the same command goes
on after it was stopped. Prints the table of docs/results/crash_safety.md. Needs Linux and a C compiler.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from common import argument_parser, note, print_command, print_section, print_table
from crash.children import restart_with_failing_disk

PARTS = ("kills", "flips", "disk", "folders", "signals", "writers")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("crash_safety"), help="folder for outcomes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=10, help="kills of each of two processes")
    parser.add_argument("--places", type=int, default=2000, help="bytes flipped in each binary file")
    parser.add_argument(
        "--writes", type=int, default=1000, help="at most, of each command, that meet a failing disk"
    )
    parser.add_argument("--commands", nargs="+", help="of disk and signals, by default all")
    parser.add_argument("--moments", type=int, default=4, help="for each signal and command")
    parser.add_argument("--minutes", type=float, default=120.0, help="after which it stops")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    restart_with_failing_disk()

    from crash.material import Material
    from crash.trials import Outcomes

    until = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes = Outcomes(options.out / "outcomes.jsonl")
    material = Material(options.out.resolve() / "work")
    complete = all(outcomes.run(trials, until) for trials in chosen(options, material))
    print_section(
        "# Crash safety",
        "Is anything lost or damaged when processes are killed, disks fill up and bytes flip?",
        "Trainings of seconds at 16 px. Each trial is one kill, flip, failure, signal or pair of writers; it"
        " is a fault where a command ends in a traceback, damage passes unnoticed, a result is half-written,"
        " the same command cannot be repeated, or a training that continues ends with other bits.",
    )
    print_table(("what was tried", "trials", "faults"), outcomes.rows())
    if wrong := outcomes.wrong():
        print_table(("trial", "fault"), [(name, fault.replace("\n", " ")[:200]) for name, fault in wrong])
    print_command()
    if not complete:
        note("stopped before the end; the same command goes on")
    if wrong or not complete:
        raise SystemExit(1)


def chosen(options, material) -> Iterator:
    """The trials of the chosen parts."""
    from crash import disk, flips, folders, kills, signals, writers

    if "kills" in options.parts:
        yield kills.trials(material, options.kills, options.ranks, options.seed)
    if "flips" in options.parts:
        yield flips.trials(material, options.places, options.seed)
    if "disk" in options.parts:
        yield disk.trials(material, options.writes, options.commands)
    if "folders" in options.parts:
        yield folders.trials(material)
    if "signals" in options.parts:
        yield signals.trials(material, options.moments, options.seed, options.commands)
    if "writers" in options.parts:
        yield writers.trials(material)


if __name__ == "__main__":
    main()
