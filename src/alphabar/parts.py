"""Work in parts, which processes share and which are kept until they are used; and rows read when needed."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.files import Damaged, interpreting, read_folder, warn_of_cache, write_folder
from alphabar.progress import Progress, staged
from alphabar.runtime import Runtime, own_share, share, wait_for_others
from alphabar.tensor_files import pack_tensors, unpack_tensors

FILE = "rows.safetensors"

AT_ONCE = 512
"""Rows that are read at a time where all are gone through."""


class Rows:
    """Rows of a tensor that are read when they are indexed, and never all held: indexed like a tensor.

    n: how many. read: the rows (k, …) of k indices.
    """

    def __init__(self, n: int, read: Callable[[NDArray[np.int64]], Tensor]):
        self.n, self.read = n, read

    @classmethod
    def of(cls, array: Any) -> "Rows":
        """The rows of an array, which may be memory-mapped, of a tensor, or rows as they are."""
        if isinstance(array, Rows):
            return array
        return cls(len(array), lambda index: torch.as_tensor(array[index]))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Tensor:
        chosen = np.arange(self.n)[np.asarray(index) if isinstance(index, Tensor | list) else index]
        return self.read(chosen) if chosen.ndim else self.read(chosen[None])[0]

    def __iter__(self) -> Iterator[Tensor]:
        for rows in self.split(AT_ONCE):
            yield from rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (n, …) of all rows."""
        return (self.n, *self[:1].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return self[:1].dtype

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows in turn, ``size`` at a time."""
        for first in range(0, self.n, size):
            yield self[first : first + size]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """These rows after a change, which is made when they are read."""
        return Rows(self.n, lambda index: change(self.read(index)))

    def chosen(self, index: NDArray[np.int64]) -> "Rows":
        """The rows of these indices (k,)."""
        return Rows(len(index), lambda at: self.read(index[at]))


class Parts:
    """Tensors with n rows each, computed part by part and kept in a folder until the work is done.

    Each part is a folder of its own with checksums; a damaged one is made again, with a warning.
    Processes that torchrun started share the parts through the folder.
    folder: of the parts; None holds them in memory. n: rows in all. size: rows of a part.
    """

    def __init__(self, folder: Path | None, n: int, size: int):
        self.folder, self.n, self.size = folder, n, size
        self._held: dict[int, dict[str, Tensor]] = {}  # what no folder took
        self._last: tuple[int, dict[str, Tensor]] | None = None  # what was read last

    def fill(
        self, make: Callable[[range], Iterator[Progress[dict[str, Tensor]]]]
    ) -> Generator[Progress[Any], None, None]:
        """Makes the parts that are missing.

        make: the records of some rows, the last one with their tensors by name.
        Every process must call it, and it ends when all parts are there. Raises AlphabarError where one of
        several processes cannot write; one alone then holds its parts in memory.
        """
        parts = [range(first, min(first + self.size, self.n)) for first in range(0, self.n, self.size)]
        missing = [part for part in parts if not self._is_there(part)]
        for part, progress in shared_progress(missing, self.n):
            with own_share():
                self._keep(part, (yield from staged(map(progress, make(part)))))
        wait_for_others()

    def rows(self, name: str) -> Rows:
        """The rows of the tensor of that name, read when they are needed."""

        def read(index: NDArray[np.int64]) -> Tensor:
            found: Tensor | None = None
            parts = index // self.size
            for number in np.unique(parts):
                here = np.flatnonzero(parts == number)
                rows = self._part(int(number) * self.size)[name][index[here] - number * self.size]
                if found is None:
                    found = rows.new_empty(len(index), *rows.shape[1:])
                found[here] = rows
            assert found is not None
            return found

        return Rows(self.n, read)

    def all(self, name: str) -> Tensor:
        """All rows of the tensor of that name (n, …), held."""
        rows = self.rows(name)
        every = torch.empty(rows.shape, dtype=rows.dtype)
        for first in range(0, self.n, self.size):
            every[first : first + self.size] = rows[first : first + self.size]
        return every

    def total(self, name: str) -> float:
        """The sum over all parts of a tensor of one number."""
        return sum(self._part(first)[name].item() for first in range(0, self.n, self.size))

    def names(self) -> Sequence[str]:
        """The names of the tensors."""
        return list(self._part(0))

    def _place(self, part: range) -> Path | None:
        return self.folder and self.folder / f"{part.start:09d}-{len(part)}"

    def _is_there(self, part: range) -> bool:
        try:
            self._part(part.start)
        except Damaged:  # missing, most often
            if (place := self._place(part)) is not None and place.exists():
                warn_of_cache(place)
            return False
        return True

    def _part(self, first: int) -> dict[str, Tensor]:
        """The tensors of the part whose first row is that. Raises Damaged where it is not whole."""
        if first in self._held:
            return self._held[first]
        if self._last is None or self._last[0] != first:
            place = self._place(range(first, min(first + self.size, self.n)))
            if place is None:
                raise Damaged("files.incomplete", path=self.folder, missing=FILE)
            with interpreting(place):
                self._last = first, unpack_tensors(read_folder(place)[FILE])
        return self._last[1]

    def _keep(self, part: range, tensors: dict[str, Tensor]) -> None:
        place = self._place(part)
        try:
            if place is not None:
                write_folder(place, {FILE: pack_tensors(tensors)})
                return
        except AlphabarError:
            if Runtime().world_size > 1:
                raise
        self._held[part.start] = tensors


def shared_progress(
    missing: Sequence[range], total: int
) -> Iterator[tuple[range, Callable[[Progress[Any]], Progress[Any]]]]:
    """The missing parts of a work that fall to this process (`share`), each with a change of its records.

    total: rows of the whole work, of which the changed records count those that are done, by all processes if
    the others are as fast.
    """
    mine = share(missing)
    rows, own = sum(map(len, missing)), max(1, sum(map(len, mine)))
    before = 0
    for part in mine:

        def progress(record: Progress[Any], part: range = part, before: int = before) -> Progress[Any]:
            done = before + record.done / record.total * len(part)
            return replace(record, done=total - rows + done * rows / own, total=total)

        yield part, progress
        before += len(part)
