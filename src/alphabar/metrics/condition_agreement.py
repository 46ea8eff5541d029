"""How often a sample shows what it was conditioned on, and how far it is from the real images of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.metrics.distances import kid
from alphabar.metrics.feature_classifier import MIN_IMAGES, class_probabilities
from alphabar.metrics.intervals import Z95, wilson


class ValueDistance(NamedTuple):
    """The kernel distance of the samples of one condition from the real images of it, 95 % in (low, high)."""

    value: str
    n: int
    reference_n: int
    kid: float
    low: float
    high: float


@dataclass(frozen=True)
class ConditionAgreement:
    """How often a classifier says that a sample is of the value that it was conditioned on.

    agreed: that share, with its 95 % interval (low, high). accuracy: the same classifier's on real images
    that are new to it, which is what a perfect model would get. distances: from the real images of each
    value.
    """

    attribute: str
    n: int
    agreed: float
    low: float
    high: float
    accuracy: float
    distances: tuple[ValueDistance, ...] = ()


def condition_agreement(
    attribute: str,
    values: Sequence[str | None],
    real: Tensor,
    conditions: Sequence[str | None],
    fake: Tensor,
    seed: int = 0,
) -> ConditionAgreement:
    """The agreement of fakes (n, d) with the values that they were conditioned on, by `class_probabilities`.

    values: of the reals (m, d). conditions: of the fakes. Items whose value is unknown, or that fewer than
    `MIN_IMAGES` reals have, do not count. Raises AlphabarError where fewer than two values, or no fake,
    remain.
    """
    counts = {v: sum(v == other for other in values) for v in {v for v in values if v is not None}}
    names = sorted(v for v, count in counts.items() if count >= MIN_IMAGES)
    number = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([-1 if v is None else number.get(v, -1) for v in values])
    wanted = torch.tensor([-1 if v is None else number.get(v, -1) for v in conditions])
    if len(names) < 2 or not (wanted >= 0).any():
        raise AlphabarError("metrics.no_agreement", attribute=attribute, n=MIN_IMAGES)
    real, labels = real[labels >= 0], labels[labels >= 0]
    fake, wanted = fake[wanted >= 0], wanted[wanted >= 0]
    of_real, of_fake = class_probabilities(real, labels, fake, len(names), seed)
    right = int((of_fake.argmax(dim=1) == wanted).sum())
    low, high = wilson(right, len(wanted))
    accuracy = float((of_real.argmax(dim=1) == labels).double().mean())
    return ConditionAgreement(attribute, len(wanted), right / len(wanted), low, high, accuracy)


def distances_by_value(
    values: Sequence[str | None], real: Tensor, conditions: Sequence[str | None], fake: Tensor
) -> tuple[ValueDistance, ...]:
    """How far the fakes (n, d) conditioned on each value are from its reals (m, d), the farthest first.

    Values of fewer than `MIN_IMAGES` fakes or reals are left out.
    """
    found = []
    for value in {v for v in values if v is not None}:
        a, b = (
            part[torch.tensor([v == value for v in of])] for part, of in ((fake, conditions), (real, values))
        )
        if min(len(a), len(b)) >= MIN_IMAGES:
            d, error = kid(a, b)
            found.append(ValueDistance(value, len(a), len(b), d, d - Z95 * error, d + Z95 * error))
    return tuple(sorted(found, key=lambda distance: -distance.kid))
