"""All distances between samples and real images at once, with what one must know to compare them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Literal

import torch

from alphabar.formatting import format_number
from alphabar.messages import Message, message
from alphabar.metrics.distances import (
    Estimate,
    check_features,
    classifier_score,
    density_coverage,
    frechet_distance,
    frechet_infinite,
    kid,
    precision_recall,
)
from alphabar.metrics.features import Features
from alphabar.metrics.intervals import Z95
from alphabar.registry import Registry

NEIGHBORS = 3  # of precision and recall

BALL_NEIGHBORS = 5  # of density and coverage, as Naeem et al. 2020 choose it

SPLITS = 10

COMPARABLE_N = 50_000
"""The number of samples behind an FID in a paper."""

KEYS = ("frechet", "frechet_infinite", "kid", "score", "precision", "recall", "density", "coverage")

LOWER_IS_BETTER = {"frechet", "frechet_infinite", "kid"}
"""Keys of numbers that are better when they are lower; an extension adds those of its own."""

NAMES = {
    "frechet": "Fréchet distance",
    "frechet_infinite": "Fréchet distance, n → ∞",
    "kid": "kernel distance",
    "score": "classifier score",
}

INCEPTION_NAMES = {"frechet": "FID", "frechet_infinite": "FID∞", "kid": "KID", "score": "Inception Score"}


@dataclass(frozen=True)
class Metric:
    """One number of a report.

    key: one of ``KEYS``; name: what to print, "FID" only where it is one. error: its standard error, where
    one is known. baseline: the real-vs-real baseline, the score that real images get against other real
    images. interval: it holds the truth in 95 of 100 cases; that of "frechet_infinite" is widened by its
    baseline, whose truth is 0.
    """

    key: str
    name: str
    value: float
    better: Literal["lower", "higher"]
    error: float | None = None
    baseline: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class MetricReport:
    """Metrics and what decides them: two reports compare only where all but the metrics agrees.

    n, reference_n: how many samples, how many real images. baseline_n, baseline_reference_n: how many real
    images stood in for the samples, and against how many other real images; 0 where there were too few.
    """

    extractor: str
    protocol: str
    reference: str
    n: int
    reference_n: int
    baseline_n: int
    baseline_reference_n: int
    metrics: tuple[Metric, ...]
    warnings: tuple[Message, ...]

    def __getitem__(self, key: str) -> Metric:
        """The metric with this key."""
        return next(metric for metric in self.metrics if metric.key == key)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table to print: name, value with its interval, the real-vs-real baseline, which is better."""
        return [
            (
                m.name,
                format_number(m.value)
                + (f" [{', '.join(map(format_number, m.interval))}]" if m.interval else ""),
                format_number(m.baseline) if m.baseline is not None else "–",
                m.better,
            )
            for m in self.metrics
        ]


