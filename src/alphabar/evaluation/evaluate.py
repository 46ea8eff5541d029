"""Judging samples, drawn from a model or lying in a folder, against real pictures."""

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.codecs.image_files import full_pixels
from alphabar.data.dataset import cache_root, prepare
from alphabar.data.items import read
from alphabar.data.sources import open_source
from alphabar.diffusion.random import Noise
from alphabar.errors import AlphabarError, UsageError
from alphabar.evaluation.conditions import attributes_of, held_out_of_classifier, known_conditions
from alphabar.evaluation.record import Evaluation, NearestPairs
from alphabar.methods.classifier import classifier_features
from alphabar.metrics.appearance import appearance_shift
from alphabar.metrics.attribute_frequencies import (
    MIN_IMAGES,
    AttributeFrequencies,
    ConditionAgreement,
    attribute_frequencies,
    condition_agreement,
    distances_by_value,
)
from alphabar.metrics.features import EXTRACTORS, Extractor, Features, extract
from alphabar.metrics.memorization import FeaturePair, memorization, thresholds
from alphabar.metrics.suite import metric_report
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.runtime import extractor_device
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings, uses_training_conditions

SHOWN = 8  # samples beside the training pictures they are nearest to


REAL_ENOUGH = 0.5  # precision over that of real pictures, from which on a classifier is asked about samples


def evaluate(
    what: Model | str | Path,
    against: str | Path,
    *,
    n: int = 2000,
    features: str = "lite0",
    settings: SamplingSettings | None = None,
    weights: Path | None = None,
    teller: Model | None = None,
) -> Iterator[Progress[Evaluation]]:
    """Judge n samples against real pictures: how good, copied or not, and whom they leave out.

    what: a model, from which n pictures are drawn, or a folder of pictures, of which the first n count.
    against: the data, as for training. Its pictures are fitted as the model's recipe says, or squashed to
        the folder's size. Those that the model held out are a reference of their own, and tell copies from
        chance.
    how: how samples are drawn. Where it asks for every kind, as by default, a conditional model is asked for
        what is known of pictures of this data, drawn at random, and told how often the samples agree.
    teller: a model of the recipe classifier, trained on pictures of the same size, that tells the kinds in
        place of one on the features. What it held out itself says how often it errs.
    features: the name of the feature network. weights: its weight file, where it takes one.

    Yields records; the last one carries the ``Evaluation``. Raises AlphabarError where a folder's pictures
    are fewer than n or differ in size.
    """
    if n < 2:
        raise UsageError(f"-n must be at least 2, not {n}")
    spec = {"name": features, "weights": str(weights)} if weights else features
    extractor = EXTRACTORS.build(spec, device=extractor_device())
    source = open_source(against)
    size, fit, held_out = 0, "squash", 0.0
    if isinstance(what, Model):
        recipe = what.recipe
        size, fit, held_out = recipe.data.size, recipe.data.fit, recipe.data.held_out
    else:
        pictures = yield from _folder_pictures(Path(what), n)
        size = pictures.shape[1]
        about: dict[str, Any] = {"folder": str(what)}
    for prepared in prepare(source, ImageCodec(size), fit):
        yield Progress("reading the reference", prepared.done, prepared.total)
    dataset = prepared.result
    assert dataset is not None
    train, held = dataset.split(held_out)
    notes: list[str] = []
    likened: np.ndarray | None = None  # the training pictures that the samples are asked to be like
    if isinstance(what, Model):
        settings = settings or sampling_settings(what)
        about = {"model": str(what.path), "recipe": recipe.name, "images": what.images, **settings.to_dict()}
        if uses_training_conditions(what, settings):
            at = Noise(settings.seed, range(n), "as data").uniform(0) * len(train)
            chosen = train[at.long().numpy()]
            about["conditions"] = "as the data"
            if wanted := known_conditions(what, dataset, chosen):
                likened, settings = chosen, replace(settings, conditions=wanted)
            else:
                notes.append("asked for what its training pictures are: these carry other labels")
        before = perf_counter()
        pictures = yield from _drawn(what, n, settings)
        about["seconds_per_sample"] = (perf_counter() - before) / n
    cache = cache_root() / "features"
    fake = yield from _features("looking at the samples", extractor, pictures, None)
    every = yield from _features("looking at the reference", extractor, dataset.items, cache)
    real = _chosen(every, train)
    named = f"{dataset.name} ({dataset.fingerprint[:8]}), {fit} to {size} px"
    known = {"extractor": extractor.name, "protocol": extractor.protocol}
    without = f", without the {held_out:.0%} held out" if held_out else ""
    judgement = metric_report(
        fake, real, **known, reference=f"{len(train)} pictures of {named}{without}", whole=not held_out
    )
    shared = _shared(pictures, dataset.items[train])
    if shared:
        told = (
            f"{shared} of {n} samples are pictures of the reference, pixel for pixel: the distances flatter"
        )
        judgement = replace(judgement, warnings=(told, *judgement.warnings))
    beside = copies = twins = None
    if len(held) >= MIN_IMAGES:
        beside = metric_report(
            fake,
            _chosen(every, held),
            **known,
            reference=f"{len(held)} held-out pictures of {named}",
            stand_in=real,
        )
        train_pictures = torch.from_numpy(dataset.items[train])
        held_pictures = torch.from_numpy(dataset.items[held])
        mirrored = yield from _features("looking for copies", extractor, pictures.flip(2), None)
        calm = yield from _features("looking for copies", extractor, held_pictures.flip(2), cache)
        unseen = FeaturePair(held_pictures, every.features[held], calm.features)
        below = thresholds(unseen, train_pictures, real.features)
        drawn = FeaturePair(pictures, fake.features, mirrored.features)
        copies = memorization(drawn, train_pictures, real.features, below)
        shown = copies.nearest[:SHOWN]
        ours = [pictures[p.sample].flip(1) if p.mirrored else pictures[p.sample] for p in shown]
        twins = NearestPairs(torch.stack(ours), train_pictures[[p.train for p in shown]])
    else:
        notes.append(
            f"no held-out reference, no search for copies: {len(held)} pictures are held out,"
            f" it takes {MIN_IMAGES} or more"
        )
    # what tells the kinds: real pictures of known ones, and what a classifier decides by
    examples, real_looks, fake_looks = train, real.features, fake.features
    if teller is not None:
        examples = held_out_of_classifier(teller, dataset, size)
        yield Progress("telling kinds", 0, 1)
        real_looks = classifier_features(teller.denoiser, torch.from_numpy(dataset.items[examples]))
        fake_looks = classifier_features(teller.denoiser, pictures)
    kinds: list[AttributeFrequencies] = []
    precision = judgement["precision"]
    alike = precision.value >= REAL_ENOUGH * (precision.floor or 1.0)
    if not alike:
        notes.append(
            f"kinds are not counted: {precision.value:.0%} of the samples lie among real pictures, of which a"
            " classifier trained on them could tell the kind"
        )
    for attribute, values in attributes_of(dataset, examples) if alike else ():
        yield Progress("counting kinds", len(kinds), len(kinds) + 1)
        try:
            kinds.append(attribute_frequencies(attribute, values, real_looks, fake_looks))
        except AlphabarError as problem:
            notes.append(str(problem))
    agreed: list[ConditionAgreement] = []
    if likened is not None:
        every_asked, known_of = dict(attributes_of(dataset, likened)), dict(attributes_of(dataset, train))
        for attribute, values in attributes_of(dataset, examples):
            yield Progress("comparing with what was asked", len(agreed), len(agreed) + 1)
            asked = every_asked.get(attribute, ())
            with suppress(AlphabarError):
                found = condition_agreement(attribute, values, real_looks, asked, fake_looks)
                of = distances_by_value(known_of.get(attribute, ()), real.features, asked, fake.features)
                agreed.append(replace(found, distances=of))
    changes, thirds = appearance_shift(torch.from_numpy(dataset.items[train]), pictures)
    about["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    result = Evaluation(
        judgement, beside, copies, twins, tuple(kinds), changes, thirds, tuple(agreed), tuple(notes), about
    )
    yield Progress("done", 1, 1, result)


