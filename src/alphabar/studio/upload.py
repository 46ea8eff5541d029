"""Pictures that a person uploads, as a folder. What an archive states about itself is not trusted."""

import re
import shutil
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EEXIST, EISDIR, ENAMETOOLONG, ENOTDIR
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from alphabar.data.captions import CAPTION_SUFFIXES
from alphabar.data.folder import PICTURE_SUFFIXES, SUFFIX_WITHIN, begins_like_picture, write_left_out
from alphabar.data.tables import is_table, may_be_table
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import writing_folder
from alphabar.formatting import folded
from alphabar.studio.temporary import TemporaryFiles

MAX_BYTES = 4 * 2**30
"""Of all pictures of one upload."""

MAX_LOOKED_AT = 2**30
"""Of all pictures of one upload that are unpacked among the temporary files, to be looked at."""

MAX_FILES = 200_000
"""Of one upload."""

TOO_LARGE = ("studio.archive_too_large", "studio.upload_too_large")

LONGEST_NAME = 150  # bytes; systems take 255 at least, and others come in front

BLOCK = 2**20  # bytes that are unpacked at once


def unpack(
    files: Sequence[Path], folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> int:
    """Put pictures, and those in zip archives, into a new folder; the number of files in it.

    Folders within an archive are kept: they are classes. Whatever is no picture, caption or table is left
    out, which the notes of `Folder` say. An archive with a name that was there before goes to a folder of its
    own, one that is no class (`APART`), so that its captions and tables stay with its pictures; so does the
    second of two files of a name. The folder appears when all of it is there.
    Raises AlphabarError for a damaged or encrypted archive, for one that holds links or names outside itself,
    and for more bytes or files than allowed, and UsageError
    where there is no picture in it, and for two tables of one name that lie in no archive.
    """
    count, left, places = 0, max_bytes, _Places()
    left_out = Counter[str]()
    with writing_folder(folder, existing="replace") as beside:
        for file in files:
            if file.suffix.lower() == ".zip":
                added, left = _extract(file, beside, max_files - count, left, places, left_out)
                count += added
            elif _belongs(file.name) or begins_like_picture(file.name, file.open("rb")):
                left -= file.stat().st_size
                count += 1
                path = PurePosixPath(_plain(file.name))
                apart = places.apart([path])
                if apart and (is_table(path.name) or path.suffix.lower() in (".csv", ".tsv")):
                    raise UsageError("studio.upload_two_tables", name=path.name)
                (beside / apart).mkdir(exist_ok=True)
                shutil.copyfile(file, beside / apart / path)
            else:
                left_out[file.suffix.lower()[:20]] += 1
            if count > max_files or left < 0:
                raise AlphabarError(
                    "studio.upload_too_large", files=f"{max_files:,}", megabytes=f"{max_bytes // 2**20:,}"
                )
        if all(_describes(file.name) for file in beside.rglob("*") if file.is_file()):
            raise UsageError("studio.upload_without_pictures")
        if left_out:
            write_left_out(beside, left_out)
    return count


@contextmanager
def unpacked(files: Sequence[Path], temporary: TemporaryFiles) -> Iterator[Path]:
    """The folder of the pictures, as `unpack` makes it, among the temporary files while they are looked at.

    Raises what `unpack` raises, and AlphabarError where there is no room for them.
    """
    folder, room = Path(tempfile.mkdtemp(dir=temporary.folder)), temporary.room(MAX_LOOKED_AT)
    try:
        try:
            unpack(files, folder / "pictures", room)
        except AlphabarError as error:
            if getattr(error.message, "identifier", None) not in TOO_LARGE:
                raise
            values = {"megabytes": f"{room // 2**20:,}", "most": f"{MAX_BYTES // 2**20:,}"}
            raise AlphabarError("studio.no_room_to_look", **values) from None
        yield folder / "pictures"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Places:
    """Where the files of an upload go: into its folder, or apart from those that have their names."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}  # that a name was there

    def apart(self, paths: Iterable[PurePosixPath]) -> str:
        """The folder in which all of these names are free, "" for the upload's own; they are taken then."""
        names = {folded(str(path)) for path in paths}
        times = max((self._times.get(name, 0) for name in names), default=0)
        self._times |= dict.fromkeys(names, times + 1)
        return f"~{times + 1}" if times else ""


def _extract(
    file: Path, folder: Path, most: int, left: int, places: _Places, left_out: Counter[str]
) -> tuple[int, int]:
    """How many files came out of an archive, and how many bytes may still come."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, most, left_out)
            first = {folded(str(path)): member for member, path in reversed(members)}
            apart = places.apart(path for _, path in members)
            for member, path in members:
                own = first[folded(str(path))] is member  # else a name that the archive has twice
                target = folder / (apart if own else places.apart([path])) / path
                with archive.open(member) as packed, _new_file(target, file.name, str(path)) as out:
                    while block := packed.read(BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise AlphabarError("studio.archive_too_large", file=file.name)
                        out.write(block)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise AlphabarError("studio.archive_damaged", file=file.name, problem=str(error)) from None
    except RuntimeError:  # so zipfile asks for a password
        raise AlphabarError("studio.archive_encrypted", file=file.name) from None
    except Exception as error:
        if isinstance(error, (AlphabarError, OSError)):
            raise
        # zlib.error and its like
        raise AlphabarError("studio.archive_damaged", file=file.name, problem=type(error).__name__) from None
    return len(members), left


def _new_file(target: Path, archive: str, name: str) -> BinaryIO:
    """A file for a member. Raises AlphabarError where no file can have its name, as where a folder has it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return open(target, "wb")
    except OSError as error:
        if error.errno not in (ENAMETOOLONG, EEXIST, EISDIR, ENOTDIR):
            raise
        values = {"file": archive, "name": name[-80:], "problem": error.strerror}
        raise AlphabarError("studio.archive_name", **values) from None


def _members(
    archive: zipfile.ZipFile, most: int, left_out: Counter[str]
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The members of an archive that belong to a folder of pictures, and where they go."""
    name = Path(archive.filename or "").name
    if len(archive.infolist()) > 2 * MAX_FILES:
        raise AlphabarError("studio.archive_too_many_files", file=name, most=f"{2 * MAX_FILES:,}")
    members = []
    for member in archive.infolist():
        path = _inside(member)
        if path is None:
            continue
        if not _belongs(path.name) and not _begins_like_picture(archive, member):
            left_out[path.suffix.lower()[:20]] += 1
            continue
        members.append((member, path))
        if len(members) > most:
            raise AlphabarError("studio.archive_too_many_files", file=name, most=f"{most:,}")
    return members


def _begins_like_picture(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        return begins_like_picture(member.filename, archive.open(member))
    except Exception:  # encrypted or damaged: no reason to refuse the pictures beside it
        return False


def _inside(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member goes; None for one that is left out. Raises AlphabarError for one that would escape."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise AlphabarError("studio.archive_outside", name=member.filename[:80])
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise AlphabarError("studio.archive_link", name=member.filename[:80])
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if member.is_dir() or hidden:
        return None
    return PurePosixPath(*(_plain(part) for part in path.parts))


def _belongs(name: str) -> bool:
    """Whether a folder of pictures reads a file of this name in any case: as picture, caption or table."""
    picture = PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES
    return picture or _describes(name) or SUFFIX_WITHIN.search(name) is not None


def _describes(name: str) -> bool:
    """Whether a file of this name is a caption or a table, and no picture."""
    return PurePosixPath(name).suffix.lower() in CAPTION_SUFFIXES or may_be_table(name)


def _plain(name: str) -> str:
    """A file name that every system takes, and that is no folder of `_Places`."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]|^~(?=\d+$)', "_", name)
    return plain.encode(errors="ignore")[-LONGEST_NAME:].decode(errors="ignore") or "_"
