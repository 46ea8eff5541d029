"""Interpolation between samples, and other samples from a given one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from alphabar.conditioning.fields import Categorical
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.errors import UsageError
from alphabar.networks.base import Network
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import Model
from alphabar.sampling.edit import edit
from alphabar.sampling.interpolate import interpolate, slerp
from alphabar.sampling.settings import deterministic, sampling_settings

SIZE = 16


class Gaussian(Network):
    """EDM's F for independent pixels N(0, 0.5²): zero, so that D is exact; for class 1 a little more."""

    channels, reduction = 3, 1

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        more = 0.0 if cond is None else 0.3 * cond.nan_to_num(0.0)[:, :, None, None]
        return torch.zeros_like(x) + more


@pytest.fixture(scope="module")
def model():
    recipe = with_settings(named_recipe("edm"), [f"data.size={SIZE}", "sampling.steps=30"])
    denoiser = NetworkDenoiser(
        Gaussian(), PARAMETERIZATIONS.build(recipe.parameterization), SCHEDULES.build(recipe.schedule)
    )
    flat = DataStatistics(torch.zeros(3, SIZE, SIZE), torch.zeros(3 * SIZE * SIZE, 1))
    known = Vocabulary((Categorical("class", ("plain", "more")),))
    return Model(denoiser.eval(), recipe, flat, 1, Path("exact"), known)


def test_slerp_keeps_the_norm_and_the_ends():
    a, b = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    b = b / b.norm() * a.norm()
    path = slerp(a, b, 8)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    assert path.flatten(1).norm(dim=1).tolist() == pytest.approx([float(a.norm())] * 8, rel=1e-5)
    steps = (path[1:] - path[:-1]).flatten(1).norm(dim=1)
    assert steps.tolist() == pytest.approx([float(steps[0])] * 7, rel=1e-4)
    torch.testing.assert_close(slerp(a, a, 3), a.expand(3, -1, -1, -1))


def test_neighbours_in_an_interpolation_are_closer_than_its_ends(model):
    *_, end = interpolate(model, rows=2, columns=6)
    assert end.result.shape == (12, SIZE, SIZE, 3) and end.done == end.total == 30
    rows = end.result.reshape(2, 6, -1).double()
    apart = (rows[:, 1:] - rows[:, :-1]).abs().mean(dim=2)
    assert (apart < (rows[:, 0] - rows[:, -1]).abs().mean(dim=1)[:, None]).all()


def test_between_two_conditions_the_initial_noise_stays(model):
    settings = sampling_settings(model, conditions=[{"class": "plain"}, {"class": "more"}])
    items = last(interpolate(model, settings, rows=2, columns=5)).reshape(2, 5, -1)
    assert (items.double().mean(2).diff(dim=1) > 1).all()  # brighter and brighter
    for place, name in ((0, "plain"), (4, "more")):
        settings = sampling_settings(model, conditions=[{"class": name}] * 2)
        alone = last(interpolate(model, settings, rows=2, columns=2)).reshape(2, 2, -1)
        assert torch.equal(alone[:, 0], items[:, place])


def test_sampling_from_the_inverted_noise_gives_the_signal_back(model):
    torch.manual_seed(1)
    signal = (0.5 * torch.randn(3, SIZE, SIZE)).clamp(-1, 1)
    settings = sampling_settings(model, sampler="heun", steps=60)
    *records, end = edit(model, signal, settings, strength=1.0, invert=True)
    given = ((signal + 1) * 127.5).permute(1, 2, 0)
    assert (end.result[0].float() - given).abs().mean() < 1.5
    assert [r.done for r in records] == sorted({r.done for r in records})
    assert end.done == end.total == len(records) > 60
    settings = sampling_settings(model, sampler="heun", steps=60, conditions=[{"class": "more"}])
    other = last(edit(model, signal, settings, strength=1.0, invert=True))
    assert other.float().mean() > given.mean() + 10


def test_less_of_a_signal_is_kept_with_more_strength(model):
    torch.manual_seed(2)
    signals = 0.5 * torch.randn(2, 3, SIZE, SIZE)

    def kept(strength):
        a, b = (last(edit(model, signal, strength=strength, n=2)).float() for signal in signals)
        assert not torch.equal(a[0], a[1])  # other noise, another sample
        return (a - b).abs().mean() / (127.5 * (signals[0] - signals[1]).abs().mean())

    assert kept(0.1) > 0.7 and kept(1.0) < 0.05 and kept(0.1) > kept(0.5) > kept(1.0)


@pytest.mark.parametrize(
    ("strength", "steps", "made"),
    [(0.28, 25, 7), (0.56, 50, 28), (0.14, 50, 7), (0.281, 25, 8), (1.0, 10, 10), (1e-12, 10, 1)],
)
def test_the_share_of_the_steps_is_made(model, strength, steps, made):
    settings = sampling_settings(model, sampler="ddim", steps=steps)
    *_, end = edit(model, torch.zeros(3, SIZE, SIZE), settings, strength=strength)
    assert end.total == made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "above 0"),
        ({"strength": 1.5}, "at most 1"),
        ({"n": 0}, "at least 1"),
        ({"n": 2, "invert": True}, "leads to one sample"),
    ],
)
def test_impossible_edits_are_refused(model, options, message):
    with pytest.raises(UsageError, match=message):
        edit(model, torch.zeros(model.shape), **options)


def test_an_edit_is_refused_that_the_model_cannot_do(model):
    signal = torch.zeros(model.shape)
    noisy = sampling_settings(model, sampler="ancestral")
    with pytest.raises(UsageError, match="noise of its own"):
        edit(model, signal, noisy, invert=True)
    with pytest.raises(UsageError, match="'color'"):
        edit(model, signal, sampling_settings(model, conditions=[{"color": "red"}]))
    with pytest.raises(UsageError, match=r"\(3, 8, 8\).*\(3, 16, 16\)"):
        edit(model, torch.zeros(3, 8, 8))
    gan = replace(model, recipe=with_settings(named_recipe("gan"), [f"data.size={SIZE}"]))
    with pytest.raises(UsageError, match="method 'gan'"):
        edit(gan, signal)


def test_impossible_interpolations_are_refused(model):
    with pytest.raises(UsageError, match="at least 1 row of 2"):
        interpolate(model, columns=1)
    with pytest.raises(UsageError, match="3 are given"):
        interpolate(model, sampling_settings(model, conditions=[{"class": "plain"}] * 3))
    with pytest.raises(UsageError, match="noise of its own"):
        interpolate(model, sampling_settings(model, sampler={"name": "ddim", "eta": 0.5}))


def test_a_sampler_that_adds_noise_is_replaced(model):
    for sampler in ("ancestral", {"name": "ddim", "eta": 0.5}):
        noisy = sampling_settings(model, sampler=sampler)
        assert deterministic(model, noisy).sampler["name"] == "dpmpp_2m"
    assert deterministic(model).sampler == sampling_settings(model).sampler
