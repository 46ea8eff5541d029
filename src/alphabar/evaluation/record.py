"""TODO-DOC from evaluation"""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from alphabar.files import pack_json, write_file
from alphabar.metrics.appearance import AppearanceShift, BrightnessHistogram
from alphabar.metrics.attribute_frequencies import (
    AttributeFrequencies,
    ConditionAgreement,
)
from alphabar.metrics.memorization import Memorization
from alphabar.metrics.suite import MetricReport
from alphabar.runs.run import Run


class NearestPairs(NamedTuple):
    """The samples nearest to training pictures, (k, h, w, 3) uint8, and those; a sample may be mirrored."""

    samples: Tensor
    originals: Tensor


@dataclass(frozen=True)
class Evaluation:
    """A judgement and what was judged.

    judgement: against the pictures trained on. held_out: against those that the model never saw, which are
    fewer. memorization, twins: None where nothing was held out. shares: one for each attribute of the data.
    agreements: likewise, where the samples were asked for what the data holds.
    notes: what could not be said, and why.
    """

    judgement: MetricReport
    held_out: MetricReport | None
    memorization: Memorization | None
    twins: NearestPairs | None
    shares: tuple[AttributeFrequencies, ...]
    drift: tuple[AppearanceShift, ...]
    brightness: BrightnessHistogram
    agreements: tuple[ConditionAgreement, ...]
    notes: tuple[str, ...]
    about: dict[str, Any]  # what drew the samples, at what cost, and when

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, all but the pictures."""
        return {
            **self.about,
            **self.judgement.to_dict(),
            "held_out": self.held_out and self.held_out.to_dict(),
            "memorization": self.memorization and self.memorization.to_dict(),
            "shares": [s.to_dict() for s in self.shares],
            "drift": [d._asdict() for d in self.drift],
            "brightness": self.brightness._asdict(),
            "agreements": [asdict(a) for a in self.agreements],
            "notes": list(self.notes),
        }


def add_to_run(run: Run, evaluation: Evaluation) -> None:
    """Append an evaluation to the run's evaluation.json, which the report shows."""
    path = run.path / "evaluation.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_file(path, pack_json([*earlier, evaluation.to_dict()]))
