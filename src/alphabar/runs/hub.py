"""Models of the Hugging Face Hub: fetched into alphabar's cache under their commit.

Of a repository only JSON and safetensors files are fetched, those that a model folder may have, and each is
checked against the folder's checksums. Code and pickles of the Hub are neither fetched nor run.
"""

import os
import re
import shutil
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from alphabar.data.dataset import cache_root
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import (
    MANIFEST,
    Damaged,
    parse_json,
    read_folder,
    read_optional,
    read_plain_file,
    warn_of_cache,
    with_place,
    write_document,
    writing_folder,
)

MODEL_FILES = (
    "recipe.json",
    "model.safetensors",
    "early.safetensors",
    "statistics.safetensors",
    "codec.safetensors",
    "vocabulary.json",
    "label_frequencies.json",
)
"""What is fetched beside the manifest: all files that a model folder may have."""

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
REFERENCE = re.compile(rf"hf:/+(?P<name>{REPOSITORY.pattern})(@(?P<revision>[\w./-]+))?/?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
MAIN = "main"


class HubModel(NamedTuple):
    """A model on the Hub. name: owner/name. revision: a branch, a tag or a commit."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.name}" + ("" if self.revision == MAIN else f"@{self.revision}")


def hub_model(path: str | Path) -> HubModel | None:
    """The model that hf://owner/name[@revision] names; None for everything that does not begin with hf:/.

    A Path, which has one slash where it was given two, names the same. Raises UsageError for another form.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    if not text.startswith("hf:/"):
        return None
    match = REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError("hub.form", given=text)
    return HubModel(match["name"], match["revision"] or MAIN)


def fetch_model(model: HubModel) -> Path:
    """The model's folder in the cache, fetched where it is not there yet.

    Where the Hub cannot be reached, it is the commit that the revision was when it was fetched last.
    Raises AlphabarError where the extra is missing, the Hub does not answer, there is no such model or
    revision, or it is private; Damaged where the files that arrive are not those of the manifest, of which
    nothing is kept.
    """
    owner, _, name = model.name.partition("/")
    root = cache_root() / "hub" / f"{owner}--{name}"
    commit = _commit(model, root)
    folder = root / commit / name
    with suppress(Damaged):
        read_folder(folder)
        return folder
    if folder.exists():
        warn_of_cache(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with writing_folder(folder, existing="keep", flush=True) as beside:
        _fetch_files(model, commit, beside)
    return folder


def hub_library(model: Any) -> Any:
    """The module huggingface_hub. Raises AlphabarError naming the extra where it is missing."""
    try:
        import huggingface_hub
    except ImportError:
        raise AlphabarError("hub.needs_library", model=model) from None
    return huggingface_hub


def endpoint() -> str | None:
    """The address of the Hub that HF_ENDPOINT names; None for the usual one."""
    return os.environ.get("HF_ENDPOINT") or None


def explained(error: Exception, model: Any) -> AlphabarError:
    """The sentence for an error that the Hub's library raised.

    The library uses requests or httpx, as its version has it, so that no class of theirs is named here.
    """
    if isinstance(error, AlphabarError):
        return error
    errors = import_module("huggingface_hub.errors")
    if isinstance(error, errors.GatedRepoError):
        return AlphabarError("hub.gated", model=model)
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError("hub.no_revision", model=model)
    if isinstance(error, errors.EntryNotFoundError):
        return AlphabarError("hub.no_model", model=model)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return AlphabarError("hub.not_found", model=model)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return AlphabarError("hub.unreachable", model=model, reason=reason)


def _commit(model: HubModel, root: Path) -> str:
    """The commit that the revision is now, or where the Hub cannot be asked, was last."""
    if COMMIT.fullmatch(model.revision) and (root / model.revision).is_dir():
        return model.revision  # which never changes
    file = root / "revisions.json"
    known = read_optional(file) or {}
    try:
        api = hub_library(model).HfApi(endpoint=endpoint())
        commit = api.model_info(model.name, revision=model.revision).sha
    except Exception as error:  # the network and the Hub raise whatever they like
        said = explained(error, model)
        before = known.get(model.revision)
        if (
            getattr(said.message, "identifier", None) == "hub.unreachable"
            and isinstance(before, str)
            and COMMIT.fullmatch(before)
        ):
            return before
        raise said from None
    if not COMMIT.fullmatch(commit or ""):
        raise AlphabarError("hub.unreachable", model=model, reason=f"commit {commit!r}")
    if known.get(model.revision) != commit:
        write_document(_made(file), {**known, model.revision: commit})
    return commit


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _fetch_files(model: HubModel, commit: str, folder: Path) -> None:
    """Fetches the files of a model folder into an empty one and checks them."""
    library = hub_library(model)

    def fetch(name: str) -> None:
        library.hf_hub_download(model.name, name, revision=commit, local_dir=folder, endpoint=endpoint())

    try:
        fetch(MANIFEST)
        manifest = folder / MANIFEST
        listed = parse_json(read_plain_file(manifest), manifest, dict)
        for name in sorted(set(listed) - set(MODEL_FILES)):
            raise AlphabarError("hub.other_file", model=model, name=repr(name))
        for name in listed:
            fetch(name)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes about the download
        read_folder(folder)
    except Damaged as damage:
        problem = with_place(damage.message, folder, model)
        raise Damaged("hub.damaged", model=model, problem=problem) from None
    except Exception as error:  # the network and the Hub raise whatever they like
        raise explained(error, model) from None
