"""The budget planner, on machines that are made up."""

from dataclasses import replace
from itertools import pairwise
from math import log

import pytest
import torch

from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import flops
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.training import budget
from alphabar.training.budget import Machine, measure, plan
from alphabar.training.model_sizes import activations, size_of, sizes
from training_child import tiny_dataset

LEAN = named_recipe("lean")
# 90 GFLOP/s in training, whatever the network.
TWO_CORES = Machine("cpu", ((1e9, 30.0),), loading=1e6, memory=8 * 2**30)


@pytest.fixture(scope="module")
def lean_sizes():
    """The sizes for 64 px, counted once."""
    return sizes(LEAN)


@pytest.fixture(autouse=True)
def _counted_once(lean_sizes, monkeypatch):
    monkeypatch.setattr(budget, "sizes", lambda recipe: lean_sizes if recipe == LEAN else sizes(recipe))


def chosen(machine, seconds=7200.0, pictures=8000):
    return plan(machine, LEAN, pictures, seconds).chosen


def faster(factor):
    return replace(TWO_CORES, speeds=tuple((f, factor * rate) for f, rate in TWO_CORES.speeds))


def test_the_choice_is_the_nearest_to_the_rule():
    option = chosen(TWO_CORES)
    compute = 3 * option.size.flops * option.images
    right = 0.25e9 * (compute / 5e13) ** 0.5
    others = [abs(log(size.flops / right)) for size in sizes(LEAN)]
    assert abs(log(option.size.flops / right)) == min(others)
    assert option.images == pytest.approx(30e9 / option.size.flops * 7200 * 0.95, rel=1e-3)
    assert option.epochs == pytest.approx(option.images / 8000)


@pytest.mark.parametrize("by_machine", [True, False])
def test_ten_times_the_compute_is_shared_by_model_and_data(by_machine):
    """On a machine ten times as fast, or in ten times the time, both grow by about the root of ten."""
    picks = [chosen(faster(f)) if by_machine else chosen(TWO_CORES, 7200 * f) for f in (0.1, 1, 10)]
    for less, more in pairwise(picks):
        assert 1.7 < more.size.flops / less.size.flops < 6
        assert 1.7 < more.images / less.images < 6
        assert more.size.parameters > less.size.parameters and more.batch >= less.batch


def test_the_recipe_is_what_was_chosen():
    p = plan(TWO_CORES, LEAN, 8000, 7200.0)
    network = NETWORKS.build(p.recipe.network, channels=3)
    assert flops(network, (64, 64)) == p.chosen.size.flops
    assert sum(q.numel() for q in network.parameters()) == p.chosen.size.parameters
    assert (p.recipe.batch, p.recipe.images) == (p.chosen.batch, p.chosen.images)
    rate = LEAN.optimizer.learning_rate * (p.chosen.batch / LEAN.batch) ** 0.5
    assert p.recipe.optimizer.learning_rate == pytest.approx(rate, rel=1e-2)
    head, *rows = p.rows()
    assert [row[0] for row in rows].count("→") == 1 and all(len(row) == len(head) for row in rows)
    assert p.to_dict()["chosen"]["images"] == p.chosen.images


def test_little_memory_cuts_the_batch_and_then_the_model():
    plenty = chosen(TWO_CORES)
    assert plenty.accumulate == 1
    fixed = 20 * plenty.size.parameters
    tight = replace(TWO_CORES, memory=2 * (fixed + 9 * plenty.size.activations))
    cut = chosen(tight)
    assert cut.size == plenty.size and cut.batch // cut.accumulate <= 9 < 2 * (cut.batch // cut.accumulate)
    tiny = replace(TWO_CORES, memory=2 * fixed)
    assert chosen(tiny).size.parameters < plenty.size.parameters
    with pytest.raises(UsageError, match="memory"):
        chosen(replace(TWO_CORES, memory=2**20))


def test_no_faster_than_pictures_are_made_ready():
    p = plan(replace(TWO_CORES, loading=5.0), LEAN, 8000, 7200.0)
    assert p.chosen.rate == 5.0 and any("Preparing" in note for note in p.notes)
    p = plan(replace(TWO_CORES, loading=3.3, overhead=0.01), LEAN, 8000, 7200.0)
    assert p.chosen.rate == 3.3 and any("Preparing" in note for note in p.notes)


def test_more_epochs_than_the_data_can_bear_are_reported():
    few = plan(TWO_CORES, LEAN, 100_000, 7200.0)
    assert not few.notes and few.recipe.network["dropout"] == 0
    many = plan(TWO_CORES, LEAN, 500, 7200.0)
    assert [note.identifier for note in many.notes] == ["training.many_epochs"]
    assert many.recipe.network["dropout"] == 0.1


