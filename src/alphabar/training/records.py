"""TODO-DOC from training.trainer"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """A sentence for the person who trains."""

    text: str


@dataclass(frozen=True)
class Progress:
    """One update of the weights."""

    images: int  # seen since the beginning of the run
    total: int | None  # images the training will see; None where the budget is in seconds
    seconds: float  # of training since the beginning of the run
    eta: float  # seconds left
    loss: float  # mean over the batch
    rate: float  # images a second, over the last updates
    wait: float  # share of the time spent waiting for data, over the last updates
    share: float  # of the training that is done


@dataclass(frozen=True)
class Monitored:
    """A look at the model: a grid of samples and measurements, also in log.jsonl."""

    images: int
    grid: Path | None  # None of a classifier
    distance: dict[str, Any] | None
    accuracy: dict[str, Any] | None = None  # of a classifier


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk and reads back right."""

    images: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The training has ended."""

    images: int
    seconds: float
    reason: str


Record = Note | Progress | Monitored | Saved | Finished
