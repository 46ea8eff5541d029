"""Folders that are either whole or not there: written beside, flushed, checksummed, renamed.

torch.save truncates its target before it writes and safetensors never flushes to disk; neither notices
a flipped bit. Here every file of a folder is listed with its SHA-256 in MANIFEST.json, the folder gets
its name only once all of it is on the disk, and reading checks every byte. Nothing is pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError

MANIFEST = "MANIFEST.json"


class Damaged(AlphabarError):
    """A folder that is incomplete or whose bytes are not those that were written."""


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` (name → bytes) as the folder ``path``, replacing one that is there.

    A kill or a full disk at any moment leaves the old folder or the new one, and at worst a stray
    ``.writing-…`` folder beside it, which the next write removes. Raises AlphabarError where the disk
    is full or read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".writing-{path.name}"
    old = path.parent / f".old-{path.name}"
    try:
        for leftover in (beside, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        beside.mkdir()
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for name, data in {**files, MANIFEST: json.dumps(sums, indent=1).encode()}.items():
            _write_flushed(beside / name, data)
        _flush_folder(beside)
        if path.exists():
            path.rename(old)
        beside.rename(path)
        _flush_folder(path.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(
            f"cannot write {path}: {error.strerror or error}; what was saved before is intact"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def read_folder(path: Path) -> dict[str, bytes]:
    """Every file of a folder that ``write_folder`` wrote, each checked against its SHA-256.

    Raises Damaged naming the first file that is missing or changed.
    """
    try:
        sums = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in sums}
    except FileNotFoundError as error:
        raise Damaged(f"{path} is incomplete: {Path(error.filename).name} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise Damaged(f"{path} cannot be read: {error}") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            raise Damaged(f"{path / name} is damaged: its bytes are not those that were written")
    return files


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises AlphabarError naming ``path`` where what is done inside cannot write it."""
    try:
        yield
    except OSError as error:
        raise AlphabarError(f"cannot write {path}: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write one file so that it holds the old bytes or the new ones, never a part.

    Raises AlphabarError where the disk is full or read-only.
    """
    beside = path.with_name(f".writing-{path.name}")
    with writing(path):
        try:
            _write_flushed(beside, data)
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def pack_json(value: Any) -> bytes:
    """A JSON document as bytes, for people to read as well."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _write_flushed(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
