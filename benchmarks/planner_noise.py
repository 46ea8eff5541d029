"""Does the budget planner choose the same network whatever else runs on the machine for a moment?

Measures this machine several times, by turns alone and beside a process that burns a core on and off, and
prints a table of what is chosen.

    python benchmarks/planner_noise.py --rounds 3
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alphabar import last, named_recipe, with_settings
from alphabar.codecs import build_codec
from alphabar.formatting import format_count, parse_duration
from alphabar.runtime import default_device, describe_machine, machine_load
from alphabar.training.budget import measure, plan
from common import argument_parser, load_dataset, print_command, print_row, print_section

BURNER = """
import sys, time
on, off = map(float, sys.argv[1:])
while True:
    end = time.perf_counter() + on
    while time.perf_counter() < end:
        pass
    time.sleep(off)
"""


def main() -> None:
    """Measure, choose, print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budgets", default="10m,2h", help="for which a network is chosen, with commas")
    parser.add_argument("--burners", default="0.3,0.3 2,2 5,5", help="seconds on and off")
    parser.add_argument("--data", default="toycars:500")
    options = parser.parse_args()
    recipe = with_settings(named_recipe("lean"), ["data.channels=3"])
    dataset = load_dataset(options.data, build_codec(recipe.data))
    budgets = options.budgets.split(",")
    print_section(
        "## 6. The budget planner beside other programs",
        "Does the budget planner choose the same network whatever else runs on the machine for a moment?",
        f"{options.rounds} rounds, in which measurements of the machine alone and beside a process that burns"
        f" one core, so many seconds on and off, take turns. `lean` at 64 px, {options.data}. Machine:"
        f" {describe_machine(default_device())}; the load is what the system counted over the last minute.",
    )
    print_row(["beside", *budgets, "images/s of the timed networks", "slower on average", "seconds", "load"])
    print_row(["---"] * (5 + len(budgets)))
    for _ in range(options.rounds):
        for burner in ("", *options.burners.split()):
            began = time.monotonic()
            with burning(burner):
                machine = last(measure(dataset, recipe, budget=max(map(parse_duration, budgets))))
            chosen = [plan(machine, recipe, len(dataset.items), parse_duration(b)).chosen for b in budgets]
            print_row(
                [
                    burner.replace(",", " s on, ") + " s off" if burner else "nothing",
                    *(f"{c.size.shape}, batch {c.batch}, {format_count(c.images)} images" for c in chosen),
                    " / ".join(f"{rate:.1f}" for _, rate in machine.speeds),
                    f"{machine.slower:.2f}×",
                    f"{time.monotonic() - began:.0f}",
                    f"{machine_load():.1f}",
                ]
            )
    print()
    print_command()


@contextmanager
def burning(burner: str) -> Iterator[None]:
    """Beside a process that burns a core, "ON,OFF" seconds, while open; beside none for ""."""
    process = subprocess.Popen([sys.executable, "-c", BURNER, *burner.split(",")]) if burner else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
