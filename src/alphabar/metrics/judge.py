"""All distances between fakes and reals at once, with everything one must know to compare them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alphabar.metrics.distances import (
    check_features,
    classifier_score,
    frechet_distance,
    kid,
    precision_recall,
)
from alphabar.metrics.features import Features

NEIGHBOURS = 3
SPLITS = 10
COMPARABLE_N = 50_000
"""The number of samples behind an FID in a paper."""


@dataclass(frozen=True)
class Measure:
    """One number of a judgement.

    key: "frechet", "kid", "score", "precision" or "recall"; name: what to print, "FID" only where it is.
    error: its standard error for "kid", the standard deviation among splits for "score".
    floor: the same number for real pictures in place of the fakes: what a perfect model would get.
    """

    key: str
    name: str
    value: float
    better: Literal["lower", "higher"]
    error: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Judgement:
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
    measures: tuple[Measure, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, key: str) -> Measure:
        """The measure with this key."""
        return next(measure for measure in self.measures if measure.key == key)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table to print: name, value ± error, the real-against-real floor, which way is better."""
        return [
            (
                m.name,
                _number(m.value) + (f" ± {_number(m.error)}" if m.error is not None else ""),
                _number(m.floor) if m.floor is not None else "–",
                m.better,
            )
            for m in self.measures
        ]


def judge(
    fake: Features, real: Features, *, extractor: str, protocol: str, reference: str, seed: int = 0
) -> Judgement:
    """Compares fakes (n, dim) with reals (m, dim), n, m ≥ 4, seen by the same extractor.

    extractor, protocol: the extractor's ``name`` and ``protocol``; reference: what the reals are.
    The floor puts real pictures, drawn by ``seed``, in place of the fakes: n of them against the other
    m − n, or half against half where m < 2n.
    Raises AlphabarError for features that are too few, not finite, or of different dimensions.
    """
    at_least = NEIGHBOURS + 1
    check_features("fakes", fake.features, at_least)
    check_features("reals", real.features, at_least)
    n, m = len(fake.features), len(real.features)
    floor_n = min(n, m // 2)
    floor: dict[str, tuple[float, float | None]] = {}
    if floor_n >= at_least:
        order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
        floor = _compare(_pick(real, order[:floor_n]), _pick(real, order[floor_n:]))
    else:
        floor_n = 0
    measures = tuple(
        Measure(key, _name(key, extractor), value, _better(key), error, floor.get(key, (None, None))[0])
        for key, (value, error) in _compare(fake, real).items()
    )
    return Judgement(
        extractor=extractor,
        protocol=f"{protocol}; kernel distance over all pairs, {SPLITS} splits, k = {NEIGHBOURS} neighbours",
        reference=reference,
        n=n,
        reference_n=m,
        floor_n=floor_n,
        floor_reference_n=m - floor_n if floor_n else 0,
        measures=measures,
        warnings=tuple(_warnings(extractor, n, m, fake.features.shape[1], floor_n)),
    )


def _compare(fake: Features, real: Features) -> dict[str, tuple[float, float | None]]:
    """Every measure by its key: value, error."""
    result: dict[str, tuple[float, float | None]] = {
        "frechet": (frechet_distance(fake.features, real.features), None),
        "kid": kid(fake.features, real.features),
    }
    if fake.logits is not None:
        result["score"] = classifier_score(fake.logits, splits=min(SPLITS, len(fake.logits)))
    precision, recall = precision_recall(real.features, fake.features, NEIGHBOURS)
    return result | {"precision": (precision, None), "recall": (recall, None)}


def _pick(features: Features, index: Tensor) -> Features:
    return Features(features.features[index], None if features.logits is None else features.logits[index])


def _name(key: str, extractor: str) -> str:
    if extractor == "inception":
        return {"frechet": "FID", "kid": "KID", "score": "Inception Score"}.get(key, f"{key} (inception)")
    names = {"frechet": "Fréchet distance", "kid": "kernel distance", "score": "classifier score"}
    return f"{names.get(key, key)} ({extractor})"


def _better(key: str) -> Literal["lower", "higher"]:
    return "lower" if key in ("frechet", "kid") else "higher"


def _warnings(extractor: str, n: int, m: int, dim: int, floor_n: int) -> list[str]:
    warnings = []
    if min(n, m) < dim:
        warnings.append(
            f"n = {min(n, m)} is below the features' dimension {dim}: the covariance is singular and the "
            "Fréchet distance far too large; compare it only at the same n, prefer the kernel distance"
        )
    if n < 1000:
        warnings.append(f"n = {n} is small: mind the kernel distance's standard error before you rank by it")
    if extractor != "inception":
        warnings.append(f"not comparable with papers: distances of {extractor} features are no FID")
    elif n < COMPARABLE_N:
        warnings.append(f"not comparable with papers: n = {n}, theirs is {COMPARABLE_N}")
    else:
        warnings.append("comparable with papers only where their reference pictures are these")
    if floor_n == 0:
        warnings.append(f"no real-against-real floor: {m} reference pictures are too few to split")
    elif floor_n < n:
        warnings.append(f"the floor is at n = {floor_n}, half the reference: at n = {n} it would be lower")
    return warnings


def _number(value: float) -> str:
    return f"{value:.4g}"
