"""A disk that is full, or fails once, at the writes of every command."""

from collections.abc import Collection, Iterator

from crash.children import Disk, arm, import_for, operations, run
from crash.commands import Command, chosen
from crash.material import Material, leftovers
from crash.trials import Trial

FAILURES = {Disk.FULL: "no space left on the disk", Disk.BROKEN_ONCE: "an input/output error"}


def trials(material: Material, most: int, names: Collection[str] | None) -> Iterator[Trial]:
    """Each command with each failure at every write, or at ``most`` of them where there are more.

    names: of the commands; None for all.
    """
    place = material.folder / "disk"
    for command in chosen(material, place, names):
        command.prepare(material)
        import_for(command.work(), material.folder)
        n = _writes(command, material)
        right = command.result()
        at = sorted({1 + round(i * (n - 1) / (min(n, most) - 1)) for i in range(min(n, most))})
        for failure, words in FAILURES.items():
            for k in at:

                def do(
                    command: Command = command, k: int = k, failure: Disk = failure, right: object = right
                ) -> list[str]:
                    return list(_try(command, material, k, failure, right))

                # Without their number, which differs a little from start to start.
                name = f"disk: {command.name}, {words} at write {k}"
                yield Trial(name, f"{words} in the middle of a command", do)


def _writes(command: Command, material: Material) -> int:
    """How many operations of a command write."""
    command.prepare(material)
    counted = material.folder / "operations"

    def work() -> None:
        try:
            command.work(lambda: arm(command.place, 0, Disk.COUNT))()
        finally:
            counted.write_text(str(operations()))

    ended = run(work, folder=material.folder)
    if ended.code:
        raise SystemExit(f"{command.name} does not work at all: {ended.said}")
    return int(counted.read_text())


def _try(command: Command, material: Material, at: int, disk: Disk, right: object) -> Iterator[str]:
    command.prepare(material)
    ended = run(command.work(lambda: arm(command.place, at, disk)), folder=material.folder)
    if ended.crashed:
        yield ended.crashed
    if left := leftovers(command.place):
        yield f"left unfinished: {left[0].name}"
    if command.is_done:
        if command.result() != right:
            yield "half-written: other files than without"
        return
    again = run(command.work(), folder=material.folder)
    if again.code:
        yield f"the same command afterwards: {again.crashed or again.said.strip()[-200:]}"
    elif command.result() != right:
        yield "the same command afterwards ends with another result"
