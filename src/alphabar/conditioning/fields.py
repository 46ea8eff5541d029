"""The fields of a condition: a class or attribute of few values, a number, or a sentence.

Each field turns labels into numbers: its columns in a condition row, NaN where a label is unknown.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
import torch
from pydantic_core import PydanticCustomError
from torch import Tensor

from alphabar.conditioning.text_encoder import IDENTITY, SIZE, embed
from alphabar.errors import UsageError, unknown
from alphabar.formatting import composed, finite_number, folded, is_infinite, known_value
from alphabar.messages import message

CONDITIONS = ("class", "attributes", "text", "clusters")
"""What a recipe may condition on (condition.on)."""

CAPTION = "caption"
"""The name of the field of a model that is conditioned on text."""

MAX_NAMES = 1000  # values of one attribute

MOST_NAMES = 50_000  # classes, each of which gets an embedding

MOST_FIELDS = 500  # of one model

IGNORED_ATTRIBUTES = ("split",)  # they say where an image lies, not what it shows

Value = Any  # of a label: a string, a number, or None where unknown


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, of which none may stand there twice."""
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise PydanticCustomError("twice", "{said}", {"said": message("validation.twice", name=twice)})
    return names


Names = Annotated[
    tuple[Annotated[str, pydantic.Field(min_length=1)], ...],
    pydantic.Field(min_length=1, max_length=MOST_NAMES),
    pydantic.AfterValidator(_distinct),
]
Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Categorical:
    """A class or attribute: one of several names. Its number is the index of the name."""

    kind: ClassVar[str] = "classes"
    name: str
    names: Names

    @property
    def size(self) -> int:
        """How many names there are, each of which gets an embedding."""
        return len(self.names)

    def rows(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """The column (n, 1) of the labels of n items, NaN where a label is unknown."""
        return torch.tensor([[self.number(value)] for value in values], dtype=torch.float32)

    def number(self, value: Value) -> float:
        """The index of a label; NaN for an unknown one."""
        return self.names.index(str(value)) if value is not None and str(value) in self.names else math.nan

    def knows(self, text: str) -> bool:
        """Whether a text is a label of the training data."""
        return text in self.names

    def row(self, text: str) -> Tensor:
        """The number (1,) of a name that a person gives in full, or by words that only one name has.

        Case does not matter. Raises UsageError naming all that fit, or the nearest where none does.
        """
        words = set(folded(text).split())
        same = [name for name in self.names if folded(name).split() == folded(text).split()]
        same = [text] if text in same else same
        found = same or [name for name in self.names if words and words <= set(folded(name).split())]
        if len(found) > 1:
            raise UsageError("conditioning.ambiguous", field=self.name, value=text, names=", ".join(found))
        if not found:
            raise unknown(self.name, text, self.names)
        return torch.tensor([float(self.names.index(found[0]))])


@dataclass(frozen=True)
class Numeric:
    """A number, standardized by the mean and standard deviation of the training data."""

    kind: ClassVar[str] = "numbers"
    name: str
    mean: Finite
    std: Positive

    @property
    def size(self) -> int:
        """One column."""
        return 1

    def rows(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """The column (n, 1) of the labels of n items, NaN where a label is unknown."""
        return torch.tensor([[self.number(value)] for value in values], dtype=torch.float32)

    def number(self, value: Value) -> float:
        """The standardized value; NaN for an unknown one."""
        return math.nan if (x := finite_number(value)) is None else (x - self.mean) / self.std

    def knows(self, text: str) -> bool:
        """Whether a text can be a label of the training data."""
        return math.isfinite(self.number(text))

    def row(self, text: str) -> Tensor:
        """The standardized value (1,) of a number that a person gives. Raises UsageError for other text."""
        if finite_number(text) is None:
            raise UsageError(
                "conditioning.not_a_number", field=self.name, value=text, mean=f"{self.mean:.4g}"
            )
        return torch.tensor([self.number(text)])


@dataclass(frozen=True)
class Text:
    """A sentence, as the embedding that a frozen encoder makes of it.

    encoder: which encoder, and with which settings: its embeddings mean nothing to another.
    """

    kind: ClassVar[str] = "numbers"
    name: str
    encoder: str

    @property
    def size(self) -> int:
        """The columns of an embedding."""
        return SIZE

    def knows(self, text: str) -> bool:
        """Whether a text can be a label of the training data: any sentence can."""
        return True

    def rows(self, values: Sequence[Value], cache: Path | None = None) -> Tensor:
        """The embeddings (n, size) of sentences, of variance one on average; NaN where there is no sentence.

        cache: a folder that keeps embeddings. Raises UsageError where the encoder is not installed, or is
        another one.
        """
        if self.encoder != IDENTITY:
            raise UsageError("conditioning.other_encoder", trained=self.encoder, installed=IDENTITY)
        rows = torch.full((len(values), self.size), math.nan)
        known = [i for i, value in enumerate(values) if value is not None]
        if known:
            rows[known] = embed([str(values[i]) for i in known], cache) * math.sqrt(self.size)
        return rows

    def row(self, text: str) -> Tensor:
        """The embedding (size,) of one sentence."""
        return self.rows([composed(text)])[0]


Field = Categorical | Numeric | Text


def field_type(values: Any) -> type[Field]:
    """What kind of field ``dataclasses.asdict`` made these values of."""
    return Categorical if "names" in values else Text if "encoder" in values else Numeric


def field_from_dict(values: Mapping[str, Any]) -> Field:
    """The inverse of ``dataclasses.asdict`` for a field, also after JSON."""
    if "names" in values:
        return Categorical(values["name"], tuple(values["names"]))
    return field_type(values)(**values)


def label_value(value: Any) -> Value:
    """A value of a data set as a label: text or a number.

    None for what is missing ("N/A", NaN, blank; see `known_value`), infinite, or has parts.
    """
    if isinstance(value, bool):
        return str(value).lower()
    known = known_value(value)
    return known if isinstance(known, int | float | str) and not is_infinite(known) else None
