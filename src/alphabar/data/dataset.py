"""Items decoded once: a memory-mapped array, as the codec stores them, that knows what it was made from."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from alphabar.codecs.base import (
    Codec,
    Reading,
    Unread,
    Unreadable,
    check_codec,
    check_item,
    quietly,
    reader_of,
)
from alphabar.data.items import Item, Skipped, Source, content_hash, held_out_position, nothing_in, read
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.files import warn_of_cache
from alphabar.messages import Message, message
from alphabar.progress import Progress

VERSION = 4  # of the files written here
CHUNK = 128  # items between two progress records
CHECKED = 4  # items on which the codec is checked


@dataclass(frozen=True)
class Dataset:
    """The items of a data set as its codec stores them, and what is known about each.

    items: (n, *codec.item_shape) of codec.item_dtype, memory-mapped; writing to it does not reach the file.
    labels: (n,) int64, an index into ``classes``, -1 where unknown.
    hashes: (n,) float64 in [0, 1), from the bytes of each file: copies have the same one.
    fingerprint: SHA-256 over items, keys and labels.
    remarks: what reading changed, by the identifier of its message, and in how many items.
    """

    name: str
    items: NDArray[Any]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    captions: tuple[str | None, ...]
    attributes: tuple[dict[str, Any], ...]
    skipped: tuple[Skipped, ...]
    fingerprint: str
    hashes: NDArray[np.float64]
    remarks: Mapping[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> list[Message]:
        """Sentences for a person about what reading changed, such as transparency laid on white."""
        size = "×".join(map(str, dict.fromkeys(self.items.shape[1:-1])))  # of pictures: "64", or "64×128"
        return [
            message(name, count=n, total=len(self.keys), size=size)
            for name, n in sorted(self.remarks.items())
        ]

    def split(self, held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices (train, held out), each ascending, with about that share held out.

        An item's side depends on its file's bytes alone: renaming or adding files moves none, and exact
        copies stay together. Raises UsageError unless 0 <= held_out < 1.
        """
        if not 0 <= held_out < 1:
            raise UsageError("data.held_out", held_out=held_out)
        held = self.hashes < held_out
        return np.flatnonzero(~held), np.flatnonzero(held)


def cache_root() -> Path:
    """Where caches live: $ALPHABAR_CACHE, else $XDG_CACHE_HOME/alphabar, else ~/.cache/alphabar."""
    if named := os.environ.get("ALPHABAR_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "alphabar"


def prepare(source: Source, codec: Codec, fit: str = "squash") -> Iterator[Progress[Dataset]]:
    """Decode every item of a source, or find that done; the last record has the dataset.

    codec: what a sample is. fit: one of ``codec.fits``.
    The cache's folder is named after a hash of the source's fingerprint, the codec and the fit. It is written
    beside and renamed, so that an interrupted one is never used and two processes may prepare the same.
    Raises UsageError for a fit that does not exist, boxes that do not, and a codec that does not keep its
    promises; AlphabarError where no file can be read or the cache cannot be written.
    """
    codec = reader_of(codec)
    if fit not in codec.fits:
        raise unknown("fit", fit, codec.fits)
    if not source.items:
        raise nothing_in(source.name, source.skipped)
    if fit == "box" and not any(item.box for item in source.items):
        notes = "".join(f" ({note})" for note in source.notes)
        raise UsageError("data.no_boxes", name=source.name, notes=notes)
    made_from = [source.fingerprint, codec.cache_key, fit, VERSION]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    folder = cache_root() / "datasets" / key
    total = len(source.items)
    dataset = _load(folder, source.name, codec)
    if dataset is None:
        if folder.exists() and _load(folder, source.name, codec, with_unread=True) is None:
            warn_of_cache(folder)
        try:
            yield from _build(folder, source, codec, fit)
        except OSError as error:
            raise AlphabarError(
                "data.cache_unwritable", folder=folder.parent, error=error.strerror or str(error)
            ) from None
        dataset = _load(folder, source.name, codec, with_unread=True)
    if dataset is None:
        raise AlphabarError("data.cache_damaged", folder=folder)
    check_codec(codec, dataset.items[:CHECKED])
    yield Progress(message("data.stage_decoding"), total, total, dataset)


def _build(folder: Path, source: Source, codec: Codec, fit: str) -> Iterator[Progress[Dataset]]:
    """Write the cache folder; a damaged one in its place is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        index = _Index(source)
        with open(work / "items.npy", "wb") as file:
            yield from _write_items(file, index, source, codec, fit)
            _flush(file)
        with open(work / "index.json", "wb") as file:
            file.write(json.dumps(index.to_dict()).encode())
            _flush(file)
        with open(work / "sums.json", "wb") as file:
            file.write(json.dumps(_checksums(work)).encode())
            _flush(file)
        if folder.exists() and _load(folder, source.name, codec) is None:
            aside = folder.with_name(f"{work.name}.aside")
            with suppress(FileNotFoundError):  # another process may do the same
                folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            # another process was faster, with the same items
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of the files of a cache. A gigabyte takes a second, of what training reads anyway."""
    sums = {}
    for name in ("items.npy", "index.json"):
        with open(folder / name, "rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _write_items(
    file: BinaryIO, index: "_Index", source: Source, codec: Codec, fit: str
) -> Iterator[Progress[Dataset]]:
    """Read every item, write it to the .npy file as it comes and enter it in the index.

    A memory-mapped file would be shorter to write, but kill the process where the disk is full.
    """
    _write_header(file, codec, 0)
    begin = file.tell()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(source.items), CHUNK):
            chunk = source.items[start : start + CHUNK]
            yield Progress(message("data.stage_decoding"), start, len(source.items))
            with quietly():
                results = list(pool.map(lambda item: _read(source, item, codec, fit), chunk))
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, Unreadable):
                    index.skip(item, result)
                else:
                    index.add(item, *result)
                    file.write(result[0].item.tobytes())
    if not index.keys:
        raise nothing_in(source.name, index.skipped)
    file.seek(0)
    _write_header(file, codec, len(index.keys))
    assert file.tell() == begin, "NumPy leaves room for the number of rows to grow"


