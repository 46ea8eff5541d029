"""Distances between two sets of pictures, from their features. Everything is computed in float64.

Memory stays bounded: n × n matrices are visited in tiles and never held whole.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import message

TILE = 2048  # rows of a matrix that are held at once
KID_NEEDS = 4  # pictures on each side, for its standard error


class Estimate(NamedTuple):
    """A number and the standard deviation of its sampling distribution."""

    value: float
    standard_error: float


class Spread(NamedTuple):
    """The mean over parts of a set and the standard deviation among the parts: not a standard error."""

    mean: float
    std: float


class Score(NamedTuple):
    """The mean over parts of a set, the standard deviation among the parts, and the mean's standard error."""

    mean: float
    std: float
    standard_error: float


class PrecisionRecall(NamedTuple):
    """Two fractions in [0, 1]: of fakes that look real, and of reals that the fakes cover."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """In how many reals' balls a fake lies, over k (1 for real pictures); the share of balls with a fake."""

    density: float
    coverage: float


def check_features(what: str, features: Tensor, at_least: int) -> None:
    """Raises AlphabarError unless the features are (n, dim), finite, and n ≥ at_least.

    what: whose they are: "fakes", "reals", "logits", "first_set" or "second_set".
    """
    named = message(f"metrics.{what}")
    if features.ndim != 2:
        raise AlphabarError("metrics.features_shape", what=named, shape=tuple(features.shape))
    if len(features) < at_least:
        raise AlphabarError("metrics.too_few", what=named, n=len(features), least=at_least)
    if broken := int((~torch.isfinite(features)).any(dim=1).sum()):
        raise AlphabarError("metrics.not_finite", what=named, broken=broken, n=len(features))


