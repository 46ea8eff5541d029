"""The studio's temporary files: how much they may take, and what is removed when."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

QUOTA = 2 * 2**30
"""Bytes that all temporary files together may take."""

SECONDS_KEPT = 3600.0
"""After the last use of a temporary file, it may be removed."""

SECONDS_BETWEEN = 300.0
"""Between two looks at how much there is."""


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
        if self.room(size) < size:
            yield False
            return
        self._coming.append(size)
        try:
            yield True
        finally:
            self._coming.remove(size)
            if not self._coming:
                self._remove_partial()

    def room(self, wanted: int) -> int:
        """How many of so many bytes fit. Only where not all do, files that were not used for `SECONDS_KEPT`
        are removed, the oldest first, until they do.
        """
        files = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    about = path.stat()
                    files.append((about.st_mtime, about.st_size, path))
        left = self.quota - sum(self._coming) - sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if left >= wanted or time.time() - used <= SECONDS_KEPT:
                break
            with suppress(OSError):
                path.unlink()
                left += size
                if path.parent != self.folder:
                    path.parent.rmdir()
        return max(min(left, wanted), 0)

    def keep_room(self, stop: threading.Event) -> None:
        """Until told to stop, remove what is too much: what the page makes counts as well."""
        while not stop.wait(SECONDS_BETWEEN):
            self.room(self.quota // 2)

    def _remove_partial(self) -> None:
        # Gradio writes an upload into a file without a suffix and moves it into a folder when it is whole.
        for path in self.folder.glob("tmp*"):
            if path.is_file() and not path.suffix:
                path.unlink(missing_ok=True)
