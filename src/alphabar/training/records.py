"""When a training ends, and what it reports: records of updates, sentences in between, and the result."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alphabar.errors import UsageError
from alphabar.messages import Message
from alphabar.progress import Progress


@dataclass(frozen=True)
class Limits:
    """When a training ends: after so many images, after a budget in seconds, or whichever comes first.

    preparation: how much of the budget passed before the first update. Raises UsageError for a limit that is
    not above zero.
    """

    images: int | None
    whole_budget: float | None
    preparation: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("budget", self.whole_budget)):
            if value is not None and value <= 0:
                raise UsageError("training.nothing_to_do", option=f"--{name}", value=value)

    @property
    def budget(self) -> float | None:
        """The seconds that are left for updates: half of the budget at least."""
        whole = self.whole_budget
        return None if whole is None else max(whole - self.preparation, whole / 2)

    def share(self, images: int, seconds: float) -> float:
        """How much of the training is done, in [0, 1]."""
        by_images = images / self.images if self.images else 0.0
        return min(1.0, max(by_images, seconds / self.budget if self.budget else 0.0))

    def reached(self, images: int, seconds: float) -> bool:
        """Whether the training ends here."""
        out_of_time = self.budget is not None and seconds >= self.budget
        return out_of_time or (self.images is not None and images >= self.images)

    def seconds_left(self, images: int, seconds: float, rate: float) -> float:
        """Until the end, at a rate in images a second."""
        left = [(self.images - images) / rate] if self.images else []
        left += [self.budget - seconds] if self.budget else []
        return max(min(left), 0.0)


@dataclass(frozen=True)
class TrainingResult:
    """What a sitting of a training ended with.

    run: its folder. images, seconds: seen and spent in training since the beginning of the run. reason: why
    it ended.
    """

    run: Path
    images: int
    seconds: float
    reason: Message

    @property
    def stopped(self) -> bool:
        """Whether a person stopped the training before its end."""
        return self.reason.identifier.startswith("training.stopped")

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON can hold it."""
        return asdict(self) | {"run": str(self.run), "reason": str(self.reason)}


@dataclass(frozen=True)
class TrainingProgress(Progress[TrainingResult]):
    """How far a training is: done is the share of it, total is 1. There are three kinds of records.

    After each update there is one with a loss. One with a message is a sentence for the person who trains;
    after the model was measured, preview is the path of the grid of samples. The last has the result.

    images, seconds: seen and spent in training since the beginning of the run.
    loss: of the update, mean over the batch. learning_rate: of the update. rate: images a second, over the
    last updates. wait: share of the time spent waiting for data, over the last updates. eta: seconds left.
    """

    images: int = 0
    seconds: float = 0.0
    loss: float | None = None
    learning_rate: float = 0.0
    rate: float = 0.0
    wait: float = 0.0
    eta: float = 0.0
