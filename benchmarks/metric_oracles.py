"""Are the numbers right? Our statistics against torch-fidelity's on the same features, and closed forms.

Prints markdown: python benchmarks/metrics_truth.py > docs/results/metrics_truth.md
Needs the development installation (torch-fidelity); takes about a minute.
"""

import math
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alphabar.metrics.distances import (
    classifier_score,
    frechet_distance,
    kid,
    kid_over_subsets,
    precision_recall,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
fidelity: Callable = import_module("test_metrics_oracle").fidelity  # torch-fidelity without torchvision

SETS = 24
REPEATS = 500


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def like_activations(n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two sets of skewed, correlated, non-negative features, whose variances fall as real ones do."""
    mix = normal(d, d, seed) / d**0.5 * torch.arange(1, d + 1).double() ** -0.5
    a = normal(n, d, seed + 1000) @ mix
    b = 1.2 * normal(m, d, seed + 2000) @ mix + 0.05
    return a.relu(), b.relu()


def against_fidelity(a: Tensor, b: Tensor, seed: int) -> Iterator[tuple[str, float, float]]:
    """(statistic, ours, torch-fidelity's)"""
    fid, kernel = fidelity("metric_fid"), fidelity("metric_kid")
    score, prc = fidelity("metric_isc"), fidelity("metric_prc")
    statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
    theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)
    yield "Fréchet distance", frechet_distance(a, b), theirs["frechet_inception_distance"]
    size = min(len(a), len(b)) // 2
    theirs = kernel.kid_features_to_metric(
        a, b, kid_subsets=5, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    ours = kid_over_subsets(a, b, subsets=5, subset_size=size, seed=seed)
    yield "KID, mean over subsets", ours.mean, theirs["kernel_inception_distance_mean"]
    yield "KID, std over subsets", ours.std, theirs["kernel_inception_distance_std"]
    if len(a) == len(b):
        theirs = kernel.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=len(a), verbose=False)
        yield "KID, all pairs", kid(a, b).value, theirs["kernel_inception_distance_mean"]
    theirs = score.isc_features_to_metric(a * 10, splits=10, shuffle=False)
    ours = classifier_score(a * 10)
    yield "classifier score, mean", ours.mean, theirs["inception_score_mean"]
    yield "classifier score, std", ours.std, theirs["inception_score_std"]
    theirs = prc.prc_features_to_metric(a, b, verbose=False)
    precision, recall = precision_recall(real=b, fake=a)
    yield "precision", precision, theirs["precision"]
    yield "recall", recall, theirs["recall"]


def table(*rows: tuple[str, ...]) -> None:
    head, *body = rows
    for row in (head, tuple("---" for _ in head), *body):
        print("| " + " | ".join(row) + " |")
    print()


def agreement() -> None:
    shapes = {
        "n, m > d": [(400, 300, 64), (250, 250, 128), (900, 400, 32)],
        "n < d < m": [(60, 300, 128), (100, 200, 128), (30, 200, 64)],
        "n, m < d": [(60, 60, 128), (100, 80, 256), (40, 50, 64)],
    }
    worst: dict[str, dict[str, float]] = {}
    for regime, sizes in shapes.items():
        for seed in range(SETS):
            a, b = like_activations(*sizes[seed % len(sizes)], seed)
            for name, ours, theirs in against_fidelity(a, b, seed):
                error = abs(ours - theirs) / max(abs(theirs), 1e-12)
                row = worst.setdefault(name, {})
                row[regime] = max(row.get(regime, 0.0), error)
    print(f"The largest relative difference over {SETS} pairs of random sets a column, d from 32 to 256:\n")
    rows = [(name, *(f"{row[r]:.1e}" if r in row else "–" for r in shapes)) for name, row in worst.items()]
    table(("statistic", *shapes), *rows)
    print(
        "torch-fidelity's KID over all pairs wants n = m, and it averages precision and recall in float32.\n"
    )

    print("The Fréchet distance at the size of real features:\n")
    fid = fidelity("metric_fid")
    rows = []
    for n, m, d in ((2000, 3000, 1280), (1000, 1500, 1280), (1000, 2500, 2048)):
        a, b = like_activations(n, m, d, seed=n + d)
        statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
        theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        ours = frechet_distance(a, b)
        rows.append((str(n), str(m), str(d), f"{ours:.9g}", f"{theirs:.9g}", f"{abs(ours / theirs - 1):.1e}"))
    table(("n", "m", "d", "ours", "torch-fidelity", "relative difference"), *rows)


def whitened(n: int, d: int, seed: int) -> Tensor:
    x = normal(n, d, seed)
    return torch.linalg.qr(x - x.mean(dim=0)).Q * math.sqrt(n - 1)


def planted(d: int, rank: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two sets with exactly known Gaussians: covariances of the given rank along the same random axes."""
    q = torch.linalg.qr(normal(d, d, seed)).Q
    random = np.random.default_rng(seed)
    s, t = (torch.from_numpy(random.uniform(0.1, 3, d)) for _ in range(2))
    s[rank:] = t[rank:] = 0
    shift = normal(1, d, seed + 1)[0] * 0.1
    a, b = whitened(d + 50, d, seed + 2) * s @ q, whitened(d + 90, d, seed + 3) * t @ q + shift
    return a, b, float(shift.square().sum() + (s - t).square().sum())


def closed_forms() -> None:
    print(
        "Fréchet distance of planted Gaussians, ‖Δμ‖² + Σ (s − t)², largest relative error over 20 draws:\n"
    )
    rows = []
    fid = fidelity("metric_fid")
    for d, rank in ((16, 16), (64, 64), (256, 256), (64, 20), (256, 50)):
        ours, theirs = 0.0, 0.0
        for seed in range(20):
            a, b, truth = planted(d, rank, 10 * seed)
            statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
            other = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
            ours = max(ours, abs(frechet_distance(a, b) / truth - 1))
            theirs = max(theirs, abs(other / truth - 1))
        rows.append((str(d), str(rank), f"{ours:.1e}", f"{theirs:.1e}"))
    table(("d", "rank of the covariances", "ours", "torch-fidelity"), *rows)

    even = torch.eye(10).double().repeat(20, 1) * 300
    far = precision_recall(normal(200, 8, 1), normal(200, 8, 2) + 100)
    same = precision_recall(normal(200, 8, 1), normal(200, 8, 1))
    singular = normal(50, 256, 1) * 30 + 100
    table(
        ("case", "truth", "ours"),
        (
            "Fréchet distance of a set with itself, n = 50, d = 256",
            "0",
            f"{frechet_distance(singular, singular):.1e}",
        ),
        ("classifier score, 10 classes, sure and even", "10", f"{classifier_score(even).mean:.12g}"),
        (
            "classifier score, all answers alike",
            "1",
            f"{classifier_score(normal(1, 9, 1).repeat(99, 1)).mean:.12g}",
        ),
        ("precision, recall of far clusters", "0, 0", f"{far.precision:g}, {far.recall:g}"),
        ("precision, recall of equal sets", "1, 1", f"{same.precision:g}, {same.recall:g}"),
    )


def standard_errors() -> None:
    print(
        f"KID over all pairs, {REPEATS} repeats of x ~ N(0, I), y ~ N(shift, I): its mean against the truth,"
    )
    print("and the standard error it claims (root mean square) against the standard deviation it has:\n")
    rows = []
    for n, m, d, shift in (
        (100, 100, 64, 0.0),
        (60, 200, 64, 0.0),
        (100, 100, 64, 0.1),
        (60, 200, 32, 0.2),
        (200, 60, 32, 0.5),
    ):
        pairs = [(normal(n, d, 2 * i), normal(m, d, 2 * i + 1) + shift) for i in range(REPEATS)]
        values, errors = np.array([kid(a, b) for a, b in pairs]).T
        truth = mean_kernel(0, 0, d) + mean_kernel(shift, shift, d) - 2 * mean_kernel(0, shift, d)
        spread = values.std(ddof=1)
        mean = f"{values.mean():.5f} ± {spread / math.sqrt(REPEATS):.5f}"
        claimed = f"{math.sqrt(np.mean(errors**2)):.5f}"
        rows.append((str(n), str(m), str(d), f"{shift:g}", f"{truth:.5f}", mean, f"{spread:.5f}", claimed))
    table(("n", "m", "d", "shift", "truth", "mean", "standard deviation", "claimed"), *rows)


def mean_kernel(mu: float, nu: float, d: int) -> float:
    """E (x·y/d + 1)³ of x ~ N(mu·1, I), y ~ N(nu·1, I), by the first three moments of x·y/d."""
    mean, variance, third = mu * nu, (1 + mu**2 + nu**2) / d, 6 * mu * nu / d**2
    return (1 + mean) ** 3 + 3 * (1 + mean) * variance + third


def main() -> None:
    torch.set_num_threads(1)
    print("# The metrics are right\n")
    print("`python benchmarks/metrics_truth.py > docs/results/metrics_truth.md`\n")
    print("## Against torch-fidelity 0.4.0, on the same float64 features\n")
    agreement()
    print("## Against closed forms\n")
    closed_forms()
    print("## The standard error of KID is one\n")
    standard_errors()


if __name__ == "__main__":
    main()
