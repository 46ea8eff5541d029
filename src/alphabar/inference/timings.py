"""What was measured of the ways in which a network may compute, as the cache folder remembers it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from alphabar.errors import AlphabarError
from alphabar.files import interpreting, read_document, warn_of_cache, write_document, writing
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
    try:
        with interpreting(path):
            entries = unpack_messages(read_document(path)["timings"])
            return [Timing(**{**entry, "runtime": read_runtime(entry["runtime"])}) for entry in entries]
    except AlphabarError:
        if path.exists():
            warn_of_cache(path)
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
        write_document(path, {"timings": entries})