def metric_report(
    fake: Features,
    real: Features,
    *,
    extractor: str,
    protocol: str,
    reference: str,
    whole: bool = False,
    others: Features | None = None,
    seed: int = 0,
) -> MetricReport:
    """Compares samples (n, dim) with real images (m, dim), n, m ≥ 6, by features of the same extractor.

    extractor, protocol: the extractor's ``name`` and ``protocol``; reference: what the real images are;
    whole: whether they are a whole training set, as behind the FID of a paper. The baseline puts other real
    images in place of the samples: of ``others`` (k, dim) as many as there are samples, drawn by ``seed``;
    without it n of the real images against the other m − n, or half against half where m < 2n.
    "frechet_infinite" is given where samples, real images and their baseline are at least 2 dim. Raises
    AlphabarError for features that are too few, not finite, or of different dimensions.
    """
    at_least = BALL_NEIGHBORS + 1
    check_features("fakes", fake.features, at_least)
    check_features("reals", real.features, at_least)
    n, m, dim = len(fake.features), len(real.features), fake.features.shape[1]
    spare = m if others is None else len(others.features)
    baseline_n = min(n, m // 2 if others is None else spare)
    baseline_m = m - baseline_n if others is None else m
    if baseline_n < at_least:
        baseline_n = baseline_m = 0
    extrapolate = min(n, m, baseline_n, baseline_m) >= 2 * dim
    baseline: dict[str, Estimate | tuple[float, None]] = {}
    if baseline_n:
        order = torch.randperm(spare, generator=torch.Generator().manual_seed(seed))
        rest = real if others else real.chosen(order[baseline_n:])
        baseline = compare_features((others or real).chosen(order[:baseline_n]), rest, extrapolate)
    return MetricReport(
        extractor=extractor,
        protocol=f"{protocol}; kernel distance over all pairs, {SPLITS} splits, k = {NEIGHBORS} for "
        f"precision and recall, k = {BALL_NEIGHBORS} for density and coverage",
        reference=reference,
        n=n,
        reference_n=m,
        baseline_n=baseline_n,
        baseline_reference_n=baseline_m,
        metrics=tuple(_metrics(compare_features(fake, real, extrapolate), baseline, extractor)),
        warnings=(
            _comparable(extractor, n, whole),
            *_warnings(n, m, dim, baseline_n, extrapolate, within=others is None),
        ),
    )


Values = dict[str, Estimate | tuple[float, None]]
"""Numbers by their key, each with its standard error or None."""


def _frechet(fake: Features, real: Features) -> Values:
    return {"frechet": (frechet_distance(fake.features, real.features), None)}


def _frechet_infinite(fake: Features, real: Features) -> Values:
    return {"frechet_infinite": frechet_infinite(fake.features, real.features)}


def _kid(fake: Features, real: Features) -> Values:
    return {"kid": kid(fake.features, real.features)}


def _score(fake: Features, real: Features) -> Values:
    if fake.logits is None:
        return {}
    score = classifier_score(fake.logits, splits=min(SPLITS, len(fake.logits)))
    return {"score": Estimate(score.mean, score.standard_error)}


def _precision_recall(fake: Features, real: Features) -> Values:
    inside = precision_recall(real.features, fake.features, NEIGHBORS)
    return {key: (value, None) for key, value in inside._asdict().items()}


def _density_coverage(fake: Features, real: Features) -> Values:
    dense = density_coverage(real.features, fake.features, BALL_NEIGHBORS)
    return {key: (value, None) for key, value in dense._asdict().items()}


METRICS = Registry(
    "metric",
    {
        "frechet": _frechet,
        "frechet_infinite": _frechet_infinite,
        "kid": _kid,
        "score": _score,
        "precision_recall": _precision_recall,
        "density_coverage": _density_coverage,
    },
)
"""Name → function (features of samples, features of real images) → numbers by key, in the order printed."""


def compare_features(fake: Features, real: Features, extrapolate: bool) -> Values:
    """The numbers of all metrics by their key: value, and standard error or None.

    extrapolate: whether "frechet_infinite" is among them; "score" is where the features have logits.
    """
    values: Values = {}
    for name, metric in METRICS.items():
        if extrapolate or name != "frechet_infinite":
            values |= metric(fake, real)
    return values


def _metrics(
    values: Values,
    baseline: Values,
    extractor: str,
) -> Iterator[Metric]:
    for key, (value, error) in values.items():
        base = baseline[key][0] if key in baseline else None
        half = None if error is None else Z95 * error
        if half is not None and key == "frechet_infinite":
            half += abs(base or 0.0)
        interval = None if half is None else (value - half, value + half)
        better: Literal["lower", "higher"] = "lower" if key in LOWER_IS_BETTER else "higher"
        yield Metric(key, _name(key, extractor), value, better, error, base, interval)


def _name(key: str, extractor: str) -> str:
    if extractor == "inception":
        return INCEPTION_NAMES.get(key, f"{key} (inception)")
    return f"{NAMES.get(key, key)} ({extractor})"


def _comparable(extractor: str, n: int, whole: bool) -> Message:
    """Whether the numbers may stand beside those of papers, and what is missing."""
    missing = []
    if extractor not in ("inception", "dinov2"):
        missing.append(message("metrics.papers_features", extractor=extractor))
    if n != COMPARABLE_N:
        missing.append(message("metrics.papers_samples", usual=COMPARABLE_N, n=n))
    if not whole:
        missing.append(message("metrics.papers_reference"))
    if not missing:
        return message("metrics.comparable")
    joined = reduce(lambda first, rest: message("metrics.joined", first=first, rest=rest), missing)
    return message("metrics.not_comparable", missing=joined)


def _warnings(
    n: int, m: int, dim: int, baseline_n: int, extrapolated: bool, within: bool
) -> Iterator[Message]:
    if min(n, m) <= dim:  # n features about their mean span n - 1 dimensions
        yield message("metrics.singular", n=min(n, m), dim=dim)
    if not extrapolated:
        reals = message(
            "metrics.reals_in_all" if within else "metrics.reals_each", n=(4 if within else 2) * dim
        )
        yield message("metrics.not_extrapolated", n=2 * dim, reals=reals)
    if n < 1000:
        yield message("metrics.small_n", n=n)
    if baseline_n == 0:
        yield message("metrics.no_baseline", m=m)
    elif baseline_n < n:
        yield message("metrics.small_baseline", baseline_n=baseline_n, n=n)
