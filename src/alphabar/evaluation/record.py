"""The result of an evaluation, and how a run keeps it."""

import io
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from alphabar.errors import AlphabarError
from alphabar.evaluation.copies import NearestPairs
from alphabar.files import (
    Damaged,
    pack_json,
    parse_json,
    read_plain_file,
    with_checksum,
    without_checksum,
    write_file,
)
from alphabar.images import nearest_panel
from alphabar.messages import Message, message, pack_messages, unpack_messages
from alphabar.metrics.appearance import AppearanceShift, BrightnessThirds
from alphabar.metrics.attribute_frequencies import AttributeFrequencies
from alphabar.metrics.condition_agreement import ConditionAgreement
from alphabar.metrics.memorization import Memorization
from alphabar.metrics.suite import MetricReport
from alphabar.runs.run import Run

FILE = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation finds.

    report: the distances from the training data. held_out: those from the data that the model never saw,
    which is less. memorization, nearest: whether samples are copies. These three are None where too little
    was held out.
    attribute_frequencies: one for each attribute of the data. condition_agreement: likewise, where the
    samples were conditioned on labels of the data. appearance, brightness: differences in color and light.
    notes: what could not be found out, and why. about: where the samples come from, at what cost, and when.
    """

    report: MetricReport
    held_out: MetricReport | None
    memorization: Memorization | None
    nearest: NearestPairs | None
    attribute_frequencies: tuple[AttributeFrequencies, ...]
    condition_agreement: tuple[ConditionAgreement, ...]
    appearance: tuple[AppearanceShift, ...]
    brightness: BrightnessThirds
    notes: tuple[Message, ...]
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, all but the pictures."""
        return {
            **self.about,
            **self.report.to_dict(),
            "held_out": self.held_out and self.held_out.to_dict(),
            "memorization": self.memorization and self.memorization.to_dict(),
            "attribute_frequencies": [f.to_dict() for f in self.attribute_frequencies],
            "condition_agreement": [asdict(a) for a in self.condition_agreement],
            "appearance": [a._asdict() for a in self.appearance],
            "brightness": self.brightness._asdict(),
            "notes": list(self.notes),
        }


class _Metric(BaseModel):
    """What others read of a metric of an evaluation that was kept."""

    key: str
    name: str
    value: float
    better: str
    interval: tuple[float, float] | None = None
    baseline: float | None = None


class _HeldOut(BaseModel):
    metrics: list[_Metric]
    reference: str
    n: int


class _Copies(BaseModel):
    copies: int
    n: int
    sentence: str


class _Kept(BaseModel):
    metrics: list[_Metric]
    extractor: str
    protocol: str
    reference: str
    n: int
    reference_n: int
    held_out: _HeldOut | None = None
    memorization: _Copies | None = None
    seconds_per_sample: float | None = None


def read_evaluations(run: Run) -> tuple[list[dict[str, Any]], Message | None]:
    """The evaluations that a run keeps, oldest first, and a sentence where some are damaged."""
    return read_evaluation_file(run.path / FILE)


def read_evaluation_file(path: Path) -> tuple[list[dict[str, Any]], Message | None]:
    """The evaluations in a file, oldest first, and a sentence where some are damaged.

    It is the file that a run keeps, or the single one that ``alphabar evaluate --json`` prints.
    """
    try:
        read = parse_json(read_plain_file(path), path, object)
        if not isinstance(read, list):
            read = [read]
        kept = unpack_messages([entry_content(entry, path) for entry in read])
    except FileNotFoundError:
        return [], None
    except (Damaged, RecursionError) as problem:
        return [], message("evaluation.damaged_record", problem=problem)
    whole = [entry for entry in kept if _is_whole(entry)]
    if len(whole) < len(kept):
        return whole, message("evaluation.damaged_entries", path=path, n=len(kept) - len(whole))
    return whole, None


def entry_content(entry: Any, path: Path) -> Any:
    """An entry of the file ``path`` without its checksum; None where that is wrong.

    Those that `alphabar evaluate --json` prints have none.
    """
    try:
        return without_checksum(entry, path) if isinstance(entry, dict) else entry
    except Damaged:
        return None


def _is_whole(entry: Any) -> bool:
    try:
        _Kept.model_validate(entry)
    except ValidationError:
        return False
    return True


def add_to_run(run: Run, evaluation: Evaluation) -> list[Message]:
    """Append an evaluation to the run's evaluation.json, which its report shows; and replace copies.png.

    The file holds messages by identifier and values, which `read_evaluations` makes sentences again.
    Returns sentences about what went wrong: the evaluation took long, so that nothing here ends with an
    error. A file that is no JSON is set aside and a new one begun.
    """
    path, notes = run.path / FILE, []
    try:
        stored = read_plain_file(path)
    except FileNotFoundError:
        stored = b"[]"
    except Damaged as problem:  # it may be readable tomorrow, and must not be replaced until then
        return [message("evaluation.not_kept", problem=problem.message)]
    try:
        earlier = parse_json(stored, path, list)
    except Damaged as problem:
        aside = path.with_name(f"damaged-{FILE}")
        notes.append(message("evaluation.set_aside", problem=problem.message, aside=aside))
        with suppress(OSError):
            path.replace(aside)
        earlier = []
    try:
        write_file(path, pack_json([*earlier, with_checksum(pack_messages(evaluation.to_dict()))]))
        if evaluation.nearest:
            png = io.BytesIO()
            nearest_panel(evaluation.nearest.samples, evaluation.nearest.originals[:, None]).save(png, "PNG")
            write_file(run.path / "copies.png", png.getvalue())
    except AlphabarError as problem:
        notes.append(message("evaluation.not_kept", problem=problem.message))
    return notes
