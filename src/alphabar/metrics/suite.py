"""All distances between fakes and reals at once, with everything one must know to compare them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

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
from alphabar.metrics.features.extractors import Features
from alphabar.metrics.intervals import Z95

NEIGHBOURS = 3


BALL_NEIGHBOURS = 5  # of density and coverage, as Naeem et al. 2020 choose it


SPLITS = 10


COMPARABLE_N = 50_000
"""The number of samples behind an FID in a paper."""


KEYS = ("frechet", "frechet_infinite", "kid", "score", "precision", "recall", "density", "coverage")


LOWER_IS_BETTER = ("frechet", "frechet_infinite", "kid")


@dataclass(frozen=True)
class Metric:
    """One number of a judgement.

    key: one of ``KEYS``; name: what to print, "FID" only where it is.
    floor: the same number for real pictures in place of the fakes: what a perfect model would get.
    error: its standard error, where one is known. interval: it holds the truth in 95 of 100 cases; for
    "frechet_infinite" it is widened by its floor, whose truth is 0.
    """

    key: str
    name: str
    value: float
    better: Literal["lower", "higher"]
    error: float | None = None
    floor: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class MetricReport:
    """Numbers and what decides them: two judgements compare only where all but the measures agrees.

    n, reference_n: how many fakes, how many reals. floor_n, floor_reference_n: how many reals stood in
    for the fakes, and against how many other reals; 0 where there were too few.
    """

    extractor: str
    protocol: str
    reference: str
    n: int
    reference_n: int
    floor_n: int
    floor_reference_n: int
    measures: tuple[Metric, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, key: str) -> Metric:
        """The measure with this key."""
        return next(measure for measure in self.measures if measure.key == key)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table to print: name, value with its interval, the real-against-real floor, which is better."""
        return [
            (
                m.name,
                _number(m.value) + (f" [{', '.join(map(_number, m.interval))}]" if m.interval else ""),
                _number(m.floor) if m.floor is not None else "–",
                m.better,
            )
            for m in self.measures
        ]


