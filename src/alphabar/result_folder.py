"""Folders of results written as they come: the folder itself says how far the work is, and it can go on."""

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import (
    Damaged,
    check_name,
    is_file,
    pack_json,
    parse_json,
    read_document,
    write_document,
    writing,
)
from alphabar.parts import shared_progress
from alphabar.progress import Progress, staged
from alphabar.runtime import own_share, wait_for_others

MOST_RESULTS = 10_000_000
"""Results of one piece of work; a number beyond it is a slip, and their names alone would fill the memory."""

OPTIONS = {"runtime": "--precision"}
"""Keys of the metadata that a person knows by an option of another name."""


def check_count(n: int) -> None:
    """Raises UsageError for more results than there may be."""
    if n > MOST_RESULTS:
        raise UsageError("sampling.too_many_samples", n=n, most=MOST_RESULTS)


class ResultFolder:
    """A folder of results, each in a file of its own that is whole or not there.

    about: the name of the file that is written first and says which results they are.
    metadata: what decides the results, as JSON holds it. names: of their files, in the order of the results.
    later: keys that `conclude` adds to the metadata.
    """

    def __init__(
        self,
        path: Path,
        about: str,
        metadata: Mapping[str, Any],
        names: Sequence[str],
        later: Collection[str] = (),
    ):
        self.path, self.about, self.names, self.later = path, path / about, names, later
        self.metadata = parse_json(pack_json({**metadata, "n": len(names)}), self.about, dict)

    @property
    def n(self) -> int:
        """How many results there will be."""
        return len(self.names)

    def begun(self) -> bool:
        """Whether the same work began the folder.

        Raises AlphabarError where it holds anything else, or results with other settings, and where the name
        of a result is too long for the disk.
        """
        if not is_file(self.about):
            check_free(self.path)
            check_name(self.file(max(range(self.n), key=lambda i: len(self.names[i]))))
            return False
        try:
            there = read_document(self.about, required=False)
        except (OSError, Damaged):
            raise AlphabarError("sampling.unknown_samples", path=self.path, file=self.about.name) from None
        keys = [key for key in {**self.metadata, **there} if key not in self.later]
        changed = [OPTIONS.get(key, key) for key in keys if self.metadata.get(key) != there.get(key)]
        if changed:
            raise AlphabarError("sampling.other_samples", path=self.path, keys=", ".join(changed[:5]))
        return True

    def begin(self) -> None:
        """Makes the folder where it was not begun. Raises as `begun` does."""
        if not self.begun():
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            write_document(self.about, self.metadata)

    def conclude(self, **found: Any) -> None:
        """Adds to the metadata what only all results together tell."""
        write_document(self.about, {**self.metadata, **found})

    def file(self, i: int) -> Path:
        """The file of result i."""
        return self.path / self.names[i]

    def kept(self) -> int:
        """How many results are there."""
        return sum(is_file(self.file(i)) for i in range(self.n))

    def fill(
        self,
        size: int,
        make: Callable[[int, int], Iterator[Progress[Any]]],
        write: Callable[[int, Any], None],
    ) -> Iterator[Progress[Any]]:
        """Makes the results that are not there yet in parts of ``size``, and writes each part once made.

        make: the records of results number ``first`` to ``first + count - 1``, the last one with all of them.
        The parts are always the same, so that the files are those of work that was never stopped, to the bit.
        The folder is begun with the first part that is made. Raises as `begun` does.
        Processes that torchrun started share the parts, of a folder that one of them has begun; each must
        call this, and ends when all parts are there.
        """
        self.begun()
        parts = [range(first, min(first + size, self.n)) for first in range(0, self.n, size)]
        missing = [part for part in parts if not all(is_file(self.file(i)) for i in part)]
        for part, progress in shared_progress(missing, self.n):
            with own_share():
                results = yield from staged(map(progress, make(part.start, len(part))))
                self.begin()
                for i, result in zip(part, results, strict=True):
                    if not is_file(self.file(i)):
                        write(i, result)
        wait_for_others()


def check_free(out: Path) -> None:
    """Raises AlphabarError where a folder for new results cannot be made.

    So it is where it holds something, is the working folder or one around it, lies in a file, or behind links
    that lead in a circle.
    """
    with writing(out):
        place = Path(os.path.realpath(out))
        if any(path.is_symlink() for path in (place, *place.parents)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        there = next(path for path in (place, *place.parents) if path.exists())
        if not there.is_dir():
            raise AlphabarError("sampling.folder_in_file", path=out, file=there)
        if there == place and any(place.iterdir()):
            raise AlphabarError("sampling.folder_not_empty", path=out)
        if Path.cwd().resolve().is_relative_to(place):
            raise AlphabarError("sampling.working_folder", path=out)
