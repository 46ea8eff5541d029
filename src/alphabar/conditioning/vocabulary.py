"""The vocabulary of a model: the fields of its condition, found in the labels of its training data.

A condition is a row of float32 numbers, field after field; NaN means unknown. Missing labels, labels that
training drops, and fields that a person leaves open are all NaN.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.conditioning.fields import (
    CAPTION,
    CONDITIONS,
    IGNORED_ATTRIBUTES,
    MAX_NAMES,
    MOST_FIELDS,
    MOST_NAMES,
    Categorical,
    Field,
    Numeric,
    Text,
    Value,
    field_from_dict,
    label_value,
)
from alphabar.conditioning.text_encoder import IDENTITY, check_installed
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.formatting import composed, finite_number, folded, numbers_and_others
from alphabar.messages import Message, message

FAR = 5.0  # standard deviations from the mean, from which on a number is unlike the training data's


@dataclass(frozen=True)
class Vocabulary:
    """The fields of a model's condition, in the order of their columns."""

    fields: tuple[Field, ...]

    @property
    def conditions(self) -> tuple[tuple[str, int], ...]:
        """What a network needs to embed the fields: the kind ("classes", "numbers") and size of each."""
        return tuple((field.kind, field.size) for field in self.fields)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many columns of a condition row each field has."""
        return tuple(1 if field.kind == "classes" else field.size for field in self.fields)

    def rows(self, columns: Mapping[str, Sequence[Value]], cache: Path | None = None) -> Tensor:
        """The condition rows (n, columns) float32 of n items.

        columns: their labels by field name. cache: a folder that keeps embeddings of sentences.
        """
        return torch.cat([field.rows(columns[field.name], cache) for field in self.fields], dim=1)

    def labels(self, columns: Mapping[str, Sequence[Value]], index: Iterable[int]) -> list[dict[str, str]]:
        """The known labels of some items, by field name and as text, such as `row` takes.

        columns: the labels of all items by field name. index: which items.
        """
        return [{f.name: str(v) for f in self.fields if _knows(f, v := columns[f.name][i])} for i in index]

    def row(self, labels: Mapping[str, str]) -> Tensor:
        """The condition row (columns,) of labels by field name; fields that are left out are unknown.

        A class, given to a model that is conditioned on attributes, stands for the attributes that its words
        name: "BMW M3 coupe 2012". Raises UsageError for a field or a value that the model does not know.
        """
        known = {field.name: field for field in self.fields}
        labels = {name if name in known else composed(name): text for name, text in labels.items()}
        if "class" in labels and "class" not in known and any(f.kind == "classes" for f in self.fields):
            labels = self.attributes_in(labels["class"]) | {k: v for k, v in labels.items() if k != "class"}
        for name in labels:
            if name == CAPTION and name not in known:
                raise UsageError("conditioning.no_text", fields=", ".join(known))
            if name not in known:
                raise unknown(message("conditioning.condition"), name, known)
        return torch.cat(
            [
                field.row(labels[field.name]) if field.name in labels else torch.full((width,), math.nan)
                for field, width in zip(self.fields, self.widths, strict=True)
            ]
        )

    def far_numbers(self, labels: Mapping[str, str]) -> list[Message]:
        """A sentence for each number that is further than `FAR` from those of the training data."""
        numeric = {field.name: field for field in self.fields if isinstance(field, Numeric)}
        found = []
        for name, text in labels.items():
            field = numeric.get(composed(name))
            if field and FAR < (far := abs(field.number(text))) < math.inf:
                about = {"field": field.name, "value": text, "mean": f"{field.mean:.4g}"}
                found.append(message("conditioning.far_number", **about, std=f"{field.std:.4g}", times=far))
        return found

    def attributes_in(self, text: str) -> dict[str, str]:
        """The attribute values, by field name, that the words of a text name.

        Long names are matched first; a number is a value of the one numeric field. Raises UsageError where
        words name nothing.
        """
        left = folded(text).split()
        found: dict[str, str] = {}
        names = [(f.name, name) for f in self.fields if isinstance(f, Categorical) for name in f.names]
        for attribute, name in sorted(names, key=lambda pair: -len(pair[1])):
            words = folded(name).split()
            places = [i for i in range(len(left)) if left[i : i + len(words)] == words]
            if attribute not in found and places:
                found[attribute] = name
                del left[places[0] : places[0] + len(words)]
        fields = [f.name for f in self.fields if isinstance(f, Numeric)]
        numbers = [word for word in left if finite_number(word) is not None]
        if len(fields) == len(numbers) == 1:
            found[fields[0]] = numbers[0]
            left.remove(numbers[0])
        if left or not found:
            fields_text = " / ".join(field.name for field in self.fields)
            raise unknown(fields_text, " ".join(left), {name for _, name in names})
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"fields": [asdict(field) for field in self.fields]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Vocabulary":
        """The inverse of `to_dict`, also after JSON."""
        return Vocabulary(tuple(field_from_dict(field) for field in values["fields"]))


def label_columns(
    on: str,
    labels: Sequence[int],
    classes: Sequence[str],
    attributes: Sequence[Mapping[str, Any]],
    captions: Sequence[str | None] = (),
) -> dict[str, list[Value]]:
    """The labels of items by field name: their class, their attributes, or their caption; None where unknown.

    on: "class", "attributes" or "text". labels: indices into classes, -1 where unknown.
    Raises UsageError for anything else to condition on.
    """
    if on not in CONDITIONS:
        raise unknown(message("conditioning.condition"), on, CONDITIONS)
    if on == "text":
        return {CAPTION: list(captions)}
    if on == "class":
        return {"class": [(classes[i] or None) if i >= 0 else None for i in labels]}
    names = sorted({name for row in attributes for name in row} - set(IGNORED_ATTRIBUTES))
    return {name: [label_value(row.get(name)) for row in attributes] for name in names}


def build_vocabulary(on: str, columns: Mapping[str, Sequence[Value]]) -> Vocabulary:
    """The vocabulary of labels by field name: a field for each column that distinguishes items.

    A column of numbers is numeric, also where they are written as text and a few cells hold something else
    (`numbers_and_others`); others are categorical. Columns of a single value are left out, and so are
    attributes (never classes) that hardly two items share: they identify an item and do not describe it.
    Raises AlphabarError where no column is left, and where there are more fields or names than a model takes.
    """
    if on == "text" and any(columns[CAPTION]):
        check_installed()
        return Vocabulary((Text(CAPTION, IDENTITY),))
    fields = tuple(_fields(columns)) if on != "text" else ()
    if not fields:
        where = message(f"conditioning.no_labels_{on}")
        seen = [name for name, column in columns.items() if any(value is not None for value in column)]
        if on == "attributes" and seen:
            where = message("training.left_out_attributes", names=", ".join(seen))
        raise AlphabarError("conditioning.no_labels", on=on, where=where)
    if len(fields) > MOST_FIELDS:
        raise AlphabarError("conditioning.too_many_fields", n=len(fields), most=MOST_FIELDS)
    for field in fields:
        if isinstance(field, Categorical) and field.size > MOST_NAMES:
            raise AlphabarError(
                "conditioning.too_many_names", n=field.size, field=field.name, most=MOST_NAMES
            )
    return Vocabulary(fields)


def _knows(field: Field, value: Value) -> bool:
    """Whether a label says something: it is there and, of a column of numbers, it is one."""
    return value is not None and (not isinstance(field, Numeric) or finite_number(value) is not None)


def _fields(columns: Mapping[str, Sequence[Value]]) -> Iterator[Field]:
    for name, column in columns.items():
        values = [value for value in column if value is not None]
        numbers, _ = numbers_and_others(values)
        if name != "class" and numbers:
            if 0 < (std := float(np.std(numbers))) < math.inf:
                yield Numeric(name, float(np.mean(numbers)), std)
            continue
        names = sorted({str(value) for value in values})
        most = len(names) if name == "class" else min(MAX_NAMES, max(2, len(values) // 2))
        if 1 < len(names) <= most:
            yield Categorical(name, tuple(names))
