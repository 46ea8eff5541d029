"""Planted copies are found, unseen pictures are let be, and the promise about false alarms is kept."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.evaluation.copies import pictures_of_the_same
from alphabar.metrics.intervals import wilson
from alphabar.metrics.memorization import (
    FeaturePair,
    Thresholds,
    memorization,
    nearest_features,
    nearest_pixels,
    thresholds,
)
from alphabar.parts import Rows


def pictures(n: int, seed: int, size: int = 32) -> Tensor:
    """Smooth pictures that differ: sums of a few waves of random direction and colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = sum(
        rng.normal(size=(n, 1, 1, 3))
        * np.sin(
            rng.uniform(-9, 9, (n, 1, 1, 1)) * x[..., None]
            + rng.uniform(-9, 9, (n, 1, 1, 1)) * y[..., None]
            + rng.uniform(0, 6, (n, 1, 1, 1))
        )
        for _ in range(4)
    )
    return torch.from_numpy((127 + 40 * waves).clip(0, 255).astype(np.uint8))


def features(x: Tensor) -> Tensor:
    """A poor network: means over 8×8 blocks."""
    n, size = x.shape[:2]
    return x.double().reshape(n, 8, size // 8, 8, size // 8, 3).mean(dim=(2, 4)).flatten(1).float()


def seen(x: Tensor) -> FeaturePair:
    return FeaturePair(x, features(x), features(x.flip(2)))


def shifted(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)


def soft(x: Tensor) -> Tensor:
    return ((x.int() + x.roll(1, 1) + x.roll(1, 2)) // 3).to(torch.uint8)


def noisy(x: Tensor) -> Tensor:
    added = torch.randint(-4, 5, x.shape, generator=torch.Generator().manual_seed(0))
    return (x.int() + added).clamp(0, 255).to(torch.uint8)


CHANGES = {
    "exact": lambda x: x,
    "mirrored": lambda x: x.flip(2),
    "shifted": shifted,
    "brighter": lambda x: (x.float() * 1.15).clamp(0, 255).to(torch.uint8),
    "softer": soft,
    "noisy": noisy,
}  # fmt: skip
TRAIN = pictures(300, 1)


@pytest.fixture(scope="module")
def below() -> Thresholds:
    return thresholds(seen(pictures(400, 2)), TRAIN, features(TRAIN))


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_with_their_originals(below, change):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))[:40]
    copies = CHANGES[change](TRAIN[order])
    fresh = pictures(40, 4)
    found = memorization(seen(torch.cat([copies, fresh])), TRAIN, features(TRAIN), below)
    pairs = [p for p in found.nearest if p.closeness < 1]
    ours = [p for p in pairs if p.sample < 40]
    assert len(ours) >= 38 and len(pairs) - len(ours) <= 2
    assert found.copies == len(pairs)
    assert all(p.train == int(order[p.sample]) for p in ours)
    if change == "mirrored":
        assert all(p.mirrored for p in ours)
    assert found.sentence.identifier == "metrics.copies"


def test_unseen_pictures_are_called_copies_as_seldom_as_promised(below):
    assert below.false_alarms == 2 * 2 / 401 and below.held_out_n == 400
    found = memorization(seen(pictures(1000, 5)), TRAIN, features(TRAIN), below)
    # a binomial of mean at most 10 exceeds 25 once in a hundred thousand times
    assert found.copies <= 25
    few = memorization(seen(pictures(100, 6)), TRAIN, features(TRAIN), below)
    assert few.sentence.identifier == "metrics.no_copies"


@pytest.mark.parametrize(("held", "promise"), [(199, 2 / 200), (198, 2 / 199), (20, 2 / 21), (399, 4 / 400)])
def test_the_promise_is_what_the_held_out_pictures_can_bear(held, promise):
    few = pictures(held, 7, size=16)
    train = pictures(20, 8, size=16)
    assert thresholds(seen(few), train, features(train)).false_alarms == promise


