"""Walks between pictures, and other pictures from a given one."""

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
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import Model
from alphabar.sampling.edit import deterministic, edit
from alphabar.sampling.interpolate import interpolate, slerp
from alphabar.sampling.settings import sampling_settings

SIZE = 16


class Gaussian(Network):
    """EDM's F for pictures of independent pixels N(m, 0.5²): zero where m is, so that D is exact.

    With a class 1 the answer is that of class 0 and a little more.
    """

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
    walk = slerp(a, b, 8)
    torch.testing.assert_close(walk[0], a)
    torch.testing.assert_close(walk[-1], b)
    assert walk.flatten(1).norm(dim=1).tolist() == pytest.approx([float(a.norm())] * 8, rel=1e-5)
    steps = (walk[1:] - walk[:-1]).flatten(1).norm(dim=1)
    assert steps.tolist() == pytest.approx([float(steps[0])] * 7, rel=1e-4)
    torch.testing.assert_close(slerp(a, a, 3), a.expand(3, -1, -1, -1))


def test_each_step_is_shorter_than_the_way(model):
    *_, drawn = interpolate(model, rows=2, columns=6)
    assert drawn.result.shape == (12, SIZE, SIZE, 3) and drawn.done == drawn.total == 30
    rows = drawn.result.reshape(2, 6, -1).double()
    apart = (rows[:, 1:] - rows[:, :-1]).abs().mean(dim=2)
    assert (apart < (rows[:, 0] - rows[:, -1]).abs().mean(dim=1)[:, None]).all()


def test_between_two_classes_the_noise_stays(model):
    settings = sampling_settings(model, conditions=[{"class": "plain"}, {"class": "more"}])
    *_, drawn = interpolate(model, settings, rows=2, columns=5)
    rows = drawn.result.reshape(2, 5, -1).double().mean(2)
    assert (rows.diff(dim=1) > 1).all()  # brighter and brighter
    for place, name in ((0, "plain"), (4, "more")):
        *_, alone = interpolate(
            model, sampling_settings(model, conditions=[{"class": name}] * 2), rows=2, columns=2
        )
        assert torch.equal(alone.result.reshape(2, 2, -1)[:, 0], drawn.result.reshape(2, 5, -1)[:, place])


def test_inverted_and_regenerated_it_is_itself(model):
    torch.manual_seed(1)
    picture = (0.5 * torch.randn(3, SIZE, SIZE)).clamp(-1, 1)
    *_, back = edit(
        model, picture, sampling_settings(model, sampler="heun", steps=60), strength=1.0, invert=True
    )
    given = ((picture + 1) * 127.5).permute(1, 2, 0)
    assert (back.result[0].float() - given).abs().mean() < 1.5
    settings = sampling_settings(model, sampler="heun", steps=60, conditions=[{"class": "more"}])
    *_, other = edit(model, picture, settings, strength=1.0, invert=True)
    assert other.result.float().mean() > given.mean() + 10


def test_strength_is_what_is_drawn_anew(model):
    torch.manual_seed(2)
    pictures = 0.5 * torch.randn(2, 3, SIZE, SIZE)

    def kept(strength):
        drawn = [list(edit(model, p, strength=strength, n=2))[-1].result.float() for p in pictures]
        assert not torch.equal(drawn[0][0], drawn[0][1])  # other noise, another picture
        return (drawn[0] - drawn[1]).abs().mean() / (127.5 * (pictures[0] - pictures[1]).abs().mean())

    assert kept(0.1) > 0.7 and kept(1.0) < 0.05 and kept(0.1) > kept(0.5) > kept(1.0)


def test_what_cannot_be(model):
    picture = torch.zeros(3, SIZE, SIZE)
    for options, told in (
        ({"strength": 0.0}, "above 0"),
        ({"strength": 1.5}, "up to 1"),
        ({"n": 0}, "at least 1"),
        ({"n": 2, "invert": True}, "one picture"),
        ({"settings": sampling_settings(model, sampler="ancestral"), "invert": True}, "noise of its own"),
        ({"settings": sampling_settings(model, conditions=[{"color": "red"}])}, "unknown condition"),
    ):
        with pytest.raises(UsageError, match=told):
            edit(model, picture, **options)
    with pytest.raises(UsageError, match="shape"):
        edit(model, torch.zeros(3, 8, 8))
    with pytest.raises(UsageError, match="at least 1 of 2"):
        interpolate(model, columns=1)
    with pytest.raises(UsageError, match="3 were asked for"):
        interpolate(model, sampling_settings(model, conditions=[{"class": "plain"}] * 3))
    gan = replace(model, recipe=with_settings(named_recipe("gan"), [f"data.size={SIZE}"]))
    with pytest.raises(UsageError, match="is a gan"):
        edit(gan, picture)


def test_a_noisy_sampler_is_replaced(model):
    noisy = sampling_settings(model, sampler="ancestral")
    assert deterministic(model, noisy).sampler["name"] == "dpmpp_2m"
    assert deterministic(model).sampler == sampling_settings(model).sampler
