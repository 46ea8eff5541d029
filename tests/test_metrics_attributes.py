"""A planted bias is found and its size estimated rightly; none is found where there is none."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alphabar.errors import AlphabarError
from alphabar.metrics import attribute_frequencies as frequencies
from alphabar.metrics.appearance import appearance_shift, appearance_statistics
from alphabar.metrics.attribute_frequencies import MOST_PICKS, attribute_frequencies
from alphabar.metrics.condition_agreement import condition_agreement, distances_by_value
from alphabar.metrics.feature_classifier import MIN_IMAGES

NAMES = ["bus", "coupe", "van", "wagon"]


def world(n: int, weights: list[float], seed: int, apart: float = 1.6) -> tuple[Tensor, list[str]]:
    """Features of four kinds that overlap, and what they are."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(4, n, p=np.array(weights) / sum(weights))
    centres = apart * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-0.7, -0.7, 0]])
    noise = rng.normal(size=(n, 8))
    noise[:, :3] += centres[kinds]
    return torch.from_numpy(noise).float(), [NAMES[k] for k in kinds]


def test_a_planted_bias_is_found_and_its_size_is_right():
    real, values = world(2000, [1, 1, 1, 1], 0)
    fake, truth = world(1500, [3, 1, 1, 0.3], 1)
    result = attribute_frequencies("body", values, real, fake)
    assert result.accuracy < 0.9  # a classifier that errs: counting its answers would be wrong
    for share in result.frequencies:
        true = truth.count(share.value) / len(truth)
        assert share.low <= true <= share.high
        assert share.data == values.count(share.value) / len(values)
    verdicts = {share.value: share.verdict for share in result.frequencies}
    assert verdicts["bus"] == "over" and verdicts["wagon"] == "under"
    assert sum(share.samples for share in result.frequencies) == pytest.approx(1, abs=1e-6)


def test_intervals_cover_the_truth():
    inside = total = 0
    real, values = world(800, [1, 2, 1, 2], 2)
    for seed in range(15):
        weights = np.random.default_rng(seed).uniform(0.3, 3, 4).tolist()
        fake, truth = world(500, weights, 100 + seed)
        for share in attribute_frequencies("body", values, real, fake, seed=seed).frequencies:
            inside += share.low <= truth.count(share.value) / len(truth) <= share.high
            total += 1
    assert inside / total >= 0.88


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor has that is made while it is open."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(found) if isinstance(t, Tensor))])
        return found


