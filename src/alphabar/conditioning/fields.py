"""TODO-DOC from conditioning.conditioning"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from alphabar.conditioning.text_encoder import IDENTITY, SIZE, embed
from alphabar.errors import UsageError, unknown

KINDS = ("class", "attributes", "text", "clusters")


CAPTION = "caption"  # the field of what a text model is asked


MOST_NAMES = 1000  # that one attribute may have


NOT_ASKED = ("split",)  # attributes that say where a picture lies, not what it shows


Value = Any  # of a field: a string, a number, or None where unknown


@dataclass(frozen=True)
class Categorical:
    """One of a few names; its number is a class index."""

    kind: ClassVar[str] = "classes"
    name: str
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.names)

    def numbers(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """A column (n, 1)."""
        return torch.tensor([[self.number(value)] for value in values], dtype=torch.float32)

    def number(self, value: Value) -> float:
        """The number of a training picture's value; NaN for one that is not known."""
        return self.names.index(str(value)) if value is not None and str(value) in self.names else math.nan

    def asked(self, text: str) -> Tensor:
        """The number (1,) of what a person asks for: a name, or words of it that only one name has.

        Case does not matter. Raises UsageError naming all that fit, or the nearest where none does.
        """
        words = set(text.casefold().split())
        same = [name for name in self.names if name.casefold().split() == text.casefold().split()]
        found = same or [name for name in self.names if words and words <= set(name.casefold().split())]
        if len(found) > 1:
            raise UsageError(f"{self.name} {text!r} could be {', '.join(found)}: say which")
        if not found:
            raise unknown(self.name, text, self.names)
        return torch.tensor([float(self.names.index(found[0]))])


@dataclass(frozen=True)
class Numeric:
    """A number, standardised by the mean and standard deviation of the training pictures."""

    kind: ClassVar[str] = "numbers"
    name: str
    mean: float
    std: float

    @property
    def size(self) -> int:
        return 1

    def numbers(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """A column (n, 1)."""
        return torch.tensor([[self.number(value)] for value in values], dtype=torch.float32)

    def number(self, value: Value) -> float:
        return math.nan if (x := _number(value)) is None else (x - self.mean) / self.std

    def asked(self, text: str) -> Tensor:
        """The number (1,). Raises UsageError for what is none."""
        if _number(text) is None:
            raise UsageError(f"{self.name} = {text!r}: it is a number, {self.mean:.4g} on average")
        return torch.tensor([self.number(text)])


@dataclass(frozen=True)
class Text:
    """A sentence, as the numbers that a frozen encoder makes of it.

    encoder: which one, and how: its numbers mean nothing to another.
    """

    kind: ClassVar[str] = "numbers"
    name: str
    encoder: str

    @property
    def size(self) -> int:
        return SIZE

    def numbers(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """The columns (n, size), of variance one on average; NaN where there is no sentence.

        Raises UsageError where the encoder is not installed, or not this one.
        """
        if self.encoder != IDENTITY:
            raise UsageError(f"this model reads text with {self.encoder}; here is {IDENTITY}")
        rows = torch.full((len(values), self.size), math.nan)
        there = [i for i, value in enumerate(values) if value is not None]
        if there:
            rows[there] = embed([str(values[i]) for i in there], cache) * math.sqrt(self.size)
        return rows

    def asked(self, sentence: str) -> Tensor:
        """The numbers (size,) of what a person asks for."""
        return self.numbers([sentence])[0]


Field = Categorical | Numeric | Text


def _plain(value: Any) -> Value:
    """The value where it is text or a number; None for what is empty or has parts."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, int | float) or (isinstance(value, str) and value.strip()) else None


def _number(value: Value) -> float | None:
    try:
        x = float(value)
    except (TypeError, ValueError):
        return None
    return x if math.isfinite(x) else None
