"""The fourth stage of an evaluation: how often samples show each attribute value, and the wanted one."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.conditioning.fields import CAPTION, IGNORED_ATTRIBUTES, Categorical
from alphabar.conditioning.vocabulary import Vocabulary, label_columns
from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError, UsageError
from alphabar.evaluation.distances import FeatureSets
from alphabar.evaluation.samples import Reference, Samples
from alphabar.messages import Message, message
from alphabar.methods.classifier import classifier_features
from alphabar.metrics.attribute_frequencies import AttributeFrequencies, attribute_frequencies
from alphabar.metrics.condition_agreement import (
    ConditionAgreement,
    condition_agreement,
    distances_by_value,
)
from alphabar.metrics.feature_classifier import MIN_IMAGES
from alphabar.metrics.suite import MetricReport
from alphabar.parts import Rows
from alphabar.progress import Progress
from alphabar.runs.model import Model

MAX_VALUES = 32  # of an attribute whose frequencies are estimated

MAX_WORDS = 8  # of class names, where there are more classes than that

REALISTIC = 0.5  # precision over that of real images, from which on a classifier can judge samples


@dataclass(frozen=True)
class LabelFeatures:
    """The features by which labels are predicted: of real items, indices of the data set, and of samples."""

    index: NDArray[np.int64]
    real: Tensor
    fake: Tensor


def check_label_classifier(classifier: Model, codec: Codec) -> None:
    """Raises UsageError where a model predicts no labels, or those of other items than a codec's."""
    if not classifier.method.classifies:
        raise UsageError("evaluation.no_classifier", model=classifier.path)
    shape, wanted = classifier.codec.item_shape, codec.item_shape
    if shape != wanted:
        raise UsageError("evaluation.other_classifier", model=classifier.path, shape=shape, samples=wanted)


def label_features(
    classifier: Model | None, samples: Samples, reference: Reference, sets: FeatureSets
) -> Generator[Progress[Any], None, LabelFeatures]:
    """The features by which labels are predicted: those of the extractor, or those of a label classifier.

    A label classifier predicts by real items that it held out itself, which say how often it errs.
    """
    if classifier is None:
        return LabelFeatures(reference.train, sets.train.features, sets.fake.features)
    yield Progress(message("evaluation.predicting_labels"), 0, 1)
    index = reference.dataset.split(classifier.recipe.data.held_out)[1]
    real = classifier_features(
        classifier.denoiser, classifier.codec, Rows.of(reference.dataset.items).chosen(index)
    )
    return LabelFeatures(
        index, real, classifier_features(classifier.denoiser, classifier.codec, samples.items)
    )


def estimate_frequencies(
    labels: LabelFeatures, reference: Reference, report: MetricReport
) -> Generator[Progress[Any], None, tuple[tuple[AttributeFrequencies, ...], tuple[Message, ...]]]:
    """The frequencies of every attribute's values among the samples, and notes about those that are not
    estimated.

    Samples that hardly look like real data are not classified at all.
    """
    precision = report["precision"]
    if precision.value < REALISTIC * (precision.baseline or 1.0):
        return (), (message("evaluation.not_realistic", share=f"{precision.value:.0%}"),)
    found: list[AttributeFrequencies] = []
    notes: list[Any] = []
    for attribute, values in known_attributes(reference.dataset, labels.index):
        yield Progress(message("evaluation.counting"), len(found), len(found) + 1)
        try:
            found.append(attribute_frequencies(attribute, values, labels.real, labels.fake))
        except AlphabarError as problem:
            notes.append(problem.message)
    return tuple(found), tuple(notes)


def compare_conditions(
    labels: LabelFeatures, samples: Samples, reference: Reference, sets: FeatureSets
) -> Generator[Progress[Any], None, tuple[ConditionAgreement, ...]]:
    """For each attribute of their condition how often samples show it; () where that is unknown.

    Attributes that the condition does not tell are left out: a model can meet them by chance alone.
    """
    if samples.conditioned_on is None or samples.vocabulary is None:
        return ()
    told = set(told_attributes(samples.vocabulary, reference.dataset, reference.train))
    conditions = dict(known_attributes(reference.dataset, samples.conditioned_on))
    of_train = dict(known_attributes(reference.dataset, reference.train))
    found: list[ConditionAgreement] = []
    for attribute, values in known_attributes(reference.dataset, labels.index):
        if attribute not in told:
            continue
        yield Progress(message("evaluation.comparing_conditions"), len(found), len(found) + 1)
        wanted = conditions.get(attribute, ())
        with suppress(AlphabarError):
            agreement = condition_agreement(attribute, values, labels.real, wanted, labels.fake)
            distances = distances_by_value(
                of_train.get(attribute, ()), sets.train.features, wanted, sets.fake.features
            )
            found.append(replace(agreement, distances=distances))
    return tuple(found)


def told_attributes(vocabulary: Vocabulary, dataset: Dataset, index: NDArray[np.int64]) -> Iterator[str]:
    """Those of `known_attributes` whose values a condition tells: its fields, and what follows from them.

    An attribute follows where items of the same categories always have the same value. A sentence may tell
    all of them.
    """
    fields = {field.name: field for field in vocabulary.fields}
    labels, attributes = dataset.labels[index].tolist(), [dataset.attributes[i] for i in index]
    columns = label_columns("class", labels, dataset.classes, attributes)
    columns |= label_columns("attributes", labels, dataset.classes, attributes)
    given = [column for name, column in columns.items() if isinstance(fields.get(name), Categorical)]
    categories = list(zip(*given, strict=True)) if given else [()] * len(index)
    for name, values in known_attributes(dataset, index):
        seen: dict[tuple[Any, ...], str] = {}
        known = [(c, v) for c, v in zip(categories, values, strict=True) if v is not None and None not in c]
        follows = bool(given and known) and all(seen.setdefault(c, v) == v for c, v in known)
        if name in fields or follows or CAPTION in fields:
            yield name


def known_attributes(
    dataset: Dataset, index: NDArray[np.int64]
) -> Iterator[tuple[str, Sequence[str | None]]]:
    """The labels of the chosen items by attribute: the class and every attribute of 2 to `MAX_VALUES` values.

    Of many classes with names of several words ("Audi TTS Coupe 2012") the words count: see `common_words`.
    """
    labels = [dataset.classes[i] if i >= 0 else None for i in dataset.labels[index]]
    rows = [dataset.attributes[i] for i in index]
    found: dict[str, list[str | None]] = {}
    for name in sorted({key for row in rows for key in row} - set(IGNORED_ATTRIBUTES)):
        column = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, str | bool | int) for value in column):
            found[name] = [None if value is None else str(value) for value in column]
    if labels not in found.values():
        if len(dataset.classes) <= MAX_VALUES:
            found["class"] = labels
        else:
            found |= common_words(labels)
    for name, values in found.items():
        if 2 <= len({v for v in values if v is not None}) <= MAX_VALUES:
            yield name, values


def common_words(labels: Sequence[str | None]) -> dict[str, list[str | None]]:
    """For each of the words that most names of classes contain an attribute: "with" or "without" it."""
    words = [set(label.split()) if label else None for label in labels]
    count = Counter(w for has in words if has for w in has if w.isalpha() and len(w) > 2)
    common = [
        w for w, times in count.most_common(MAX_WORDS) if MIN_IMAGES <= times <= len(labels) - MIN_IMAGES
    ]
    return {
        f"class named “{w}”": [None if has is None else "with" if w in has else "without" for has in words]
        for w in common
    }