def _check_pair(a: Tensor, b: Tensor, at_least: int) -> None:
    check_features("first_set", a, at_least)
    check_features("second_set", b, at_least)
    if a.shape[1] != b.shape[1]:
        raise AlphabarError("metrics.other_dimension", first=a.shape[1], second=b.shape[1])


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance between the Gaussians fitted to two sets of features (n, d) and (m, d), n, m ≥ 2.

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), with Σ = XᵀX/(n − 1) of the centered features (Dowson
    and Landau 1982; Heusel et al. 2017). It is biased upwards by an amount that falls with n, so it
    compares only at equal n.
    """
    _check_pair(a, b, at_least=2)
    mean_a, root_a = _gaussian(a)
    mean_b, root_b = _gaussian(b)
    # With Σ_a = AᵀA and Σ_b = BᵀB the eigenvalues of Σ_a Σ_b are those of the symmetric (ABᵀ)(ABᵀ)ᵀ:
    # their square roots are the singular values of ABᵀ. Unlike sqrtm this holds for any rank, and
    # unlike eigenvalues of the squared product it keeps the small ones to full precision.
    trace = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * trace
    return max(float(distance), 0.0)


def frechet_infinite(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """The Fréchet distance that infinitely many pictures would have, from (n, d) and (m, d), n, m ≥ 2d.

    The bias of a finite set falls as 1/n, so the straight line through the distance of the whole sets and of
    their halves is followed to 1/n = 0 (Chong and Forsyth 2020): 2 F(a, b) − mean F(half of a, half of b).
    Both sets are halved at random by ``seed`` and both pairs of halves count, which leaves the line without a
    noise of its own. May be negative where the sets are alike.

    The standard error is that of the influence functions of F: with T the linear map that transports Σ_a to
    Σ_b, ∂F/∂Σ_a = I − T (Dowson and Landau 1982), so a picture x of a moves F by (x−μ_a)ᵀ(I − T)(x−μ_a)
    + 2 (μ_a−μ_b)ᵀ(x−μ_a), over n; b likewise. Where the sets are near each other pairs of pictures move F
    too: halving once doubles their variance, and so does estimating T from the same pictures, so that the
    error stays true (benchmarks/metric_validation.py measures it).
    Raises AlphabarError for n or m below 2d: the halves would not span the features.
    """
    _check_pair(a, b, at_least=2 * a.shape[1])
    generator = torch.Generator().manual_seed(seed)
    parts = [x[torch.randperm(len(x), generator=generator)].chunk(2) for x in (a, b)]
    halves = [frechet_distance(x, y) for x, y in zip(*parts, strict=True)]
    value = 2 * frechet_distance(a, b) - sum(halves) / 2
    (mean_a, scale_a, axes_a), (mean_b, scale_b, axes_b) = _principal(a), _principal(b)
    u, s, v = torch.linalg.svd(scale_a[:, None] * (axes_a.T @ axes_b) * scale_b, full_matrices=False)
    apart = mean_a - mean_b
    variance = 0.0
    for x, mean, scale, axes, turn, shift in (
        (a, mean_a, scale_a, axes_a, u, apart), (b, mean_b, scale_b, axes_b, v.T, -apart)
    ):  # fmt: skip
        moved = []
        for rows in x.split(TILE):
            centered = rows.double() - mean
            transported = ((centered @ axes / scale) @ turn).square() @ s  # xᵀ T x
            moved.append(centered.square().sum(dim=1) - transported + 2 * centered @ shift)
        variance += float(torch.cat(moved).var()) / len(x)
    return Estimate(value, math.sqrt(variance))


def _principal(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), standard deviations (r,) along principal axes (d, r); axes without spread are left out."""
    mean, root = _gaussian(features)
    values, axes = torch.linalg.eigh(root.T @ root)
    kept = values > 1e-12 * values[-1]
    return mean, values[kept].sqrt(), axes[:, kept]


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and a root R (min(n, d), d) of the covariance: RᵀR = Σ."""
    mean = features.mean(dim=0, dtype=torch.float64)
    root = mean.new_empty(0, len(mean))
    for rows in features.split(TILE):
        # the R of the QR decomposition so far stands for all rows so far: RᵀR = XᵀX
        root = torch.linalg.qr(torch.cat([root, rows.double() - mean]), mode="r").R
    return mean, root / math.sqrt(len(features) - 1)


def _tiles(
    a: Tensor, b: Tensor, center: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """All pairs of row blocks of a (n, d) and b (m, d), with where they lie, in float64.

    center: (d,), which is taken from all rows; distances by products lose digits far from the origin.
    """
    center = torch.zeros((), dtype=torch.float64, device=a.device) if center is None else center
    for i in range(0, len(a), TILE):
        rows = a[i : i + TILE].double() - center
        for j in range(0, len(b), TILE):
            yield slice(i, i + TILE), slice(j, j + TILE), rows, b[j : j + TILE].double() - center


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """The kernel of KID between rows, k(x, y) = (x·y/d + 1)³ (Bińkowski et al. 2018, section 3)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


class _KernelSums(NamedTuple):
    """What the estimates need of a kernel matrix: row sums, column sums, sum of squares."""

    rows: Tensor
    columns: Tensor
    squares: Tensor


def _kernel_sums(a: Tensor, b: Tensor) -> _KernelSums:
    rows = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    columns = torch.zeros(len(b), dtype=torch.float64, device=a.device)
    squares = torch.zeros((), dtype=torch.float64, device=a.device)
    for at_a, at_b, x, y in _tiles(a, b):
        k = _kernel(x, y)
        rows[at_a] += k.sum(dim=1)
        columns[at_b] += k.sum(dim=0)
        squares += k.square().sum()
    return _KernelSums(rows, columns, squares)


def _without_diagonal(a: Tensor) -> _KernelSums:
    """The sums over all pairs of different pictures within one set."""
    rows, columns, squares = _kernel_sums(a, a)
    diagonal = (torch.cat([x.double().square().sum(dim=1) for x in a.split(TILE)]) / a.shape[1] + 1) ** 3
    return _KernelSums(rows - diagonal, columns - diagonal, squares - diagonal.square().sum())


