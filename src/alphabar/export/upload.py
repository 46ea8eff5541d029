"""Uploading an export to the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.hub import REPOSITORY, endpoint, explained, hub_library


def check_upload(name: str) -> None:
    """Raises UsageError for what is no owner/name, AlphabarError where the library or a token is missing.

    Nothing is asked of the Hub.
    """
    if not REPOSITORY.fullmatch(name):
        raise UsageError("hub.upload_form", given=name)
    if hub_library(name).get_token() is None:
        raise AlphabarError("hub.no_token", model=name)


def upload_folder(folder: Path, name: str) -> str:
    """Uploads all files of a folder to the repository owner/name, in one commit. Returns its address.

    A repository that is not there yet is created, for its owner's eyes only.
    Raises as `check_upload`, and AlphabarError where the Hub refuses or cannot be reached.
    """
    check_upload(name)
    library = hub_library(name)
    api: Any = library.HfApi(endpoint=endpoint())
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    try:
        api.create_repo(name, private=True, exist_ok=True)
        operations = [
            library.CommitOperationAdd(file.relative_to(folder).as_posix(), str(file)) for file in files
        ]
        api.create_commit(name, operations, commit_message="Export of alphabar")
    except Exception as error:  # the network and the Hub raise whatever they like
        reason = " ".join(str(explained(error, name) if _is_answer(error) else error).split())[:300]
        raise AlphabarError("hub.not_uploaded", model=name, reason=reason) from None
    return f"{api.endpoint}/{name}"


def _is_answer(error: Exception) -> bool:
    """Whether the Hub has said that there is no such repository, or none for this token."""
    return getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404)