def _chosen(features: Features, index: np.ndarray) -> Features:
    logits = features.logits
    return Features(features.features[index], None if logits is None else logits[index])


def _shared(pictures: Tensor, reference: np.ndarray) -> int:
    """How many pictures are in the reference, pixel for pixel."""
    known = {blake2b(picture.tobytes(), digest_size=16).digest() for picture in reference}
    return sum(blake2b(p.tobytes(), digest_size=16).digest() in known for p in pictures.numpy())


def _drawn(model: Model, n: int, settings: SamplingSettings) -> Generator[Progress[Evaluation], None, Tensor]:
    for record in sample(model, n, settings):
        yield Progress("drawing samples", record.done, record.total)
    assert record.result is not None
    return record.result


def _features(
    stage: str, extractor: Extractor, pictures: Any, cache: Path | None
) -> Generator[Progress[Evaluation], None, Features]:
    for record in extract(extractor, pictures, cache=cache):
        yield Progress(stage, record.done, record.total)
    assert record.result is not None
    return record.result


def _folder_pictures(folder: Path, n: int) -> Generator[Progress[Evaluation], None, Tensor]:
    """The first n pictures that lie in a folder itself, (n, h, w, 3); sub-folders do not count."""
    source = open_source(folder)
    items = [item for item in source.items if "/" not in item.key]
    if len(items) < n:
        raise AlphabarError(
            f"{folder} holds {len(items)} pictures, {n} are asked for: give -n {len(items)} or less"
        )
    pictures: list[np.ndarray] = []
    for item in items[:n]:
        picture = full_pixels(read(source, item))
        if picture.shape != (pictures[0].shape if pictures else (picture.shape[0],) * 2 + (3,)):
            raise AlphabarError(
                f"{folder / item.key} is {picture.shape[1]}×{picture.shape[0]} px:"
                " samples must be square and all of one size; resize them first"
            )
        pictures.append(picture)
        yield Progress("reading the samples", len(pictures), n)
    return torch.from_numpy(np.stack(pictures))
