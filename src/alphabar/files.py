"""Files and folders that are either whole or not there, and locks.

torch.save truncates its target before it writes, and safetensors never flushes to disk; neither notices a
flipped bit. `write_folder` lists every file of a folder with its SHA-256 in MANIFEST.json, gives the folder
its name only once all of it is on the disk, and `read_folder` checks every byte. `writing_folder` does the
same without checksums for folders that are written file by file. A JSON document that alphabar reads again
carries a checksum of its content (`write_document`, `read_document`). Nothing is pickled.
"""

import codecs
import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import Message, message

MANIFEST = "MANIFEST.json"
CHECKSUM = "sha256"  # the key of a document's checksum
WRITING = ".writing-"  # what the names of unfinished files and folders begin with
LARGEST_FILE = 2**35  # bytes that `read_plain_file` takes into memory
LARGEST_DOCUMENT = 2**24  # bytes of a JSON document that people may read
LONGEST_NAME = 255  # bytes of a file's name that usual disks take
BYTE_ORDER_MARKS = (  # UTF-32's first: in little endian it begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
T = TypeVar("T")
ABANDONED_AFTER = 86_400.0  # seconds after which an unfinished folder belongs to a process that was killed


class Damaged(AlphabarError):
    """A folder that is incomplete or whose bytes are not those that were written."""


class DamagedFile(UserWarning):
    """A damaged file that can be done without, or that is made again."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises AlphabarError naming ``path`` where what is done inside cannot write it."""
    try:
        yield
    except OSError as error:
        intact = message("files.intact") if os.path.exists(path) else ""
        reason = error.strerror or error
        raise AlphabarError("files.cannot_write", path=path, reason=reason, intact=intact) from error


def with_place(said: Any, old: Path, new: Any) -> Any:
    """A message in which the path ``old`` is called ``new``, which people know; anything else as it is."""
    if isinstance(said, Message):
        values = {key: with_place(value, old, new) for key, value in said.values.items()}
        return message(said.identifier, **values)
    named = isinstance(said, str | Path) and str(old) in str(said)
    return str(said).replace(str(old), str(new)) if named else said


def write_file(path: Path, data: bytes) -> None:
    """Writes one file so that it holds the old bytes or the new ones, never a part.

    Raises AlphabarError where the disk is full or read-only.
    """
    with writing_file(path) as beside:
        beside.write_bytes(data)


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write; at the end of the block it takes the name ``path``.

    It has the same suffix. Raises AlphabarError where it cannot be written; whatever ends the block early,
    what was at ``path`` before stays.
    """
    with writing(path):
        beside = _beside(path)
        try:
            yield beside
            _flush(beside)
            os.replace(beside, path)
        except BaseException:
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
    except AlphabarError as error:  # a file inside could not be written
        error.args = (with_place(error.message, beside, path),)
        error.message = error.args[0]
        raise
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

    The manifest may name plain files of this folder only: it may come from anywhere.
    Raises Damaged naming the first file that is missing, changed or no plain file.
    """
    manifest = path / MANIFEST
    sums = parse_json(_read_listed(manifest, LARGEST_DOCUMENT), manifest, dict)
    for name, checksum in sums.items():
        if Path(name).name != name or "\\" in name or name in (".", "..", MANIFEST):
            raise Damaged("files.bad_name", path=manifest, name=repr(name))
        if not (isinstance(checksum, str) and re.fullmatch("[0-9a-f]{64}", checksum)):
            raise Damaged("files.bad_checksum", path=manifest, name=repr(name))
    files = {name: _read_listed(path / name) for name in sums}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            raise Damaged("files.damaged", path=path / name)
    return files


def remove_folder(path: Path) -> None:
    """Removes a folder that `write_folder` wrote; half removed, it counts as damaged and never as whole."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def _read_listed(file: Path, largest: int = LARGEST_FILE) -> bytes:
    try:
        return read_plain_file(file, largest)
    except FileNotFoundError:
        raise Damaged("files.incomplete", path=file.parent, missing=file.name) from None


def is_file(path: Path) -> bool:
    """Whether there is a file of that name. Raises Damaged where nobody may look."""
    return exists(path) and path.is_file()


def exists(path: Path) -> bool:
    """Whether there is anything of that name. Raises Damaged where nobody may look."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise Damaged("files.unreadable", path=path, reason=error.strerror or error) from None


def read_plain_file(file: Path, largest: int = LARGEST_FILE) -> bytes:
    """The bytes of a file that is neither a link nor a device and has at most so many bytes.

    Raises FileNotFoundError where there is none, Damaged where it is something else or cannot be read.
    """
    try:
        about = file.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise Damaged("files.no_plain_file", path=file)
        if about.st_size > largest:
            raise Damaged("files.too_large", path=file, size=about.st_size, largest=largest)
        return file.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Damaged("files.unreadable", path=file, reason=reason) from None


def check_no_pipe(path: Path) -> None:
    """Raises UsageError where a path that a person gives is neither a file nor a folder, but is there.

    Reading a pipe or a device may never end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError("files.pipe", path=path)


def read_given_file(file: Path) -> bytes:
    """The bytes of a file that a person gives, by way of links too.

    Raises UsageError for a pipe or a device (`check_no_pipe`), OSError where it cannot be read and ValueError
    for no possible name.
    """
    check_no_pipe(file)
    return file.read_bytes()


def read_given_text(file: Path) -> str:
    """The text of a file that a person gives, in UTF-8 or as its byte order mark says.

    Raises what `read_given_file` raises, and ValueError for what is no text.
    """
    data = read_given_file(file)
    return data.decode(marked_encoding(data))


def marked_encoding(data: bytes) -> str:
    """The encoding that a text's byte order mark says, else UTF-8. Programs on Windows write marks."""
    return next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")


def parse_json(data: bytes, path: Path, kind: type[T]) -> T:
    """The JSON document in a file's bytes, a dict or a list.

    Raises Damaged naming ``path`` where it is no JSON, or where it is of another kind.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # bytes that are no text raise ValueError too
        raise Damaged("files.unreadable", path=path, reason=error) from None
    if not isinstance(value, kind):
        raise Damaged("files.other_content", path=path)
    return value


def fitting_name(name: str, ending: str = "") -> str:
    """The name of a file, ``name`` + ``ending``; where it is too long, ``name`` is cut and its hash follows.

    So different names stay different.
    """
    if len(os.fsencode(name + ending)) <= LONGEST_NAME:
        return name + ending
    ending = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending}"
    room = LONGEST_NAME - len(os.fsencode(ending))
    return os.fsencode(name)[:room].decode(errors="ignore") + ending


def check_name(path: Path) -> None:
    """Raises AlphabarError where a file or folder to be made has a name that its disk takes for too long.

    Without it that would be found out when the work is done.
    """
    path = path.absolute()
    there = next((parent for parent in path.parents if os.path.isdir(parent)), path)
    for place in (path, *(there / name for name in path.relative_to(there).parts)):
        try:
            place.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise AlphabarError("files.long_name", path=path) from error


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON document with a checksum, as `write_file` does."""
    write_file(path, pack_json(with_checksum(content)))


def read_document(path: Path, *, required: bool = True) -> dict[str, Any]:
    """The content of a document that `write_document` wrote.

    required: whether one that has no checksum, as earlier versions wrote it, counts as damaged.
    Raises FileNotFoundError where there is none, Damaged where any of its content has changed.
    """
    document = parse_json(read_plain_file(path, LARGEST_DOCUMENT), path, dict)
    if CHECKSUM not in document and (required or _checksum_of_another_name(document)):
        raise Damaged("files.damaged", path=path)
    return without_checksum(document, path)


def _checksum_of_another_name(document: Mapping[str, Any]) -> bool:
    """Whether the name of the checksum is what has changed in a document."""
    texts = [key for key, value in document.items() if isinstance(value, str) and len(value) == 64]
    return any(
        document[name] == _document_checksum({key: value for key, value in document.items() if key != name})
        for name in texts
    )


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON document with its checksum."""
    return {**content, CHECKSUM: _document_checksum(content)}


def without_checksum(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of a document of the file ``path``. Raises Damaged where it has a wrong checksum."""
    content = {key: value for key, value in document.items() if key != CHECKSUM}
    if document.get(CHECKSUM, (known := _document_checksum(content))) != known:
        raise Damaged("files.damaged", path=path)
    return content


def _document_checksum(content: Mapping[str, Any]) -> str:
    stored = json.loads(pack_json(content))  # in which a tuple is a list and every key a text
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def read_optional(path: Path) -> dict[str, Any] | None:
    """The content of a document that is of use but can be done without; None where there is none.

    None too, with a warning, where it is damaged.
    """
    try:
        return read_document(path, required=False)
    except FileNotFoundError:
        return None
    except Damaged:
        warnings.warn(message("files.done_without", path=path), DamagedFile, stacklevel=3)
        return None


def warn_of_cache(path: Path) -> None:
    """Warns that something damaged in the cache is made again."""
    warnings.warn(message("files.cache_damaged", path=path), DamagedFile, stacklevel=3)


def remove_abandoned(parent: Path, older_than: float = ABANDONED_AFTER) -> None:
    """Removes what killed processes left unfinished in a folder, where it is older than so many seconds."""
    for leftover in parent.glob(f"{WRITING}*"):
        with suppress(OSError):  # another process may remove it first
            if time.time() - leftover.stat().st_mtime >= older_than:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextmanager
def locked(path: Path, refusal: AlphabarError) -> Iterator[None]:
    """Holds the lock file ``path`` for one process.

    Raises ``refusal`` where another one holds it, AlphabarError where the file cannot be made.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # `is_locked` takes the lock for an instant: it must not be mistaken for a process that holds it.
            lock = FileLock(path).acquire(timeout=0.5)
        except Timeout:  # which is an OSError too
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


@contextmanager
def interpreting(path: Path) -> Iterator[None]:
    """Raises Damaged naming ``path`` for whatever error its content leads to, however it was made up."""
    try:
        yield
    except AlphabarError:
        raise
    except Exception as error:  # a content that nobody foresaw may lead to any error
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Damaged("files.unexpected_content", path=path, problem=problem) from error


def pack_json(value: Any) -> bytes:
    """A JSON document as bytes, for people to read as well.

    File names that are not UTF-8 become escapes, which JSON reads back as they were.
    """
    return json.dumps(value, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _beside(path: Path) -> Path:
    """A name for what will become ``path``, not much longer; no two processes have the same."""
    return path.with_name(f"{WRITING}{secrets.token_hex(4)}-{path.name[-50:]}")


def _rename(beside: Path, path: Path, existing: str) -> None:
    """Gives the folder ``beside`` its name; what it replaces may lie at ``beside`` afterwards."""
    if existing == "replace" and path.exists():
        if not _exchange(beside, path):
            old = _beside(path)
            path.rename(old)
            try:
                beside.rename(path)
            except OSError:
                old.rename(path)
                raise
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


def _exchange(a: Path, b: Path) -> bool:
    """Lets two folders change names at one moment. False where the system cannot, and nothing is done.

    With two renamings instead, a kill or a full disk between them would leave neither folder under its name.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # of Linux; Python has no function for it
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):  # this file system does without
        return False
    raise OSError(problem, os.strerror(problem), str(b))


def _flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk; Windows flushes folders by itself."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
