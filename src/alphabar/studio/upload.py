"""Pictures that a person uploads, as a folder. What an archive states about itself is not trusted."""

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from alphabar.data.captions import CAPTION_SUFFIXES
from alphabar.data.folder import PICTURE_SUFFIXES, SUFFIX_WITHIN
from alphabar.data.tables import may_be_table
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import writing_folder
from alphabar.studio.temporary import TemporaryFiles

MAX_BYTES = 4 * 2**30
"""Of all pictures of one upload."""

MAX_LOOKED_AT = 2**30
"""Of all pictures of one upload that are unpacked among the temporary files, to be looked at."""

MAX_FILES = 200_000
"""Of one upload."""

TOO_LARGE = ("studio.archive_too_large", "studio.upload_too_large")

BLOCK = 2**20  # bytes that are unpacked at once


def unpack(
    files: Sequence[Path], folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> int:
    """Put pictures, and those in zip archives, into a new folder; the number of files in it.

    Folders within an archive are kept: they are classes. Whatever is no picture, caption or table is left
    out. The folder appears when all of it is there. Raises AlphabarError for a damaged or encrypted archive,
    for one that holds links or names outside itself, and for more bytes or files than allowed, and UsageError
    where there is no picture in it.
    """
    count, left = 0, max_bytes
    with writing_folder(folder, existing="replace") as beside:
        for file in files:
            if file.suffix.lower() == ".zip":
                added, left = _extract(file, beside, max_files - count, left)
                count += added
            elif _belongs(file.name):
                left -= file.stat().st_size
                count += 1
                shutil.copyfile(file, _free(beside / _plain(file.name)))
            if count > max_files or left < 0:
                raise AlphabarError(
                    "studio.upload_too_large", files=f"{max_files:,}", megabytes=f"{max_bytes // 2**20:,}"
                )
        if not count:
            raise UsageError("studio.upload_without_pictures")
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


def _extract(file: Path, folder: Path, most: int, left: int) -> tuple[int, int]:
    """How many files came out of an archive, and how many bytes may still come."""
    count = 0
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > 2 * MAX_FILES:
                raise AlphabarError(
                    "studio.archive_too_many_files", file=file.name, most=f"{2 * MAX_FILES:,}"
                )
            for member in archive.infolist():
                path = _inside(member)
                if path is None:
                    continue
                count += 1
                if count > most:
                    raise AlphabarError("studio.archive_too_many_files", file=file.name, most=f"{most:,}")
                target = _free(folder.joinpath(*path.parts))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, open(target, "wb") as out:
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
    return count, left


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
    if member.is_dir() or hidden or not _belongs(path.name):
        return None
    return PurePosixPath(*(_plain(part) for part in path.parts))


def _belongs(name: str) -> bool:
    """Whether a folder of pictures would read a file of this name: as a picture, a caption or a table."""
    known = PurePosixPath(name).suffix.lower() in (*PICTURE_SUFFIXES, *CAPTION_SUFFIXES)
    return known or may_be_table(name) or SUFFIX_WITHIN.search(name) is not None


def _plain(name: str) -> str:
    """A file name that every system takes."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name)[-150:] or "_"


def _free(path: Path) -> Path:
    """The path, or one beside it where it is taken."""
    for i in range(1, 1_000_000):
        if not path.exists():
            return path
        path = path.with_name(f"{path.stem.rsplit('~', 1)[0]}~{i}{path.suffix}")
    raise AlphabarError("studio.too_many_of_one_name", name=path.name)
