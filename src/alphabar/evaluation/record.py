"""The result of an evaluation, and how a run keeps it."""

import io
import json
from dataclasses import asdict, dataclass
from typing import Any

from alphabar.evaluation.copies import NearestPairs
from alphabar.files import pack_json, write_file
from alphabar.images import nearest_panel
from alphabar.messages import Message, pack_messages
from alphabar.metrics.appearance import AppearanceShift, BrightnessThirds
from alphabar.metrics.attribute_frequencies import AttributeFrequencies
from alphabar.metrics.condition_agreement import ConditionAgreement
from alphabar.metrics.memorization import Memorization
from alphabar.metrics.suite import MetricReport
from alphabar.runs.run import Run


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


def add_to_run(run: Run, evaluation: Evaluation) -> None:
    """Append an evaluation to the run's evaluation.json, which its report shows; and replace copies.png.

    The file holds messages by identifier and values, which `alphabar.messages.unpack_messages` reads.
    """
    path = run.path / "evaluation.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_file(path, pack_json([*earlier, pack_messages(evaluation.to_dict())]))
    if evaluation.nearest:
        png = io.BytesIO()
        nearest_panel(evaluation.nearest.samples, evaluation.nearest.originals[:, None]).save(png, "PNG")
        write_file(run.path / "copies.png", png.getvalue())
