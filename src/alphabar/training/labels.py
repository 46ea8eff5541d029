"""TODO-DOC from training.trainer"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alphabar.conditioning.clusters import clusters, number_of_clusters
from alphabar.conditioning.label_frequencies import LabelFrequencies, label_frequencies
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary, label_columns
from alphabar.data.dataset import Dataset, cache_root
from alphabar.errors import UsageError
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.recipes.schema import Recipe
from alphabar.runtime import extractor_device


def conditions_of(dataset: Dataset, recipe: Recipe) -> tuple[Vocabulary, LabelFrequencies, Tensor] | None:
    """The vocabulary of the recipe's model, its label frequencies, and the condition rows (n, columns).

    None for an unconditional recipe. Raises as `known_columns` does, and UsageError for a classifier of
    nothing.
    """
    kind = recipe.condition.on
    if kind is None:
        if recipe.method["name"] == "classifier":
            raise UsageError("a classifier needs something to tell: give --condition class or attributes")
        return None
    known = known_columns(dataset, kind)
    vocabulary = build_vocabulary(kind, known)
    train, _ = dataset.split(recipe.data.held_out)
    frequencies = label_frequencies(vocabulary, known, train, recipe.seed)
    return vocabulary, frequencies, vocabulary.rows(known, cache_root() / "text")


def known_columns(dataset: Dataset, kind: str) -> Mapping[str, Sequence[Any]]:
    """What is known about the pictures, by field name.

    Raises AlphabarError or UsageError where the data knows nothing of the kind.
    """
    if kind == "clusters":
        extractor = EXTRACTORS.build("lite0_96", device=extractor_device())
        pictures = torch.from_numpy(dataset.items[:])
        *_, done = extract(extractor, pictures, cache=cache_root() / "features")
        assert done.result is not None
        found = clusters(done.result.features, number_of_clusters(len(pictures)))
        return {"cluster": [f"cluster {i}" for i in found.tolist()]}
    return label_columns(kind, dataset.labels.tolist(), dataset.classes, dataset.attributes, dataset.captions)


def mirror_warning(dataset: Dataset, recipe: Recipe) -> str | None:
    """A sentence where pictures are mirrored at random and what is learnt of them says left or right."""
    on = recipe.condition.on
    if not recipe.data.flip or on not in ("class", "attributes", "text"):
        return None
    known = label_columns(on, dataset.labels.tolist(), dataset.classes, dataset.attributes, dataset.captions)
    for name, values in known.items():
        for value in values:
            if isinstance(value, str) and {"left", "right"} & set(re.findall(r"[a-z]+", value.lower())):
                return (
                    f"half of the pictures are mirrored, and {name} says left or right ({value!r}):"
                    " --set data.flip=false keeps it true"
                )
    return None
