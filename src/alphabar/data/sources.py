"""The sources there are, and how an argument becomes one.

Two registries take new ones. ``SOURCES`` holds those that an argument calls by name: ``NAME`` or
``NAME:REST`` calls ``SOURCES[NAME](REST)``, where REST is None without a colon. ``LAYOUTS`` holds those that
are recognized in a folder or file: functions (path, name or None) → source, or None where the path holds
something else. The layout that was registered last is tried first.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from alphabar.codecs.base import one_line
from alphabar.data.captions import CAPTION_SUFFIXES
from alphabar.data.folder import OTHER_FILES, PICTURE_SUFFIXES, Folder
from alphabar.data.items import Source, nothing_in
from alphabar.data.parquet import Parquet, parquet_files, pictures_inside
from alphabar.data.stanford_cars import StanfordCars
from alphabar.data.tables import is_table, may_be_table
from alphabar.data.toycars.source import ToyCars
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import check_no_pipe
from alphabar.messages import message
from alphabar.registry import Registry

HUB = re.compile(r"//datasets/(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<folder>.+?))?/?")


def open_source(data: str | Path) -> Source:
    """The source that an argument names; nothing is decoded yet.

    data: a name in SOURCES ("toycars", "toycars:2000", "hf://datasets/owner/name"), or the path of a folder
        or a parquet file. A name in SOURCES wins over a folder of that name, which "./toycars" names.
    Raises UsageError where it is none of these, AlphabarError where there is nothing to read.
    """
    if isinstance(data, str):
        name, colon, rest = data.partition(":")
        if name in SOURCES:
            return SOURCES[name](rest if colon else None)
    path = Path(os.path.expanduser(data))
    check_no_pipe(path)
    if str(data) and os.path.exists(path):  # an empty name would be the working folder
        return open_path(path)
    near = get_close_matches(str(data), SOURCES, n=1, cutoff=0.5)
    hint = message("registry.nearest", nearest=repr(near[0])) if near else ""
    raise UsageError("data.no_such_data", data=str(data), hint=hint, names=", ".join(SOURCES))


def open_path(path: Path, name: str | None = None) -> Source:
    """The source in a folder or file: Stanford Cars in any of its layouts, pictures, or parquet files.

    name: what to call it; default: the folder's name. Raises AlphabarError where it holds none of these.
    """
    for recognize in reversed(LAYOUTS.values()):
        source = recognize(path, name)
        if source is not None:
            return source
    if not path.is_dir():
        raise UsageError("data.single_file", path=path)
    folder = Folder(path)
    raise nothing_in(str(path), folder.skipped, folder.notes)


def open_toycars(rest: str | None) -> Source:
    """The built-in data set: "toycars", or "toycars:N" for another number of pictures than 2,000.

    Raises UsageError for what is no positive number.
    """
    if rest is None:
        return ToyCars()
    if not re.fullmatch("[0-9]{1,9}", rest) or int(rest) == 0:
        raise UsageError("data.toycars_number", rest=rest)
    return ToyCars(int(rest))


def open_hub(rest: str | None) -> Source:
    """The source behind hf://datasets/owner/name[@revision][/folder], fetched into the Hub's own cache.

    rest: what stands behind "hf:".
    Fetched is what `open_path` reads: parquet files, and pictures with what may tell of them unless parquet
    files hold as many; where there is neither, the parquet files that the Hub made.
    Raises UsageError for another form, AlphabarError where the extra is missing or the Hub does not answer.
    """
    data = f"hf:{rest or ''}"
    match = HUB.fullmatch(rest or "")
    if match is None:
        raise UsageError("data.hub_form", data=data)
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise AlphabarError("data.needs_hub", data=data) from None
    repo, revision, folder = match["repo"], match["revision"], match["folder"]
    inside = f"{folder}/" if folder else ""

    def fetch(patterns: Iterable[str], revision: str | None = revision) -> Path:
        allowed = [f"{inside}*{pattern}" for pattern in sorted(patterns)]
        fetched = snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=allowed)
        return Path(fetched) / (folder or "")

    try:
        listed = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
        files = [PurePosixPath(file) for file in listed if file.startswith(inside)]
        pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
        parquet = {file.suffix for file in files if file.suffix.lower() == ".parquet"}
        path = None
        if any(file.suffix in parquet and not is_table(file.name) for file in files) or not pictures:
            path = fetch(parquet) if parquet else fetch([".parquet"], "refs/convert/parquet")
        if pictures and (path is None or pictures_of_parquet(path) < len(pictures)):
            path = fetch({file.suffix for file in pictures} | parquet | _about_pictures(files))
    except Exception as error:  # the network and the Hub raise whatever they like
        raise AlphabarError("data.not_fetched", data=data, error=one_line(error)) from None
    assert path is not None
    source = open_path(path, name=data.removeprefix("hf://datasets/"))
    if isinstance(source, Parquet):
        source.confined = True
    return source


def _about_pictures(files: Iterable[PurePosixPath]) -> set[str]:
    """How the names of files end that may say something of the pictures beside them."""
    kinds = Counter(file.suffix for file in files)
    tables = {file.name for file in files if is_table(file.name)}
    # Of many files of a kind each is about one picture, which only captions and Stanford Cars' .mat may be.
    others = {kind for kind, n in kinds.items() if may_be_table(f"a{kind}") and n <= OTHER_FILES}
    return tables | others | {kind for kind in kinds if kind.lower() in (*CAPTION_SUFFIXES, ".mat")}


def recognize_parquet(path: Path, name: str | None = None) -> Source | None:
    """A parquet file, or a folder with parquet files somewhere below it; None for everything else."""
    if path.suffix.lower() == ".parquet" if path.is_file() else parquet_files(path):
        return Parquet(path, name)
    return None


def recognize_pictures(path: Path, name: str | None = None) -> Source | None:
    """A folder with picture files somewhere below it; None for everything else.

    Parquet files that hold more pictures than lie beside them are the data, unless they are tables by name.
    """
    if not path.is_dir():
        return None
    folder = Folder(path, name)
    if not folder.items:
        return None
    inside = pictures_of_parquet(path)
    if inside <= len(folder.items):
        return folder
    source = Parquet(path, name)
    loose, first = len(folder.items), folder.items[0].key
    source.notes.append(message("data.loose_beside_parquet", count=loose, first=first, inside=inside))
    return source


def pictures_of_parquet(path: Path) -> int:
    """How many pictures the parquet files under a folder hold; those that are tables by name hold none."""
    return sum(pictures_inside(file) for file in parquet_files(path) if not is_table(file.name))


def recognize_stanford_cars(path: Path, name: str | None = None) -> Source | None:
    """Stanford Cars in one of its layouts; None for everything else. Raises as `StanfordCars.find`."""
    return StanfordCars.find(path) if path.is_dir() else None


SOURCES = Registry("data source", {"toycars": open_toycars, "hf": open_hub})
LAYOUTS = Registry(
    "layout of data",
    {
        "parquet": recognize_parquet,
        "pictures": recognize_pictures,
        "stanford_cars": recognize_stanford_cars,
    },
)
