"""One generation of the tab Generate, as files: it can be shown again, and takes no memory."""

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.images import image_grid
from alphabar.messages import Message
from alphabar.studio.elements import picture_grid
from alphabar.studio.pictures import to_show


class Generated(NamedTuple):
    """One generation, as it can be shown again. values: of the controls of the tab's `settings`.

    archive: the samples' files, in a folder of its own, with their previews and a thumbnail beside it, so
    that none of them takes memory. names: of the files in it. said: the line about them.
    """

    model: str
    values: tuple[Any, ...]
    names: tuple[str, ...]
    archive: Path
    said: Message

    @property
    def thumbnail(self) -> Path:
        """The file of a small picture of the first samples."""
        return self.archive.with_name("thumbnail.png")

    @property
    def previews(self) -> Path:
        """The file of the samples as pictures (n, h, w, 3 or 4) uint8."""
        return self.archive.with_name("previews.npy")

    def write(self, files: Mapping[str, bytes], pictures: Tensor) -> None:
        """Write the samples' files, by their names, their previews and a thumbnail."""
        with zipfile.ZipFile(self.archive, "w") as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        np.save(self.previews, np.asarray(pictures))
        to_show(image_grid(pictures[:4])).save(self.thumbnail)

    def file(self, number: int) -> bytes:
        """The file of a sample. Raises AlphabarError where it has been removed."""
        with self._reading(), zipfile.ZipFile(self.archive) as packed:
            return packed.read(self.names[number])

    def grid(self) -> str:
        """The samples as HTML. Raises AlphabarError where they have been removed."""
        with self._reading():
            pictures = np.load(self.previews)
            os.utime(self.archive)  # what is in use is the last to be removed
            os.utime(self.previews)
        files = [self.file(i) for i in range(len(self.names))]
        return picture_grid(pictures, files, self.names, uses=True)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, ValueError, zipfile.BadZipFile):  # the others of files that are damaged
            raise AlphabarError("studio.samples_removed") from None
