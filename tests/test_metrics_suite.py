"""A report says what its metrics are, what decides them, and what they would be at best."""

import json
import math

import pytest
import torch
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.metrics import suite
from alphabar.metrics.distances import (
    classifier_score,
    density_coverage,
    frechet_distance,
    frechet_infinite,
    kid,
    precision_recall,
)
from alphabar.metrics.features import Features
from alphabar.metrics.suite import KEYS, MetricReport, compare_features, metric_report


def features(n: int, seed: int, shift: float = 0.0, d: int = 12) -> Features:
    g = torch.Generator().manual_seed(seed)
    return Features(torch.randn(n, d, generator=g) + shift, torch.randn(n, 5, generator=g))


def report_of(fake: Features, real: Features, extractor: str = "lite0", **keys) -> MetricReport:
    return metric_report(fake, real, extractor=extractor, protocol="how", reference="cars, held out", **keys)


def test_every_number_is_that_of_its_distance():
    fake, real = features(40, 1, 0.5), features(100, 2)
    report = report_of(fake, real)
    assert report["frechet"].value == frechet_distance(fake.features, real.features)
    assert (report["kid"].value, report["kid"].error) == kid(fake.features, real.features)
    score = classifier_score(fake.logits)
    assert (report["score"].value, report["score"].error) == (score.mean, score.standard_error)
    infinite = report["frechet_infinite"]
    assert (infinite.value, infinite.error) == frechet_infinite(fake.features, real.features)
    dense = density_coverage(real.features, fake.features)
    assert (report["density"].value, report["coverage"].value) == dense
    precision, recall = precision_recall(real.features, fake.features)
    assert (report["precision"].value, report["recall"].value) == (precision, recall)
    assert [m.key for m in report.metrics] == list(KEYS)
    assert [m.better for m in report.metrics] == ["lower"] * 3 + ["higher"] * 5


def test_intervals_are_two_standard_errors_and_what_the_extrapolation_misses_on_real_pictures():
    report = report_of(features(40, 1, 0.5), features(100, 2))
    for key in ("kid", "score", "frechet_infinite"):
        m = report[key]
        missed = abs(m.baseline) if key == "frechet_infinite" else 0
        low, high = m.interval
        assert m.value - low == pytest.approx(1.96 * m.error + missed, rel=1e-3)
        assert high - m.value == pytest.approx(1.96 * m.error + missed, rel=1e-3)
    assert report["frechet_infinite"].baseline != 0
    assert report["frechet"].interval is None and report["recall"].interval is None


@pytest.mark.parametrize(("n", "m", "given"), [(24, 48, True), (23, 48, False), (24, 47, False)])
def test_infinity_is_not_guessed_from_too_few(n, m, given):
    report = report_of(features(n, 1), features(m, 2))
    assert any(x.key == "frechet_infinite" for x in report.metrics) == given
    told = any("24 samples and 48 real images" in w for w in report.warnings)
    assert told != given


def test_other_real_images_are_the_baseline_against_all_reals(monkeypatch):
    real, others = features(30, 2), features(90, 3)
    report = report_of(features(20, 1), real, others=others)
    assert (report.baseline_n, report.baseline_reference_n) == (20, 30)
    pool = {tuple(row) for row in others.features.tolist()}
    compared: list[tuple[Features, Features]] = []
    compare = compare_features
    monkeypatch.setattr(
        suite, "compare_features", lambda a, b, *c: (compared.append((a, b)), compare(a, b, *c))[1]
    )
    report_of(features(20, 1), real, others=others)
    one, other = compared[0]
    assert {tuple(row) for row in one.features.tolist()} <= pool and len(one.features) == 20
    assert torch.equal(other.features, real.features)


def test_a_report_holds_what_decides_it_and_fits_json():
    report = report_of(features(40, 1), features(100, 2))
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["extractor"] == "lite0" and told["protocol"].startswith("how")
    assert told["reference"] == "cars, held out"
    assert (told["n"], told["reference_n"], told["baseline_n"], told["baseline_reference_n"]) == (
        40,
        100,
        40,
        60,
    )
    assert [m["key"] for m in told["metrics"]] == list(KEYS)
    assert all(m["baseline"] is not None for m in told["metrics"])


@pytest.mark.parametrize(
    ("n", "m", "baseline_n", "rest"), [(20, 100, 20, 80), (20, 40, 20, 20), (20, 39, 19, 20), (20, 7, 0, 0)]
)
def test_the_baseline_is_made_of_two_disjoint_sets_of_reals(n, m, baseline_n, rest, monkeypatch):
    compared: list[tuple[Features, Features]] = []
    compare = compare_features
    monkeypatch.setattr(
        suite, "compare_features", lambda a, b, *c: (compared.append((a, b)), compare(a, b, *c))[1]
    )
    real = features(m, 2)
    report = report_of(features(n, 1), real)
    assert (report.baseline_n, report.baseline_reference_n) == (baseline_n, rest)
    if baseline_n == 0:
        assert len(compared) == 1 and report["frechet"].baseline is None
        return
    (one, other), _ = compared
    assert (len(one.features), len(other.features)) == (baseline_n, rest)
    assert torch.cat([one.features, other.features]).unique(dim=0).shape == real.features.shape
    assert one.logits is not None and len(one.logits) == baseline_n
    assert report["frechet"].baseline == frechet_distance(one.features, other.features)


