"""The sources there are, and how an argument becomes one.

Two registries take new ones. ``SOURCES`` holds those that an argument calls by name: ``NAME`` or
``NAME:REST`` calls ``SOURCES[NAME](REST)``, where REST is None without a colon. ``LAYOUTS`` holds those that
are recognized in a folder or file: functions (path, name or None) → source, or None where the path holds
something else. The layout that was registered last is tried first.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path

from alphabar.codecs.base import one_line
from alphabar.data.folder import PICTURE_SUFFIXES, Folder
from alphabar.data.items import Source, nothing_in
from alphabar.data.parquet import Parquet, parquet_files, pictures_inside
from alphabar.data.stanford_cars import StanfordCars
from alphabar.data.tables import TABLES, is_table
from alphabar.data.toycars.source import ToyCars
from alphabar.errors import AlphabarError, UsageError
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
    Parquet files where the data set has them, else pictures, else the parquet files that the Hub made.
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
    try:
        files = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
        suffixes = {Path(file).suffix.lower() for file in files if file.startswith(inside)}
        if ".parquet" in suffixes:
            wanted = ["*.parquet"]
        elif suffixes & PICTURE_SUFFIXES:
            wanted = [f"*{suffix}" for suffix in sorted(PICTURE_SUFFIXES | {".txt", ".mat"})] + [
                f"*{name}" for name in TABLES
            ]
        else:
            revision, wanted = "refs/convert/parquet", ["*.parquet"]
        fetched = snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[inside + pattern for pattern in wanted],
        )
    except Exception as error:  # the network and the Hub raise whatever they like
        raise AlphabarError("data.not_fetched", data=data, error=one_line(error)) from None
    source = open_path(Path(fetched) / (folder or ""), name=data.removeprefix("hf://datasets/"))
    if isinstance(source, Parquet):
        source.confined = True
    return source


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
    inside = sum(map(pictures_inside, (file for file in parquet_files(path) if not is_table(file.name))))
    if inside <= len(folder.items):
        return folder
    source = Parquet(path, name)
    loose, first = len(folder.items), folder.items[0].key
    source.notes.append(message("data.loose_beside_parquet", count=loose, first=first, inside=inside))
    return source


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
