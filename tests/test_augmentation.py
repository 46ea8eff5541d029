"""Augmentation of training images: it does what it says, is a condition of the network, and does not leak."""

import math

import pytest
import torch

from alphabar import begin, named_recipe, train, with_settings
from alphabar.data.augment import COLUMNS, Transformation, random_transformation
from alphabar.errors import UsageError
from alphabar.methods.diffusion import Diffusion
from alphabar.networks.layers import ConditionEmbedding
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runtime import Runtime
from training_child import tiny_dataset, tiny_recipe

SIDE = 16


def only(**done: float) -> Transformation:
    """Of one picture, and nothing beyond what is said."""
    return Transformation(
        *(torch.tensor([done.get(name, 0.0)], dtype=torch.float64) for name in Transformation._fields)
    )


def ramps() -> torch.Tensor:
    """A picture whose first channel rises by one a pixel to the right, the second one downwards."""
    along = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.stack([along.expand(SIDE, SIDE), along[:, None].expand(SIDE, SIDE)])[None]


def slopes(x: torch.Tensor) -> torch.Tensor:
    """How much the channels rise to the right and downwards in the middle, (2, 2)."""
    middle = x[0, :, 6:10, 6:10].double()
    right, down = middle.diff(dim=2).mean((1, 2)), middle.diff(dim=1).mean((1, 2))
    return torch.stack([right, down], 1)


def test_a_quarter_turn_and_a_move_by_whole_pixels_are_exact():
    x = torch.rand(1, 3, SIDE, SIDE)
    turned = only(angle=math.pi / 2).apply(x)
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    step = SIDE // 8
    torch.testing.assert_close(only(right=1).apply(x)[..., step:], x[..., :-step], atol=1e-5, rtol=0)
    torch.testing.assert_close(only(down=1).apply(x)[..., step:, :], x[..., :-step, :], atol=1e-5, rtol=0)