def kid(a: Tensor, b: Tensor) -> Estimate:
    """The kernel distance between two sets of features (n, d) and (m, d), n, m ≥ 4: the unbiased MMD².

    With k(x, y) = (x·y/d + 1)³ and over all pairs there are (Gretton et al. 2012, eq. 3; KID is its
    value on Inception features, Bińkowski et al. 2018):
        MMD² = mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) − 2 mean_{i,j} k(a_i, b_j)
    Unbiased at any n, so slightly negative where the sets are alike. The standard error is the root of
    this statistic's variance, which Hoeffding's decomposition splits into uncorrelated parts, each
    estimated without bias: what single pictures of a and of b move, and what the pairs (a, a), (b, b),
    (a, b) move beyond their members. The pairs are all there is when both sets have one distribution.
    """
    _check_pair(a, b, at_least=KID_NEEDS)
    n, m = len(a), len(b)
    aa, bb, ab = _without_diagonal(a), _without_diagonal(b), _kernel_sums(a, b)
    value = aa.rows.sum() / (n * (n - 1)) + bb.rows.sum() / (m * (m - 1)) - 2 * ab.rows.sum() / (n * m)

    pair_aa, pair_bb = _within_residual(aa), _within_residual(bb)
    pair_ab = _between_residual(ab)
    # The sums over rows carry the residuals of their pairs as noise; it comes off, or it would count twice.
    single_a = (aa.rows / (n - 2) - ab.rows / m).var() - pair_aa / (n - 2) - pair_ab / m
    single_b = (bb.rows / (m - 2) - ab.columns / n).var() - pair_bb / (m - 2) - pair_ab / n
    singles = 4 * single_a / n + 4 * single_b / m
    pairs = 2 * pair_aa / (n * (n - 1)) + 2 * pair_bb / (m * (m - 1)) + 4 * pair_ab / (n * m)
    variance = singles.clamp(min=0) + pairs
    return Estimate(float(value), math.sqrt(max(float(variance), 0.0)))


def _within_residual(k: _KernelSums) -> Tensor:
    """The variance of k(x, x') beyond additive effects of x and x', unbiased.

    The sum of squares of the U-centered matrix (Székely and Rizzo 2014) over its degrees of freedom.
    """
    n = len(k.rows)
    total = k.rows.sum() ** 2 / ((n - 1) * (n - 2))
    return (k.squares - 2 * k.rows.square().sum() / (n - 2) + total) / (n * (n - 3))


def _between_residual(k: _KernelSums) -> Tensor:
    """The variance of k(x, y) beyond additive effects of x and y, unbiased: two-way analysis of variance."""
    n, m = len(k.rows), len(k.columns)
    total = k.rows.sum() ** 2 / (n * m)
    effects = k.rows.square().sum() / m + k.columns.square().sum() / n - total
    return (k.squares - effects) / ((n - 1) * (m - 1))


