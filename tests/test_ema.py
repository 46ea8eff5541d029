"""Averages of the weights: the profile of each, and others made from what a run kept."""

import copy
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import read_folder
from alphabar.runs.ema import (
    EMA,
    MAX_ERROR,
    SIGMA_RELS,
    EmaSnapshots,
    PowerFunctionEMA,
    gamma_of,
    post_hoc_weights,
)
from alphabar.runs.model import load_model
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors
from alphabar.training.loop import begin, train
from refusals import refused
from training_child import tiny_dataset, tiny_recipe


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2])
def test_the_length_is_the_standard_deviation_of_the_profile(length):
    # t^gamma on [0, 1] as a density is Beta(gamma + 1, 1).
    a = gamma_of(length) + 1
    assert np.sqrt(a / ((a + 1) ** 2 * (a + 2))) == pytest.approx(length, rel=1e-6)


def walk(steps: int) -> list[nn.Module]:
    """Weights that move as in training: towards somewhere, with noise."""
    torch.manual_seed(0)
    networks = []
    value = torch.zeros(1000)
    for _ in range(steps):
        value = value + 0.01 * (torch.linspace(-3, 3, 1000) - value) + 0.05 * torch.randn(1000)
        network = nn.Linear(1000, 1, bias=False)
        network.weight.data = value[None].clone()
        networks.append(network)
    return networks


@pytest.mark.parametrize("half_life, ramp", [(40, 0.1), (40, 10.0), (1000, 0.25)])
def test_the_half_life_is_at_most_a_share_of_the_images_seen(half_life, ramp):
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    network[0].weight.data.fill_(0)
    average = EMA(network, half_life=half_life, ramp=ramp)
    network[0].weight.data.fill_(1)
    network[1].running_mean.fill_(3)
    forgotten = 1.0
    for images in range(8, 801, 8):
        average.update(images, 8)
        forgotten *= 2 ** (-8 / (ramp * images if ramp * images < half_life else half_life))
        assert average.network[0].weight.item() == pytest.approx(1 - forgotten, abs=1e-5)
    assert average.network[1].running_mean.item() == 3 and not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_an_average_is_that_of_its_profile():
    networks = walk(400)
    network = copy.deepcopy(networks[0])
    average = PowerFunctionEMA(network, 0.1)
    for i, now in enumerate(networks):
        network.load_state_dict(now.state_dict())
        average.update(8 * (i + 1), 8)
    edges = (np.arange(401) / 400) ** (gamma_of(0.1) + 1)
    wanted = sum(w * n.weight for w, n in zip(np.diff(edges), networks, strict=True))
    # A step forgets 1 - 1/t of the past to the power, the integral over the step's share of the profile.
    assert torch.allclose(average.network.weight, wanted, atol=5e-3)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.2])
def test_another_length_comes_from_what_was_kept(length):
    networks = walk(800)
    network = copy.deepcopy(networks[0])
    averages = {each: PowerFunctionEMA(network, each) for each in (*SIGMA_RELS, length)}
    kept = []
    for i, now in enumerate(networks):
        network.load_state_dict(now.state_dict())
        for average in averages.values():
            average.update(i + 1, 1)
        if (i + 1) % 100 == 0:
            kept += [(i + 1, each, averages[each].network.weight.clone()) for each in SIGMA_RELS]
    times, lengths, weights = zip(*kept, strict=True)
    shares = post_hoc_weights(times, lengths, 800, length).weights
    made = sum(float(c) * w for c, w in zip(shares, weights, strict=True))
    right = averages[length].network.weight
    nearest = min((averages[each].network.weight - right).norm() for each in SIGMA_RELS)
    assert (made - right).norm() < 0.4 * nearest


def test_a_kept_average_is_itself():
    shares, error = post_hoc_weights([50, 50, 100, 100], [*SIGMA_RELS, *SIGMA_RELS], 100, 0.05)
    assert np.allclose(shares, [0, 0, 1, 0], atol=1e-9) and error < 1e-6


