"""Images of another size than the model's: tiles, and the sizes at which the whole image comes first."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.restoration import tiling
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.operators.compose import PerSampleOperator
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import build_operator
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import restoration_settings
from alphabar.restoration.tiling import tile_corners, tiled, working_sizes
from alphabar.runs.model import Model
from restoration_models import SIZE, restored, untrained

TILE = (SIZE, SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return untrained(tmp_path_factory.mktemp("tiling"))


def test_tiles_of_a_denoiser_without_borders_are_the_denoiser(model):
    """Where each pixel is mapped by itself, tiles change nothing."""
    schedule = model.denoiser.schedule
    pointwise = FunctionDenoiser(schedule, lambda x, t, cond: x.tanh() * t[:, None, None, None].to(x))
    x, t = torch.randn(2, 3, 37, 16), torch.tensor([0.3, 0.8])
    torch.testing.assert_close(tiled(pointwise, (16, 16))(x, t), pointwise(x, t))


def test_tiles_leave_no_seam(model):
    """A denoiser that answers every tile with a brightness of its own: the result is smooth."""
    schedule = model.denoiser.schedule
    lone = FunctionDenoiser(schedule, lambda x, t, cond: x.mean((2, 3), keepdim=True).expand_as(x))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    D = tiled(lone, (16, 16))((x + 2 * y).expand(1, 3, -1, -1), torch.ones(1))
    # Tiles are 12 apart and overlap by 4: a seam would be a jump of 24 and of 12.
    assert D.diff(dim=2).abs().max() <= 24 / 4 and D.diff(dim=3).abs().max() <= 12 / 4


def test_tiles_let_gradients_through(model, monkeypatch):
    """For few tiles and for more than the network sees in one call."""
    x, t = torch.randn(1, 3, 24, 20, requires_grad=True), torch.tensor([0.5])
    D = tiled(model.denoiser, TILE)(x, t)
    v = torch.randn_like(D)
    (slope,) = torch.autograd.grad(D, x, v)
    assert (slope != 0).all()
    monkeypatch.setattr(tiling, "TILES_PER_CALL", 1)
    D = tiled(model.denoiser, TILE)(x, t)
    for _ in range(2):  # as often as a solver needs a gradient
        (again,) = torch.autograd.grad(D, x, v, retain_graph=True)
        torch.testing.assert_close(again, slope)


@pytest.mark.parametrize("seed", range(20))
def test_tiles_show_all_that_is_missing_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    missing = torch.zeros(tuple(rng.integers(16, 90, 2)), dtype=torch.bool)
    for _ in range(rng.integers(1, 4)):
        a, b = (rng.integers(0, n) for n in missing.shape)
        missing[a : a + rng.integers(1, 40), b : b + rng.integers(1, 40)] = True
    seen = torch.zeros_like(missing)
    for a, b in tile_corners(missing, TILE):
        assert 0 <= a <= len(missing) - 16 and 0 <= b <= missing.shape[1] - 16
        assert missing[a : a + 16, b : b + 16].any()
        seen[a : a + 16, b : b + 16] = True
    assert seen[missing].all()


def test_a_small_hole_takes_one_tile():
    missing = torch.zeros(100, 200, dtype=torch.bool)
    assert tile_corners(missing, TILE) == [(0, 0)]
    missing[50:58, 120:128] = True
    assert tile_corners(missing, TILE) == [(46, 116)]
    assert len(tile_corners(torch.ones(100, 200), TILE)) == 8 * 17


def test_where_nothing_is_missing_what_is_known_is_the_answer(model):
    x, known = torch.randn(2, 1, 3, 24, 40)
    missing = torch.zeros(24, 40, dtype=torch.bool)
    missing[2:6, 3:7] = True
    t = torch.tensor([0.5])
    D = tiled(model.denoiser, TILE, missing, known)(x, t)
    assert torch.equal(D[..., 16:, :], known[..., 16:, :]) and torch.equal(D[..., 16:], known[..., 16:])
    torch.testing.assert_close(D[..., :16, :16], model.denoiser(x[..., :16, :16], t))


class Plain(torch.nn.Module):
    """The exact denoiser of images of one colour each, whose parts are N(0, 0.25)."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.network = schedule, None
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond=None):
        alpha, sigma = (part.to(x)[:, None, None, None] for part in self.schedule(t))
        share = 0.25 / (0.25 + (sigma / alpha) ** 2 / x[0, 0].numel())
        return (share * (x / alpha).mean((2, 3), keepdim=True)).expand_as(x)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_what_a_tile_cannot_know_is_found_in_the_whole_image(model, fit):
    """A hole of six tiles' width: those in its middle see nothing of what is around it."""
    data = model.recipe.data.model_copy(update={"fit": fit})
    plain = replace(
        model,
        denoiser=Plain(model.denoiser.schedule),
        recipe=model.recipe.model_copy(update={"data": data}),
    )
    hole = build_operator({"name": "box", "x0": 20, "y0": 10, "x1": 140, "y1": 100}, (3, 110, 160))
    colour = torch.tensor([0.5, -0.3, 0.8])[:, None, None]
    settings = restoration_settings(plain, hole, 0.0)
    records = list(restore(plain, hole.A(colour.expand(1, 3, 110, 160)), hole, settings=settings))
    assert (records[-1].result[0, 0] - colour).abs().max() < 0.05
    sizes = list(dict.fromkeys(tuple(r.preview.step.x.shape[2:]) for r in records))
    assert sizes[0] == ((16, 16) if fit == "squash" else (16, 23)) and sizes[-1] == (110, 160)
    assert all(b[0] / a[0] <= 2.1 for a, b in pairwise(sizes))
    assert [r.done for r in records] == [*range(1, len(records)), len(records) - 1]
    assert all(r.total == len(records) - 1 for r in records)


