"""SIGTERM, SIGINT and SIGHUP at random moments of every command."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator

from crash.children import SIGNALS, Ended, run, sending
from crash.commands import Command, chosen
from crash.material import Material, leftovers
from crash.trials import Trial

STARTS = 4  # for each signal: real processes that are stopped while they start


def trials(material: Material, moments: int, seed: int, names: Collection[str] | None) -> Iterator[Trial]:
    """Each command, each signal, at ``moments`` random moments, sent once or twice; and starting ones.

    names: of the commands; None for all.
    """
    place = material.folder / "signals"
    for command in chosen(material, place, names):
        command.prepare(material)
        undisturbed = run(command.work(), folder=material.folder)
        right = command.result()
        for number in SIGNALS:
            for moment in range(moments):
                name = f"signals: {command.name}, {number.name}, moment {moment} of seed {seed}"
                rng = random.Random(name)
                after = rng.uniform(0, undisturbed.seconds)
                numbers = (number,) * rng.choice((1, 1, 2))

                def do(
                    command: Command = command,
                    numbers: tuple[signal.Signals, ...] = numbers,
                    after: float = after,
                    right: object = right,
                ) -> list[str]:
                    return list(_try(command, material, numbers, after, right))

                yield Trial(name, f"{number.name} in the middle of a command", do)
    for number in SIGNALS:
        for start in range(STARTS):
            after = random.Random(f"{seed} {start}").uniform(0.2, 3)

            def begin(number: signal.Signals = number, after: float = after) -> list[str]:
                return _while_starting(material, number, after)

            yield Trial(f"signals: start of sample, {number.name}, {start}", "a signal while starting", begin)


def _try(
    command: Command, material: Material, numbers: tuple[signal.Signals, ...], after: float, right: object
) -> Iterator[str]:
    command.prepare(material)
    ended = run(command.work(), folder=material.folder, meanwhile=sending(numbers, after))
    if "Traceback" in ended.said or (ended.code < 0 and -ended.code not in numbers):
        yield ended.crashed
    if ended.code >= 0 and (left := leftovers(command.place)):
        yield f"left unfinished: {left[0].name}"
    if command.is_done:
        if command.result() != right:
            yield "half-written: other files than without"
        return
    again = run(command.work(), folder=material.folder)
    if again.code and ended.code != 0:
        yield f"the same command afterwards: {again.crashed or again.said.strip()[-200:]}"
    elif command.result() != right:
        yield "the same command afterwards ends with another result"


def _while_starting(material: Material, number: signal.Signals, after: float) -> list[str]:
    arguments = ("sample", material.model, "-n", 1, "--steps", 2, "--out", material.folder / "starting")
    child = subprocess.Popen(
        [sys.executable, "-m", "alphabar.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(after)
    child.send_signal(number)
    said, _ = child.communicate(timeout=120)
    crashed = Ended(0, said, 0).crashed
    subprocess.run(["rm", "-rf", material.folder / "starting"], check=True)
    return [crashed] if crashed else []