def test_images_need_not_be_square():
    """Half a turn and a move are exact; a quarter turn turns pixels and does not stretch the sides."""
    x = torch.rand(1, 1, 16, 24)
    torch.testing.assert_close(only(angle=math.pi).apply(x), x.rot90(2, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(only(right=1).apply(x)[..., 3:], x[..., :-3], atol=1e-5, rtol=0)
    torch.testing.assert_close(only(down=1).apply(x)[..., 2:, :], x[..., :-2, :], atol=1e-5, rtol=0)
    turned = only(angle=math.pi / 2).apply(x)
    middle = x[..., 4:20]  # a square, turned in place
    torch.testing.assert_close(turned[..., 4:20], middle.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_growth_and_stretch_in_closed_form():
    larger = 2.0**0.2
    expected = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(slopes(only(growth=1).apply(ramps())), expected / larger, atol=1e-5, rtol=0)
    wide = only(stretch=1, direction=0).apply(ramps())
    torch.testing.assert_close(
        slopes(wide), torch.diag(torch.tensor([1 / larger, larger], dtype=torch.float64)), atol=1e-5, rtol=0
    )
    # Longer along the diagonal, shorter across it: the eigenvectors of what happened to the slopes.
    skew = slopes(only(stretch=1, direction=math.pi / 4).apply(ramps()))
    found = torch.linalg.eigvalsh((skew + skew.T) / 2)
    torch.testing.assert_close(
        found, torch.tensor([1 / larger, larger], dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_untouched_images_stay_the_same_to_the_bit_and_their_condition_is_unknown():
    x = torch.rand(400, 3, 8, 8)
    torch.manual_seed(0)
    done = random_transformation(400, 0.15)
    alone = done.condition().isnan()
    assert (alone.all(1) == alone.any(1)).all()
    alone = alone.all(1)
    assert torch.equal(done.apply(x)[alone], x[alone])
    assert alone.float().mean() == pytest.approx(0.85**4, abs=0.08)
    changed = (done.apply(x) - x)[~alone].abs().flatten(1).amax(1)
    assert (changed > 1e-3).float().mean() > 0.95
    assert (
        random_transformation(50, 0.0).condition().isnan().all()
        and not random_transformation(50, 1.0).condition().isnan().any()
    )


def test_without_a_transformation_in_the_condition_there_is_none():
    """A condition without the transformation's columns means that the images were not transformed."""
    recipe = with_settings(
        named_recipe("lean"), ["data.augment=0.1", "network.widths=[16,32]", "network.head_dim=16"]
    )
    denoiser = build_denoiser(recipe)
    for zero in (p for p in denoiser.network.parameters() if not p.any()):  # or nothing reaches the output
        torch.nn.init.normal_(zero, std=0.1)
    x, t = torch.randn(2, 3, 64, 64), torch.tensor([0.3, 0.7])
    without = denoiser(x, t)
    nothing = torch.full((2, COLUMNS), math.nan)
    assert torch.equal(without, denoiser(x, t, nothing))
    assert (without - denoiser(x, t, only(right=1).condition().float().expand(2, -1))).abs().max() > 1e-3


def test_what_is_left_out_of_a_condition_is_unknown_and_not_nothing():
    embed = ConditionEmbedding((("classes", 3), ("transformation", COLUMNS)), 8)
    asked = torch.tensor([[1.0], [2.0]])
    unknown, zero = (torch.cat([asked, torch.full((2, COLUMNS), v)], 1) for v in (math.nan, 0.0))
    assert torch.equal(embed(asked), embed(unknown))
    assert not torch.allclose(embed(asked), embed(zero))
    with pytest.raises(UsageError, match="takes"):
        embed(unknown[:, :-1])


def test_the_loss_is_that_of_transformed_pictures(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "alphabar.methods.diffusion.loss", lambda denoiser, x0, t, eps, cond, **more: seen.append((x0, cond))
    )
    recipe = tiny_recipe("data.augment=1")
    x0, eps, t = torch.rand(4, 3, SIDE, SIDE), torch.randn(4, 3, SIDE, SIDE), torch.full((4,), 0.5)
    method = Diffusion(denoiser=build_denoiser(recipe), recipe=recipe, runtime=Runtime())
    torch.manual_seed(3)
    method.losses(x0, t, eps, None)
    torch.manual_seed(3)
    done = random_transformation(4, 1.0)
    assert torch.equal(seen[0][0], done.apply(x0)) and not torch.allclose(seen[0][0], x0, atol=0.05)
    assert torch.equal(seen[0][1], done.condition().float())


def test_a_training_learns_from_the_condition_and_goes_on_to_the_bit(picture_folder, tmp_path):
    dataset = tiny_dataset(picture_folder)
    recipe = tiny_recipe("data.augment=0.3", "condition.on=clusters")
    losses = []
    for name, lengths in (("once", [64]), ("twice", [24, 64])):
        run = begin(tmp_path / name, recipe)
        seen = [r for n in lengths for r in train(dataset, run, images=n, runtime=Runtime())]
        losses.append([r.loss for r in seen if r.loss is not None])
    assert losses[0] == losses[1]
    plain = begin(tmp_path / "plain", tiny_recipe("condition.on=clusters"))
    other = [r.loss for r in train(dataset, plain, images=64, runtime=Runtime()) if r.loss is not None]
    assert losses[0] != other
    model = load_model(tmp_path / "once", "cpu")
    embed = model.denoiser.network.embed_cond
    # Its perceptron has learnt: it received gradients.
    fresh = build_denoiser(recipe, model.vocabulary).network.embed_cond
    assert embed.fields[-1] == ("transformation", COLUMNS)
    assert not torch.equal(embed.embed[-1][0].weight, fresh.embed[-1][0].weight)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("gan", "for diffusion"), ("classifier", "for diffusion"), ("classic", "no condition")],
)
def test_augmentation_is_refused_where_it_does_not_fit(recipe, said):
    with pytest.raises(UsageError, match=said):
        with_settings(named_recipe(recipe), ["data.augment=0.1"])
