"""Extensions: a person's own samplers, networks, operators and so on, in a Python file or a package.

An extension registers its choices (`alphabar.registry.Registry.register`) when it is loaded, and from then on
they are known by name everywhere. It is loaded only when a person names it: a run or a model records which
extensions it needs, by name and hash, but never runs code by itself.
"""

import hashlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import check_no_pipe, is_file
from alphabar.messages import message
from alphabar.registry import ADDED

GROUP = "alphabar.extensions"
"""The group of entry points under which installed packages name their extension modules."""


@dataclass(frozen=True)
class Extension:
    """A loaded extension. sha256: of its file. added: what it has registered, (kind, name).

    file: as `load_extension` was given it; None for an installed package.
    """

    name: str
    sha256: str
    added: tuple[tuple[str, str], ...]
    file: Path | None = None


class ExtensionChanged(UserWarning):
    """A model was made with another version of an extension than the one that is loaded."""


LOADED: dict[str, Extension] = {}


def load_extension(path: str | Path) -> Extension:
    """Run a Python file that registers choices; a file that is loaded already is not run again.

    Raises UsageError where there is no such file or it registers a name that is taken, AlphabarError where
    it cannot be read, and naming the line where its own code fails.
    """
    path = Path(path)
    check_no_pipe(path)
    if not is_file(path) or path.suffix != ".py":
        raise UsageError("extensions.missing_file", path=path)
    try:
        code = path.read_bytes()
    except OSError as error:
        raise AlphabarError("files.unreadable", path=path, reason=error.strerror) from None
    sha256 = hashlib.sha256(code).hexdigest()
    if (known := LOADED.get(path.stem)) and known.sha256 == sha256:
        return known
    before = len(ADDED)
    spec = importlib.util.spec_from_file_location(f"alphabar_extension_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of the file's classes look it up
    try:
        spec.loader.exec_module(module)
    except AlphabarError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None) or 1
        problem = f"{type(error).__name__}: {error}"
        raise AlphabarError("extensions.fails", path=path, line=line, problem=problem) from error
    return _remember(path.stem, sha256, before, path.resolve())


def load_installed_extensions() -> None:
    """Load the extensions of installed packages, named in their entry points under `GROUP`."""
    for entry in entry_points(group=GROUP):
        if entry.name not in LOADED:
            before = len(ADDED)
            module = entry.load()
            code = Path(module.__file__).read_bytes()
            _remember(entry.name, hashlib.sha256(code).hexdigest(), before)


def _remember(name: str, sha256: str, before: int, file: Path | None = None) -> Extension:
    LOADED[name] = Extension(name, sha256, tuple(ADDED[before:]), file)
    return LOADED[name]


def used_by(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """The loaded extensions that nested recipe values name choices of, as records of name and SHA-256."""
    named = set(_names(values))
    return [
        {"name": extension.name, "sha256": extension.sha256}
        for extension in LOADED.values()
        if named & {name for _, name in extension.added}
    ]


def _names(values: Any) -> Iterable[str]:
    if isinstance(values, Mapping):
        if isinstance(values.get("name"), str):
            yield values["name"]
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _names(value)


def check_loaded(records: Iterable[Mapping[str, str]], path: str | Path) -> None:
    """Raises UsageError where the run or model at a path needs an extension that is not loaded.

    Warns (`ExtensionChanged`) where the loaded one has changed since.
    """
    for record in records:
        loaded = LOADED.get(record["name"])
        if loaded is None:
            raise UsageError("extensions.needed", name=record["name"], path=path)
        if loaded.sha256 != record["sha256"]:
            warnings.warn(
                message("extensions.changed", name=record["name"], path=path), ExtensionChanged, stacklevel=3
            )