def kid_over_subsets(
    a: Tensor, b: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> Spread:
    """KID as papers print it: the mean over random subsets, and the standard deviation among them.

    The same subsets as torch-fidelity draws, and so its number. The subsets overlap, so their standard
    deviation is no standard error of the mean: ``kid`` gives one, and uses every pair.
    Raises UsageError where the subset size exceeds a set.
    """
    _check_pair(a, b, at_least=2)
    if not 2 <= subset_size <= min(len(a), len(b)):
        raise UsageError("metrics.subset_size", size=subset_size, most=min(len(a), len(b)))
    random = np.random.RandomState(seed)  # the stream that defines torch-fidelity's subsets
    values = []
    for _ in range(subsets):
        x = a[torch.from_numpy(random.choice(len(a), subset_size, replace=False))]
        y = b[torch.from_numpy(random.choice(len(b), subset_size, replace=False))]
        within = _without_diagonal(x).rows.sum() + _without_diagonal(y).rows.sum()
        between = _kernel_sums(x, y).rows.sum()
        values.append(float(within / (subset_size * (subset_size - 1)) - 2 * between / subset_size**2))
    return Spread(float(np.mean(values)), float(np.std(values)))


def classifier_score(logits: Tensor, splits: int = 10) -> Score:
    """exp E_x KL(p(y|x) ‖ p(y)) of a classifier's logits (n, classes), over consecutive splits, n ≥ splits.

    On Inception's logits this is the Inception Score (Salimans et al. 2016). From 1 to the number of
    classes; it knows nothing of the real pictures, and grows with n / splits. The standard error is that of
    the mean over the splits, by the delta method: what one picture moves of E_x KL is its own KL, since the
    change of p(y) adds nothing to first order. The standard deviation that papers print is not a standard
    error.
    """
    check_features("logits", logits, at_least=max(splits, 2))
    n = len(logits)
    scores, variance = [], 0.0
    for i in range(splits):
        part = logits[i * n // splits : (i + 1) * n // splits].double().log_softmax(dim=1)
        log_marginal = part.logsumexp(dim=0) - math.log(len(part))
        divergence = (part.exp() * (part - log_marginal)).sum(dim=1)
        scores.append(float(divergence.mean().exp()))
        variance += scores[-1] ** 2 * float(divergence.var(correction=0)) / len(part)
    return Score(float(np.mean(scores)), float(np.std(scores)), math.sqrt(variance) / splits)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall by nearest neighbours, of features (n, d) and (m, d), n, m > k.

    Kynkäänniemi et al. 2019. A picture is inside a set where it lies in the ball of one of the set's
    members, whose radius reaches that member's k-th nearest neighbour. Precision: the fakes inside the
    reals. Recall: the reals inside the fakes. Both depend on n and m: compare only at equal sizes.
    """
    _check_pair(real, fake, at_least=k + 1)
    return PrecisionRecall(precision=_inside(fake, real, k), recall=_inside(real, fake, k))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage by nearest neighbours, of features (n, d) and (m, d), n, m > k.

    Naeem et al. 2020, eq. 3 and 4: both count in the balls of the reals alone, each reaching to the real's
    k-th nearest real, so that a stray fake makes nothing look covered. For fakes that are real pictures the
    expected density is 1 and the expected coverage 1 − (n−1)…(n−k) / ((n+m−1)…(n+m−k)): 31/32 for k = 5 and
    n = m. Both depend on n and m: compare only at equal sizes.
    """
    _check_pair(real, fake, at_least=k + 1)
    center = real.mean(dim=0, dtype=torch.float64)
    inside = torch.zeros((), dtype=torch.float64, device=real.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    radii = _radii(real, k, center)
    for at, _, x, y in _tiles(real, fake, center):
        within = squared_distances(x, y) <= radii[at, None] + _rounding(x, y)
        inside += within.sum()
        covered[at] |= within.any(dim=1)
    return DensityCoverage(float(inside) / (k * len(fake)), float(covered.double().mean()))


def _inside(points: Tensor, members: Tensor, k: int) -> float:
    """The fraction of points that lie in the k-th neighbour's ball of some member."""
    center = members.mean(dim=0, dtype=torch.float64)
    radii = _radii(members, k, center)
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for at_points, at_members, x, y in _tiles(points, members, center):
        within = squared_distances(x, y) <= radii[at_members] + _rounding(x, y)
        inside[at_points] |= within.any(dim=1)
    return float(inside.double().mean())


def _radii(members: Tensor, k: int, center: Tensor) -> Tensor:
    """The squared distance of each member to its k-th nearest other member."""
    nearest = torch.full((len(members), k + 1), torch.inf, dtype=torch.float64, device=members.device)
    for at, _, x, y in _tiles(members, members, center):
        candidates = torch.cat([nearest[at], squared_distances(x, y)], dim=1)
        nearest[at] = candidates.topk(k + 1, largest=False).values
    return nearest[:, k]  # the nearest of a member's k + 1 is itself


def _rounding(x: Tensor, y: Tensor) -> Tensor:
    """The rounding of squared distances: with it a member's copy is inside even where the radius is 0."""
    return 1e-13 * (x.square().sum(dim=1)[:, None] + y.square().sum(dim=1))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² of rows (n, d) and (m, d), to the rounding of products: center them first."""
    return x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T
