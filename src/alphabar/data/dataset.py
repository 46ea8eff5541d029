"""Pictures decoded once: a memory-mapped uint8 array that knows what it was made from."""

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alphabar.codecs.base import Codec
from alphabar.data import decode
from alphabar.data.items import Item, Skipped, Source, Unread, Unreadable, nothing_in, one_line
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.progress import Progress

VERSION = 1  # of the files written here


CHUNK = 128  # pictures between two progress records


@dataclass(frozen=True)
class Dataset:
    """The items of a data set as its codec stores them, and what is known about each.

    items: (n, *codec.item_shape) of codec.item_dtype, memory-mapped; writing to it does not reach the file.
    labels: (n,) int64, an index into ``classes``, -1 where unknown.
    hashes: (n,) float64 in [0, 1), from the bytes of each file: copies have the same one.
    fingerprint: SHA-256 over pixels, keys and labels.
    """

    name: str
    items: NDArray[np.uint8]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    captions: tuple[str | None, ...]
    attributes: tuple[dict[str, Any], ...]
    skipped: tuple[Skipped, ...]
    fingerprint: str
    hashes: NDArray[np.float64]

    def split(self, held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices (train, held out), each ascending, with about that share held out.

        A picture's side depends on its file's bytes alone: renaming or adding files moves none, and exact
        copies stay together. Raises UsageError unless 0 <= held_out < 1.
        """
        if not 0 <= held_out < 1:
            raise UsageError(f"held_out = {held_out}: a share of the pictures from 0 to below 1")
        held = self.hashes < held_out
        return np.flatnonzero(~held), np.flatnonzero(held)


def cache_root() -> Path:
    """Where caches live: $ALPHABAR_CACHE, else $XDG_CACHE_HOME/alphabar, else ~/.cache/alphabar."""
    if named := os.environ.get("ALPHABAR_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "alphabar"


def prepare(source: Source, codec: Codec, fit: str = "squash") -> Iterator[Progress[Dataset]]:
    """Decode every picture of a source, or find that done; the last record has the dataset.

    codec: what a sample is. fit: "squash", "crop" or "box", see ``decode.FITS``.
    The cache's folder is named after a hash of the source's fingerprint, size and fit. It is written beside
    and renamed, so that an interrupted one is never used and two processes may prepare the same.
    Raises UsageError for a fit that does not exist or boxes that do not, AlphabarError where no picture can
    be read or the cache cannot be written.
    """
    if fit not in decode.FITS:
        raise unknown("fit", fit, decode.FITS)
    if not source.items:
        raise nothing_in(source.name, source.skipped)
    if fit == "box" and not any(item.box for item in source.items):
        notes = "".join(f" ({note})" for note in source.notes)
        raise UsageError(f"{source.name} has no annotated boxes{notes}: use fit squash or crop")
    made_from = [source.fingerprint, [*codec.item_shape], fit, VERSION, decode.VERSION]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    folder = cache_root() / "pictures" / key
    total = len(source.items)
    dataset = _load(folder, source.name, codec)
    if dataset is None:
        try:
            yield from _build(folder, source, codec, fit)
        except OSError as error:
            raise AlphabarError(
                f"cannot write the cache {folder.parent}: {error.strerror or error}"
                " (the environment variable ALPHABAR_CACHE names another place)"
            ) from None
        dataset = _load(folder, source.name, codec, with_unread=True)
    if dataset is None:
        raise AlphabarError(f"the cache {folder} is damaged as soon as it is written: check the disk")
    yield Progress("decoding", total, total, dataset)


def _build(folder: Path, source: Source, codec: Codec, fit: str) -> Iterator[Progress[Dataset]]:
    """Write the cache folder; a damaged one in its place is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        index = _Index(source)
        with (
            open(work / "pictures.npy", "wb") as file,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        ):
            file.write(_npy_header(0, codec))
            for start in range(0, len(source.items), CHUNK):
                chunk = source.items[start : start + CHUNK]
                yield Progress("decoding", start, len(source.items))
                with decode.quietly():
                    results = list(pool.map(lambda item: _read(source, item, codec, fit), chunk))
                for item, result in zip(chunk, results, strict=True):
                    if isinstance(result, Unreadable):
                        index.skipped.append(Skipped(item.key, str(result)))
                        index.unread += isinstance(result, Unread)
                    else:
                        index.add(item, *result)
                        file.write(result[0].tobytes())
            if not index.keys:
                raise nothing_in(source.name, index.skipped)
            file.seek(0)
            file.write(_npy_header(len(index.keys), codec))
            file.flush()
            os.fsync(file.fileno())
        with open(work / "index.json", "w", encoding="utf-8") as out:
            json.dump(index.to_dict(), out)
            out.flush()
            os.fsync(out.fileno())
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
            # another process was faster, with the same pictures
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _read(source: Source, item: Item, codec: Codec, fit: str) -> tuple[NDArray[np.uint8], str] | Unreadable:
    """The pixels of one picture and the hash of its bytes, or why it has none."""
    try:
        data = read(source, item)
        return decode.decode(data, codec.spatial, fit, item.box).pixels, content_hash(data)
    except Unreadable as error:
        return error


def read(source: Source, item: Item) -> bytes | Image.Image:
    """``source.read`` with Unread for every OSError."""
    try:
        return source.read(item)
    except FileNotFoundError:
        raise Unread("vanished: it was there when the folder was listed") from None
    except PermissionError:
        raise Unread("no permission to read it") from None
    except OSError as error:
        raise Unread(f"cannot be read: {error.strerror or one_line(error)}") from None


def content_hash(data: bytes | Image.Image) -> str:
    """SHA-256 of a file's bytes, or of the pixels of a picture that never was a file."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()


def held_out_position(content: str) -> float:
    """Where in [0, 1) a content hash falls; below the held-out share is held out."""
    return (int(content[:16], 16) >> 11) * 2.0**-53


class _Index:
    """What goes into index.json, row by row."""

    def __init__(self, source: Source):
        self.classes = sorted({item.label for item in source.items if item.label is not None}, key=_natural)
        self.skipped = list(source.skipped)
        self.unread = 0
        self.keys: list[str] = []
        self.labels: list[int] = []
        self.captions: list[str | None] = []
        self.attributes: list[dict[str, Any]] = []
        self.hashes: list[float] = []
        self._fingerprint = hashlib.sha256()

    def add(self, item: Item, pixels: NDArray[np.uint8], content: str) -> None:
        self._fingerprint.update(json.dumps([item.key, item.label]).encode())
        self._fingerprint.update(pixels.tobytes())
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
            "skipped": [asdict(skip) for skip in self.skipped],
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
    """The dataset in a cache folder; None where there is none or it is not whole.

    with_unread: take it also where files could not be read when it was made. Nothing about the source tells
    when they can be, so such a cache serves the call that made it and the next one tries again.
    """
    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        # Copy-on-write: torch wraps only writable arrays without a warning, and the file stays as it is.
        pictures = np.load(folder / "pictures.npy", mmap_mode="c", allow_pickle=False)
        n = len(index["keys"])
        rows = [len(index[column]) for column in ("labels", "captions", "attributes", "hashes")]
        size_on_disk = (folder / "pictures.npy").stat().st_size
        whole = size_on_disk == len(_npy_header(n, codec)) + pictures.nbytes and rows == [n] * 4
        if pictures.shape != (n, *codec.item_shape) or pictures.dtype != codec.item_dtype or not whole:
            return None
        if index["unread"] and not with_unread:
            return None
        return Dataset(
            name=name,
            items=pictures,
            keys=tuple(index["keys"]),
            labels=np.array(index["labels"], dtype=np.int64),
            classes=tuple(index["classes"]),
            captions=tuple(index["captions"]),
            attributes=tuple(index["attributes"]),
            skipped=tuple(Skipped(**skip) for skip in index["skipped"]),
            fingerprint=index["fingerprint"],
            hashes=np.array(index["hashes"], dtype=np.float64),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _npy_header(n: int, codec: Codec) -> bytes:
    """The header of a .npy file (format 1.0), of one length whatever n is, so that n can be written last."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(n, *codec.item_shape)}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117).encode() + b"\n"


def _remove_abandoned(parent: Path) -> None:
    """Delete what a killed process left behind more than a day ago."""
    for partial in parent.glob("*.partial-*"):
        with suppress(FileNotFoundError):  # another process may remove it first
            if time.time() - partial.stat().st_mtime > 86_400:
                shutil.rmtree(partial, ignore_errors=True)
