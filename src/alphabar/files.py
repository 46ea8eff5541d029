"""Files and folders that are either whole or not there: written beside, flushed, checksummed, renamed; and locks.

torch.save truncates its target before it writes, and safetensors never flushes to disk; neither notices a flipped
bit. `write_folder` lists every file of a folder with its SHA-256 in MANIFEST.json, gives the folder its name only
once all of it is on the disk, and `read_folder` checks every byte. `writing_folder` does the same without checksums
for folders that are written file by file. Nothing is pickled.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from alphabar.errors import AlphabarError

MANIFEST = "MANIFEST.json"
WRITING = ".writing-"  # what the names of unfinished files and folders begin with
ABANDONED_AFTER = 86_400.0  # seconds after which an unfinished folder belongs to a process that was killed


class Damaged(AlphabarError):
    """A folder that is incomplete or whose bytes are not those that were written."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises AlphabarError naming ``path`` where what is done inside cannot write it."""
    try:
        yield
    except OSError as error:
        raise AlphabarError("files.cannot_write", path=path, reason=error.strerror or error) from error


def write_file(path: Path, data: bytes) -> None:
    """Writes one file so that it holds the old bytes or the new ones, never a part.

    Raises AlphabarError where the disk is full or read-only.
    """
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


def _beside(path: Path) -> Path:
    """A name for what will become ``path``; no two processes have the same."""
    return path.with_name(f"{WRITING}{path.name}-{secrets.token_hex(4)}")


def _rename(beside: Path, path: Path, existing: str) -> None:
    if existing == "replace" and path.exists():
        old = _beside(path)
        path.rename(old)
        beside.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        return
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    try:
        if path.exists():
            raise FileExistsError
        beside.rename(path)
    except OSError:
        if not path.exists():
            raise
        if existing == "refuse":
            raise AlphabarError("files.exists", path=path) from None


def _flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk; Windows flushes folders by itself."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
