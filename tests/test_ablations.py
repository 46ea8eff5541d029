"""The ablations of benchmarks/: a step is trained and evaluated once, and its result is taken up again."""

import importlib
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.progress import last

DATA = "toycars:100"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("ablations")


def test_every_step_changes_the_recipe_of_the_step_before(ablations):
    steps = ablations.ablation_steps(32, seeds=2)
    first = [step.recipe for step in steps if step.seed == 0]
    assert len(first) == len(ablations.CHANGES) + len(ablations.ALTERNATIVES)
    assert all(a != b for a, b in pairwise(first))
    assert [step.number for step in steps if step.seed == 1] == list(ablations.SEVERAL_SEEDS)


def test_a_result_is_that_of_the_trained_model_and_is_taken_up_again(ablations, tmp_path):
    dataset = last(alphabar.prepare(alphabar.open_source(DATA), ImageCodec(16)))
    step = ablations.ablation_steps(16, seeds=1)[8]
    result = ablations.result_of(dataset, step, 32, 8, DATA, tmp_path)

    model = alphabar.load_model(tmp_path / step.name)
    assert model.images == result["images"] == 32
    settings = alphabar.sampling_settings(model, sampler="dpmpp_2m", timesteps="log_snr", steps=20, seed=0)
    again = {
        m.key: m.value for m in last(alphabar.evaluate(model, DATA, n=8, settings=settings)).report.metrics
    }
    assert result["frechet"] == pytest.approx(again["frechet"], rel=1e-6)
    assert result["kid"] == pytest.approx(again["kid"], rel=1e-4, abs=1e-6)
    assert len(result["error"]) == len(result["sigma"]) and all(0 < error < 2 for error in result["error"])

    stored = tmp_path / step.name / "result.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "kid": -1.0}))
    assert ablations.result_of(dataset, step, 64, 8, DATA, tmp_path) == {**result, "kid": -1.0}
    assert alphabar.load_model(tmp_path / step.name).images == 32  # it was not trained any further


def test_the_table_compares_each_step_with_the_one_that_it_changes(ablations):
    last_step, steps = ablations.LAST, len(ablations.CHANGES) + len(ablations.ALTERNATIVES)
    results = [
        {
            "number": number,
            "images": 1000,
            "gflop": 0.5,
            "error": [0.5**number, 2 * 0.5**number, 99.0],  # the third level is left out of the means
            "frechet": 100.0,
            "kid": 0.25,
            "kid_error": 0.01,
        }
        for number in range(steps)
    ]
    rows = list(ablations.steps_table(results, dict.fromkeys(range(steps), 10.0), levels=2))
    assert rows[0][5:7] == [f"{math.sqrt(2):.5f}", ""]
    assert [row[6] for row in rows[1 : last_step + 1]] == ["× 0.500"] * last_step
    # alternatives are compared with the last step, not with each other
    assert [row[6] for row in rows[last_step + 1 :]] == ["× 0.500", "× 0.250", "× 0.125", "× 0.063"]
