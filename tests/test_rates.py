"""Rates of training on a machine that others use too, and what is said of a training far from its plan."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runtime import Runtime
from alphabar.training import budget, model_sizes, rates
from alphabar.training.budget import Machine, measure, plan
from alphabar.training.pace import SET_UP, UPDATES, Pace, far_from_plan
from alphabar.training.probe import Stopped
from alphabar.training.rates import contradictory, training_rates
from alphabar.training.records import Limits
from training_child import tiny_dataset

LEAN = named_recipe("lean")
SMALL, LARGE = (with_settings(LEAN, [f"network.widths={widths}"]) for widths in ("[16,64]", "[32,64]"))


class Clock:
    """Steps on n samples take n times the cost of a network, twice as long or more where ``busy`` says so."""

    def __init__(self, monkeypatch, costs, busy):
        self.costs, self.busy, self.steps, self.runtimes = costs, busy, 0, set()
        monkeypatch.setattr(rates, "Trial", self.trial)
        monkeypatch.setattr(rates, "precisions", lambda *_: [None])

    def trial(self, recipe, conditions):
        return _Trial(self, recipe)


class _Trial:
    def __init__(self, clock, recipe):
        self.clock, self.recipe = clock, recipe

    def step(self, runtime, n, *, by_the_clock):
        assert by_the_clock
        self.clock.runtimes.add(runtime)

        def seconds():
            self.clock.steps += 1
            cost = self.clock.costs[self.recipe.network["widths"]]
            return n * cost * self.clock.busy(self.clock.steps, self.recipe)

        return seconds


def timed(**options):
    *_, end = training_rates([SMALL, LARGE], seconds=0.0, most=32, runtime=Runtime(), **options)
    return end.result


def test_the_fastest_time_counts_and_the_rest_is_the_uncertainty(monkeypatch):
    costs = {(16, 64): 0.004, (32, 64): 0.016}
    Clock(monkeypatch, costs, lambda step, _: 1.0)
    small, large = timed()
    assert (small.rate, large.rate) == (pytest.approx(250), pytest.approx(62.5))
    assert small.slower == large.slower == pytest.approx(1) and small.overhead == 0
    Clock(monkeypatch, costs, lambda step, _: 2.5 if step % 7 < 5 else 1.0)  # idle for two steps of seven
    small, large = timed()
    assert (small.rate, large.rate) == (pytest.approx(250), pytest.approx(62.5))
    assert 1.3 < max(small.slower, large.slower) <= 2.5


def test_a_smaller_network_that_comes_out_slower_is_timed_again(monkeypatch):
    calm = 40

    def busy(step, recipe):  # while it is busy, the load hits the small network only
        return 8.0 if step < calm and recipe is SMALL else 1.0

    clock = Clock(monkeypatch, {(16, 64): 0.004, (32, 64): 0.016}, busy)
    small, large = timed()
    assert clock.steps > calm and small.rate == pytest.approx(4 * large.rate)
    assert contradictory([100, 20, 5]) == set()
    assert contradictory([10, 20, 5]) == {0, 1} and contradictory([10, 3, 5]) == {1, 2}


def test_without_a_given_runtime_every_size_is_timed_in_every_layout(monkeypatch):
    clock = Clock(monkeypatch, {(16, 64): 0.004, (32, 64): 0.016}, lambda *_: 1.0)
    list(training_rates([SMALL, LARGE], seconds=0.0, most=32))
    assert {runtime.channels_last for runtime in clock.runtimes} == {False, True}


def test_a_stop_is_heard_between_two_steps(monkeypatch):
    clock, stop = Clock(monkeypatch, {(16, 64): 0.004, (32, 64): 0.016}, lambda *_: 1.0), threading.Event()
    records = training_rates([SMALL, LARGE], seconds=0.0, most=32, runtime=Runtime(), stop=stop)
    next(records)
    stop.set()
    before = clock.steps
    with pytest.raises(Stopped):
        next(records)
    assert clock.steps == before


# 90 GFLOP/s in training, whatever the network.
MACHINE = Machine("cpu", ((1e9, 30.0),), loading=1e6, memory=8 * 2**30, slower=1.25)


@pytest.fixture(scope="module")
def lean_sizes():
    """The sizes for 64 px, counted once."""
    return model_sizes.sizes(LEAN)


@pytest.fixture
def planned(lean_sizes, monkeypatch):
    monkeypatch.setattr(budget, "sizes", lambda recipe: lean_sizes)
    return plan(MACHINE, LEAN, 8000, 7200.0)


def test_the_uncertainty_is_in_the_plan(planned):
    assert planned.fewest == round(planned.chosen.images / 1.25)
    (row,) = (row for row in planned.rows() if row[0])
    rate = planned.chosen.rate
    assert row[4] == f"{rate / 1.25:.1f}–{rate:.1f}"
    unsure = plan(replace(MACHINE, contradictory=True), LEAN, 8000, 7200.0)
    assert [note.identifier for note in unsure.notes] == ["training.rates_contradict"]


def test_a_size_that_a_person_chose_is_kept():
    own = with_settings(LEAN, ["network.widths=[32,64]"])
    p = plan(MACHINE, own, 8000, 7200.0, own_size=True)
    assert p.recipe.network["widths"] == (32, 64) and len(p.candidates) == 1
    assert p.recipe.images == p.chosen.images > 0
    tiny = plan(MACHINE, with_settings(LEAN, ["network.widths=[16,64]"]), 8000, 7200.0, own_size=True)
    assert "training.rule_beyond_given" in [note.identifier for note in tiny.notes]


def test_a_training_near_its_plan_says_nothing(planned):
    limits = Limits(None, 7200.0)
    for factor in (0.7, 1.0, 1.45):
        assert far_from_plan(planned, factor * planned.chosen.rate, limits) == []
    assert far_from_plan(planned, 0.1, Limits(1000, None)) == []


def test_a_training_far_from_its_plan_says_what_to_change(planned):
    limits = Limits(None, 7200.0, 100.0)
    rate = planned.chosen.rate
    slow, *other = far_from_plan(planned, rate / 8, limits)
    assert slow.identifier == "training.slower_than_planned"
    assert slow.values["factor"] == pytest.approx(8) and slow.values["foreseen"] == planned.chosen.images
    assert slow.values["images"] == pytest.approx(rate / 8 * 7100 * 0.95, abs=1)
    # Eight times two hours, and what was spent before; in whole minutes.
    assert slow.values["budget"] == "16h02m"
    (other,) = other
    smaller = plan(replace(MACHINE, speeds=((1e9, 30 / 8),)), LEAN, 8000, 7100.0).chosen.size.network
    assert other.values["budget"] == "2h00m"
    widths = ",".join(map(str, smaller["widths"]))
    assert other.values["settings"].startswith(f"--set network.widths=[{widths}] --set network.blocks=1")
    settings = [s for s in other.values["settings"].split() if s != "--set"]
    assert with_settings(LEAN, settings).network == with_settings(LEAN, []).network | {
        key: smaller[key] for key in ("widths", "blocks", "patch")
    }
    fast, *_ = far_from_plan(planned, 3 * rate, limits)
    assert fast.identifier == "training.faster_than_planned" and fast.values["factor"] == pytest.approx(3)


def test_the_pace_is_judged_once_and_early(planned):
    pace, took = Pace(planned, Limits(None, 7200.0)), 10 * planned.recipe.batch / planned.chosen.rate
    for i in range(SET_UP):
        assert pace.after_update(1000.0, 0.5 * i) == []  # compiling does not count
    for _ in range(UPDATES - 1):
        assert pace.after_update(took, 0.05) == []
    (slow, *_) = pace.after_update(took, 0.05)
    assert slow.values["factor"] == pytest.approx(10)
    assert pace.after_update(took, 0.06) == []
    pace = Pace(planned, Limits(None, 7200.0))
    assert not any(pace.after_update(took, 0.029) for _ in range(100)) and pace.after_update(took, 0.03)


BURNER = """
import time
while True:
    end = time.time() + 1.5
    while time.time() < end:
        pass
    time.sleep(1.5)
"""


@pytest.mark.slow
def test_the_choice_is_the_same_beside_a_process_that_burns_a_core_on_and_off(picture_folder):
    """Two plans of a machine, one of them beside a burner, differ by one size at most."""
    dataset, chosen = tiny_dataset(picture_folder, 64), []
    recipe = with_settings(LEAN, ["data.channels=3"])
    offered = [size.flops for size in model_sizes.sizes(recipe)]
    for busy in (False, True):
        burner = subprocess.Popen([sys.executable, "-c", BURNER]) if busy else None
        try:
            *_, end = measure(dataset, recipe, budget=7200.0)
        finally:
            if burner:
                burner.kill()
                burner.wait()
        chosen.append(offered.index(budget.plan(end.result, recipe, 8000, 7200.0).chosen.size.flops))
    assert abs(chosen[0] - chosen[1]) <= 1
