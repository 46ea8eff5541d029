"""Published weights of feature networks, downloaded at first use and checked by their SHA-256."""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from alphabar.errors import AlphabarError
from alphabar.files import read_given_file


class PublishedWeights(NamedTuple):
    """A file of weights that everyone uses.

    variable: the environment variable that names another place of it.
    """

    network: str
    url: str
    sha256: str
    variable: str


class LoadedWeights(NamedTuple):
    """The bytes of a weights file, their SHA-256, and where the file lies."""

    data: bytes
    sha256: str
    path: str


def load_weights(published: PublishedWeights, path: str = "") -> LoadedWeights:
    """The weights in the file ``path``, else in the file that the environment variable names, else published.

    The published file lies where torch-fidelity and torch.hub keep theirs, and is downloaded to there if
    need be. Raises AlphabarError where it cannot be read or downloaded, or is damaged.
    """
    if path := path or os.environ.get(published.variable, ""):
        data = _read(Path(path), published)
        return LoadedWeights(data, hashlib.sha256(data).hexdigest(), path)
    file = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(file), published.sha256, sys.stderr.isatty())
        except (OSError, RuntimeError) as error:
            raise AlphabarError(
                "metrics.no_download", url=published.url, problem=error, variable=published.variable
            ) from None
    data = _read(file, published)
    if (sha256 := hashlib.sha256(data).hexdigest()) != published.sha256:
        raise AlphabarError("metrics.damaged_download", path=file)
    return LoadedWeights(data, sha256, str(file))


def _read(path: Path, published: PublishedWeights) -> bytes:
    try:
        return read_given_file(path)
    except OSError as error:
        raise AlphabarError("metrics.weights_unreadable", network=published.network, problem=error) from None
