"""The sources there are, and how an argument becomes one."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from alphabar.data.folder import METADATA, PICTURE_SUFFIXES, Folder
from alphabar.data.items import Source, nothing_in, one_line
from alphabar.data.parquet import Parquet, parquet_files
from alphabar.data.stanford_cars import StanfordCars
from alphabar.data.toycars.source import ToyCars
from alphabar.errors import AlphabarError, UsageError

HUB = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<folder>.+?))?/?")


def _toycars(argument: str | None) -> Source:
    if argument is None:
        return ToyCars()
    if not argument.isdecimal() or int(argument) == 0:
        raise UsageError(f"toycars:{argument}: the number of pictures must be a positive integer")
    return ToyCars(int(argument))


# Names that need no file; what follows a colon ("toycars:2000") is handed on.
BUILT_IN: dict[str, Callable[[str | None], Source]] = {"toycars": _toycars}


def open_source(data: str | Path) -> Source:
    """The source that an argument names; nothing is decoded yet.

    data: a built-in name ("toycars", "toycars:2000"), "hf://datasets/owner/name", or the path of a
        folder or a parquet file. A built-in name wins over a folder of that name, which "./toycars" names.
    Raises UsageError where it is none of these, AlphabarError where there is nothing to read.
    """
    if isinstance(data, str):
        if data.startswith("hf://"):
            return open_hub(data)
        name, colon, argument = data.partition(":")
        if name in BUILT_IN:
            return BUILT_IN[name](argument if colon else None)
    path = Path(data).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return Parquet(path)
    if path.exists():
        raise UsageError(
            f"{data} is a single file; name the folder of pictures (archives: unpack them first)"
        )
    near = get_close_matches(str(data), BUILT_IN, n=1, cutoff=0.5)
    raise UsageError(
        f"no data called {str(data)!r}: "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"give an existing folder or parquet file, a built-in name ({', '.join(BUILT_IN)}),"
        " or hf://datasets/owner/name"
    )


def open_folder(path: Path, name: str | None = None) -> Source:
    """The source in a folder: Stanford Cars in any of its layouts, pictures, or parquet files.

    name: what to call it; default: the folder's name. Raises AlphabarError where it holds none of these.
    """
    cars = StanfordCars.find(path)
    if cars is not None:
        return cars
    folder = Folder(path, name)
    if folder.items:
        return folder
    if parquet_files(path):
        return Parquet(path, name)
    raise nothing_in(str(path), folder.skipped)


def open_hub(data: str) -> Source:
    """The source behind hf://datasets/owner/name[@revision][/folder], fetched into the Hub's own cache.

    Parquet files where the data set has them, else pictures, else the parquet files that the Hub made.
    Raises UsageError for another form, AlphabarError where the extra is missing or the Hub does not answer.
    """
    match = HUB.fullmatch(data)
    if match is None:
        raise UsageError(
            f"{data}: the form is hf://datasets/owner/name, optionally with @revision and /folder"
        )
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise AlphabarError(f"{data} needs the Hub's library: pip install 'alphabar[hub]'") from None
    repo, revision, folder = match["repo"], match["revision"], match["folder"]
    inside = f"{folder}/" if folder else ""
    try:
        files = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
        suffixes = {Path(file).suffix.lower() for file in files if file.startswith(inside)}
        if ".parquet" in suffixes:
            wanted = ["*.parquet"]
        elif suffixes & PICTURE_SUFFIXES:
            wanted = [f"*{suffix}" for suffix in sorted(PICTURE_SUFFIXES | {".txt", ".mat"})] + [
                f"*{name}" for name in METADATA
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
        raise AlphabarError(f"{data} cannot be fetched: {one_line(error)}") from None
    return open_folder(Path(fetched) / (folder or ""), name=data.removeprefix("hf://datasets/"))
