"""Can the judge be trusted? Intervals that should cover, copies and biases that were planted.

Prints markdown: python benchmarks/judge.py --cars DIR > docs/results/judge.md
Without --cars the parts on Stanford Cars are left out. Takes minutes, most of them looking at pictures.
"""

import argparse
import io
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.items import Source
from alphabar.data.sources import open_source
from alphabar.data.toycars.source import ToyCars
from alphabar.methods.classifier import classifier_features
from alphabar.metrics.attribute_frequencies import attribute_frequencies
from alphabar.metrics.distances import classifier_score, density_coverage, frechet_distance, frechet_infinite
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.metrics.memorization import FeaturePair, memorization, thresholds

FEATURES = "lite0_96"
PLANTED = 100  # copies of each kind


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    for row in (head, tuple("---" for _ in head), *rows):
        print("| " + " | ".join(row) + " |", flush=True)
    print()


# Intervals


def gaussians(case: str, n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two sets, and the true Fréchet distance of the Gaussians that they were drawn from."""
    a, b = normal(n, d, 2 * seed), normal(m, d, 2 * seed + 1)
    if case == "shifted by 1":
        a[:, 0] += 1
        return a, b, 1.0
    if case == "wider":
        return a * (1 + 1 / math.sqrt(d)), b, 1.0
    if case == "unequal spectrum":
        scale = 2 * torch.arange(1, d + 1).double() ** -0.5
        turn = torch.linalg.qr(normal(d, d, 999)).Q
        return 1.25 * a * scale @ turn, b * scale @ turn, float((0.25 * scale).square().sum())
    return a, b, 0.0


def infinite(repeats: int) -> Iterator[tuple[str, ...]]:
    for case, n, m, d in (
        ("shifted by 1", 2000, 2000, 64), ("wider", 2000, 2000, 64), ("unequal spectrum", 2000, 2000, 64),
        ("the same", 2000, 2000, 64), ("shifted by 1", 1500, 6000, 64), ("shifted by 1", 500, 500, 32),
    ):  # fmt: skip
        raw, found, covered = [], [], 0
        for seed in range(repeats):
            a, b, truth = gaussians(case, n, m, d, seed)
            raw.append(frechet_distance(a, b))
            found.append(frechet_infinite(a, b))
            covered += abs(found[-1].value - truth) <= 1.96 * found[-1].standard_error
        values = np.array([f.value for f in found])
        claimed = math.sqrt(np.mean([f.standard_error**2 for f in found]))
        first = np.abs(values[:10] - truth).mean()
        yield (
            case, str(d), f"{n}, {m}", f"{truth:.3f}", f"{np.mean(raw):.3f}", f"{values.mean():.3f}",
            f"{first:.3f}", f"{values.std(ddof=1):.3f}", f"{claimed:.3f}", f"{covered / repeats:.1%}",
        )  # fmt: skip


def scores(repeats: int) -> Iterator[tuple[str, ...]]:
    for n, splits, sharp in ((1000, 10, 3.0), (500, 1, 1.0), (2000, 10, 6.0)):
        found = [classifier_score(sharp * normal(n, 20, seed), splits) for seed in range(repeats)]
        values = np.array([f.mean for f in found])
        claimed = np.array([f.standard_error for f in found])
        covered = np.abs(values - values.mean()) <= 1.96 * claimed
        yield (
            str(n), str(splits), f"{values.mean():.3f}", f"{values.std(ddof=1):.4f}",
            f"{math.sqrt((claimed**2).mean()):.4f}", f"{covered.mean():.1%}",
        )  # fmt: skip


def neighbours(repeats: int) -> Iterator[tuple[str, ...]]:
    for n, m, k in ((200, 200, 5), (300, 100, 5), (100, 300, 3)):
        found = np.array(
            [density_coverage(normal(n, 16, 2 * s), normal(m, 16, 2 * s + 1), k) for s in range(repeats)]
        )
        truth = 1 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))
        error = found.std(axis=0, ddof=1) / math.sqrt(repeats)
        yield (
            f"{n}, {m}", str(k), f"{found[:, 0].mean():.4f} ± {error[0]:.4f}", "1",
            f"{found[:, 1].mean():.4f} ± {error[1]:.4f}", f"{truth:.4f}",
        )  # fmt: skip


# Pictures


def dataset(source: Source, size: int) -> Dataset:
    *_, last = prepare(source, ImageCodec(size))
    assert last.result is not None
    return last.result


def seen(pictures: np.ndarray | Tensor) -> Tensor:
    *_, last = extract(EXTRACTORS.build(FEATURES), pictures, cache=cache_root() / "features")
    assert last.result is not None
    return last.result.features


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")  # Pillow's quality, 75
    return Image.open(buffer).convert("RGB")


def shifted(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image,
    "JPEG, quality 75": jpeg,
    "shifted by a pixel": shifted,
    "blurred, σ = 0.7 px": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "brightness × 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness × 0.8": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def copies(data: Dataset, held_out: float) -> Iterator[tuple[str, ...]]:
    index, held = data.split(held_out)
    train, unseen = (torch.from_numpy(data.items[i]) for i in (index, held))
    features = seen(data.items)
    flipped = seen(unseen.flip(2))
    halves = [torch.arange(start, len(held), 2) for start in (0, 1)]
    parts = [FeaturePair(unseen[h], features[held][h], flipped[h]) for h in halves]
    below = [thresholds(part, train, features[index]) for part in parts]
    alarms = [memorization(parts[1 - i], train, features[index], below[i]).copies for i in (0, 1)]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:PLANTED]
    for kind, change in COPIES.items():
        planted = torch.from_numpy(
            np.stack([np.asarray(change(Image.fromarray(p))) for p in train[order].numpy()])
        )
        copied = FeaturePair(planted, seen(planted), seen(planted.flip(2)))
        found = [memorization(copied, train, features[index], each) for each in below]
        yield kind, f"{np.mean([f.share[0] for f in found]):.1%}"
    yield f"none: {len(held)} unseen pictures (false alarms)", f"{sum(alarms) / len(held):.2%}"
    promised = np.mean([each.false_alarms for each in below])
    yield "false alarms promised, at most", f"{promised:.2%}"


def planted_bias(
    look: Callable[[Tensor], Tensor], real: Dataset, index: np.ndarray, pool: Dataset, repeats: int, n: int
) -> Iterator[tuple[str, ...]]:
    """Samples drawn from a pool of pictures with a known preference, against what the intervals say.

    look: pictures to features. index: the real pictures that count.
    """
    real_features = look(torch.from_numpy(real.pictures[index]))
    pool_features = look(torch.from_numpy(pool.pictures[:]))
    for attribute in ("color", "body", "view", "background", "time"):
        of_pool = np.array([a[attribute] for a in pool.attributes])
        values = [real.attributes[i][attribute] for i in index]
        names = sorted(set(values))
        inside, errors, naive, planted, caught, wrong = 0, [], [], 0, 0, 0
        for repeat in range(repeats):
            random = np.random.default_rng([repeat, len(names)])
            # a third of the values three times too often, a third three times too seldom
            weight = dict(zip(names, random.permutation([3.0, 1 / 3, 1.0] * 4)[: len(names)], strict=True))
            p = np.array([weight[value] for value in of_pool])
            chosen = random.choice(len(of_pool), n, replace=False, p=p / p.sum())
            result = attribute_frequencies(
                attribute, values, real_features, pool_features[chosen], seed=repeat
            )
            for share in result.frequencies:
                truth = float((of_pool[chosen] == share.value).mean())
                inside += share.low <= truth <= share.high
                errors.append(abs(share.samples - truth))
                naive.append(abs(share.data - truth))
                if truth / share.data > 1.5 or truth / share.data < 1 / 1.5:
                    planted += 1
                    caught += share.verdict == ("over" if truth > share.data else "under")
                elif share.verdict and (share.verdict == "over") != (truth > share.data):
                    wrong += 1
        total = len(errors)
        yield (
            attribute, str(len(names)), f"{result.accuracy:.0%}", f"{np.mean(naive):.3f}",
            f"{np.mean(errors):.3f}", f"{inside / total:.1%} of {total}", f"{caught} of {planted}",
            str(wrong),
        )  # fmt: skip


def intervals() -> None:
    print("## The Fréchet distance at infinite n\n")
    print(
        "200 pairs of sets from Gaussians whose distance is known. *raw* is the plain distance, *error* the"
    )
    print("mean absolute error of the first ten, *spread* what the extrapolation varies by, *claimed* the")
    print("standard error it states, *covers* how often its 95 % interval holds the truth:\n")
    head = ("sets", "d", "n, m", "truth", "raw", "extrapolated", "error", "spread", "claimed", "covers")
    table(head, infinite(200))
    print("## The classifier score's standard error\n")
    table(("n", "splits", "mean", "spread", "claimed", "95 % interval covers the mean"), scores(300))
    print("## Density and coverage of sets from one distribution\n")
    table(("n, m", "k", "density", "expected", "coverage", "expected"), neighbours(200))


def toycars_copies() -> None:
    print("## Planted copies\n")
    print(
        f"{PLANTED} training pictures of each kind, changed and handed in as samples; `{FEATURES}` features."
    )
    print("Half of the unseen pictures set the thresholds, the other half are the false alarms, and again")
    print("exchanged:\n")
    print("toycars, 2000 pictures of 32×32:\n")
    table(("copies", "found"), copies(dataset(ToyCars(2000), 32), 0.3))


def cars_copies(folder: str) -> None:
    data = dataset(open_source(folder), 64)
    print(f"Stanford Cars, {len(data.keys)} pictures of 64×64:\n")
    table(("copies", "found"), copies(data, 0.15))


def cars_infinite(folder: str) -> None:
    print("## Real pictures against real pictures at infinite n\n")
    print("The truth is 0. What is missing to it is added to the interval of every extrapolated distance.")
    print(f"Stanford Cars at 64×64, `{FEATURES}` features:\n")
    features = seen(dataset(open_source(folder), 64).pictures).double()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    half = len(order) // 2
    a, b = features[order[:half]], features[order[half : 2 * half]]
    value, error = frechet_infinite(a, b)
    row = (f"{half}, {half}", f"{frechet_distance(a, b):.1f}", f"{value:.2f}", f"{error:.2f}")
    table(("n, m", "raw", "extrapolated", "claimed"), iter([row]))


def bias(teller: str | None) -> None:
    print("## Planted bias\n")
    print("Samples are 400 of 1500 fresh toycars of 32×32, chosen with a third of the values three times too")
    print(
        "often and a third three times too seldom; the truth is their shares as chosen. A classifier that saw"
    )
    print("2000 others estimates them. *if nothing were done* is the mean error of taking the data's shares,")
    print(
        "*error* that of the estimate. A bias of more than 1.5 times is *found* where its verdict is right;"
    )
    print(
        "*wrong* verdicts say the opposite of the truth. (The interval is for the process behind the samples,"
    )
    print("so it covers the shares of the very samples more often than 95 %.)\n")
    pool = dataset(ToyCars(1500, seed=1), 32)
    head = (
        "attribute",
        "values",
        "accuracy",
        "if nothing were done",
        "error",
        "interval covers",
        "found",
        "wrong",
    )
    real = dataset(ToyCars(2000), 32)
    table(head, planted_bias(seen, real, np.arange(2000), pool, repeats=4, n=400))
    if teller:
        model = alphabar.load_model(teller)
        real = dataset(ToyCars(20000), 32)
        _, index = real.split(model.recipe.data.held_out)
        print(
            f"The same, told by a classifier of {model.images:,} pictures (`evaluate --teller`) in place of"
        )
        print(f"one on features, and the {len(index)} pictures that it held out:\n")
        look = partial(classifier_features, model.denoiser, model.codec)
        table(head, planted_bias(look, real, index, pool, repeats=4, n=400))


def main() -> None:
    parts: dict[str, Callable[..., None]] = {
        "intervals": intervals,
        "toycars-copies": toycars_copies,
        "cars-copies": cars_copies,
        "cars-infinite": cars_infinite,
        "bias": bias,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; default: all")
    parser.add_argument("--cars", metavar="DIR", help="the folder of Stanford Cars")
    parser.add_argument("--teller", metavar="RUN", help="a classifier of toycars:20000 at 32 px, for bias")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if not chosen.parts:
        print("# The judge can be trusted\n")
        cars, teller = " --cars DIR" * bool(chosen.cars), " --teller RUN" * bool(chosen.teller)
        print(f"`python benchmarks/judge.py{cars}{teller} > docs/results/judge.md`\n")
    if unknown := set(chosen.parts) - set(parts):
        parser.error(f"unknown part {min(unknown)}")
    for name in chosen.parts or parts:
        if name == "bias":
            bias(chosen.teller)
        elif not name.startswith("cars"):
            parts[name]()
        elif chosen.cars:
            parts[name](chosen.cars)


if __name__ == "__main__":
    main()
