"""A folder that is replaced on a disk that fails, or by a process that is killed, at every operation."""

import shutil
from collections.abc import Iterator

from alphabar import AlphabarError
from alphabar.files import read_folder, write_folder
from crash.children import Disk, arm, operations, run
from crash.material import Material, leftovers
from crash.trials import Trial

OLD, NEW = {"a": b"old" * 99}, {"a": b"new" * 99}
FAILURES = {Disk.FULL: "no space", Disk.BROKEN_ONCE: "an input/output error", Disk.KILL: "a kill"}


def trials(material: Material) -> Iterator[Trial]:
    """Each failure at each operation: the old folder or the new one must be there, whole."""
    for disk, words in FAILURES.items():
        for at in range(1, _replaced(material, 0, Disk.COUNT) + 1):

            def do(disk: Disk = disk, at: int = at) -> list[str]:
                _replaced(material, at, disk)
                return list(_faults(material, disk))

            yield Trial(f"folders: {words} at operation {at}", "a folder replaced while the disk fails", do)


def _replaced(material: Material, at: int, disk: Disk) -> int:
    """Replaces a folder in a child; returns how many operations there were."""
    place, counted = material.folder / "folders", material.folder / "operations"
    shutil.rmtree(place, ignore_errors=True)
    write_folder(place / "x", OLD)

    def work() -> None:
        arm(place, at, disk)
        try:
            write_folder(place / "x", NEW)
        except AlphabarError:
            pass
        finally:
            counted.write_text(str(operations()))

    run(work, folder=material.folder)
    return int(counted.read_text())


def _faults(material: Material, disk: Disk) -> Iterator[str]:
    place = material.folder / "folders"
    try:
        if read_folder(place / "x") not in (OLD, NEW):
            yield "neither the old folder nor the new one"
    except AlphabarError as error:
        yield error.message
    if disk != Disk.KILL and leftovers(place):
        yield f"left unfinished: {leftovers(place)[0].name}"
