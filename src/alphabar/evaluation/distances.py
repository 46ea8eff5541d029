"""The second stage of an evaluation: features of samples and real data, and the distances between them."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.data.dataset import cache_root
from alphabar.evaluation.samples import Reference, Samples
from alphabar.messages import message
from alphabar.metrics.feature_classifier import MIN_IMAGES
from alphabar.metrics.features import Extractor, Features, extract
from alphabar.metrics.pictures import metric_pictures, picture_protocol
from alphabar.metrics.suite import MetricReport, metric_report
from alphabar.progress import Progress, staged


@dataclass(frozen=True)
class FeatureSets:
    """The pictures, uint8 (n, h, w, 3), and features of the samples, the training and the held-out data.

    protocol: everything that decides the features.
    """

    pictures: Tensor
    train_pictures: Tensor
    held_pictures: Tensor
    fake: Features
    train: Features
    held: Features
    extractor: Extractor
    protocol: str


def extract_features(
    extractor: Extractor, samples: Samples, reference: Reference
) -> Generator[Progress[Any], None, FeatureSets]:
    """Extract the features of the samples and of all real data; those of the data are cached."""
    pictures = torch.as_tensor(metric_pictures(samples.codec, samples.items))
    real = metric_pictures(reference.codec, reference.dataset.items)
    fake = yield from staged(extract(extractor, pictures), message("evaluation.features_of_samples"))
    every = yield from staged(
        extract(extractor, real, cache=cache_root() / "features"),
        message("evaluation.features_of_reference"),
    )
    return FeatureSets(
        pictures,
        torch.as_tensor(real[reference.train]),
        torch.as_tensor(real[reference.held]),
        fake,
        every.chosen(reference.train),
        every.chosen(reference.held),
        extractor,
        picture_protocol(samples.codec, extractor.protocol),
    )


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


def _in_reference(pictures: Tensor, reference: Tensor) -> int:
    """How many pictures are in the reference, pixel for pixel."""
    known = {_digest(picture) for picture in reference.numpy()}
    return sum(_digest(picture) in known for picture in pictures.numpy())


def _digest(picture: np.ndarray) -> bytes:
    return blake2b(picture.tobytes(), digest_size=16).digest()
