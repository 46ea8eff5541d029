"""The distances against closed forms, properties and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics import distances
from alphabar.metrics.distances import (
    classifier_score,
    density_coverage,
    frechet_distance,
    frechet_infinite,
    kid,
    kid_over_subsets,
    precision_recall,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and lose much to them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed)).Q


def whitened(n: int, d: int, seed: int = 0) -> Tensor:
    """Features whose sample mean is 0 and sample covariance the identity, to rounding."""
    x = normal(n, d, seed)
    x = x - x.mean(dim=0)
    return torch.linalg.qr(x).Q * math.sqrt(n - 1)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(distances, "TILE", 7)


# Fréchet distance


def test_frechet_of_gaussians_in_closed_form():
    """Commuting covariances: ‖Δμ‖² + Σ (s_i − t_i)², s and t the standard deviations along the axes."""
    q = rotation(6, 1)
    s, t = torch.tensor([1.0, 2, 3, 0.1, 0, 5]).double(), torch.tensor([2.0, 2, 1, 0, 0, 4]).double()
    shift = torch.arange(6).double()
    a = whitened(50, 6, 1) * s @ q
    b = whitened(70, 6, 2) * t @ q + shift
    expected = float(shift.square().sum() + (s - t).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_general_covariances_agrees_with_sqrtm():
    a, b = normal(100, 8, 1) @ normal(8, 8, 3), normal(90, 8, 2) @ normal(8, 8, 4) + 0.5
    s, t = np.cov(a.T), np.cov(b.T)
    trace = np.trace(s + t - 2 * sqrtm(s @ t).real)
    expected = float((a.mean(dim=0) - b.mean(dim=0)).square().sum()) + trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "m"), [(40, 30), (5, 30), (5, 6)], ids=["full", "one singular", "both singular"]
)
def test_frechet_agrees_at_every_rank_with_the_definition(n, m, small_tiles):
    """Σ^½ by eigenvalues, then the trace of (Σ_a^½ Σ_b Σ_a^½)^½: correct, if less exact where singular."""
    a, b = normal(n, 12, 1) * 2, normal(m, 12, 2) + 1
    s, t = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(s)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    expected = (a.mean(dim=0) - b.mean(dim=0)).square().sum() + s.trace() + t.trace() - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("n", [3, 50])
def test_frechet_of_a_set_with_itself_is_zero(n):
    a = normal(n, 20) * 100 + 1000
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_finds_a_planted_shift():
    a = normal(200, 10)
    assert frechet_distance(a, a + 3.0) == pytest.approx(90, rel=1e-12)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), n=st.integers(2, 30), m=st.integers(2, 30))
@settings(max_examples=25, deadline=None)
def test_frechet_follows_scaling_rotation_shift_and_order(seed, scale, n, m):
    """The distance scales with the square of the scale; nothing else moves it, nor which set comes first."""
    a, b = normal(n, 9, seed), normal(m, 9, seed + 1) * 1.5 + 1
    expected = frechet_distance(a, b)
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    q = rotation(9, seed + 2)
    moved_a, moved_b = scale * a[shuffle] @ q + 5, scale * b @ q + 5
    assert frechet_distance(moved_b, moved_a) == pytest.approx(scale**2 * expected, rel=1e-8)


# KID


def brute_force_mmd(a: Tensor, b: Tensor) -> float:
    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    ab = sum(k(x, y) for x in a for y in b) / (n * m)
    return aa + bb - 2 * ab


@pytest.mark.parametrize(("n", "m"), [(4, 9), (15, 8)])
def test_kid_is_the_mean_over_all_pairs(n, m, small_tiles):
    a, b = normal(n, 5, 1), normal(m, 5, 2) + 0.5
    assert kid(a, b).value == pytest.approx(brute_force_mmd(a, b), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_kid_is_unbiased_and_its_standard_error_true(shift):
    """The same experiment many times: the mean is the truth, and the spread what each one says of itself."""
    d, n, m, repeats = 32, 80, 60, 300
    results = np.array([kid(normal(n, d, 2 * i), normal(m, d, 2 * i + 1) + shift) for i in range(repeats)])
    values, errors = results.T

    def mean_kernel(mu: float, nu: float) -> float:
        """E (x·y/d + 1)³ of x ~ N(mu·1, I), y ~ N(nu·1, I), by the first three moments of x·y/d."""
        mean, variance, third = mu * nu, (1 + mu**2 + nu**2) / d, 6 * mu * nu / d**2
        return (1 + mean) ** 3 + 3 * (1 + mean) * variance + third

    truth = mean_kernel(0, 0) + mean_kernel(shift, shift) - 2 * mean_kernel(0, shift)
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(repeats))
    assert 0.88 < np.sqrt((errors**2).mean()) / values.std(ddof=1) < 1.2


@given(seed=st.integers(0, 1000), n=st.integers(4, 20))
@settings(max_examples=20, deadline=None)
def test_kid_knows_no_order_no_rotation_and_no_first(seed, n):
    a, b = normal(n, 6, seed), normal(11, 6, seed + 1) + 0.3
    q = rotation(6, seed + 2)
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert kid(b @ q, a[shuffle] @ q) == pytest.approx(kid(a, b), rel=1e-8, abs=1e-10)


def test_kid_of_one_repeated_picture_has_no_error():
    a = torch.ones(10, 4)
    assert kid(a, a) == (0, 0)


def test_kid_subset_larger_than_a_set_is_refused():
    with pytest.raises(UsageError, match=r"subset_size = 11.*10"):
        kid_over_subsets(normal(10, 3), normal(20, 3), subset_size=11)


# classifier score


def test_classifier_score_counts_the_classes_of_sure_and_even_answers():
    logits = torch.eye(8).repeat(10, 1) * 200
    assert classifier_score(logits, splits=10) == pytest.approx((8, 0, 0), abs=1e-6)


def test_classifier_score_of_equal_answers_is_one():
    assert classifier_score(normal(1, 8).repeat(30, 1), splits=3) == pytest.approx((1, 0, 0), abs=1e-12)


def test_classifier_score_splits_in_order():
    """Two halves that know one class each score 1; looked at as one set, 2."""
    logits = torch.eye(2).repeat_interleave(10, dim=0) * 200
    assert classifier_score(logits, splits=2).mean == pytest.approx(1)
    assert classifier_score(logits, splits=1).mean == pytest.approx(2)


# precision and recall


def brute_force_inside(points: Tensor, members: Tensor, k: int) -> float:
    radii = np.sort(cdist(members, members), axis=1)[:, k]
    return float((cdist(points, members) <= radii).any(axis=1).mean())


@pytest.mark.parametrize(("k", "origin"), [(1, 0), (3, 0), (3, 1e6)])
def test_precision_and_recall_agree_with_brute_force(k, origin, small_tiles):
    real, fake = normal(30, 4, 1) + origin, normal(40, 4, 2) * 1.4 + 0.4 + origin
    precision, recall = precision_recall(real, fake, k)
    assert precision == brute_force_inside(fake, real, k)
    assert recall == brute_force_inside(real, fake, k)
    assert precision != recall


def test_precision_and_recall_of_separate_clusters_are_zero():
    assert precision_recall(normal(20, 4), normal(25, 4, 1) + 100) == (0, 0)


def test_precision_and_recall_of_equal_sets_are_one():
    real = normal(20, 4)
    assert precision_recall(real, real.flip(0)) == (1, 1)


def test_precision_and_recall_of_repeated_pictures_are_one(small_tiles):
    """Balls of radius 0 hold their centres, whatever the rounding."""
    real = normal(20, 300).repeat(5, 1)
    assert precision_recall(real, real.flip(0)[:37]) == (1, brute_force_inside(real, real.flip(0)[:37], 3))


def test_a_mode_missed_costs_recall_and_no_precision():
    real = torch.cat([normal(30, 4), normal(30, 4, 1) + 100])
    precision, recall = precision_recall(real, real[:30] + 1e-3)
    assert (precision, recall) == (1, 0.5)


# density and coverage


def test_density_and_coverage_agree_with_brute_force(small_tiles):
    real, fake = normal(30, 4, 1) + 5, normal(40, 4, 2) * 1.4 + 5.4
    radii = np.sort(cdist(real, real), axis=1)[:, 5]
    within = cdist(real, fake) <= radii[:, None]
    assert density_coverage(real, fake) == (within.sum() / (5 * 40), within.any(axis=1).mean())


def test_density_and_coverage_of_one_distribution_are_what_naeem_et_al_derive():
    n, m, k = 60, 40, 3
    found = np.array([density_coverage(normal(n, 3, s), normal(m, 3, 1000 + s), k) for s in range(60)])
    coverage = 1 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))
    error = found.std(axis=0) / math.sqrt(60)
    assert abs(found[:, 0].mean() - 1) < 4 * error[0]
    assert abs(found[:, 1].mean() - coverage) < 4 * error[1]


def test_a_stray_fake_covers_nothing():
    """Its ball reaches over the reals and flatters recall; coverage asks the balls of the reals."""
    real = normal(40, 4)
    fake = torch.cat([real[:10], real[:6] + 1000])
    assert precision_recall(real, fake).recall > 0.95
    assert density_coverage(real, fake).coverage < 0.9
    assert density_coverage(real, real[:20] + 1000) == (0, 0)


# at infinite n


def shifted(seed: int, n: int = 600, d: int = 16) -> tuple[Tensor, Tensor]:
    """Sets whose Gaussians are 1 apart."""
    shift = torch.zeros(d).double()
    shift[0] = 1
    return normal(n, d, 2 * seed) + shift, normal(n, d, 2 * seed + 1)


def test_the_extrapolated_distance_is_unbiased_and_its_error_is_one():
    found = [frechet_infinite(*shifted(seed)) for seed in range(100)]
    values, errors = np.array(found).T
    raw = np.mean([frechet_distance(*shifted(seed)) for seed in range(10)])
    assert raw > 1.2 and abs(values.mean() - 1) < 0.04
    assert math.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.2)
    assert 0.88 <= np.mean(np.abs(values - 1) < 1.96 * errors) <= 1


def test_the_extrapolated_distance_of_one_distribution_is_zero_within_its_error():
    found = np.array([frechet_infinite(normal(300, 8, 2 * s), normal(500, 8, 2 * s + 1)) for s in range(60)])
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / math.sqrt(60) + 0.005
    assert np.mean(np.abs(found[:, 0]) < 1.96 * found[:, 1]) >= 0.88


def test_the_error_of_the_extrapolated_distance_takes_features_without_spread(small_tiles):
    a, b = shifted(1, n=60, d=6)
    dead = torch.zeros(60, 1).double()
    value, error = frechet_infinite(torch.cat([a, dead], 1), torch.cat([b, dead], 1))
    assert (value, error) == pytest.approx(frechet_infinite(a, b), rel=1e-9)


def test_the_seed_halves_the_sets():
    a, b = shifted(0, n=60, d=6)
    assert frechet_infinite(a, b, seed=1) == frechet_infinite(a, b, seed=1) != frechet_infinite(a, b, seed=2)


def test_too_few_pictures_are_not_extrapolated():
    with pytest.raises(AlphabarError, match=r"15 images in the second set are too few: give at least 16"):
        frechet_infinite(normal(16, 8), normal(15, 8))


def test_the_standard_error_of_the_classifier_score_is_one():
    found = [classifier_score(3 * normal(200, 10, seed), splits=2) for seed in range(200)]
    spread = np.std([f.mean for f in found], ddof=1)
    claimed = math.sqrt(np.mean([f.standard_error**2 for f in found]))
    assert claimed == pytest.approx(spread, rel=0.15)


# bad input

TWO_SETS = [frechet_distance, kid, precision_recall, density_coverage]


@pytest.mark.parametrize("distance", TWO_SETS)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (normal(1, 3), normal(9, 3), r"1 images in the first set are too few: give at least [246]\.$"),
        (normal(9, 3), normal(9, 4), r"3 and 4 dimensions.*one extractor"),
        (
            normal(9, 3),
            normal(9, 3).index_fill(0, torch.tensor([1, 4]), math.nan),
            r"second set:.*2 of 9.*nan",
        ),
        (normal(9, 3).index_fill(0, torch.tensor([1]), math.inf), normal(9, 3), r"first set:.*1 of 9.*inf"),
        (normal(9, 3)[0], normal(9, 3), r"first set:.*\(n, dim\).*\(3,\)"),
    ],
)
def test_bad_features_are_refused_in_one_line(distance, a, b, message):
    with pytest.raises(AlphabarError, match=message) as error:
        distance(a, b)
    assert "\n" not in str(error.value)


def test_bad_logits_are_refused():
    with pytest.raises(AlphabarError, match=r"5 samples with logits are too few: give at least 10"):
        classifier_score(normal(5, 3))


@pytest.mark.parametrize("distance", TWO_SETS)
def test_single_precision_features_lose_nothing(distance):
    """float32 features, as networks give them, are computed with in float64."""
    a, b = (normal(50, 4, 1) + 100).float(), (normal(50, 4, 2) + 100.5).float()
    assert distance(a, b) == pytest.approx(distance(a.double(), b.double()), rel=1e-12)