def test_where_starting_takes_long_batches_are_large():
    gpu = replace(faster(300), overhead=0.05)
    option = chosen(gpu, seconds=60.0)
    computed = gpu.rate(option.size.flops)
    assert chosen(faster(300), seconds=60.0).batch == 32
    assert 0.05 / 2**0.5 <= option.batch / computed <= 0.05 * 2**0.5
    assert option.rate == pytest.approx(option.batch / (0.05 + option.batch / computed))


def test_sizes_beyond_those_offered_are_said():
    assert any("largest" in note for note in plan(faster(1e6), LEAN, 10**9, 7200.0).notes)


def test_rates_between_the_networks_that_were_timed():
    machine = Machine("cpu", ((4e9, 10.0), (1e9, 10.0)), loading=1e6, memory=1)
    assert machine.rate(1e9) == pytest.approx(10) and machine.rate(4e9) == pytest.approx(10)
    assert machine.rate(2e9) == pytest.approx(10)  # 20 GFLOP/s, the geometric middle of 10 and 40
    assert machine.rate(1e8) == pytest.approx(100) and machine.rate(4e10) == pytest.approx(1)


@pytest.mark.parametrize(
    ("network", "picture", "widths"),
    [
        ([], 64, (16, 32, 64)),
        ([], 32, (16, 32, 64)),
        (["network.widths=[64,128]"], 68, (32, 64)),
        (["network.patch=1"], 64, (8, 16, 32, 64)),
        (["network=mp_unet"], 32, (32, 64)),
        (["network=mp_unet"], 128, (8, 16, 32, 64)),
    ],
)
def test_sizes_fit_the_network_and_the_size_of_the_picture(network, picture, widths, monkeypatch):
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1, 2))
    smallest, larger = sizes(with_settings(LEAN, [*network, f"data.size={picture}"]))
    assert smallest.network["widths"] == widths and larger.flops > 2 * smallest.flops


def test_what_cannot_be_sized_is_named():
    mp_unet = with_settings(LEAN, ["network=mp_unet"])
    odd = mp_unet.model_copy(update={"data": mp_unet.data.model_copy(update={"size": 33})})
    with pytest.raises(UsageError, match=r"data\.size = 33"):
        sizes(odd)
    with pytest.raises(UsageError, match=r"tutorial_unet.*--images"):
        sizes(with_settings(LEAN, ["network=tutorial_unet"]))


def test_kept_activations_are_those_of_a_real_pass():
    recipe = {"name": "mp_unet", "widths": (8, 16), "head_dim": 8}
    with torch.device("meta"):
        network = NETWORKS.build(recipe, channels=3)
    more = activations(NETWORKS.build({**recipe, "blocks": 2}, channels=3).to("meta"), (32, 32))
    once = activations(network, (32, 32))
    # At 16×16 a feature map of 8 channels takes 8 KiB; a block keeps some ten of them.
    assert 20 * 8192 < once < 60 * 8192 and once < more < 2.2 * once


def test_measuring_a_real_machine(picture_folder, monkeypatch):
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1,))
    recipe = with_settings(LEAN, ["data.size=16", "batch=4"])
    *progress, end = measure(tiny_dataset(picture_folder), recipe, budget=1.0)
    assert [record.done for record in progress] == sorted(record.done for record in progress)
    (((forward, rate),), loading) = (end.result.speeds, end.result.loading)
    assert forward == sizes(recipe)[0].flops and 1 < rate < 1e5 and 1 < loading < 1e6
    assert end.result.memory > 2**20


def test_what_does_not_fit_one_sample_at_a_time_is_computed_again():
    """The largest network alone, in memory for one sample's features with recomputing and not without."""
    own = with_settings(LEAN, ["network.widths=[96,192,384]", "network.blocks=3"])
    size = size_of(own)
    assert size.recomputed < 0.5 * size.activations
    room = (size.activations + size.recomputed) // 2
    tight = replace(TWO_CORES, memory=2 * (20 * size.parameters + room))
    p = plan(tight, own, 8000, 7200.0, own_size=True)
    assert p.recipe.recompute and p.chosen.recompute and p.chosen.memory <= tight.memory / 2
    plenty = plan(TWO_CORES, own, 8000, 7200.0, own_size=True)
    assert not plenty.recipe.recompute and p.chosen.rate == pytest.approx(0.75 * plenty.chosen.rate)
