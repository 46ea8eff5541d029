"""Do stated errors and intervals hold, and does an evaluation find planted copies and bias?

    alphabar train toycars:20000 --recipe classifier --condition attributes --set data.size=32 \\
        --set data.flip=false --set noise_distribution.mean=-2.3 --set noise_distribution.std=0.7 \\
        --run runs/labels --budget 25m
    python benchmarks/metric_validation.py --cars DIR --label-classifier runs/labels

Prints sections 3 to 5 of docs/results/metric_validation.md. Without ``--cars`` the tables of Stanford Cars
are left out, without ``--label-classifier`` the second table on bias. Parts can be named: intervals, copies,
bias. Takes minutes, most of them for computing features.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import Dataset
from alphabar.data.toycars.source import ToyCars
from alphabar.methods.classifier import classifier_features
from alphabar.metrics.attribute_frequencies import attribute_frequencies
from alphabar.metrics.distances import classifier_score, density_coverage, frechet_distance, frechet_infinite
from alphabar.metrics.features import EXTRACTORS
from alphabar.metrics.memorization import FeaturePair, memorization, thresholds
from common import (
    argument_parser,
    compute_features,
    load_dataset,
    print_command,
    print_section,
    print_table,
)

FEATURES = "lite0_96"
COPIES = 100  # training pictures in each row of the table of copies
Z95 = 1.96


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(items: NDArray | Tensor) -> Tensor:
    """Of pictures (n, h, w, 3) uint8; kept on the disk."""
    return compute_features(EXTRACTORS.build(FEATURES), items, cached=True)


# 3. Errors and intervals


def gaussians(case: str, n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two sets, and the true Fréchet distance of the Gaussians that they come from."""
    a, b = normal(n, d, 2 * seed), normal(m, d, 2 * seed + 1)
    if case == "shifted by 1":
        a[:, 0] += 1
        return a, b, 1.0
    if case == "wider":
        return a * (1 + 1 / math.sqrt(d)), b, 1.0
    if case == "unequal spectrum":
        scale = 2 * torch.arange(1, d + 1).double() ** -0.5
        rotation = torch.linalg.qr(normal(d, d, 999)).Q
        return 1.25 * a * scale @ rotation, b * scale @ rotation, float((0.25 * scale).square().sum())
    return a, b, 0.0


def extrapolated_distances(repeats: int) -> Iterator[tuple[str, ...]]:
    """The Fréchet distance extrapolated to infinite n, against the truth."""
    for case, n, m, d in (
        ("shifted by 1", 2000, 2000, 64), ("wider", 2000, 2000, 64), ("unequal spectrum", 2000, 2000, 64),
        ("the same", 2000, 2000, 64), ("shifted by 1", 1500, 6000, 64), ("shifted by 1", 500, 500, 32),
    ):  # fmt: skip
        raw, found, covered = [], [], 0
        for seed in range(repeats):
            a, b, truth = gaussians(case, n, m, d, seed)
            raw.append(frechet_distance(a, b))
            found.append(frechet_infinite(a, b))
            covered += abs(found[-1].value - truth) <= Z95 * found[-1].standard_error
        values = np.array([f.value for f in found])
        stated = math.sqrt(np.mean([f.standard_error**2 for f in found]))
        first = np.abs(values[:10] - truth).mean()
        yield (
            case, str(d), f"{n}, {m}", f"{truth:.3f}", f"{np.mean(raw):.3f}", f"{values.mean():.3f}",
            f"{first:.3f}", f"{values.std(ddof=1):.3f}", f"{stated:.3f}", f"{covered / repeats:.1%}",
        )  # fmt: skip


def classifier_scores(repeats: int) -> Iterator[tuple[str, ...]]:
    """The stated standard error of the classifier score against its standard deviation."""
    for n, splits, sharpness in ((1000, 10, 3.0), (500, 1, 1.0), (2000, 10, 6.0)):
        found = [classifier_score(sharpness * normal(n, 20, seed), splits) for seed in range(repeats)]
        values = np.array([f.mean for f in found])
        stated = np.array([f.standard_error for f in found])
        covered = np.abs(values - values.mean()) <= Z95 * stated
        yield (
            str(n), str(splits), f"{values.mean():.3f}", f"{values.std(ddof=1):.4f}",
            f"{math.sqrt((stated**2).mean()):.4f}", f"{covered.mean():.1%}",
        )  # fmt: skip


def densities_and_coverages(repeats: int) -> Iterator[tuple[str, ...]]:
    """Density and coverage of two sets from one distribution, against their expectations."""
    for n, m, k in ((200, 200, 5), (300, 100, 5), (100, 300, 3)):
        found = np.array(
            [density_coverage(normal(n, 16, 2 * s), normal(m, 16, 2 * s + 1), k) for s in range(repeats)]
        )
        expected = 1 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))
        error = found.std(axis=0, ddof=1) / math.sqrt(repeats)
        yield (
            f"{n}, {m}", str(k), f"{found[:, 0].mean():.4f} ± {error[0]:.4f}", "1",
            f"{found[:, 1].mean():.4f} ± {error[1]:.4f}", f"{expected:.4f}",
        )  # fmt: skip