@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("box:4,3,30,18", [(16, 16), (18, 25), (20, 40)]),
        ("box:4,3,18,12", [(18, 25), (20, 40)]),  # less than eight pixels wide in sixteen
        ("box:4,3,30,6", [(20, 40)]),
        ("random:0.7", [(20, 40)]),
        ("grayscale", [(16, 16), (18, 25), (20, 40)]),
        ("grayscale+downsample:2", [(20, 40)]),
        ("blur:1.5", [(20, 40)]),
        ("noise:0.1", [(20, 40)]),
    ],
)
def test_the_whole_comes_first_where_a_region_or_the_colour_is_missing(model, task, sizes):
    operator = parse_degradation(task).operator((3, 20, 40))
    settings = restoration_settings(model, operator, 0.1 if task.startswith("noise") else 0.0)
    *_, last = records = list(
        restore(model, operator.A(torch.rand(1, 3, 20, 40)), operator, 0.1, settings=settings)
    )
    assert list(dict.fromkeys(tuple(r.preview.step.x.shape[2:]) for r in records)) == sizes
    assert last.result.isfinite().all()


@pytest.mark.parametrize("hole", [None, (30, 30, 36, 36)])
def test_a_hole_that_the_whole_does_not_show_and_no_hole(model, hole):
    known = torch.ones(1, 200, 200)
    if hole:
        known[:, hole[1] : hole[3], hole[0] : hole[2]] = 0
    mask = Mask(known, (3, 200, 200))
    y = mask.A(torch.rand(1, 3, 200, 200))
    x = restored(model, y, mask)
    assert x.isfinite().all()
    torch.testing.assert_close(mask.A(x[0]), y)


@pytest.mark.parametrize(("size", "box"), [((10, 40), (3, 0, 8, 3)), ((40, 10), (0, 3, 3, 8))])
def test_an_image_may_be_larger_than_the_model_one_way_and_smaller_the_other(model, size, box):
    hole = build_operator({"name": "box", **dict(zip(("x0", "y0", "x1", "y1"), box))}, (3, *size))
    y = hole.A(torch.rand(1, 3, *size))
    x = restored(model, y, hole, n=2)
    assert x.shape == (2, 1, 3, *size)
    torch.testing.assert_close(hole.A(x[:, 0]), y.expand(2, -1, -1, -1))


def test_larger_images_may_have_their_own_masks(model):
    boxes = ({"x0": 2, "y0": 3, "x1": 4, "y1": 9}, {"x0": 25, "y0": 10, "x1": 39, "y1": 20})
    masks = [build_operator({"name": "box", **box}, (3, 20, 40)) for box in boxes]
    each = PerSampleOperator(masks)
    y = each.A(torch.rand(2, 3, 20, 40))
    both = restored(model, y, each, n=2)
    for i, part in enumerate(each.unpack(y)):
        torch.testing.assert_close(both[:, i], restored(model, part, masks[i], n=2, first=i)[:, 0])
    together = Mask(torch.cat([mask.s for mask in masks])[:, None], (3, 20, 40))
    same = restored(model, torch.cat(each.unpack(y)), together, n=2)
    torch.testing.assert_close(same, both)


def test_tiles_need_not_be_square():
    missing = torch.ones(40, 60, dtype=torch.bool)
    corners = tile_corners(missing, (16, 24))
    assert {b for _, b in corners} == {0, 18, 36} and {a for a, _ in corners} == {0, 12, 24}
    box = build_operator({"name": "box", "x0": 10, "y0": 10, "x1": 90, "y1": 60}, (3, 80, 120))
    assert working_sizes(box, (16, 24), squash=True)[0] == (16, 24)
    assert working_sizes(box, (16, 24), squash=False)[0] == (16, 24)
    assert working_sizes(box, (16, 16), squash=False)[0] == (16, 24)
