"""What was measured of the ways in which a network may compute, as the cache folder remembers it."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError
from alphabar.files import pack_json, parse_json, read_plain_file, write_file, writing
from alphabar.inference.runtime import InferenceRuntime, read_runtime
from alphabar.messages import Message, pack_messages, unpack_messages


@dataclass(frozen=True)
class Timing:
    """What was measured of a runtime. seconds: for one network evaluation of one sample. setup: to build it.

    checked: whether it was compared with float32. refused: a sentence where it fails or gives something else.
    """

    runtime: InferenceRuntime
    seconds: float
    setup: float
    checked: bool = False
    refused: Message | None = None


def read_timings(path: Path) -> list[Timing]:
    """The timings in a file that `write_timings` wrote; none where it is missing, damaged or of another form.

    It is a cache: what is damaged is measured again.
    """
    with suppress(OSError, AlphabarError, TypeError, KeyError, AttributeError):
        document = parse_json(read_plain_file(path), path, dict)
        if document["sha256"] == _checksum(document["timings"]):
            entries = unpack_messages(document["timings"])
            return [Timing(**{**entry, "runtime": read_runtime(entry["runtime"])}) for entry in entries]
    return []


def write_timings(path: Path, timings: Sequence[Timing]) -> None:
    """Writes timings with their checksum. A cache that cannot be written only costs time."""
    entries = [
        {**asdict(timing), "runtime": timing.runtime.to_dict(), "refused": pack_messages(timing.refused)}
        for timing in timings
    ]
    with suppress(AlphabarError):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, pack_json({"sha256": _checksum(entries), "timings": entries}))


def _checksum(entries: Any) -> str:
    return hashlib.sha256(pack_json({"timings": entries})).hexdigest()