def real_against_real(cars: Dataset) -> tuple[str, ...]:
    """The extrapolated distance of one half of a data set from the other, whose truth is 0."""
    found = features(cars.items).double()
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    half = len(order) // 2
    a, b = found[order[:half]], found[order[half : 2 * half]]
    value, error = frechet_infinite(a, b)
    return f"{half}, {half}", f"{frechet_distance(a, b):.1f}", f"{value:.2f}", f"{error:.2f}"


def print_intervals(repeats: int, cars: Dataset | None) -> None:
    print_section(
        "## 3. Errors and intervals of the other metrics",
        "Does the extrapolated Fréchet distance reach the truth, do 95 % intervals contain it, and are"
        " density and coverage unbiased?",
        f'{repeats} pairs of sets from Gaussians whose distance is known. "Raw" is the plain distance,'
        ' "error" the mean absolute error of the first ten extrapolations, "standard deviation" how much the'
        ' extrapolation varies, "stated" the standard error that it states, "covers" how often its 95 %'
        " interval contains the truth.",
    )
    print("The Fréchet distance extrapolated to infinite n:\n")
    head: tuple[str, ...] = (
        "sets",
        "d",
        "n, m",
        "truth",
        "raw",
        "extrapolated",
        "error",
        "standard deviation",
        "stated",
        "covers",
    )
    print_table(head, extrapolated_distances(repeats))
    print("The standard error of the classifier score:\n")
    head = ("n", "splits", "mean", "standard deviation", "stated", "95 % interval covers the mean")
    print_table(head, classifier_scores(repeats * 3 // 2))
    print("Density and coverage of two sets from one distribution:\n")
    head = ("n, m", "k", "density", "expected", "coverage", "expected")
    print_table(head, densities_and_coverages(repeats))
    if cars:
        print(
            "Real pictures against real pictures at infinite n, where the truth is 0 (Stanford Cars at"
            f" 64×64,\n`{FEATURES}` features). The remaining difference from 0 is added to the interval of"
            " every\nextrapolated distance.\n"
        )
        print_table(("n, m", "raw", "extrapolated", "stated"), [real_against_real(cars)])


# 4. Planted copies


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")  # Pillow's quality, 75
    return Image.open(buffer).convert("RGB")


def shifted(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image,
    "JPEG, quality 75": jpeg,
    "shifted by a pixel": shifted,
    "blurred, σ = 0.7 px": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "brightness × 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness × 0.8": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def planted_copies(dataset: Dataset, held_out: float) -> Iterator[tuple[str, ...]]:
    """The shares of changed training pictures and of unseen pictures that are taken for copies."""
    train_index, unseen_index = dataset.split(held_out)
    train, unseen = (torch.from_numpy(dataset.items[i]) for i in (train_index, unseen_index))
    found, mirrored = features(dataset.items), features(unseen.flip(2))
    real, unseen_features = found[train_index], found[unseen_index]
    halves = [torch.arange(start, len(unseen), 2) for start in (0, 1)]
    parts = [FeaturePair(unseen[half], unseen_features[half], mirrored[half]) for half in halves]
    limits = [thresholds(part, train, real) for part in parts]
    alarms = [memorization(parts[1 - i], train, real, limits[i]).copies for i in (0, 1)]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:COPIES]
    for name, change in CHANGES.items():
        changed = torch.from_numpy(
            np.stack([np.asarray(change(Image.fromarray(picture))) for picture in train[order].numpy()])
        )
        pair = FeaturePair(changed, features(changed), features(changed.flip(2)))
        shares = [memorization(pair, train, real, limit).share[0] for limit in limits]
        yield name, f"{np.mean(shares):.1%}"
    yield f"no copies: {len(unseen)} unseen pictures (false alarms)", f"{sum(alarms) / len(unseen):.2%}"
    yield "stated upper bound of the false alarms", f"{np.mean([limit.false_alarms for limit in limits]):.2%}"


def print_copies(toycars: int, cars: Dataset | None) -> None:
    print_section(
        "## 4. Planted copies",
        "Does an evaluation find samples that are copies of training pictures?",
        f"{COPIES} training pictures per row, changed and evaluated as if they were samples, with"
        f" `{FEATURES}` features. Half of the unseen pictures set the thresholds and the other half count as"
        " false alarms, and again the other way round.",
    )
    print(f"toycars, {toycars:,} pictures of 32×32:\n")
    print_table(("copies", "found"), planted_copies(load_dataset(f"toycars:{toycars}", ImageCodec(32)), 0.3))
    if cars:
        print(f"Stanford Cars, {len(cars.keys):,} pictures of 64×64:\n")
        print_table(("copies", "found"), planted_copies(cars, 0.15))


# 5. Planted bias


ATTRIBUTES = ("color", "body", "view", "background", "time")


def biased(values: NDArray, names: Sequence[str], repeat: int, n: int) -> NDArray:
    """n of the pictures, a third of their values three times too often and a third three times too rarely."""
    random = np.random.default_rng([repeat, len(names)])
    weight = dict(zip(names, random.permutation([3.0, 1 / 3, 1.0] * 4)[: len(names)], strict=True))
    p = np.array([weight[value] for value in values])
    return random.choice(len(values), n, replace=False, p=p / p.sum())


def planted_bias(
    to_features: Callable[[Tensor], Tensor],
    real: Dataset,
    index: NDArray,
    pool: Dataset,
    repeats: int,
    n: int,
) -> Iterator[tuple[str, ...]]:
    """Samples chosen from a pool of pictures with a known bias, against the estimate and its intervals.

    to_features: of pictures. index: the real pictures that count.
    """
    real_features = to_features(torch.from_numpy(real.items[index]))
    pool_features = to_features(torch.from_numpy(pool.items[:]))
    for attribute in ATTRIBUTES:
        pool_values = np.array([of[attribute] for of in pool.attributes])
        values = [real.attributes[i][attribute] for i in index]
        names = sorted(set(values))
        covered, errors, without, planted, found, wrong = 0, [], [], 0, 0, 0
        for repeat in range(repeats):
            chosen = biased(pool_values, names, repeat, n)
            result = attribute_frequencies(
                attribute, values, real_features, pool_features[chosen], seed=repeat
            )
            for estimate in result.frequencies:
                truth = float((pool_values[chosen] == estimate.value).mean())
                covered += estimate.low <= truth <= estimate.high
                errors.append(abs(estimate.samples - truth))
                without.append(abs(estimate.data - truth))
                if truth / estimate.data > 1.5 or truth / estimate.data < 1 / 1.5:
                    planted += 1
                    found += estimate.verdict == ("over" if truth > estimate.data else "under")
                elif estimate.verdict and (estimate.verdict == "over") != (truth > estimate.data):
                    wrong += 1
        yield (
            attribute, str(len(names)), f"{result.accuracy:.0%}", f"{np.mean(without):.3f}",
            f"{np.mean(errors):.3f}", f"{covered / len(errors):.1%} of {len(errors)}",
            f"{found} of {planted}", str(wrong),
        )  # fmt: skip


def print_bias(toycars: int, repeats: int, label_classifier: str | None) -> None:
    print_section(
        "## 5. Planted bias",
        "Does an evaluation notice that samples contain some attribute values too often or too rarely?",
        "The samples are 400 of 1,500 fresh toycars of 32×32, chosen with a third of the values three times"
        " too often and a third three times too rarely; the truth is their frequencies as chosen. A"
        f' classifier on `{FEATURES}` features that saw {toycars:,} other pictures estimates them. "No'
        ' estimate" is the mean error of taking the frequencies of the data, "error" that of the estimate. A'
        ' bias of more than 1.5 times is "found" where the verdict is right; "wrong" verdicts state the'
        " opposite of the truth. The interval is for the process behind the samples, so it covers the"
        " frequencies of these very samples more often than 95 %.",
    )
    codec = ImageCodec(32)
    pool = load_dataset(ToyCars(1500, seed=1), codec)
    head = ("attribute", "values", "accuracy", "no estimate", "error", "interval covers", "found", "wrong")
    real = load_dataset(ToyCars(toycars), codec)
    print_table(head, planted_bias(features, real, np.arange(toycars), pool, repeats, n=400))
    if label_classifier:
        model = alphabar.load_model(label_classifier)
        real = load_dataset(ToyCars(20000), codec)
        _, index = real.split(model.recipe.data.held_out)
        print(
            f"The same with a label classifier trained on {model.images:,} pictures\n"
            f"(`evaluate --label-classifier`) and the {len(index):,} pictures that it held out:\n"
        )
        to_features = partial(classifier_features, model.denoiser, model.codec)
        print_table(head, planted_bias(to_features, real, index, pool, repeats, n=400))


PARTS = ("intervals", "copies", "bias")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--cars", metavar="DATA", help="Stanford Cars: a folder or a built-in name")
    parser.add_argument(
        "--label-classifier", metavar="RUN", help="of toycars:20000 at 32 px, for planted bias"
    )
    parser.add_argument("--repeats", type=int, default=200, help="pairs of sets in a row of section 3")
    parser.add_argument("--toycars", type=int, default=2000, help="pictures in sections 4 and 5")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)}")
    torch.set_num_threads(1)
    parts = args.parts or PARTS
    cars = load_dataset(args.cars, ImageCodec(64)) if args.cars else None
    if "intervals" in parts:
        print_intervals(args.repeats, cars)
    if "copies" in parts:
        print_copies(args.toycars, cars)
    if "bias" in parts:
        print_bias(args.toycars, 4, args.label_classifier)
    print_command()


if __name__ == "__main__":
    main()
