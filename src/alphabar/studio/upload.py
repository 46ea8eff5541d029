"""Pictures that a person uploads, as a folder: what an archive says of itself is not believed."""

import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from alphabar.errors import AlphabarError, UsageError

LARGEST = 4 * 2**30
"""Bytes of all pictures of one upload."""


MOST = 200_000
"""Files of one upload."""


ENDINGS = {
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".jp2",
    ".ppm",
    ".csv",
    ".txt",
}


BLOCK = 2**20


def unpack(files: Sequence[Path], folder: Path, largest: int = LARGEST, most: int = MOST) -> int:
    """Put pictures, and those in zip archives, into a new folder; the number of files in it.

    Folders within an archive are kept: they are classes. Whatever is no picture, caption or table is left
    out. The folder appears when all of it is there. Raises AlphabarError for a damaged or encrypted archive,
    for one that holds links or names outside itself, and for more bytes or files than allowed.
    """
    beside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    count, left = 0, largest
    try:
        for file in files:
            if file.suffix.lower() == ".zip":
                added, left = _extract(file, beside, most - count, left)
                count += added
            elif file.suffix.lower() in ENDINGS:
                left -= file.stat().st_size
                count += 1
                shutil.copyfile(file, _free(beside / _plain(file.name)))
            if count > most or left < 0:
                raise AlphabarError(f"too much at once: at most {most:,} files and {largest // 2**20:,} MB")
        if not count:
            raise UsageError(
                "there are no pictures in what was uploaded: a zip, or .jpg, .png or .webp files"
            )
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    except OSError as error:
        raise AlphabarError(f"cannot unpack: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _extract(file: Path, folder: Path, most: int, left: int) -> tuple[int, int]:
    """How many files came out of an archive, and how many bytes may still come."""
    count = 0
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > 2 * MOST:
                raise AlphabarError(f"{file.name} lists {len(archive.infolist()):,} files: too many")
            for member in archive.infolist():
                path = _inside(member)
                if path is None:
                    continue
                count += 1
                if count > most:
                    raise AlphabarError(f"{file.name} holds more than {most:,} pictures")
                target = _free(folder.joinpath(*path.parts))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, open(target, "wb") as out:
                    while block := packed.read(BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise AlphabarError(f"{file.name} unpacks to more than allowed: is it a bomb?")
                        out.write(block)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise AlphabarError(f"{file.name} is no whole zip archive: {error}") from None
    except RuntimeError:  # zipfile's word for a password
        raise AlphabarError(f"{file.name} is encrypted: unpack it first") from None
    except Exception as error:
        if isinstance(error, (AlphabarError, OSError)):
            raise
        raise AlphabarError(f"{file.name} is damaged: {type(error).__name__}") from None  # zlib.error and kin
    return count, left


def _inside(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member goes; None for one that is left out. Raises AlphabarError for one that would escape."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise AlphabarError(
            f"the archive names a place outside itself, {member.filename[:80]!r}: it is refused"
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise AlphabarError(f"the archive holds a link or a device, {member.filename[:80]!r}: it is refused")
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if member.is_dir() or hidden or path.suffix.lower() not in ENDINGS:
        return None
    return PurePosixPath(*(_plain(part) for part in path.parts))


def _plain(name: str) -> str:
    """A file name that every system takes."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name)[-150:] or "_"


def _free(path: Path) -> Path:
    """The path, or one beside it where it is taken."""
    for i in range(1, 1_000_000):
        if not path.exists():
            return path
        path = path.with_name(f"{path.stem.rsplit('~', 1)[0]}~{i}{path.suffix}")
    raise AlphabarError("too many files of one name")