def test_resampling_many_samples_takes_no_memory_for_each_of_them(monkeypatch):
    real, values = world(400, [1, 1, 1, 1], 4)
    fake, _ = world(20_000, [1, 1, 1, 1], 5)
    with LargestTensor() as largest:
        result = attribute_frequencies("body", values, real, fake)
    assert largest.numbers <= max(MOST_PICKS, 2 * fake.numel())
    monkeypatch.setattr(frequencies, "MOST_PICKS", 10**8)
    at_once = attribute_frequencies("body", values, real, fake)
    for share, other in zip(result.frequencies, at_once.frequencies, strict=True):
        assert (share.low, share.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_no_bias_is_no_verdict():
    real, values = world(2000, [1, 1, 1, 1], 3)
    verdicts = [
        share.verdict
        for seed in range(5)
        for share in attribute_frequencies(
            "body", values, real, world(500, [1, 1, 1, 1], 50 + seed)[0]
        ).frequencies
    ]
    assert sum(map(bool, verdicts)) <= 1


def test_a_verdict_needs_what_none_of_all_values_exceeds_by_chance():
    """Bonferroni: a difference counts beyond the normal quantile of 5 % over both sides and all values."""
    real, values = world(1200, [1, 1, 1, 1], 20)
    strict, between = stats.norm.ppf(1 - 0.05 / (2 * len(NAMES))), 0
    for seed in range(12):
        fake, _ = world(500, [1.3, 1.2, 1, 0.8], 200 + seed)
        for share in attribute_frequencies("body", values, real, fake).frequencies:
            error = (share.high - share.low) / (2 * stats.norm.ppf(0.975))
            errors = (share.samples - share.data) / error
            wanted = "" if abs(errors) < strict else "over" if errors > 0 else "under"
            assert share.verdict == wanted
            between += 1.8 < abs(errors) < strict
    assert between > 3  # differences that would count if there were one value only


def test_a_classifier_without_a_clue_says_so_by_its_intervals():
    real, values = world(600, [1, 1, 1, 1], 4, apart=0.0)
    result = attribute_frequencies("body", values, real, world(400, [1, 0, 0, 0], 5, apart=0.0)[0])
    assert result.accuracy < 0.4 and not any(share.verdict for share in result.frequencies)
    assert all(share.high - share.low > 0.3 for share in result.frequencies)


def test_the_value_that_no_share_explains_is_named_with_its_share(monkeypatch):
    """Shares of 150 % for b, −50 % for d and 0 for the others: the mean answer is M times these."""
    n, classes = 50, len(NAMES)
    confusion = torch.full((classes, classes), 0.1).double() + 0.6 * torch.eye(classes).double()
    of_real = confusion.T.repeat_interleave(n, dim=0)
    of_fake = (confusion @ torch.tensor([0, 1.5, 0, -0.5]).double()).expand(n, classes)
    monkeypatch.setattr(
        "alphabar.metrics.attribute_frequencies.class_probabilities", lambda *_: (of_real, of_fake)
    )
    values = [name for name in NAMES for _ in range(n)]
    with pytest.raises(AlphabarError) as refused:
        attribute_frequencies("body", values, torch.zeros(n * classes, 2), torch.zeros(n, 2))
    assert (refused.value.message.values["value"], refused.value.message.values["share"]) == ("coupe", "150%")


def test_rare_values_are_put_together_or_passed_over():
    real, values = world(400, [1, 1, 0.001, 0.001], 6)
    named: list[str | None] = [*values]
    named[:MIN_IMAGES] = ["one of a kind"] * 12 + ["odd"] * (MIN_IMAGES - 12)
    named[MIN_IMAGES] = None
    result = attribute_frequencies("body", named, real, real)
    assert [share.value for share in result.frequencies] == ["bus", "coupe", "(rare)"]
    assert result.real_n == 399
    named[:MIN_IMAGES] = [None] * 9 + ["odd"] * (MIN_IMAGES - 9)
    assert [share.value for share in attribute_frequencies("body", named, real, real).frequencies] == [
        "bus",
        "coupe",
    ]
    with pytest.raises(AlphabarError, match=f"body: .*two values with {MIN_IMAGES} images each"):
        attribute_frequencies("body", ["bus"] * 400, real, real)


def test_features_that_are_no_numbers_are_refused():
    real, values = world(100, [1, 1, 1, 1], 7)
    with pytest.raises(AlphabarError, match="samples: the features of 1 of 100"):
        attribute_frequencies("body", values, real, real.index_fill(0, torch.tensor([2]), torch.nan))


def test_imbalance_and_json():
    real, values = world(900, [4, 1, 1, 1], 8)
    result = attribute_frequencies("body", values, real, real[:300])
    largest = max(map(values.count, NAMES)) / min(map(values.count, NAMES))
    assert result.imbalance == pytest.approx(largest)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (
        told["attribute"] == "body"
        and len(told["frequencies"]) == 4
        and told["imbalance"] == result.imbalance
    )


# Light and tint


def noise(n: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    level = rng.uniform(60, 160, (n, 1, 1, 1))
    return torch.from_numpy((level + rng.uniform(-30, 30, (n, 8, 8, 3))).astype(np.uint8))


def test_looks_of_plain_colours():
    red, yellow, grey = ([200, 0, 0], [120, 120, 20], [90, 90, 90])
    pictures = torch.tensor([red, yellow, grey], dtype=torch.uint8)[:, None, None].expand(3, 4, 4, 3)
    seen = {name: value.tolist() for name, value in appearance_statistics(pictures).items()}
    assert seen["redness"] == [200, 0, 0] and seen["yellowness"] == [100, 100, 0]
    assert seen["chroma"] == [200, 100, 0] and seen["contrast"] == [0, 0, 0]
    assert seen["brightness"] == pytest.approx([59.8, 108.6, 90])


def test_a_planted_tint_is_found_and_its_size_is_right():
    real = noise(400, 1)
    fake = noise(400, 2).clone()
    fake[..., 0] += 10
    found = {d.statistic: d for d in appearance_shift(real, fake)[0]}
    assert found["redness"].low <= 10 <= found["redness"].high and found["redness"].low > 5
    assert found["yellowness"].low <= 5 <= found["yellowness"].high
    same = [d for seed in range(4) for d in appearance_shift(real, noise(400, 10 + seed))[0]]
    assert sum(not d.low <= 0 <= d.high for d in same) <= 4


def test_darkness_shows_in_the_thirds():
    real = noise(600, 1)
    dark, middle, bright = appearance_shift(real, noise(600, 2) - 30)[1]
    assert dark[0] > 0.5 and bright[0] < 0.1 and dark[1] < dark[0] < dark[2]
    assert dark[0] + middle[0] + bright[0] == pytest.approx(1)
    assert all(low < 1 / 3 < high for _, low, high in appearance_shift(real, noise(600, 3))[1])


def test_the_value_that_is_drawn_worst_is_farthest_from_its_own_pictures():
    torch.manual_seed(0)
    centres, of = 6 * torch.eye(8)[:3], torch.arange(600) % 3
    real = centres[of] + torch.randn(600, 8)
    fake = centres[of] + torch.randn(600, 8) + 2.0 * (of == 1)[:, None]
    values = ["abc"[i] for i in of]
    asked = [*values[:-1], "d"]
    worst, *others = distances_by_value(values, real, asked, fake)
    assert worst.value == "b" and worst.low > 0 and worst.n == worst.reference_n == 200
    assert [d.value for d in others] in (["a", "c"], ["c", "a"])
    assert all(d.low < 0 < d.high for d in others)
    assert distances_by_value(values, real, [v if i < 57 else None for i, v in enumerate(asked)], fake) == ()


def test_agreement_is_the_share_that_is_as_asked():
    torch.manual_seed(0)
    centres = 6 * torch.eye(8)[:3]
    names = ["a", "b", "c"]
    real_of, asked_of = torch.arange(300) % 3, torch.arange(600) % 3
    drawn_of = torch.where(torch.arange(600) < 480, asked_of, (asked_of + 1) % 3)  # 80 % as asked
    real = centres[real_of] + torch.randn(300, 8)
    fake = centres[drawn_of] + torch.randn(600, 8)
    found = condition_agreement("kind", [names[i] for i in real_of], real, [names[i] for i in asked_of], fake)
    assert found.n == 600 and found.accuracy > 0.98
    assert found.agreed == pytest.approx(0.8, abs=0.01) and found.low < 0.8 < found.high
    asked = [None] * 300 + [names[i] for i in asked_of[300:]]
    assert condition_agreement("kind", [names[i] for i in real_of], real, asked, fake).n == 300
    with pytest.raises(AlphabarError, match="no condition of the samples"):
        condition_agreement("kind", [names[i] for i in real_of], real, ["z"] * 600, fake)
