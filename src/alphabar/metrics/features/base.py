"""Features of pictures, as a network computes them, and the logits of its classes.

Distances are comparable only between features of one extractor, whose ``protocol`` says everything that
decides them: network, weights, resize, normalization.
"""

import hashlib
import shutil
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.files import warn_of_cache, write_file, writing
from alphabar.memory import halving
from alphabar.messages import message
from alphabar.parts import Parts
from alphabar.progress import Progress
from alphabar.runtime import Runtime, wait_for_others

PART = 128  # pictures whose features are kept together


class Features(NamedTuple):
    """The output of an extractor, float32 on the CPU."""

    features: Tensor
    """(n, dim)"""
    logits: Tensor | None = None
    """(n, classes), or None where the network has no classes."""

    def chosen(self, index: Any) -> "Features":
        """The features of some of the pictures; index: a tensor, array or slice of their numbers."""
        return Features(self.features[index], None if self.logits is None else self.logits[index])


class Extractor(Protocol):
    """A network that extracts features from pictures.

    name: what reports call it; it carries whatever its user changed. dim: of the features.
    protocol: everything that decides the features.
    """

    name: str
    dim: int
    protocol: str

    def __call__(self, pictures: Tensor) -> Features:
        """The features of one batch of uint8 pictures (n, h, w, 3)."""
        ...


def extract(
    extractor: Extractor,
    pictures: Any,
    *,
    cache: Path | None = None,
    kept: Path | None = None,
    batch: int = 64,
) -> Iterator[Progress[Features]]:
    """The features of all pictures, with progress after each batch; the last record holds them.

    pictures: uint8 (n, h, w, 3), a tensor, array, memmap or `Rows`, n ≥ 1.
    cache: a folder. The features are kept there under a hash of the pictures and the protocol, so that
        those of the same reference are computed once. A damaged file is replaced, with a warning.
    kept: a folder for the features of these pictures alone, so that work that is stopped goes on; whoever
        names it removes it.
    batch: pictures at a time, at most; fewer where memory does not suffice.
    With a folder, processes that torchrun started share the work: each must call this.
    Raises AlphabarError for anything that is not pictures.
    """
    shape = tuple(pictures.shape)
    if len(shape) != 4 or shape[3] != 3 or "uint8" not in str(pictures.dtype):
        raise AlphabarError("metrics.not_pictures", dtype=pictures.dtype, shape=shape)
    n = shape[0]
    if n == 0:
        raise AlphabarError("metrics.no_pictures")
    file = cache / f"{extractor.name}-{_fingerprint(extractor, pictures)}.safetensors" if cache else None
    features = _read(file) if file and file.exists() else None
    if features is None:
        key = hashlib.sha256(extractor.protocol.encode()).hexdigest()[:16]
        folder = file.with_suffix(".parts") if file else kept and kept / key
        features = yield from _extract(extractor, pictures, folder, batch)
        if file and folder and Runtime().is_main:
            _write(file, features)
            shutil.rmtree(folder, ignore_errors=True)
    yield Progress(message("metrics.extracting"), n, n, features)


def _extract(
    extractor: Extractor, pictures: Any, folder: Path | None, batch: int
) -> Generator[Progress[Any], None, Features]:
    def make(part: range) -> Iterator[Progress[dict[str, Tensor]]]:
        def work(at: range) -> Iterator[Features]:
            yield extractor(_tensor(pictures[at.start : at.stop]))

        found = []
        for at, features in halving(part, batch, work):
            found.append({k: v for k, v in features._asdict().items() if v is not None})
            if at.stop < part.stop:
                yield Progress(message("metrics.extracting"), at.stop - part.start, len(part))
        together = {name: torch.cat([each[name] for each in found]) for name in found[0]}
        yield Progress(message("metrics.extracting"), len(part), len(part), together)

    n = len(pictures)
    if folder is None:  # this process alone needs them
        for record in make(range(n)):
            if record.result is not None:
                return Features(**record.result)
            yield record
    parts = Parts(folder, n, PART)
    yield from parts.fill(make)
    features = Features(parts.all("features"), parts.all("logits") if "logits" in parts.names() else None)
    wait_for_others()  # the main process may remove the parts now
    return features


def _tensor(pictures: Any) -> Tensor:
    return pictures if isinstance(pictures, Tensor) else torch.tensor(np.asarray(pictures))


def _fingerprint(extractor: Extractor, pictures: Any) -> str:
    digest = hashlib.sha256(f"{extractor.protocol}/{tuple(pictures.shape)}".encode())
    for start in range(0, len(pictures), 1024):
        digest.update(np.asarray(pictures[start : start + 1024]).tobytes())
    return digest.hexdigest()[:32]


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path) -> Features | None:
    """The features in a cache file; None, with a warning, where it is damaged."""
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            intact = (stored.metadata() or {}).get("sha256") == _checksum(tensors)
    except (OSError, SafetensorError, TypeError):  # TypeError: of numbers that NumPy does not have
        intact = False
    if intact:
        return Features(tensors["features"], tensors.get("logits"))
    warn_of_cache(file)
    return None


def _write(file: Path, features: Features) -> None:
    """Writes a cache file, whole or not at all. A cache that cannot be written only costs time: it warns."""
    tensors = {name: value for name, value in features._asdict().items() if value is not None}
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, save(tensors, metadata={"sha256": _checksum(tensors)}))
    except AlphabarError as error:
        warnings.warn(message("metrics.not_cached", problem=error.message), stacklevel=3)
