"""The second stage of an evaluation: features of samples and real data, and the distances between them."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from torch import Tensor

from alphabar.data.dataset import cache_root
from alphabar.evaluation.samples import Reference, Samples
from alphabar.messages import message
from alphabar.metrics.feature_classifier import MIN_IMAGES
from alphabar.metrics.features import Extractor, Features, extract
from alphabar.metrics.pictures import metric_pictures, picture_protocol
from alphabar.metrics.suite import MetricReport, metric_report
from alphabar.parts import Rows
from alphabar.progress import Progress, staged


@dataclass(frozen=True)
class FeatureSets:
    """The pictures, uint8 (n, h, w, 3), and features of the samples, the training and the held-out data.

    mirrored, held_mirrored: the features of mirror images, which the search for copies takes; None where too
        little is held out for it. protocol: everything that decides the features.
    """

    pictures: Rows
    train_pictures: Rows
    held_pictures: Rows
    fake: Features
    train: Features
    held: Features
    mirrored: Features | None
    held_mirrored: Features | None
    extractor: Extractor
    protocol: str


def extract_features(
    extractor: Extractor, samples: Samples, reference: Reference
) -> Generator[Progress[Any], None, FeatureSets]:
    """Extract the features of the samples and of all real data; those of the data are cached.

    Processes that torchrun started share the work: each must call this.
    """
    pictures = metric_pictures(samples.codec, samples.items)
    real = metric_pictures(reference.codec, Rows.of(reference.dataset.items))
    held_pictures = real.chosen(reference.held)
    cache = cache_root() / "features"

    def of_samples(pictures: Rows, name: str) -> Iterator[Progress[Features]]:
        return extract(extractor, pictures, kept=samples.cache and samples.cache / name)

    fake = yield from staged(of_samples(pictures, "features"), message("evaluation.features_of_samples"))
    stage = message("evaluation.features_of_reference")
    every = yield from staged(extract(extractor, real, cache=cache), stage)
    mirrored = held_mirrored = None
    if len(reference.held) >= MIN_IMAGES:
        stage = message("evaluation.looking_for_copies")
        mirrored = yield from staged(of_samples(pictures.map(_mirrored), "mirrored"), stage)
        held_mirrored = yield from staged(
            extract(extractor, held_pictures.map(_mirrored), cache=cache), stage
        )
    return FeatureSets(
        pictures,
        real.chosen(reference.train),
        held_pictures,
        fake,
        every.chosen(reference.train),
        every.chosen(reference.held),
        mirrored,
        held_mirrored,
        extractor,
        picture_protocol(samples.codec, extractor.protocol),
    )


def _mirrored(pictures: Tensor) -> Tensor:
    return pictures.flip(2)


def metric_reports(sets: FeatureSets, reference: Reference) -> tuple[MetricReport, MetricReport | None]:
    """The distances from the training data, and from the held-out data where there is enough of it."""
    known: dict[str, Any] = {"extractor": sets.extractor.name, "protocol": sets.protocol}
    if reference.held_out:
        name = message("evaluation.without_held_out", name=reference.name, share=reference.held_out)
    else:
        name = reference.name
    report = metric_report(
        sets.fake,
        sets.train,
        **known,
        reference=message("evaluation.reference", n=len(reference.train), name=name),
        whole=not reference.held_out,
    )
    n = len(sets.pictures)
    if shared := _in_reference(sets.pictures, sets.train_pictures):
        report = replace(
            report, warnings=(message("evaluation.shared", shared=shared, n=n), *report.warnings)
        )
    if len(reference.held) < MIN_IMAGES:
        return report, None
    held_out = metric_report(
        sets.fake,
        sets.held,
        **known,
        reference=message("evaluation.held_out_reference", n=len(reference.held), name=reference.name),
        others=sets.train,
    )
    return report, held_out


def _in_reference(pictures: Rows, reference: Rows) -> int:
    """How many pictures are in the reference, pixel for pixel."""
    known = {_digest(picture.numpy()) for picture in reference}
    return sum(_digest(picture.numpy()) in known for picture in pictures)


def _digest(picture: np.ndarray) -> bytes:
    return blake2b(picture.tobytes(), digest_size=16).digest()
