"""The studio's temporary files: how much they may take, and what is removed when."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

QUOTA = 2 * 2**30
"""Bytes that all temporary files together may take."""

SECONDS_KEPT = 3600.0
"""After which a temporary file may be removed."""


class TemporaryFiles:
    """The folder of what browsers upload and may read.

    quota: bytes that all files, and the uploads on their way, may take together.
    """

    def __init__(self, folder: Path, quota: int = QUOTA):
        self.folder, self.quota = folder.resolve(), quota
        self._coming: list[int] = []  # bytes of the uploads on their way

    @contextmanager
    def upload(self, size: int) -> Iterator[bool]:
        """While an upload of at most so many bytes comes in; whether there is room for it.

        What an upload leaves half-written, because it breaks off or is too large, is removed afterwards.
        """
        self.remove_old()
        if self.used() + sum(self._coming) + size > self.quota:
            yield False
            return
        self._coming.append(size)
        try:
            yield True
        finally:
            self._coming.remove(size)
            if not self._coming:
                self._remove_partial()

    def used(self) -> int:
        """Bytes of all files."""
        return sum(_size(path) for path in self.folder.rglob("*"))

    def remove_old(self) -> None:
        """Remove the files that are older than `SECONDS_KEPT`."""
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > SECONDS_KEPT:
                    path.unlink()

    def _remove_partial(self) -> None:
        # Gradio writes an upload into a file without a suffix and moves it into a folder when it is whole.
        for path in self.folder.glob("tmp*"):
            if path.is_file() and not path.suffix:
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
