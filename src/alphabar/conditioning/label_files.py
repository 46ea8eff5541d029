"""The files of a model folder that hold its vocabulary and its label frequencies, read and checked.

They may come from anywhere: what is read here can be sampled with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError
from pydantic import Field as Bounds

from alphabar.conditioning.fields import MOST_FIELDS, Categorical, Numeric, Text, field_type
from alphabar.conditioning.label_frequencies import LabelFrequencies
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.files import Damaged, parse_json
from alphabar.messages import Message, message
from alphabar.validation import first_problem

VOCABULARY, FREQUENCIES = "vocabulary.json", "label_frequencies.json"

MOST_BYTES = 2**26  # of each of the two files

_Field = Annotated[
    Annotated[Categorical, Tag("categorical")]
    | Annotated[Numeric, Tag("numeric")]
    | Annotated[Text, Tag("text")],
    Discriminator(lambda values: field_type(values).__name__.lower()),
]


class _Vocabulary(BaseModel):
    fields: Annotated[tuple[_Field, ...], Bounds(min_length=1, max_length=MOST_FIELDS)]


_FREQUENCIES: TypeAdapter[LabelFrequencies] = TypeAdapter(tuple[dict[str, str], ...])


def read_labels(files: Mapping[str, bytes], path: Path) -> tuple[Vocabulary | None, LabelFrequencies]:
    """What samples can be conditioned on, and how often the data has each condition, in a folder's files.

    Raises Damaged naming the file in ``path`` that is missing, malformed or does not fit the other.
    """
    if VOCABULARY not in files:
        return None, ()
    known, given = (_parse(files, path / name) for name in (VOCABULARY, FREQUENCIES))
    try:
        vocabulary = Vocabulary(_Vocabulary.model_validate(known).fields)
    except ValidationError as error:
        raise _malformed(path / VOCABULARY, first_problem(error)) from None
    names = [field.name for field in vocabulary.fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _malformed(path / VOCABULARY, message("validation.twice", name=twice))
    try:
        frequencies = _FREQUENCIES.validate_python(given)
    except ValidationError as error:
        raise _malformed(path / FREQUENCIES, first_problem(error)) from None
    for name, value in dict.fromkeys(label for labels in frequencies for label in labels.items()):
        if not any(field.name == name and field.knows(value) for field in vocabulary.fields):
            problem = message("conditioning.unknown_label", name=name, value=value, file=VOCABULARY)
            raise _malformed(path / FREQUENCIES, problem)
    return vocabulary, frequencies


def _parse(files: Mapping[str, bytes], file: Path) -> Any:
    if file.name not in files:
        raise Damaged("files.incomplete", path=file.parent, missing=file.name)
    if (size := len(files[file.name])) > MOST_BYTES:
        raise Damaged("files.too_large", path=file, size=size, largest=MOST_BYTES)
    return parse_json(files[file.name], file, dict if file.name == VOCABULARY else list)


def _malformed(file: Path, problem: Message) -> Damaged:
    return Damaged("files.unexpected_content", path=file, problem=problem)
