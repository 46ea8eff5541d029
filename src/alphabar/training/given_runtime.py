"""The runtime that a person gives: plain, auto, or a file such as the runtime.json of a run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alphabar.errors import UsageError
from alphabar.files import pack_json, read_given_text, write_file
from alphabar.messages import message
from alphabar.runtime import Runtime, default_device, describe_machine

FILE = "runtime.json"  # in a run folder
POSSIBLE: dict[str, tuple[Any, ...]] = {
    "device": ("cpu", "cuda", "mps"),
    "dtype": ("float32", "bfloat16", "float16"),
    "channels_last": (False, True),
    "compile": (False, True),
    "fused": (False, True),
}
ABOUT = {"machine": str, "notes": list}  # what the file says besides, about the choice


def given_runtime(given: str | Path) -> Runtime | None:
    """The runtime that a person names: "plain", "auto", or the path of a file or of a run folder with one.

    None for "auto": the run's own, for a new run what is measured. Raises UsageError where the file cannot be
    read, names what does not exist, or a device that is not here.
    """
    if str(given) == "auto":
        return None
    if str(given) == "plain":
        device = default_device()
        machine = describe_machine(device)
        return Runtime(device, machine=machine, notes=(machine, message("training.runtime_plain")))
    path = Path(given) / FILE if os.path.isdir(given) else Path(given)
    record = _read(path)
    here = default_device().partition(":")[0]
    if record["device"] not in ("cpu", here):
        reason = message("training.no_such_device", device=record["device"], here=here)
        raise UsageError("training.runtime_refused", reason=reason)
    machine = describe_machine(record["device"])
    notes = [machine, message("training.runtime_given", path=path)]
    if record.get("machine") not in (machine, "", None):
        notes.append(message("training.runtime_elsewhere", machine=record["machine"]))
    return Runtime.from_dict(record | {"machine": machine, "notes": notes})


def same_runtime(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two runtimes that `Runtime.to_dict` wrote down compute alike, on whichever machines."""
    return all((a[key] or "float32") == (b[key] or "float32") for key in POSSIBLE)


def write_runtime(run: Path, runtime: Runtime) -> None:
    """Writes the runtime of a training into its run folder, where `given_runtime` reads it."""
    write_file(run / FILE, pack_json(runtime.to_dict()))


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_given_text(path))
    except FileNotFoundError:
        raise UsageError("training.runtime_missing", path=path) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError("training.runtime_unreadable", path=path, reason=reason) from None
    if not isinstance(record, dict):
        raise UsageError("training.runtime_unreadable", path=path, reason=type(record).__name__)
    for key in [*POSSIBLE, *record]:
        possible = POSSIBLE.get(key)
        if possible is None and key not in ABOUT:
            raise UsageError("training.runtime_key", path=path, key=key, possible=", ".join(POSSIBLE))
        value = record.get(key)
        # 1 equals true in Python, but is none in a file.
        fits = (
            isinstance(value, ABOUT[key])
            if possible is None
            else any(value == other and type(value) is type(other) for other in possible)
        )
        if not fits:
            shown = ", ".join(map(json.dumps, possible)) if possible else ABOUT[key].__name__
            raise UsageError(
                "training.runtime_value", path=path, key=key, value=json.dumps(value), possible=shown
            )
    return record
