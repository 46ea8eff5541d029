"""Do the metrics give the values of torch-fidelity, and the true values where these are known?

    python benchmarks/metric_oracles.py

Prints sections 1 and 2 of docs/results/metric_validation.md: the largest relative differences from
torch-fidelity on the same features, errors against closed forms, and whether KID's stated standard error is
the one that it has. Needs the development installation (torch-fidelity); takes about a minute.
"""

import math
from collections.abc import Callable, Iterator
from importlib import import_module

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
from common import argument_parser, print_command, print_section, print_table

fidelity: Callable = import_module("test_metrics_oracle").fidelity  # torch-fidelity without torchvision


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 1. Agreement


def like_activations(n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two sets of skewed, correlated, non-negative features, whose variances fall as real ones do."""
    mix = normal(d, d, seed) / d**0.5 * torch.arange(1, d + 1).double() ** -0.5
    a = normal(n, d, seed + 1000) @ mix
    b = 1.2 * normal(m, d, seed + 2000) @ mix + 0.05
    return a.relu(), b.relu()


def frechet_by_fidelity(a: Tensor, b: Tensor) -> float:
    fid = fidelity("metric_fid")
    statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
    return fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def both(a: Tensor, b: Tensor, seed: int) -> Iterator[tuple[str, float, float]]:
    """(statistic, alphabar's value, torch-fidelity's value)"""
    kernel, score, prc = fidelity("metric_kid"), fidelity("metric_isc"), fidelity("metric_prc")
    yield "Fréchet distance", frechet_distance(a, b), frechet_by_fidelity(a, b)
    size = min(len(a), len(b)) // 2
    theirs = kernel.kid_features_to_metric(
        a, b, kid_subsets=5, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    found = kid_over_subsets(a, b, subsets=5, subset_size=size, seed=seed)
    yield "KID, mean over subsets", found.mean, theirs["kernel_inception_distance_mean"]
    yield "KID, std over subsets", found.std, theirs["kernel_inception_distance_std"]
    theirs = score.isc_features_to_metric(a * 10, splits=10, shuffle=False)
    scored = classifier_score(a * 10)
    yield "classifier score, mean", scored.mean, theirs["inception_score_mean"]
    yield "classifier score, std", scored.std, theirs["inception_score_std"]
    theirs = prc.prc_features_to_metric(a, b, verbose=False)
    precision, recall = precision_recall(real=b, fake=a)
    yield "precision", precision, theirs["precision"]
    yield "recall", recall, theirs["recall"]
    if len(a) == len(b):
        theirs = kernel.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=len(a), verbose=False)
        yield "KID, all pairs", kid(a, b).value, theirs["kernel_inception_distance_mean"]


def agreement(pairs: int) -> list[tuple[str, ...]]:
    """A row for each statistic: the largest relative difference over that many pairs of sets."""
    shapes = {
        "n, m > d": [(400, 300, 64), (250, 250, 128), (900, 400, 32)],
        "n < d < m": [(60, 300, 128), (100, 200, 128), (30, 200, 64)],
        "n, m < d": [(60, 60, 128), (100, 80, 256), (40, 50, 64)],
    }
    worst: dict[str, dict[str, float]] = {}
    for regime, sizes in shapes.items():
        for seed in range(pairs):
            a, b = like_activations(*sizes[seed % len(sizes)], seed)
            for name, value, expected in both(a, b, seed):
                row = worst.setdefault(name, {})
                row[regime] = max(row.get(regime, 0.0), abs(value - expected) / max(abs(expected), 1e-12))
    rows = [(name, *(f"{row[r]:.1e}" if r in row else "–" for r in shapes)) for name, row in worst.items()]
    return [("statistic", *shapes), *rows]


def real_sizes() -> Iterator[tuple[str, ...]]:
    """The Fréchet distance at the size of real features."""
    for n, m, d in ((2000, 3000, 1280), (1000, 1500, 1280), (1000, 2500, 2048)):
        a, b = like_activations(n, m, d, seed=n + d)
        found, expected = frechet_distance(a, b), frechet_by_fidelity(a, b)
        yield (
            str(n), str(m), str(d), f"{found:.9g}", f"{expected:.9g}", f"{abs(found / expected - 1):.1e}"
        )  # fmt: skip


def whitened(n: int, d: int, seed: int) -> Tensor:
    """n vectors with mean 0 and covariance I, exactly."""
    x = normal(n, d, seed)
    return torch.linalg.qr(x - x.mean(dim=0)).Q * math.sqrt(n - 1)


def known_gaussians(d: int, rank: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two sets of exactly known mean and covariance, of the given rank along the same random axes."""
    q = torch.linalg.qr(normal(d, d, seed)).Q
    random = np.random.default_rng(seed)
    s, t = (torch.from_numpy(random.uniform(0.1, 3, d)) for _ in range(2))
    s[rank:] = t[rank:] = 0
    shift = normal(1, d, seed + 1)[0] * 0.1
    a, b = whitened(d + 50, d, seed + 2) * s @ q, whitened(d + 90, d, seed + 3) * t @ q + shift
    return a, b, float(shift.square().sum() + (s - t).square().sum())


def closed_forms(pairs: int) -> Iterator[tuple[str, ...]]:
    """The largest relative errors of the Fréchet distance of known Gaussians."""
    for d, rank in ((16, 16), (64, 64), (256, 256), (64, 20), (256, 50)):
        worst = [0.0, 0.0]
        for seed in range(pairs):
            a, b, truth = known_gaussians(d, rank, 10 * seed)
            for i, value in enumerate((frechet_distance(a, b), frechet_by_fidelity(a, b))):
                worst[i] = max(worst[i], abs(value / truth - 1))
        yield str(d), str(rank), *(f"{error:.1e}" for error in worst)


def obvious_cases() -> list[tuple[str, ...]]:
    """Cases whose value is known without computing it."""
    certain = torch.eye(10).double().repeat(20, 1) * 300
    far = precision_recall(normal(200, 8, 1), normal(200, 8, 2) + 100)
    same = precision_recall(normal(200, 8, 1), normal(200, 8, 1))
    singular = normal(50, 256, 1) * 30 + 100
    equal = normal(1, 9, 1).repeat(99, 1)
    itself = frechet_distance(singular, singular)
    return [
        ("Fréchet distance of a set with itself, n = 50, d = 256", "0", f"{itself:.1e}"),
        (
            "classifier score, 10 classes, certain and equally frequent",
            "10",
            f"{classifier_score(certain).mean:.12g}",
        ),
        ("classifier score, all predictions equal", "1", f"{classifier_score(equal).mean:.12g}"),
        ("precision, recall of far clusters", "0, 0", f"{far.precision:g}, {far.recall:g}"),
        ("precision, recall of equal sets", "1, 1", f"{same.precision:g}, {same.recall:g}"),
    ]


# 2. The standard error of KID


def mean_kernel(mu: float, nu: float, d: int) -> float:
    """E (x·y/d + 1)³ of x ~ N(mu·1, I), y ~ N(nu·1, I), by the first three moments of x·y/d."""
    mean, variance, third = mu * nu, (1 + mu**2 + nu**2) / d, 6 * mu * nu / d**2
    return (1 + mean) ** 3 + 3 * (1 + mean) * variance + third


def standard_errors(repeats: int) -> Iterator[tuple[str, ...]]:
    """KID's mean against the truth, and its stated standard error against its standard deviation."""
    for n, m, d, shift in (
        (100, 100, 64, 0.0),
        (60, 200, 64, 0.0),
        (100, 100, 64, 0.1),
        (60, 200, 32, 0.2),
        (200, 60, 32, 0.5),
    ):
        pairs = ((normal(n, d, 2 * i), normal(m, d, 2 * i + 1) + shift) for i in range(repeats))
        values, errors = np.array([kid(a, b) for a, b in pairs]).T
        truth = mean_kernel(0, 0, d) + mean_kernel(shift, shift, d) - 2 * mean_kernel(0, shift, d)
        deviation = values.std(ddof=1)
        yield (
            str(n), str(m), str(d), f"{shift:g}", f"{truth:.5f}",
            f"{values.mean():.5f} ± {deviation / math.sqrt(repeats):.5f}",
            f"{deviation:.5f}", f"{math.sqrt(np.mean(errors**2)):.5f}",
        )  # fmt: skip


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=24, help="of random sets in a column of section 1")
    parser.add_argument("--repeats", type=int, default=500, help="of KID in section 2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print_section(
        "## 1. Agreement with torch-fidelity and with closed forms",
        "Do the metrics give the values of an independent implementation, and the true values where these are"
        " known?",
        f"torch-fidelity receives the same float64 features: {args.pairs} pairs of random sets per column, d"
        " from 32 to 256. Its KID over all pairs requires n = m, and it averages precision and recall in"
        " float32. The closed form is the Fréchet distance of Gaussians, ‖Δμ‖² + Σ (s − t)², over 20 pairs"
        " per row.",
    )
    print("The largest relative difference from torch-fidelity:\n")
    head, *rows = agreement(args.pairs)
    print_table(head, rows)
    print("The Fréchet distance at the size of real features:\n")
    print_table(("n", "m", "d", "alphabar", "torch-fidelity", "relative difference"), real_sizes())
    print("The largest relative error against the closed form:\n")
    print_table(("d", "rank of the covariances", "alphabar", "torch-fidelity"), closed_forms(20))
    print("Cases whose value is obvious:\n")
    print_table(("case", "truth", "alphabar"), obvious_cases())
    print_command()
    print_section(
        "## 2. The standard error of KID",
        "Is the stated standard error of KID the standard deviation that KID has?",
        f"KID over all pairs, {args.repeats} repetitions of x ~ N(0, I), y ~ N(shift, I): its mean against"
        " the truth, and the stated standard error (root mean square) against the standard deviation.",
    )
    head = ("n", "m", "d", "shift", "truth", "mean", "standard deviation", "stated standard error")
    print_table(head, standard_errors(args.repeats))
    print_command()


if __name__ == "__main__":
    main()
