"""Whom does it serve? Which kinds of pictures a model draws too seldom or too often, and its tint."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alphabar.errors import AlphabarError
from alphabar.metrics.distances import check_features, kid
from alphabar.metrics.intervals import Z95, wilson

MIN_IMAGES = 20
"""Real pictures that a value needs: with fewer its confusion is not known."""


FOLDS = 5


COMPONENTS = 128  # principal components of the features that the classifier sees


DECAY = 1e-3  # of the classifier's weights, so that separable classes stay finite


RESAMPLES = 1000


MISFIT = 4.0  # standard errors


class Frequency(NamedTuple):
    """One value of an attribute. All are shares in [0, 1].

    data: among the real pictures; samples: estimated among the samples, with its 95 % interval (low, high).
    verdict: "under" or "over" where the difference from the data holds at 95 % for all
    values at once, else "".
    """

    value: str
    data: float
    samples: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class AttributeFrequencies:
    """How often each value of one attribute is drawn. accuracy: of the classifier, on pictures new to it."""

    attribute: str
    n: int
    real_n: int
    accuracy: float
    shares: tuple[Frequency, ...]

    @property
    def imbalance(self) -> float:
        """The most frequent value of the data over the rarest."""
        return max(s.data for s in self.shares) / min(s.data for s in self.shares)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        rows = [share._asdict() for share in self.shares]
        return {**asdict(self), "shares": rows, "imbalance": self.imbalance}


class Distance(NamedTuple):
    """The kernel distance of the samples asked for one value from its real pictures, 95 % in (low, high)."""

    value: str
    n: int
    reference_n: int
    kid: float
    low: float
    high: float


@dataclass(frozen=True)
class ConditionAgreement:
    """How often a sample is of the value that it was asked to be, as a classifier sees it.

    agreed: that share, with its 95 % interval (low, high). accuracy: the same classifier's on real pictures
    that are new to it: what a perfect model would get. distances: from the real pictures of each value.
    """

    attribute: str
    n: int
    agreed: float
    low: float
    high: float
    accuracy: float
    distances: tuple[Distance, ...] = ()


def condition_agreement(
    attribute: str,
    values: Sequence[str | None],
    real: Tensor,
    asked: Sequence[str | None],
    fake: Tensor,
    seed: int = 0,
) -> ConditionAgreement:
    """The agreement of fakes (n, d), asked to be of a value each, by the classifier of `shares`.

    Reals (m, d) of unknown or rare values, and fakes that nothing or a rare value was asked of, are passed
    over. Raises AlphabarError where fewer than two values, or no fake, remain.
    """
    counts = {v: sum(v == other for other in values) for v in {v for v in values if v is not None}}
    names = sorted(v for v, count in counts.items() if count >= MIN_IMAGES)
    number = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([-1 if v is None else number.get(v, -1) for v in values])
    wanted = torch.tensor([-1 if v is None else number.get(v, -1) for v in asked])
    if len(names) < 2 or not (wanted >= 0).any():
        raise AlphabarError(f"{attribute}: nothing asked of the samples is of {MIN_IMAGES} real pictures")
    real, labels = real[labels >= 0], labels[labels >= 0]
    fake, wanted = fake[wanted >= 0], wanted[wanted >= 0]
    answers, fake_answers = _answers(real.double(), labels, fake.double(), len(names), seed)
    right = int((fake_answers.argmax(dim=1) == wanted).sum())
    low, high = wilson(right, len(wanted))
    accuracy = float((answers.argmax(dim=1) == labels).double().mean())
    return ConditionAgreement(attribute, len(wanted), right / len(wanted), low, high, accuracy)


def distances_by_value(
    values: Sequence[str | None], real: Tensor, asked: Sequence[str | None], fake: Tensor
) -> tuple[Distance, ...]:
    """Of each value that ``FEWEST`` fakes (n, d) or more were asked for, how far they are from its reals.

    The farthest comes first. Values with fewer real pictures are passed over.
    """
    found = []
    for value in {v for v in values if v is not None}:
        a, b = (part[torch.tensor([v == value for v in of])] for part, of in ((fake, asked), (real, values)))
        if min(len(a), len(b)) >= MIN_IMAGES:
            d, error = kid(a, b)
            found.append(Distance(value, len(a), len(b), d, d - Z95 * error, d + Z95 * error))
    return tuple(sorted(found, key=lambda distance: -distance.kid))


def attribute_frequencies(
    attribute: str, values: Sequence[str | None], real: Tensor, fake: Tensor, seed: int = 0
) -> AttributeFrequencies:
    """The share of each value of an attribute among fakes (n, d), known for the reals (m, d).

    A classifier counts wrongly where it errs, so its counts are corrected: with μ its mean answer for the
    fakes and M the matrix of its mean answers for real pictures of each value, new to it, the shares q solve
    M q = μ (adjusted counting, Forman 2008; with soft answers, Lipton et al. 2018, section 4). The interval
    comes from resampling fakes and reals. It assumes that a sample of a value looks to the classifier like
    real pictures of it; where that fails so badly that no shares explain the answers, there are none.

    The classifier is softmax regression on principal components, fitted five times, each without a fifth of
    the reals, which measure its M; fakes get the mean answer of the five. Reals of value None are passed
    over, values with fewer than 20 pictures become one, "(rare)", or are passed over too.
    Raises AlphabarError where fewer than two values remain, or where a share would have to lie beyond 0 or 1
    by more than four standard errors.
    """
    check_features("fakes", fake, at_least=2)
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    rare = {value for value, count in counts.items() if count < MIN_IMAGES}
    names = sorted(set(counts) - rare)
    if sum(counts[value] for value in rare) >= MIN_IMAGES:
        names.append("(rare)")
    if len(names) < 2:
        raise AlphabarError(
            f"{attribute}: fewer than two of its values have {MIN_IMAGES} pictures, which a share needs"
        )
    number = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([
        -1 if value is None else number.get("(rare)" if value in rare else value, -1) for value in values
    ])  # fmt: skip
    known = labels >= 0
    real, labels = real[known], labels[known]
    check_features("reals", real, at_least=2)
    answers, fake_answers = _answers(real.double(), labels, fake.double(), len(names), seed)
    of_value = [answers[labels == j] for j in range(len(names))]
    confusion = torch.stack([a.mean(dim=0) for a in of_value], dim=1)  # M[i, j]: answer i for value j
    mean_answer = fake_answers.mean(dim=0)
    estimate = _solve(confusion[None], mean_answer[None])[0]
    spread = _spread(of_value, fake_answers, seed)
    beyond = torch.maximum(-estimate, estimate - 1) > MISFIT * spread + 1e-9
    if beyond.any():
        raise AlphabarError(
            f"{attribute}: not counted, the samples look to a classifier like no mixture of real pictures:"
            f" {names[int(beyond.nonzero()[0])]} would be {float(estimate[beyond][0]):.0%} of them"
        )
    # what a difference must exceed so that of all the values none does by chance, in 95 of 100 cases
    strict = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 0.05 / len(names), dtype=torch.float64)).item()
    data = labels.bincount(minlength=len(names)).double() / len(labels)
    found = []
    for name, q, sd, p in zip(names, estimate.tolist(), spread.tolist(), data.tolist(), strict=True):
        low, high = max(q - Z95 * sd, 0.0), min(q + Z95 * sd, 1.0)
        verdict = "" if abs(q - p) <= strict * sd else "under" if q < p else "over"
        found.append(Frequency(name, p, min(max(q, 0.0), 1.0), min(low, 1.0), max(high, 0.0), verdict))
    accuracy = float((answers.argmax(dim=1) == labels).double().mean())
    return AttributeFrequencies(attribute, len(fake), len(real), accuracy, tuple(found))


def _answers(real: Tensor, labels: Tensor, fake: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Probabilities for the reals (m, k), each from the classifier that never saw it, and fakes (n, k)."""
    mean = real.mean(dim=0)
    centred = real - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(real))
    kept = min(COMPONENTS, max(len(real) // 10, 2), int((values > 1e-9 * values[-1]).sum()))
    axes = axes[:, -kept:] / values[-kept:].sqrt()
    x, z = centred @ axes, (fake - mean) @ axes
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    # by value and turn, so that every fold has its part of each value
    fold = torch.empty(len(real), dtype=torch.long)
    for j in range(k):
        of_value = order[labels[order] == j]
        fold[of_value] = torch.arange(len(of_value)) % FOLDS
    answers = torch.empty(len(real), k, dtype=torch.float64)
    fake_answers = torch.zeros(len(fake), k, dtype=torch.float64)
    for f in range(FOLDS):
        weight = _fit(x[fold != f], labels[fold != f], k)
        answers[fold == f] = _predict(x[fold == f], weight)
        fake_answers += _predict(z, weight) / FOLDS
    return answers, fake_answers


def _fit(x: Tensor, labels: Tensor, k: int) -> Tensor:
    """Softmax regression: weights (1 + d, k) of least cross-entropy with a decay. Convex: no seed."""
    with torch.enable_grad():
        weight = torch.zeros(1 + x.shape[1], k, dtype=torch.float64, requires_grad=True)
        descent = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            descent.zero_grad()
            value = cross_entropy(weight[0] + x @ weight[1:], labels) + DECAY * weight[1:].square().sum()
            value.backward()
            return value

        descent.step(loss)  # type: ignore[arg-type]
    return weight.detach()


def _predict(x: Tensor, weight: Tensor) -> Tensor:
    return (weight[0] + x @ weight[1:]).softmax(dim=1)


def _solve(confusion: Tensor, answer: Tensor) -> Tensor:
    """q of M q = μ, batched. Rows of M and μ sum to one, and so does q; it may leave [0, 1] by its noise."""
    return (torch.linalg.pinv(confusion) @ answer[..., None])[..., 0]


def _spread(of_value: list[Tensor], fake_answers: Tensor, seed: int) -> Tensor:
    """The standard deviation of the estimate (k,) over resampled reals of each value and fakes."""
    generator = torch.Generator().manual_seed(seed)

    def resampled(answers: Tensor) -> Tensor:
        n = len(answers)
        picks = torch.randint(n, (RESAMPLES, n), generator=generator)
        weights = torch.zeros(RESAMPLES, n, dtype=torch.float64)
        weights.scatter_add_(1, picks, torch.full(picks.shape, 1 / n, dtype=torch.float64))
        return weights @ answers

    confusion = torch.stack([resampled(answers) for answers in of_value], dim=2)
    return _solve(confusion, resampled(fake_answers)).std(dim=0)
