"""Where a training's signals come from: items encoded when they are needed, or the stored latents of a codec
that is learned."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphabar.codecs.base import Codec, LearnedCodec
from alphabar.data.dataset import Dataset, cache_root
from alphabar.files import Damaged, read_document, warn_of_cache, write_document, writing_folder
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.runs.model import fingerprint
from alphabar.runtime import main_first

AT_ONCE = 128  # items between two progress records
FILES = ("latents.npy", "about.json")


class Signals(Protocol):
    """The signals of a data set's items."""

    def __call__(self, rows: NDArray[np.int64], mirrored: Tensor | None = None) -> Tensor:
        """The signals (n, *shape) of items, by their rows (n,); mirrored: which of them, (n,) bool."""
        ...


class ItemSignals:
    """Signals that are encoded when they are needed."""

    def __init__(self, dataset: Dataset, codec: Codec):
        self.dataset, self.codec = dataset, codec

    def __call__(self, rows: NDArray[np.int64], mirrored: Tensor | None = None) -> Tensor:
        items = torch.from_numpy(self.dataset.items[rows])
        if mirrored is not None:
            items = self.codec.flip(items, mirrored)
        return self.codec.encode(items)


class StoredLatents:
    """Latents that were encoded once; mirrored, they are about those of mirrored pictures (`Autoencoding`).

    latents: (n, channels, height, width) of all items, float16.
    """

    def __init__(self, latents: NDArray[np.float16]):
        self.latents = latents

    def __call__(self, rows: NDArray[np.int64], mirrored: Tensor | None = None) -> Tensor:
        z = torch.from_numpy(self.latents[rows]).float()
        return z if mirrored is None else torch.where(mirrored[:, None, None, None], z.flip(3), z)


def signals_of(dataset: Dataset, codec: Codec) -> Iterator[Progress[Signals]]:
    """The signals of a data set; the last record has them. A learned codec's are encoded and stored first.

    Raises AlphabarError where the cache cannot be written.
    """
    stage, n = message("training.stage_latents"), len(dataset.items)
    if not isinstance(codec, LearnedCodec):
        # Nothing is encoded before: the bar of the training stays where it begins.
        yield Progress(message("training.stage"), 0, 1, ItemSignals(dataset, codec))
        return
    known = [dataset.fingerprint, fingerprint(codec.weights()), codec.name, codec.version]
    folder = cache_root() / "latents" / hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]
    with main_first():
        latents = _load(folder, dataset, codec)
        if latents is None:
            yield from _store(folder, dataset, codec)
            latents = _load(folder, dataset, codec)
    assert latents is not None
    yield Progress(stage, n, n, StoredLatents(latents))


def _store(folder: Path, dataset: Dataset, codec: Codec) -> Iterator[Progress[Signals]]:
    n, sums = len(dataset.items), hashlib.sha256()
    with writing_folder(folder, existing="replace", flush=True) as beside:
        with open(beside / FILES[0], "wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (n, *codec.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, n, AT_ONCE):
                yield Progress(message("training.stage_latents"), first, n)
                z = codec.encode(torch.from_numpy(dataset.items[first : first + AT_ONCE]))
                file.write(part := z.half().numpy().tobytes())
                sums.update(part)
        write_document(beside / FILES[1], {"latents": sums.hexdigest()})


def _load(folder: Path, dataset: Dataset, codec: Codec) -> NDArray[np.float16] | None:
    """The latents in a folder of the cache; None where there are none, or a byte of them has changed."""
    if not folder.exists():
        return None
    try:
        about = read_document(folder / FILES[1])
        latents = np.load(folder / FILES[0], mmap_mode="c", allow_pickle=False)
        fits = latents.shape == (len(dataset.items), *codec.shape) and latents.dtype == np.float16
        if fits and hashlib.sha256(latents.data).hexdigest() == about.get("latents"):
            return latents
    except (OSError, ValueError, EOFError, Damaged):
        pass
    warn_of_cache(folder)
    return None