def _write_header(file: BinaryIO, codec: Codec, rows: int) -> None:
    """The header of a .npy file, whose length does not depend on the number of rows."""
    shape = (rows, *codec.item_shape)
    descr = np.lib.format.dtype_to_descr(codec.item_dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read(source: Source, item: Item, codec: Codec, fit: str) -> tuple[Reading, str] | Unreadable:
    """One item and the hash of its file's bytes, or why it has none."""
    try:
        data = read(source, item)
        reading = codec.read(data, fit, item.box)
    except Unreadable as error:
        return error
    check_item(codec, reading.item)
    return reading, content_hash(data)


class _Index:
    """What goes into index.json, row by row."""

    def __init__(self, source: Source):
        self.classes = sorted({item.label for item in source.items if item.label is not None}, key=_natural)
        self.skipped = list(source.skipped)
        self.unread = 0
        self.remarks: Counter[str] = Counter()
        self.keys: list[str] = []
        self.labels: list[int] = []
        self.captions: list[str | None] = []
        self.attributes: list[dict[str, Any]] = []
        self.hashes: list[float] = []
        self._fingerprint = hashlib.sha256()

    def skip(self, item: Item, reason: Unreadable) -> None:
        self.skipped.append(Skipped(item.key, reason.message))
        self.unread += isinstance(reason, Unread)

    def add(self, item: Item, reading: Reading, content: str) -> None:
        self._fingerprint.update(json.dumps([item.key, item.label]).encode())
        self._fingerprint.update(reading.item.tobytes())
        self.remarks.update(reading.remarks)
        self.keys.append(item.key)
        self.labels.append(-1 if item.label is None else self.classes.index(item.label))
        self.captions.append(item.caption)
        self.attributes.append(dict(item.attributes))
        self.hashes.append(held_out_position(content))

    def to_dict(self) -> dict[str, Any]:
        return {
            "fingerprint": self._fingerprint.hexdigest(),
            "classes": self.classes,
            "unread": self.unread,
            "skipped": [skip.to_dict() for skip in self.skipped],
            "remarks": self.remarks,
            "keys": self.keys,
            "labels": self.labels,
            "captions": self.captions,
            "attributes": self.attributes,
            "hashes": self.hashes,
        }


def _natural(label: str) -> list[tuple[int, int | str]]:
    """A sort key that puts class 10 after class 9."""
    parts = re.split(r"(\d+)", label)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def _load(folder: Path, name: str, codec: Codec, with_unread: bool = False) -> Dataset | None:
    """The dataset in a cache folder; None where there is none or a byte of it has changed.

    with_unread: take it also where files could not be read when it was made. Nothing about the source tells
    when they can be, so such a cache serves the call that made it and the next one tries again.
    """
    try:
        if json.loads((folder / "sums.json").read_bytes()) != _checksums(folder):
            return None
        index = json.loads((folder / "index.json").read_text("utf-8"))
        # Copy-on-write: torch wraps only writable arrays without a warning, and the file stays as it is.
        items = np.load(folder / "items.npy", mmap_mode="c", allow_pickle=False)
        n = len(index["keys"])
        rows = [len(index[column]) for column in ("labels", "captions", "attributes", "hashes")]
        size_on_disk = (folder / "items.npy").stat().st_size
        whole = size_on_disk == items.offset + items.nbytes and rows == [n] * 4
        if items.shape != (n, *codec.item_shape) or items.dtype != codec.item_dtype or not whole:
            return None
        if index["unread"] and not with_unread:
            return None
        return Dataset(
            name=name,
            items=items,
            keys=tuple(index["keys"]),
            labels=np.array(index["labels"], dtype=np.int64),
            classes=tuple(index["classes"]),
            captions=tuple(index["captions"]),
            attributes=tuple(index["attributes"]),
            skipped=tuple(Skipped.from_dict(skip) for skip in index["skipped"]),
            fingerprint=index["fingerprint"],
            hashes=np.array(index["hashes"], dtype=np.float64),
            remarks=index["remarks"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError):
        return None


def _remove_abandoned(parent: Path) -> None:
    """Delete what a killed process left behind more than a day ago."""
    for partial in parent.glob("*.partial-*"):
        with suppress(FileNotFoundError):  # another process may remove it first
            if time.time() - partial.stat().st_mtime > 86_400:
                shutil.rmtree(partial, ignore_errors=True)
