"""Files and folders that are either whole or not there, and locks.

torch.save truncates its target before it writes, and safetensors never flushes to disk; neither notices a
flipped bit. `write_folder` lists every file of a folder with its SHA-256 in MANIFEST.json, gives the folder
its name only once all of it is on the disk, and `read_folder` checks every byte. `writing_folder` does the
same without checksums for folders that are written file by file. Nothing is pickled.
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
        beside = _beside(path)
        try:
            beside.write_bytes(data)
            _flush(beside)
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def writing_folder(
    path: Path, *, existing: Literal["refuse", "replace", "keep"] = "refuse", flush: bool = False
) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write files into; at the end of the block it becomes ``path``.

    existing: what happens where there is already something at ``path`` by then: an error, unless it is an
        empty folder ("refuse"); the new folder takes its place ("replace"); it stays, and the new one is
        dropped ("keep", for caches that two processes may write).
    flush: whether every file must be on the disk before the folder gets its name.

    A kill or a full disk at any moment leaves the old folder or the new one, and at worst a folder
    ``.writing-…`` beside it, which a later write removes after a day. An error inside the block removes the
    temporary folder.
    Raises AlphabarError naming ``path`` where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        beside = _beside(path)
        beside.mkdir()
    try:
        with writing(path):
            yield beside
            if flush:
                for file in sorted(beside.rglob("*")):
                    _flush(file)
                _flush(beside)
            _rename(beside, path, existing)
            _flush(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes ``files`` (name → bytes) with their checksums as the folder ``path``.

    A folder that is there is replaced; the old or the new one is there at any moment. Raises AlphabarError
    where the disk is full or read-only.
    """
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with writing_folder(path, existing="replace", flush=True) as beside:
        for name, data in {**files, MANIFEST: pack_json(sums)}.items():
            (beside / name).write_bytes(data)


def read_folder(path: Path) -> dict[str, bytes]:
    """Every file of a folder that `write_folder` wrote, each checked against its SHA-256.

    Raises Damaged naming the first file that is missing or changed.
    """
    try:
        sums = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in sums}
    except FileNotFoundError as error:
        raise Damaged("files.incomplete", path=path, missing=Path(error.filename).name) from None
    except (OSError, ValueError, TypeError) as error:
        raise Damaged("files.unreadable", path=path, reason=error) from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            raise Damaged("files.damaged", path=path / name)
    return files


def remove_abandoned(parent: Path, older_than: float = ABANDONED_AFTER) -> None:
    """Removes what killed processes left unfinished in a folder, where it is older than so many seconds."""
    for leftover in parent.glob(f"{WRITING}*"):
        with suppress(OSError):  # another process may remove it first
            if time.time() - leftover.stat().st_mtime >= older_than:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextmanager
def locked(path: Path, refusal: AlphabarError) -> Iterator[None]:
    """Holds the lock file ``path`` for one process. Raises ``refusal`` where another one holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # `is_locked` takes the lock for an instant: it must not be mistaken for a process that holds it.
        lock = FileLock(path).acquire(timeout=0.5)
    except Timeout:
        raise refusal from None
    with lock:
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file ``path``. A file that cannot be opened counts as free."""
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


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
