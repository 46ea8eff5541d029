"""How often a model generates each value of an attribute, compared with the data."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.metrics.distances import check_features
from alphabar.metrics.feature_classifier import MIN_IMAGES, class_probabilities
from alphabar.metrics.intervals import Z95

RARE = "(rare)"
"""The value that stands for all values of few images."""

RESAMPLES = 1000  # of the bootstrap

MOST_PICKS = 2**20  # that are held at once: a number for each resample and picture would be gigabytes

MAX_MISFIT = 4.0  # standard errors by which a share may lie beyond 0 or 1


class Frequency(NamedTuple):
    """One value of an attribute. All are shares in [0, 1].

    data: among the real images; samples: estimated among the samples, with its 95 % interval (low, high).
    verdict: "under" or "over" where the difference from the data holds at 95 % for all values at once, else
    "".
    """

    value: str
    data: float
    samples: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class AttributeFrequencies:
    """How often each value of one attribute is generated.

    accuracy: of the classifier, on real images that are new to it.
    """

    attribute: str
    n: int
    real_n: int
    accuracy: float
    frequencies: tuple[Frequency, ...]

    @property
    def imbalance(self) -> float:
        """The most frequent value of the data over the rarest."""
        return max(f.data for f in self.frequencies) / min(f.data for f in self.frequencies)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        rows = [frequency._asdict() for frequency in self.frequencies]
        return {**asdict(self), "frequencies": rows, "imbalance": self.imbalance}


def attribute_frequencies(
    attribute: str, values: Sequence[str | None], real: Tensor, fake: Tensor, seed: int = 0
) -> AttributeFrequencies:
    """The share of each value of an attribute among fakes (n, d).

    values: those of the reals (m, d), None where unknown.

    A classifier counts wrongly where it errs, so its counts are corrected: with μ its mean answer for the
    fakes and M the matrix of its mean answers for real images of each value, new to it
    (`class_probabilities`), the shares q solve M q = μ (adjusted counting, Forman 2008; with soft answers,
    Lipton et al. 2018, section 4). The interval comes from resampling fakes and reals. It assumes that a
    sample of a value looks to the classifier like real images of it; where that fails so badly that no
    shares explain the answers, there are none.

    Values with fewer than `MIN_IMAGES` images become one, `RARE`, or are left out where even together they
    are too few. Raises AlphabarError where fewer than two values remain, or where a share would have to lie
    beyond 0 or 1 by more than four standard errors.
    """
    check_features("fakes", fake, at_least=2)
    names, labels = _grouped(attribute, values)
    known = labels >= 0
    real, labels = real[known], labels[known]
    check_features("reals", real, at_least=2)
    of_real, of_fake = class_probabilities(real, labels, fake, len(names), seed)
    of_value = [of_real[labels == j] for j in range(len(names))]
    confusion = torch.stack([a.mean(dim=0) for a in of_value], dim=1)  # M[i, j]: answer i for value j
    estimate = _solve(confusion[None], of_fake.mean(dim=0)[None])[0]
    error = _standard_error(of_value, of_fake, seed)
    beyond = torch.maximum(-estimate, estimate - 1) > MAX_MISFIT * error + 1e-9
    if beyond.any():
        worst, share = names[int(beyond.nonzero()[0])], float(estimate[beyond][0])
        raise AlphabarError("metrics.no_mixture", attribute=attribute, value=worst, share=f"{share:.0%}")
    data = labels.bincount(minlength=len(names)).double() / len(labels)
    found = _frequencies(names, data, estimate, error)
    accuracy = float((of_real.argmax(dim=1) == labels).double().mean())
    return AttributeFrequencies(attribute, len(fake), len(real), accuracy, found)


def _grouped(attribute: str, values: Sequence[str | None]) -> tuple[list[str], Tensor]:
    """The values that are counted, `RARE` last, and the index (m,) of each real's value, -1 for others."""
    counts = Counter(value for value in values if value is not None)
    rare = {value for value, count in counts.items() if count < MIN_IMAGES}
    names = sorted(set(counts) - rare)
    if sum(counts[value] for value in rare) >= MIN_IMAGES:
        names.append(RARE)
    if len(names) < 2:
        raise AlphabarError("metrics.too_few_values", attribute=attribute, n=MIN_IMAGES)
    number = {name: i for i, name in enumerate(names)}
    indices = [-1 if v is None else number.get(RARE if v in rare else v, -1) for v in values]
    return names, torch.tensor(indices)


def _frequencies(names: list[str], data: Tensor, estimate: Tensor, error: Tensor) -> tuple[Frequency, ...]:
    # what a difference must exceed so that of all the values none does by chance, in 95 of 100 cases
    strict = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 0.05 / len(names), dtype=torch.float64)).item()
    found = []
    for name, q, sd, p in zip(names, estimate.tolist(), error.tolist(), data.tolist(), strict=True):
        low, high = max(q - Z95 * sd, 0.0), min(q + Z95 * sd, 1.0)
        verdict = "" if abs(q - p) <= strict * sd else "under" if q < p else "over"
        found.append(Frequency(name, p, min(max(q, 0.0), 1.0), min(low, 1.0), max(high, 0.0), verdict))
    return tuple(found)


def _solve(confusion: Tensor, answer: Tensor) -> Tensor:
    """q of M q = μ, batched. Rows of M and μ sum to one, and so does q; it may leave [0, 1] by its noise."""
    return (torch.linalg.pinv(confusion) @ answer[..., None])[..., 0]


def _standard_error(of_value: list[Tensor], of_fake: Tensor, seed: int) -> Tensor:
    """The standard deviation of the estimate (k,) over resampled reals of each value and fakes."""
    generator = torch.Generator().manual_seed(seed)

    def resampled(answers: Tensor) -> Tensor:
        n, found = len(answers), []
        for rows in torch.arange(RESAMPLES).split(max(MOST_PICKS // n, 1)):
            picks = torch.randint(n, (len(rows), n), generator=generator)
            weights = torch.zeros(picks.shape, dtype=torch.float64)
            weights.scatter_add_(1, picks, torch.full(picks.shape, 1 / n, dtype=torch.float64))
            found.append(weights @ answers)
        return torch.cat(found)

    confusion = torch.stack([resampled(answers) for answers in of_value], dim=2)
    return _solve(confusion, resampled(of_fake)).std(dim=0)
