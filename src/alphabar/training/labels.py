"""What the data says about its items, as condition rows for a training."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec
from alphabar.conditioning.clusters import clusters, number_of_clusters
from alphabar.conditioning.fields import Numeric
from alphabar.conditioning.label_frequencies import LabelFrequencies, label_frequencies
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary, label_columns
from alphabar.data.dataset import Dataset, cache_root
from alphabar.errors import UsageError
from alphabar.formatting import unknown_numbers
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.metrics.pictures import metric_pictures
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.runtime import extractor_device


class Conditions(NamedTuple):
    """What a model is conditioned on.

    vocabulary: the fields of its condition. label_frequencies: the labels of some training items. rows: the
    condition rows (n, columns) of all items, NaN where unknown.
    """

    vocabulary: Vocabulary
    label_frequencies: LabelFrequencies
    rows: Tensor


def conditions_of(dataset: Dataset, recipe: Recipe) -> Conditions | None:
    """The conditions of a training, or None for an unconditional recipe.

    Raises as `known_columns` does, and UsageError for a method that needs a condition and has none.
    """
    on = recipe.condition.on
    if on is None:
        if method_of(recipe).needs_condition:
            raise UsageError("training.needs_condition", method=recipe.method["name"])
        return None
    known = known_columns(dataset, on, build_codec(recipe.data))
    vocabulary = build_vocabulary(on, known)
    train, _ = dataset.split(recipe.data.held_out)
    frequencies = label_frequencies(vocabulary, known, train, recipe.seed)
    return Conditions(vocabulary, frequencies, vocabulary.rows(known, cache_root() / "text"))


def known_columns(dataset: Dataset, on: str, codec: Codec) -> Mapping[str, Sequence[Any]]:
    """The labels of the items, by field name.

    on: "class", "attributes", "text", or "clusters", which are found here in the codec's previews.
    Raises AlphabarError or UsageError where the data says no such labels.
    """
    if on == "clusters":
        extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
        pictures = metric_pictures(codec, dataset.items[:])
        features = last(extract(extractor, pictures, cache=cache_root() / "features")).features
        found = clusters(features, number_of_clusters(len(pictures)))
        return {"cluster": [f"cluster {i}" for i in found.tolist()]}
    return label_columns(on, dataset.labels.tolist(), dataset.classes, dataset.attributes, dataset.captions)


def mirror_warning(dataset: Dataset, recipe: Recipe) -> Message | None:
    """A sentence where images are mirrored at random while their labels say left or right."""
    on = recipe.condition.on
    if not recipe.data.flip or on not in ("class", "attributes", "text"):
        return None
    for name, values in known_columns(dataset, on, build_codec(recipe.data)).items():
        for value in values:
            if isinstance(value, str) and {"left", "right"} & set(re.findall(r"[a-z]+", value.lower())):
                return message("training.mirrored_labels", field=name, value=value)
    return None


def others_than_numbers(dataset: Dataset, recipe: Recipe, conditions: Conditions | None) -> list[Message]:
    """A sentence for each column of numbers with other values, which count as unknown."""
    if recipe.condition.on != "attributes" or conditions is None:
        return []
    known = known_columns(dataset, "attributes", build_codec(recipe.data))
    numeric = [field.name for field in conditions.vocabulary.fields if isinstance(field, Numeric)]
    return [note for name in numeric for note in unknown_numbers(name, known[name])]


def left_out_attributes(dataset: Dataset, recipe: Recipe, conditions: Conditions | None) -> Message | None:
    """A sentence where the data has attributes that the model is not conditioned on (`build_vocabulary`)."""
    if recipe.condition.on != "attributes" or conditions is None:
        return None
    used = {field.name for field in conditions.vocabulary.fields}
    known = known_columns(dataset, "attributes", build_codec(recipe.data))
    left = [name for name in known if name not in used and any(value is not None for value in known[name])]
    return message("training.left_out_attributes", names=", ".join(left)) if left else None