def test_a_perfect_model_scores_near_the_baseline_and_a_shifted_one_far_above():
    real = features(600, 1)
    perfect, shifted = report_of(features(200, 2), real), report_of(features(200, 2, shift=1), real)
    assert perfect["frechet"].value == pytest.approx(perfect["frechet"].baseline, rel=0.5)
    assert shifted["frechet"].value > 10 * shifted["frechet"].baseline
    assert shifted["frechet"].baseline == perfect["frechet"].baseline


def test_the_seed_draws_the_baseline_and_nothing_else():
    fake, real = features(20, 1), features(60, 2)
    a, b, again = report_of(fake, real, seed=1), report_of(fake, real, seed=2), report_of(fake, real, seed=1)
    assert a == again
    assert a["frechet"].baseline != b["frechet"].baseline
    assert [m.value for m in a.metrics] == [m.value for m in b.metrics]


def names(extractor: str) -> list[str]:
    return [m.name for m in report_of(features(20, 1), features(60, 2), extractor).metrics]


@pytest.mark.parametrize("extractor", ["lite0", "lite0_96", "inception_1a2b3c4d"])
def test_other_networks_numbers_are_never_called_fid(extractor):
    assert all(name.endswith(f"({extractor})") for name in names(extractor))
    assert not any(word in " ".join(names(extractor)) for word in ("FID", "KID", "Inception"))


def test_inceptions_numbers_have_the_names_of_the_papers():
    assert names("inception")[:3] == ["FID", "KID", "Inception Score"]
    assert report_of(features(40, 1), features(100, 2), "inception")["frechet_infinite"].name == "FID∞"


def test_without_classes_there_is_no_score():
    fake, real = Features(features(20, 1).features, None), Features(features(60, 2).features, None)
    assert [m.key for m in report_of(fake, real).metrics] == [
        "frechet", "kid", "precision", "recall", "density", "coverage"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "m", "extractor", "message", "warned"),
    [
        (12, 40, "lite0", "n = 12 is not above the dimension of the features, 12", True),
        (40, 7, "lite0", "n = 7 is not above the dimension of the features, 12", True),
        (13, 60, "lite0", "the dimension of the features", False),
        (20, 60, "lite0", "distances of lite0 features are not an FID", True),
        (20, 60, "inception", "50000 samples (here n = 20)", True),
        (20, 60, "inception", "are not an FID", False),
        (20, 30, "lite0", "The baseline is at n = 15", True),
        (20, 40, "lite0", "The baseline is at", False),
        (20, 6, "lite0", "no real-vs-real baseline: 6 reference", True),
        (20, 60, "lite0", "n = 20 is small", True),
        (1000, 60, "lite0", "is small", False),
    ],
)
def test_warnings(n, m, extractor, message, warned):
    assert any(message in w for w in report_of(features(n, 1), features(m, 2), extractor).warnings) == warned


def test_comparable_with_papers_is_only_the_whole_protocol(monkeypatch):
    monkeypatch.setattr(suite, "COMPARABLE_N", 40)

    def told(n: int, extractor: str, whole: bool) -> str:
        return report_of(features(n, 1), features(80, 2), extractor, whole=whole).warnings[0]

    assert told(40, "inception", True).startswith("These numbers are comparable")
    for n, extractor, whole, missing in (
        (39, "inception", True, "40 samples (here n = 39)"),
        (41, "inception", True, "40 samples (here n = 41)"),
        (40, "inception_1a2b3c4d", True, "inception or dinov2 features"),
        (40, "inception", False, "a whole training set"),
    ):
        line = told(n, extractor, whole)
        assert (
            line.startswith("These numbers are not comparable with papers")
            and missing in line
            and ";" not in line
        )


def test_the_table_reads_well():
    rows = report_of(features(20, 1, shift=2), features(60, 2)).rows()
    assert len(rows) == 7 and all(len(row) == 4 for row in rows)
    name, value, baseline, better = rows[1]
    assert (name, better) == ("kernel distance (lite0)", "lower")
    number, low, high = (float(part) for part in value.replace("]", "").replace("[", ",").split(","))
    assert low < number < high and float(baseline) < number
    assert report_of(features(20, 1), features(6, 2)).rows()[0][2] == "–"


def spoiled(bad: float) -> Features:
    good = features(20, 1)
    return Features(good.features.index_fill(0, torch.tensor([3]), bad), good.logits)


def spoiled_logits() -> Tensor:
    return features(20, 1).logits.index_fill(0, torch.tensor([3]), math.nan)


@pytest.mark.parametrize(
    ("fake", "real", "message"),
    [
        (spoiled(math.nan), features(20, 2), "samples: the features of 1 of 20"),
        (features(20, 1), spoiled(math.inf), "real images: the features of 1 of 20"),
        (Features(features(20, 1).features, spoiled_logits()), features(20, 2), "logits: .*1 of 20"),
        (features(1, 1), features(20, 2), "samples: 1 are too few"),
        (features(20, 1), features(0, 2), "real images: 0 are too few"),
        (features(20, 1), features(20, 2, d=7), "12 and 7 dimensions"),
    ],
)
def test_features_that_cannot_be_judged_are_refused_in_one_line(fake, real, message):
    with pytest.raises(AlphabarError, match=message) as error:
        report_of(fake, real)
    assert "\n" not in str(error.value)
