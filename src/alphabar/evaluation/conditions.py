"""TODO-DOC from evaluation"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from alphabar.conditioning.vocabulary import describe
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.attribute_frequencies import MIN_IMAGES
from alphabar.runs.model import Model
from alphabar.training.labels import known_columns

MOST_VALUES = 32  # of an attribute whose shares are counted


MOST_WORDS = 8  # of class names, where there are more classes than that


def known_conditions(model: Model, dataset: Dataset, index: np.ndarray) -> tuple[dict[str, str], ...]:
    """What is known of pictures, as one would ask the model for it; () where they carry other labels."""
    kind = model.recipe.condition.on
    if kind is None or model.conditioning is None:
        return ()
    try:
        known = known_columns(dataset, kind)
        same = describe(kind, known) == model.conditioning
    except AlphabarError:  # they carry none
        return ()
    return tuple(model.conditioning.wording(known, index.tolist())) if same else ()


def held_out_of_classifier(teller: Model, dataset: Dataset, size: int) -> np.ndarray:
    """The pictures of the data that a classifier was not trained on. Raises UsageError for no classifier."""
    if not teller.method.classifies:
        raise UsageError(
            f"{teller.path} tells no kinds: train one with --recipe classifier --condition attributes"
        )
    if teller.recipe.data.size != size:
        raise UsageError(
            f"{teller.path} tells pictures of {teller.recipe.data.size} px, these have {size}: train another"
        )
    return dataset.split(teller.recipe.data.held_out)[1]


def attributes_of(dataset: Dataset, index: np.ndarray) -> Iterator[tuple[str, Sequence[str | None]]]:
    """What is known of the pictures chosen, by name: the class and every attribute of a few values.

    Of many classes with names of several words ("Audi TTS Coupe 2012") the words count: an attribute each.
    """
    labels = [dataset.classes[i] if i >= 0 else None for i in dataset.labels[index]]
    rows = [dataset.attributes[i] for i in index]
    found: dict[str, list[str | None]] = {}
    for name in sorted({key for row in rows for key in row}):
        column = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, str | bool | int) for value in column):
            found[name] = [None if value is None else str(value) for value in column]
    if labels not in found.values():
        if len(dataset.classes) <= MOST_VALUES:
            found["class"] = labels
        else:
            found |= _words(labels)
    for name, values in found.items():
        if 2 <= len({v for v in values if v is not None}) <= MOST_VALUES:
            yield name, values


def _words(labels: Sequence[str | None]) -> dict[str, list[str | None]]:
    """For each of the words that most pictures have in the name of their class: "with" or "without" it."""
    words = [set(label.split()) if label else None for label in labels]
    count = Counter(w for has in words if has for w in has if w.isalpha() and len(w) > 2)
    common = [
        w for w, times in count.most_common(MOST_WORDS) if MIN_IMAGES <= times <= len(labels) - MIN_IMAGES
    ]
    return {
        f"class named “{w}”": [None if has is None else "with" if w in has else "without" for has in words]
        for w in common
    }
