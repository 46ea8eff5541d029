"""The vocabulary of a model: what is known about its training pictures becomes what it may be asked for.

A condition is a row of float32 numbers, field after field; NaN means unknown. Missing labels, labels
dropped in training and what a request leaves open are all NaN.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.conditioning.fields import (
    CAPTION,
    KINDS,
    MOST_NAMES,
    NOT_ASKED,
    Categorical,
    Field,
    Numeric,
    Text,
    Value,
    _number,
    _plain,
)
from alphabar.conditioning.text_encoder import IDENTITY, check_installed
from alphabar.errors import AlphabarError, UsageError, unknown


@dataclass(frozen=True)
class Conditioning:
    """The fields of a model's condition, in the order of their columns.

    seen: what some training pictures are, drawn at random, as one would ask for it: by it a model draws
        pictures of every kind as often as the data has them.
    """

    fields: tuple[Field, ...]
    seen: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    @property
    def conditions(self) -> tuple[tuple[str, int], ...]:
        """What a network needs to embed them: kind and size of each."""
        return tuple((field.kind, field.size) for field in self.fields)

    @property
    def columns(self) -> tuple[int, ...]:
        """How many columns each field has."""
        return tuple(1 if field.kind == "classes" else field.size for field in self.fields)

    def rows(self, columns: Mapping[str, Sequence[Value]], cache: Path | None = None) -> Tensor:
        """The conditions of pictures of which columns hold what is known, (n, columns) float32.

        cache: a folder that keeps what an encoder made of sentences.
        """
        return torch.cat([field.numbers(columns[field.name], cache) for field in self.fields], dim=1)

    def wording(self, columns: Mapping[str, Sequence[Value]], index: Iterable[int]) -> list[dict[str, str]]:
        """What is known of these pictures, each as one would ask for it: of the data that it describes."""
        return [
            {f.name: str(columns[f.name][i]) for f in self.fields if columns[f.name][i] is not None}
            for i in index
        ]

    def request(self, asked: Mapping[str, str]) -> Tensor:
        """One row (columns,) for what a person asks for by field name; what is left out is unknown.

        A class asked of a model that knows attributes alone is the attributes that its words name: "BMW M3
        coupe 2012". Raises UsageError for a field or a value that the model does not know.
        """
        known = {field.name: field for field in self.fields}
        if "class" in asked and "class" not in known and any(f.kind == "classes" for f in self.fields):
            asked = self.named(asked["class"]) | {k: v for k, v in asked.items() if k != "class"}
        for name in asked:
            if name == CAPTION and name not in known:
                raise UsageError(
                    f"this model was trained without text: ask for {' or '.join(known)}, with --set"
                )
            if name not in known:
                raise unknown("condition of this model", name, known)
        return torch.cat(
            [
                field.asked(asked[field.name]) if field.name in asked else torch.full((width,), math.nan)
                for field, width in zip(self.fields, self.columns, strict=True)
            ]
        )

    def named(self, text: str) -> dict[str, str]:
        """The values by field that words name, long names first; a number is for the one field of numbers.

        Raises UsageError for words that name nothing.
        """
        left = text.casefold().split()
        found: dict[str, str] = {}
        names = [(f.name, name) for f in self.fields if isinstance(f, Categorical) for name in f.names]
        for attribute, name in sorted(names, key=lambda pair: -len(pair[1])):
            words = name.casefold().split()
            places = [i for i in range(len(left)) if left[i : i + len(words)] == words]
            if attribute not in found and places:
                found[attribute] = name
                del left[places[0] : places[0] + len(words)]
        fields = [f.name for f in self.fields if isinstance(f, Numeric)]
        numbers = [word for word in left if _number(word) is not None]
        if len(fields) == len(numbers) == 1:
            found[fields[0]] = numbers[0]
            left.remove(numbers[0])
        if left or not found:
            kinds = " or ".join(field.name for field in self.fields)
            raise unknown(kinds, " ".join(left), {name for _, name in names})
        return found

    def to_dict(self) -> dict[str, Any]:
        return {"fields": [asdict(field) for field in self.fields], "seen": list(self.seen)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Conditioning":
        """The inverse of `to_dict`, also after JSON."""
        return Conditioning(
            tuple(
                Categorical(f["name"], tuple(f["names"]))
                if "names" in f
                else (Text if "encoder" in f else Numeric)(**f)
                for f in values["fields"]
            ),
            tuple(values.get("seen", ())),
        )


def columns(
    kind: str,
    labels: Sequence[int],
    classes: Sequence[str],
    attributes: Sequence[Mapping[str, Any]],
    captions: Sequence[str | None] = (),
) -> dict[str, list[Value]]:
    """What is known about pictures, by field name: their class, their attributes, or their caption.

    labels: indices into classes, -1 where unknown. Raises UsageError for a kind that data does not carry.
    """
    if kind not in KINDS:
        raise unknown("condition", kind, KINDS)
    if kind == "text":
        return {CAPTION: list(captions)}
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
    if kind == "text" and any(known[CAPTION]):
        check_installed()
        return Conditioning((Text(CAPTION, IDENTITY),))
    fields = tuple(_fields(known)) if kind != "text" else ()
    if not fields:
        where = {
            "class": "sub-folders are classes",
            "attributes": "columns of metadata.csv are attributes",
            "text": "picture.txt beside picture.png, or the column text of metadata.csv, is a caption",
            "clusters": "they are too few, or too much alike",
        }
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