def metric_report(
    fake: Features,
    real: Features,
    *,
    extractor: str,
    protocol: str,
    reference: str,
    whole: bool = False,
    stand_in: Features | None = None,
    seed: int = 0,
) -> MetricReport:
    """Compares fakes (n, dim) with reals (m, dim), n, m ≥ 6, seen by the same extractor.

    extractor, protocol: the extractor's ``name`` and ``protocol``; reference: what the reals are; whole:
    whether they are a whole training set, as behind the FID of a paper.
    The floor puts other real pictures in place of the fakes: of ``stand_in`` (k, dim) as many as there are
    fakes, drawn by ``seed``; without it n of the reals against the other m − n, or half against half where
    m < 2n. "frechet_infinite" is given where fakes, reals and their floor are at least 2 dim pictures.
    Raises AlphabarError for features that are too few, not finite, or of different dimensions.
    """
    at_least = BALL_NEIGHBOURS + 1
    check_features("fakes", fake.features, at_least)
    check_features("reals", real.features, at_least)
    n, m, dim = len(fake.features), len(real.features), fake.features.shape[1]
    spare = m if stand_in is None else len(stand_in.features)
    floor_n = min(n, m // 2 if stand_in is None else spare)
    floor_m = m - floor_n if stand_in is None else m
    if floor_n < at_least:
        floor_n = floor_m = 0
    extrapolate = min(n, m, floor_n, floor_m) >= 2 * dim
    floor: dict[str, Estimate | tuple[float, None]] = {}
    if floor_n:
        order = torch.randperm(spare, generator=torch.Generator().manual_seed(seed))
        others = real if stand_in else _pick(real, order[floor_n:])
        floor = _compare(_pick(stand_in or real, order[:floor_n]), others, extrapolate)
    measures = []
    for key, (value, error) in _compare(fake, real, extrapolate).items():
        base = floor[key][0] if key in floor else None
        half = None if error is None else Z95 * error
        if half is not None and key == "frechet_infinite":
            half += abs(base or 0.0)
        interval = None if half is None else (value - half, value + half)
        better: Literal["lower", "higher"] = "lower" if key in LOWER_IS_BETTER else "higher"
        measures.append(Metric(key, _name(key, extractor), value, better, error, base, interval))
    return MetricReport(
        extractor=extractor,
        protocol=f"{protocol}; kernel distance over all pairs, {SPLITS} splits, k = {NEIGHBOURS} for "
        f"precision and recall, k = {BALL_NEIGHBOURS} for density and coverage",
        reference=reference,
        n=n,
        reference_n=m,
        floor_n=floor_n,
        floor_reference_n=floor_m,
        measures=tuple(measures),
        warnings=(
            _comparable(extractor, n, whole),
            *_warnings(n, m, dim, floor_n, extrapolate, within=stand_in is None),
        ),
    )


def _compare(fake: Features, real: Features, extrapolate: bool) -> dict[str, Estimate | tuple[float, None]]:
    """Every measure by its key, in the order of ``KEYS``: value, standard error or None."""
    a, b = fake.features, real.features
    result: dict[str, Estimate | tuple[float, None]] = {"frechet": (frechet_distance(a, b), None)}
    if extrapolate:
        result["frechet_infinite"] = frechet_infinite(a, b)
    result["kid"] = kid(a, b)
    if fake.logits is not None:
        score = classifier_score(fake.logits, splits=min(SPLITS, len(fake.logits)))
        result["score"] = Estimate(score.mean, score.standard_error)
    inside, dense = precision_recall(b, a, NEIGHBOURS), density_coverage(b, a, BALL_NEIGHBOURS)
    return result | {key: (value, None) for key, value in (inside._asdict() | dense._asdict()).items()}


def _pick(features: Features, index: Tensor) -> Features:
    return Features(features.features[index], None if features.logits is None else features.logits[index])


def _name(key: str, extractor: str) -> str:
    if extractor == "inception":
        names = {"frechet": "FID", "frechet_infinite": "FID∞", "kid": "KID", "score": "Inception Score"}
        return names.get(key, f"{key} (inception)")
    names = {
        "frechet": "Fréchet distance",
        "frechet_infinite": "Fréchet distance, n → ∞",
        "kid": "kernel distance",
        "score": "classifier score",
    }
    return f"{names.get(key, key)} ({extractor})"


def _comparable(extractor: str, n: int, whole: bool) -> str:
    """Whether the numbers may stand beside those of papers, and what is missing."""
    missing = []
    if extractor not in ("inception", "dinov2"):
        missing.append(
            f"inception or dinov2 features and their resize: distances of {extractor} features are no FID"
        )
    if n != COMPARABLE_N:
        missing.append(f"{COMPARABLE_N} samples: here n = {n}")
    if not whole:
        missing.append("a whole training set as the reference")
    if missing:
        return f"not comparable with papers, which have {'; '.join(missing)}"
    return "comparable with papers that judge against these pictures at this size"


def _warnings(n: int, m: int, dim: int, floor_n: int, extrapolated: bool, within: bool) -> list[str]:
    warnings = []
    if min(n, m) < dim:
        warnings.append(
            f"n = {min(n, m)} is below the features' dimension {dim}: the covariance is singular and the "
            "Fréchet distance far too large; compare it only at the same n, prefer the kernel distance"
        )
    if not extrapolated:
        reals = f"{4 * dim} real pictures" if within else f"{2 * dim} real pictures on either side"
        warnings.append(f"no Fréchet distance at infinite n: that takes {2 * dim} samples and {reals}")
    if n < 1000:
        warnings.append(f"n = {n} is small: mind the kernel distance's interval before you rank by it")
    if floor_n == 0:
        warnings.append(f"no real-against-real floor: {m} reference pictures are too few to split")
    elif floor_n < n:
        warnings.append(
            f"the floor is at n = {floor_n}, not {n}, for want of real pictures: at {n} it is lower"
        )
    return warnings


def _number(value: float) -> str:
    return f"{value:.4g}"