@pytest.mark.parametrize("snapshots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("length", [0.01, 0.03, 0.07, 0.15, 0.25])
def test_what_never_changes_stays_as_it_is(snapshots, length):
    times = np.repeat(np.arange(1, snapshots + 1) * 1000, 2)
    shares, error = post_hoc_weights(times, SIGMA_RELS * snapshots, 1000 * snapshots, length)
    assert shares.sum() == pytest.approx(1, abs=1e-9)
    # The error is that of the profiles themselves, (gamma + 1) tau^gamma / t^(gamma + 1) up to t.
    tau = (np.arange(200_000) + 0.5) * snapshots * 1000 / 200_000

    def profile(t, sigma_rel):
        a = gamma_of(sigma_rel) + 1
        return np.where(tau < t, a * (tau / t) ** (a - 1) / t, 0)

    wanted = profile(1000 * snapshots, length)
    made = sum(c * profile(t, s) for c, t, s in zip(shares, times, SIGMA_RELS * snapshots, strict=True))
    assert error == pytest.approx(np.linalg.norm(made - wanted) / np.linalg.norm(wanted), rel=1e-3)


def test_two_averages_of_one_moment_share_in_closed_form():
    # At one moment, <p_a, p_b> = ab / (a + b - 1) with a = gamma + 1; minimise |c p_1 + (1 - c) p_2 - p|².
    a, b, p = (gamma_of(each) + 1 for each in (*SIGMA_RELS, 0.07))

    def inner(x, y):
        return x * y / (x + y - 1)

    c = (inner(a, p) - inner(b, p) + inner(b, b) - inner(a, b)) / (
        inner(a, a) - 2 * inner(a, b) + inner(b, b)
    )
    shares, error = post_hoc_weights([10, 10], SIGMA_RELS, 10, 0.07)
    assert np.allclose(shares, [c, 1 - c])
    squared = (
        c**2 * inner(a, a) + (1 - c) ** 2 * inner(b, b) + 2 * c * (1 - c) * inner(a, b)
        - 2 * c * inner(a, p) - 2 * (1 - c) * inner(b, p) + inner(p, p)
    )  # fmt: skip
    assert error == pytest.approx(np.sqrt(squared / inner(p, p)))


def test_a_constant_network_is_itself_at_every_length(tmp_path):
    saved = EmaSnapshots(tmp_path / "averages")
    weight = torch.linspace(-3, 3, 50).half()
    for images in (100, 200, 300, 400):
        saved.save(images, pack_tensors({f"{each}/weight": weight.clone() for each in SIGMA_RELS}))
    for length in (0.03, 0.07, 0.1, 0.2):
        torch.testing.assert_close(saved.average(length)["weight"], weight.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [0.01, 0.25, 0.5])
def test_lengths_that_the_averages_cannot_make_are_refused(tmp_path, length):
    saved = EmaSnapshots(tmp_path / "averages")
    for images in (100, 200, 300, 400):
        saved.save(images, b"")
    with pytest.raises(UsageError, match="from ") as refused:
        saved.weights(length)
    values = refused.value.message.values
    for possible in (values["shortest"], values["longest"]):
        assert 0.9 * MAX_ERROR < saved.weights(possible).error <= MAX_ERROR


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return tiny_dataset(picture_folder)


def recipe():
    return tiny_recipe("ema.snapshots=4")


def test_a_run_keeps_what_is_needed(dataset, tmp_path):
    straight = begin(tmp_path / "straight", recipe())
    list(train(dataset, straight, images=96, runtime=Runtime()))
    assert list(straight.snapshots.folders()) == [24, 48, 72, 96]
    averages = unpack_tensors(straight.checkpoints.newest()[0].files["averages.safetensors"])
    for name, value in load_model(straight.path, "cpu", ema=0.05).denoiser.network.named_parameters():
        assert torch.allclose(value, averages[f"0.05/{name}"], atol=2e-3)

    stopped = begin(tmp_path / "stopped", recipe())
    records = train(dataset, stopped, images=96, runtime=Runtime())
    updates = 0
    for record in records:
        updates += record.loss is not None
        if updates == 7:
            break
    records.close()
    stopped.snapshots.save(88, b"of a training that was killed before it saved")
    list(train(dataset, stopped, images=96, runtime=Runtime()))
    assert list(stopped.snapshots.folders()) == [24, 48, 72, 96]
    for images, path in straight.snapshots.folders().items():
        assert read_folder(path) == read_folder(stopped.snapshots.folders()[images])


def test_what_cannot_be_had(dataset, tmp_path):
    without = begin(tmp_path / "without", tiny_recipe())
    list(train(dataset, without, images=8, runtime=Runtime()))
    with pytest.raises(UsageError, match="train it with"):
        load_model(without.path, ema=0.1)
    run = begin(tmp_path / "run", recipe())
    list(train(dataset, run, images=8, runtime=Runtime()))
    with pytest.raises(UsageError, match="from 0"):
        load_model(run.path, ema=0.5)
    with pytest.raises(UsageError, match="only for a run"):
        load_model(run.path / "model", ema=0.1)


def test_a_damaged_average_is_named_and_can_be_done_without(dataset, tmp_path):
    run = begin(tmp_path / "run", recipe())
    list(train(dataset, run, images=96, runtime=Runtime()))
    file = run.snapshots.folders()[48] / run.snapshots.FILE
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with refused("runs.damaged_averages", AlphabarError, path=file.parent):
        load_model(run.path, "cpu", ema=0.1)
    shutil.rmtree(file.parent)
    load_model(run.path, "cpu", ema=0.1)
