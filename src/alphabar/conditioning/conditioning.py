"""The vocabulary of a model: what is known about its training pictures becomes what it may be asked for.

A condition is a row of float32 numbers, field after field; NaN means unknown. Missing labels, labels
dropped in training and what a request leaves open are all NaN.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError, unknown

KINDS = ("class", "attributes")
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

    def number(self, value: Value) -> float:
        """The number of a training picture's value; NaN for one that is not known."""
        return self.names.index(str(value)) if value is not None and str(value) in self.names else math.nan

    def asked(self, text: str) -> float:
        """The number of what a person asks for: a name, or words of it that only one name has.

        Case does not matter. Raises UsageError naming all that fit, or the nearest where none does.
        """
        words = set(text.casefold().split())
        same = [name for name in self.names if name.casefold().split() == text.casefold().split()]
        found = same or [name for name in self.names if words and words <= set(name.casefold().split())]
        if len(found) > 1:
            raise UsageError(f"{self.name} {text!r} could be {', '.join(found)}: say which")
        if not found:
            raise unknown(self.name, text, self.names)
        return float(self.names.index(found[0]))


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

    def number(self, value: Value) -> float:
        return math.nan if (x := _number(value)) is None else (x - self.mean) / self.std

    def asked(self, text: str) -> float:
        """Raises UsageError for what is no number."""
        if _number(text) is None:
            raise UsageError(f"{self.name} = {text!r}: it is a number, {self.mean:.4g} on average")
        return self.number(text)


Field = Categorical | Numeric


@dataclass(frozen=True)
class Conditioning:
    """The fields of a model's condition, in the order of their columns."""

    fields: tuple[Field, ...]

    @property
    def conditions(self) -> tuple[tuple[str, int], ...]:
        """What a network needs to embed them: kind and size of each."""
        return tuple((field.kind, field.size) for field in self.fields)

    def rows(self, columns: Mapping[str, Sequence[Value]]) -> Tensor:
        """The conditions of pictures of which columns hold what is known, (n, fields) float32."""
        return torch.tensor(
            [[field.number(value) for value in columns[field.name]] for field in self.fields],
            dtype=torch.float32,
        ).T.contiguous()

    def request(self, asked: Mapping[str, str]) -> Tensor:
        """One row (fields,) for what a person asks for by field name; what is left out is unknown.

        Raises UsageError for a field or a value that the model does not know.
        """
        known = {field.name: field for field in self.fields}
        for name in asked:
            if name not in known:
                raise unknown("condition of this model", name, known)
        row = [field.asked(asked[field.name]) if field.name in asked else math.nan for field in self.fields]
        return torch.tensor(row, dtype=torch.float32)

    def to_dict(self) -> dict[str, Any]:
        return {"fields": [asdict(field) for field in self.fields]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Conditioning":
        """The inverse of `to_dict`, also after JSON."""
        return Conditioning(
            tuple(
                Categorical(f["name"], tuple(f["names"])) if "names" in f else Numeric(**f)
                for f in values["fields"]
            )
        )


def columns(
    kind: str, labels: Sequence[int], classes: Sequence[str], attributes: Sequence[Mapping[str, Any]]
) -> dict[str, list[Value]]:
    """What is known about pictures, by field name: their class, or their attributes.

    labels: indices into classes, -1 where unknown. Raises UsageError for a kind that is not of `KINDS`.
    """
    if kind not in KINDS:
        raise unknown("condition", kind, KINDS)
    if kind == "class":
        return {"class": [classes[i] if i >= 0 else None for i in labels]}
    names = sorted({name for row in attributes for name in row} - set(NOT_ASKED))
    return {name: [_plain(row.get(name)) for row in attributes] for name in names}


def describe(kind: str, known: Mapping[str, Sequence[Value]]) -> Conditioning:
    """The vocabulary of columns: a field for each that tells pictures apart.

    A column whose every value is a number is numeric, also where the numbers are written as text; others are
    categorical. Columns of one value are left out, and so are attributes (never classes) that hardly two
    pictures share: they name a picture and say nothing of it.
    Raises AlphabarError where nothing is left.
    """
    fields = tuple(_fields(known))
    if not fields:
        where = {"class": "sub-folders are classes", "attributes": "columns of metadata.csv are attributes"}
        raise AlphabarError(
            f"--condition {kind}: the pictures carry none that tells them apart ({where[kind]})"
        )
    return Conditioning(fields)


def _fields(known: Mapping[str, Sequence[Value]]) -> Iterator[Field]:
    for name, column in known.items():
        values = [value for value in column if value is not None]
        numbers = [x for value in values if (x := _number(value)) is not None]
        if name != "class" and values and len(numbers) == len(values):
            if (std := float(np.std(numbers))) > 0:
                yield Numeric(name, float(np.mean(numbers)), std)
            continue
        names = sorted({str(value) for value in values})
        most = len(names) if name == "class" else min(MOST_NAMES, max(2, len(values) // 2))
        if 1 < len(names) <= most:
            yield Categorical(name, tuple(names))


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