def test_distances_are_zero_for_a_copy_and_do_not_depend_on_light():
    copy = nearest_pixels(TRAIN[:5], TRAIN)
    assert copy.distance.max() < 1e-2 and copy.which.tolist() == [0, 1, 2, 3, 4] and not copy.mirrored.any()
    darker = nearest_pixels((TRAIN[:5] // 2), TRAIN)
    assert darker.distance.max() < 0.1
    exact = nearest_features(features(TRAIN[:5]), features(TRAIN[:5].flip(2)), features(TRAIN))
    assert exact.distance.max() < 1e-6 and exact.which.tolist() == [0, 1, 2, 3, 4]


def test_a_distance_is_measured_by_its_neighbourhood():
    """One at 2 and fourteen at 4, of which seven count: 2 / (30/8). In a crowd of equals it is 1."""
    train = torch.tensor([[2.0, 0.0], *[[0.0, 4.0]] * 7, *[[0.0, -4.0]] * 7])
    near = nearest_features(torch.zeros(1, 2), torch.zeros(1, 2) + 100, train)
    assert float(near.distance) == pytest.approx(2 / (30 / 8)) and int(near.which) == 0
    crowd = nearest_features(torch.zeros(1, 2), torch.zeros(1, 2) + 100, train[1:])
    assert float(crowd.distance) == pytest.approx(1)


@pytest.mark.parametrize("times", [2, 8, 40])
@pytest.mark.parametrize("change", ["exact", "noisy", "shifted", "softer"])
def test_copies_of_a_picture_that_the_data_holds_often_are_found(times, change):
    """It is copied the soonest; all eight nearest would be as near as the nearest."""
    often = torch.cat([TRAIN, *[TRAIN[7:8]] * (times // 2), *[noisy(TRAIN[7:8].flip(2))] * (times // 2)])
    rows = Rows.of(often)
    same = pictures_of_the_same(rows)
    assert (same == 7).sum() == 1 + 2 * (times // 2) and same.unique().numel() == len(TRAIN)
    below = thresholds(seen(pictures(400, 2)), rows, features(often), same)
    sample = CHANGES[change](TRAIN[7:8])
    found = memorization(seen(torch.cat([sample, pictures(20, 4)])), rows, features(often), below, same)
    assert found.copies <= 2 and found.nearest[0].sample == 0 and found.nearest[0].closeness < 1
    assert int(same[found.nearest[0].train]) == 7


def test_pictures_of_the_same_count_once_among_the_eight():
    train = torch.tensor([[2.0, 0.0], *[[0.0, 4.0]] * 20, [0.0, 5.0], [0.0, 6.0]])
    same = torch.tensor([0, *[1] * 20, 21, 22])
    near = nearest_features(torch.zeros(1, 2), torch.zeros(1, 2) + 100, train, same)
    assert float(near.distance) == pytest.approx(2 / ((2 + 4 + 5 + 6) / 4))


def test_large_pictures_and_pictures_of_one_colour_are_taken():
    large = pictures(4, 1, size=160)
    near = nearest_pixels(large, large)
    assert near.which.tolist() == [0, 1, 2, 3] and near.distance.max() < 1e-2
    flat = torch.full((2, 32, 32, 3), 7, dtype=torch.uint8)
    assert (nearest_pixels(flat, TRAIN).distance == 1).all()


def test_nothing_held_out_is_said(below):
    with pytest.raises(AlphabarError, match="no images were held out"):
        thresholds(seen(TRAIN[:0]), TRAIN, features(TRAIN))


def test_it_fits_json(below):
    found = memorization(seen(TRAIN[:3]), TRAIN, features(TRAIN), below)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["copies"] == 3 and told["thresholds"]["held_out_n"] == 400 and len(told["nearest"]) == 3


def test_wilson_is_wilsons():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for (count, n), (low, high) in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(count, n) == pytest.approx((low, high), abs=5e-5)
