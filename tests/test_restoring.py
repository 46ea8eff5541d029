"""Restoring pictures: the API on a model, files in and out, the grammar, and the commands."""

import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.cli.__main__ import main
from alphabar.codecs.image import levels_to_signal, signal_to_levels
from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.errors import AlphabarError, UsageError
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.restoration import restore as restoring
from alphabar.restoration.degradation import Degradation, parse_degradation
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.jpeg import Jpeg
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS
from alphabar.restoration.photo import read_photo
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import restoration_settings
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.restoration.task import read_task
from alphabar.restoration.tiling import _corners, spread, windowed
from alphabar.runs.model import Model, build_denoiser, export_model, load_model
from alphabar.runs.run import Run
from alphabar.tensor_files import pack_tensors

SIZE = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    """A model folder with the weights that training begins from."""
    recipe = with_settings(
        named_recipe("ddpm"),
        ["data.size=16", "network.widths=[16,32]", "network.attention=0"],
    )
    statistics = DataStatistics(torch.zeros(3, SIZE, SIZE), torch.eye(192))
    run = Run(tmp_path_factory.mktemp("restoring"))
    weights = pack_tensors(build_denoiser(recipe).network.state_dict())
    files = {"model.safetensors": weights, "statistics.safetensors": pack_tensors(statistics._asdict())}
    export_model(run.model_folder, recipe, 0, files)
    return load_model(run.path / "model")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["alphabar", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def ramp(h, w):
    y, x = np.mgrid[:h, :w]
    return np.stack([8 * y, 8 * x, 4 * (x + y)], 2).astype(np.uint8)


def save(folder, image, name="picture.png", **extras):
    path = folder / name
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **extras)
    return path


def answers(model, y, operator, sigma_y=0.0, **settings):
    first = settings.pop("first", 0)
    n = settings.pop("n", 1)
    one = operator[0] if isinstance(operator, list) else operator
    chosen = restoration_settings(model, one, sigma_y, steps=3, **settings)
    *_, last = restore(model, y, operator, sigma_y, n=n, settings=chosen, first=first)
    return last.result


# ---------------------------------------------------------------- the API


def test_a_restoration_is_a_generator_of_steps(model):
    operator = OPERATORS.build("box", shape=(3, SIZE, SIZE))()
    y = operator.A(torch.rand(2, 3, SIZE, SIZE))
    settings = restoration_settings(model, operator, 0.0, solver="diffpir", steps=4)
    records = list(restore(model, y, operator, n=3, settings=settings, batch=4))
    assert len(records) == 2 * 4 + 1  # six answers in batches of four
    assert [r.done for r in records] == [4, 8, 12, 16, 18, 20, 22, 24, 24]
    assert all(r.total == 24 for r in records)
    assert records[-1].result.shape == (3, 2, 3, SIZE, SIZE)
    assert not torch.equal(records[-1].result[0], records[-1].result[1])


@pytest.mark.parametrize("size", [(SIZE, SIZE), (20, 40), (12, 10)])
def test_an_answer_depends_on_its_picture_alone(model, size):
    operator = OPERATORS.build("random", shape=(3, *size))()
    y = operator.A(torch.rand(2, 3, *size))
    both = answers(model, y, operator, n=2)
    assert both.shape == (2, 2, 3, *size)
    for i in (0, 1):
        single = answers(model, y[i : i + 1], operator, n=1, first=i)
        torch.testing.assert_close(single[0, 0], both[0, i], rtol=0, atol=1e-4)
    torch.testing.assert_close(operator.A(both[0]), y, rtol=0, atol=1e-5)


def test_each_picture_may_have_its_own_operator(model):
    operators = [OPERATORS.build(spec, shape=(3, SIZE, SIZE))() for spec in ("down", "blur")]
    x = torch.rand(2, 3, SIZE, SIZE)
    ys = [A.A(x[i : i + 1]) for i, A in enumerate(operators)]
    both = answers(model, ys, operators, 0.05, solver="pigdm", n=2)
    single = answers(model, ys[1], operators[1], 0.05, solver="pigdm", first=1)
    torch.testing.assert_close(both[0, 1], single[0, 0], rtol=0, atol=1e-4)
    with pytest.raises(UsageError, match="2 pictures and 1 operators"):
        restore(model, ys, operators[:1])


def test_what_does_not_fit_is_told(model):
    operator = OPERATORS.build("box", shape=(3, SIZE, SIZE))()
    y = torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(UsageError, match="-n must be at least 1"):
        restore(model, y, operator, n=0)
    with pytest.raises(UsageError, match="y of shape"):
        restore(model, y[:, :1], operator)
    with pytest.raises(UsageError, match="colour pictures"):
        restore(model, y[:, :1], OPERATORS.build("box", shape=(1, SIZE, SIZE))())
    with pytest.raises(UsageError, match="0 or more"):
        restore(model, y, operator, -1.0)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        restoration_settings(model, operator, 0.0, steps=0)
    with pytest.raises(UsageError, match="did you mean 'pigdm'"):
        restoration_settings(model, operator, 0.0, solver="pigdmm")


@pytest.mark.parametrize("spec", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_the_default_solver_can_do_its_task(model, spec, sigma_y):
    operator = OPERATORS.build(spec, shape=(3, SIZE, SIZE))()
    if spec == "denoise" and sigma_y == 0:
        pytest.skip("nothing to restore")
    assert answers(model, operator.A(torch.rand(1, 3, SIZE, SIZE)), operator, sigma_y).isfinite().all()


# ---------------------------------------------------------------- windows


def test_windows_of_a_denoiser_without_borders_are_the_denoiser(model):
    """What each pixel is mapped to by itself, windows cannot change."""
    schedule = model.denoiser.schedule
    pointwise = FunctionDenoiser(schedule, lambda x, t, cond: x.tanh() * t[:, None, None, None].to(x))
    x, t = torch.randn(2, 3, 37, 16), torch.tensor([0.3, 0.8])
    torch.testing.assert_close(windowed(pointwise, 16)(x, t), pointwise(x, t))


def test_windows_leave_no_seam(model):
    """A denoiser that answers every window with a brightness of its own: it is smooth across borders."""
    schedule = model.denoiser.schedule
    lone = FunctionDenoiser(schedule, lambda x, t, cond: x.mean((2, 3), keepdim=True).expand_as(x))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    D = windowed(lone, 16)((x + 2 * y).expand(1, 3, -1, -1), torch.ones(1))
    # Windows are 12 apart and overlap by 4: a seam would be a jump of 24 and of 12.
    assert D.diff(dim=2).abs().max() <= 24 / 4 and D.diff(dim=3).abs().max() <= 12 / 4


def test_windows_let_gradients_through(model, monkeypatch):
    """Of few windows and of more than are looked at in one call."""
    x, t = torch.randn(1, 3, 24, 20, requires_grad=True), torch.tensor([0.5])
    D = windowed(model.denoiser, SIZE)(x, t)
    v = torch.randn_like(D)
    (slope,) = torch.autograd.grad(D, x, v)
    assert (slope != 0).all()
    monkeypatch.setattr(restoring, "WINDOWS", 1)
    D = windowed(model.denoiser, SIZE)(x, t)
    for _ in range(2):  # as often as a solver goes back
        (again,) = torch.autograd.grad(D, x, v, retain_graph=True)
        torch.testing.assert_close(again, slope)


@pytest.mark.parametrize("seed", range(20))
def test_windows_show_every_hole_and_nothing_else(seed):
    draw = np.random.default_rng(seed)
    holes = torch.zeros(tuple(draw.integers(16, 90, 2)), dtype=torch.bool)
    for _ in range(draw.integers(1, 4)):
        a, b = (draw.integers(0, n) for n in holes.shape)
        holes[a : a + draw.integers(1, 40), b : b + draw.integers(1, 40)] = True
    seen = torch.zeros_like(holes)
    for a, b in _corners(holes, 16):
        assert 0 <= a <= len(holes) - 16 and 0 <= b <= holes.shape[1] - 16
        assert holes[a : a + 16, b : b + 16].any()
        seen[a : a + 16, b : b + 16] = True
    assert seen[holes].all()


def test_a_small_hole_takes_one_window():
    holes = torch.zeros(100, 200, dtype=torch.bool)
    assert _corners(holes, 16) == [(0, 0)]
    holes[50:58, 120:128] = True
    assert _corners(holes, 16) == [(46, 116)]
    assert len(_corners(torch.ones(100, 200), 16)) == 8 * 17


def test_without_holes_what_is_known_is_the_answer(model):
    x, known = torch.randn(2, 1, 3, 24, 40)
    holes = torch.zeros(24, 40, dtype=torch.bool)
    holes[2:6, 3:7] = True
    t = torch.tensor([0.5])
    D = windowed(model.denoiser, SIZE, holes, known)(x, t)
    assert torch.equal(D[..., 16:, :], known[..., 16:, :]) and torch.equal(D[..., 16:], known[..., 16:])
    torch.testing.assert_close(D[..., :16, :16], model.denoiser(x[..., :16, :16], t))


class Plain(torch.nn.Module):
    """The exact denoiser of pictures of one colour each, whose parts are N(0, 0.25)."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.network = schedule, None
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond=None):
        alpha, sigma = (part.to(x)[:, None, None, None] for part in self.schedule(t))
        share = 0.25 / (0.25 + (sigma / alpha) ** 2 / x[0, 0].numel())
        return (share * (x / alpha).mean((2, 3), keepdim=True)).expand_as(x)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_what_a_window_cannot_know_is_found_in_the_whole_picture(model, fit):
    """A hole of six windows' width: those in its middle see nothing of what is around it."""
    data = model.recipe.data.model_copy(update={"fit": fit})
    plain = replace(
        model,
        denoiser=Plain(model.denoiser.schedule),
        recipe=model.recipe.model_copy(update={"data": data}),
    )
    hole = OPERATORS.build({"name": "box", "x0": 20, "y0": 10, "x1": 140, "y1": 100}, shape=(3, 110, 160))()
    colour = torch.tensor([0.5, -0.3, 0.8])[:, None, None]
    settings = restoration_settings(plain, hole, 0.0)
    records = list(restore(plain, hole.A(colour.expand(1, 3, 110, 160)), hole, settings=settings))
    assert (records[-1].result[0, 0] - colour).abs().max() < 0.05
    sizes = list(dict.fromkeys(tuple(r.step.x.shape[2:]) for r in records))
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
        ("grey", [(16, 16), (18, 25), (20, 40)]),
        ("grey+down:2", [(20, 40)]),
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
    assert list(dict.fromkeys(tuple(r.step.x.shape[2:]) for r in records)) == sizes
    assert last.result.isfinite().all()


@pytest.mark.parametrize("hole", [None, (30, 30, 36, 36)])
def test_of_a_hole_that_the_whole_does_not_show_and_of_none(model, hole):
    known = torch.ones(1, 200, 200)
    if hole:
        known[:, hole[1] : hole[3], hole[0] : hole[2]] = 0
    mask = Mask(known, (3, 200, 200))
    y = mask.A(torch.rand(1, 3, 200, 200))
    x = answers(model, y, mask)
    assert x.isfinite().all()
    torch.testing.assert_close(mask.A(x[0]), y)


@pytest.mark.parametrize(("size", "box"), [((10, 40), (3, 0, 8, 3)), ((40, 10), (0, 3, 3, 8))])
def test_a_picture_may_be_larger_than_the_model_one_way_and_smaller_the_other(model, size, box):
    hole = OPERATORS.build({"name": "box", **dict(zip(("x0", "y0", "x1", "y1"), box))}, shape=(3, *size))()
    y = hole.A(torch.rand(1, 3, *size))
    x = answers(model, y, hole, n=2)
    assert x.shape == (2, 1, 3, *size)
    torch.testing.assert_close(hole.A(x[:, 0]), y.expand(2, -1, -1, -1))


def test_larger_pictures_may_have_their_own_masks(model):
    boxes = ({"x0": 2, "y0": 3, "x1": 4, "y1": 9}, {"x0": 25, "y0": 10, "x1": 39, "y1": 20})
    masks = [OPERATORS.build({"name": "box", **box}, shape=(3, 20, 40))() for box in boxes]
    ys = [mask.A(torch.rand(1, 3, 20, 40)) for mask in masks]
    both = answers(model, ys, masks, n=2)
    for i in (0, 1):
        torch.testing.assert_close(both[:, i], answers(model, ys[i], masks[i], n=2, first=i)[:, 0])


def test_the_spread_of_answers():
    x = torch.zeros(2, 1, 3, 4, 4)
    x[0, 0, :, 1, 2], x[1, 0, :, 1, 2] = 0.5, -0.5
    assert spread(x).shape == (1, 4, 4)
    assert spread(x)[0, 1, 2].item() == pytest.approx(0.5**0.5) and (spread(x) > 0).sum() == 1


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.3])
def test_noise_is_estimated(sigma):
    y, x = torch.meshgrid(torch.linspace(-3, 3, 64), torch.linspace(-3, 3, 64), indexing="ij")
    scene = torch.stack([torch.sin(2 * x + y), torch.tanh(3 * x - y), torch.cos(x * y)]) * 0.7
    noisy = scene + sigma * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert estimate_noise(noisy) == pytest.approx(sigma, rel=0.1)


def test_a_picture_too_small_to_estimate_is_told():
    with pytest.raises(UsageError, match="too small"):
        estimate_noise(torch.zeros(3, 8, 8))


# ---------------------------------------------------------------- the grammar


def test_degradations_parse():
    parsed = parse_degradation("blur:1.5+down:2+noise:0.05")
    assert parsed.sigma == 0.05 and parsed.factor == 2
    assert parsed.parts == ({"name": "blur", "std": 1.5}, {"name": "down", "factor": 2})
    assert parsed.operator((3, 16, 24)).measured == (3, 8, 12)
    assert parse_degradation("noise:auto").sigma is None
    assert parse_degradation("box:1,2,3,4").operator((3, 8, 8)).s.sum() == 60
    assert parse_degradation("motion:7,30").parts[0]["angle"] == 30
    assert isinstance(parse_degradation("jpeg:10").operator((3, 16, 16)), Jpeg)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr:1", "did you mean 'blur'"),
        ("blur:x", "blur"),
        ("noise:0.1+blur:1", "noise comes last"),
        ("noise:-1", "neither auto nor"),
        ("noise:nan", "neither auto nor"),
        ("grey:1", "takes 0 values"),
        ("mask", "mask needs a file"),
        ("", "unknown degradation"),
        ("down:2.5", "down"),
    ],
)
def test_what_does_not_parse_is_told_with_the_grammar(text, message):
    with pytest.raises(UsageError) as told:
        parse_degradation(text)
    assert message in str(told.value) and "blur:STD" in str(told.value)
    assert "\n" not in str(told.value)


# ---------------------------------------------------------------- files


def untouched(photo) -> Image.Image:
    return photo.image(photo.signal()[0])


@pytest.mark.parametrize("white", [255, 65535])
def test_every_level_survives(white):
    levels = torch.arange(white + 1).reshape(1, -1, 1)
    assert torch.equal(signal_to_levels(levels_to_signal(levels, white)[0], white), levels.int())


def test_photos_come_back_as_they_were(tmp_path):
    rgb, grey = ramp(20, 24), ramp(20, 24)[..., 0]
    deep = (np.arange(480).reshape(20, 24) * 130).astype(np.uint16)
    alpha = np.full((20, 24), 255, np.uint8)
    for pixels in (rgb, grey, deep, np.dstack([rgb, alpha])):
        photo = read_photo(save(tmp_path, pixels))
        again = np.asarray(untouched(photo))
        assert again.dtype == pixels.dtype
        assert np.array_equal(again, pixels)


def test_photos_keep_what_can_be_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    path = save(tmp_path, ramp(20, 24), "turned.png", exif=exif, icc_profile=b"profile")
    photo = read_photo(path)
    assert photo.pixels.shape == (24, 20, 3)  # upright
    assert np.array_equal(photo.pixels, np.rot90(ramp(20, 24), -1))
    assert photo.extras["icc_profile"] == b"profile"
    kept = Image.Exif()
    kept.load(photo.extras["exif"])
    assert kept.get(0x010F) == "a camera" and 0x0112 not in kept


def test_transparent_pixels_are_white_to_the_model(tmp_path):
    pixels = np.dstack([ramp(8, 8), np.zeros((8, 8), np.uint8)])
    assert (read_photo(save(tmp_path, pixels)).signal() == 1).all()


def test_files_that_are_no_pictures_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(AlphabarError, match=r"a\.png cannot be used: not a picture"):
        read_photo(tmp_path / "a.png")
    with pytest.raises(AlphabarError, match=r"cannot read .*b\.png"):
        read_photo(tmp_path / "b.png")


def test_rounding_to_bytes_counts_as_noise(tmp_path):
    path = save(tmp_path, ramp(16, 16))
    assert read_task(path, parse_degradation("blur:1")).sigma_y == pytest.approx(2 / 255 / 12**0.5)
    assert read_task(path, parse_degradation("blur:1+noise:0.1")).sigma_y == 0.1
    assert read_task(path, parse_degradation("box")).sigma_y == 0
    assert read_task(path, parse_degradation("down:4")).operator.shape == (3, 64, 64)
    with pytest.raises(UsageError, match="cannot be estimated"):
        read_task(path, parse_degradation("box+noise:auto"))


# ---------------------------------------------------------------- the commands


def test_inpainting_leaves_known_pixels_untouched(model, tmp_path, call):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    path, hole = save(tmp_path, pixels), np.zeros((20, 40), np.uint8)
    hole[5:12, 10:30] = 255
    mask, out = save(tmp_path, hole, "mask.png"), tmp_path / "out"
    code, stdout, err = call(
        "inpaint", model.path, path, "--mask", mask, "--out", out, "-n", 2, "--steps", 2, "--json"
    )
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == [
        "overview.png", "picture-1.png", "picture-2.png", "restoration.json", "spread.png",
    ]  # fmt: skip
    results = [np.asarray(Image.open(out / f"picture-{k}.png")) for k in (1, 2)]
    for result in results:
        assert np.array_equal(result[hole == 0], pixels[hole == 0])
        assert not np.array_equal(result[hole > 0], pixels[hole > 0])
    assert not np.array_equal(*results)
    about = json.loads(stdout.splitlines()[-1])
    assert about["sigma_y"] == 0 and about["solver"]["name"] == "mmps"


def test_deep_grey_and_transparent_pictures_are_inpainted_in_kind(model, tmp_path, call):
    deep = (np.arange(256).reshape(16, 16) * 255 + 3).astype(np.uint16)
    clear = np.dstack([ramp(16, 16), np.full((16, 16), 90, np.uint8)])
    for i, pixels in enumerate((deep, clear)):
        path, out = save(tmp_path, pixels, f"{i}.png"), tmp_path / f"out{i}"
        args = ("--mask", "box:2,3,6,8", "--out", out, "-n", 1, "--steps", 2)
        assert call("inpaint", model.path, path, *args)[0] == 0
        result = np.asarray(Image.open(out / f"{i}-1.png"))
        known = np.ones((16, 16), bool)
        known[3:8, 2:6] = False
        assert result.dtype == pixels.dtype and result.shape == pixels.shape
        assert np.array_equal(result[known], pixels[known])
    assert (result[~known][:, 3] == 255).all()  # what is filled is opaque


def test_upscaling_enlarges_and_degrading_shrinks(model, tmp_path, call):
    path = save(tmp_path, ramp(16, 32))
    assert call("degrade", path, "--degradation", "down:4+noise:0.02", "--out", tmp_path / "small")[0] == 0
    small = tmp_path / "small/picture.png"
    assert Image.open(small).size == (8, 4)
    args = ("--factor", 4, "--noise", 0.02, "--out", tmp_path / "large", "--steps", 2)
    assert call("upscale", model.path, small, *args)[0] == 0
    assert Image.open(tmp_path / "large/picture-1.png").size == (32, 16)


def test_grey_pictures_get_their_colours(model, tmp_path, call):
    path = save(tmp_path, ramp(16, 16)[..., 0])
    args = ("--degradation", "grey", "--out", tmp_path / "out", "--steps", 2)
    assert call("restore", model.path, path, *args)[0] == 0
    assert Image.open(tmp_path / "out/picture-1.png").mode == "RGB"


def test_a_grey_picture_stays_grey_and_its_noise_is_counted_once(model, tmp_path, call):
    path = save(tmp_path, ramp(16, 16)[..., 0])
    what = ("--degradation", "blur:1+noise:0.05", "--out")
    assert call("degrade", path, *what, tmp_path / "spoilt")[0] == 0
    spoilt = tmp_path / "spoilt/picture.png"
    assert Image.open(spoilt).mode == "L"
    task = read_task(spoilt, parse_degradation("blur:1+noise:0.05"))
    assert task.operator.measured == (1, 16, 16) and task.y.shape == (1, 1, 16, 16)
    assert call("restore", model.path, spoilt, *what, tmp_path / "out", "--steps", 2)[0] == 0
    assert Image.open(tmp_path / "out/picture-1.png").mode == "L"


def test_a_folder_is_degraded_with_noise_of_its_own_for_each(tmp_path, call):
    (tmp_path / "in/sub").mkdir(parents=True)
    flat = np.full((8, 8, 3), 128, np.uint8)
    save(tmp_path / "in", flat, "a.png"), save(tmp_path / "in", flat, "a.bmp")
    save(tmp_path / "in/sub", flat, "b.bmp")
    args = ("degrade", tmp_path / "in", "--degradation", "noise:0.2")
    assert call(*args, "--out", tmp_path / "x")[0] == 0
    assert call(*args, "--out", tmp_path / "y")[0] == 0
    a, b = (np.asarray(Image.open(tmp_path / "x" / name)) for name in ("a.png", "sub/b.png"))
    assert not np.array_equal(a, b)
    assert len(list((tmp_path / "x").glob("a*.png"))) == 2
    assert np.array_equal(a, np.asarray(Image.open(tmp_path / "y/a.png")))
    assert np.std(a / 127.5 - 1) == pytest.approx(0.2, rel=0.2)


def test_bad_input_is_one_line_and_writes_nothing(model, tmp_path, call):
    path, mask = save(tmp_path, ramp(16, 16)), save(tmp_path, ramp(8, 8), "mask.png")
    out = ("--out", tmp_path / "out")
    for args, code, message in (
        (("inpaint", model.path, path, "--mask", mask), 2, "mask of 8×8 does not fit a picture of 16×16"),
        (("inpaint", model.path, path, "--mask", "box:4,4,20,8"), 2, "not a box inside a picture of 16×16"),
        (("inpaint", model.path, path, "--mask", tmp_path / "no.png"), 1, "no.png"),
        (("upscale", model.path, path, "--factor", 0), 2, "factor"),
        (("restore", model.path, path, "--degradation", "blurr:2"), 2, "parts joined by +"),
        (("restore", model.path, mask.with_name("none.png"), "--degradation", "grey"), 1, "cannot read"),
        (("restore", tmp_path, path, "--degradation", "grey"), 1, "neither a run folder"),
        (("restore", model.path, path, "--degradation", "blur:1", "--solver", "nope"), 2, "unknown solver"),
        (("restore", model.path, path, "--degradation", "blur:1", "--solver", "ddnm"), 2, "without noise"),
        (("degrade", path, "--degradation", "down:5"), 2, "does not divide a picture of 16×16"),
        (("degrade", path, "--degradation", "noise:auto"), 2, "for restoring"),
        (("degrade", tmp_path / "none", "--degradation", "grey"), 1, "no picture or folder"),
    ):
        got, _, err = call(*args, *out)
        told = [line for line in err.splitlines() if line.startswith("alphabar:")]
        assert got == code, (args, err)
        assert len(told) == 1 and message in told[0], (args, err)
        assert not (tmp_path / "out").exists() and not (tmp_path / ".writing-out").exists(), args
    path.with_name("taken").mkdir()
    (tmp_path / "taken/x").write_text("x")
    got, _, err = call("degrade", path, "--degradation", "grey", "--out", tmp_path / "taken")
    assert got == 1 and "not empty" in err


def test_a_mask_that_misses_nothing_changes_nothing(model):
    operator = Mask(torch.ones(1, SIZE, SIZE), (3, SIZE, SIZE))
    y = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(answers(model, y, operator)[0], y, rtol=0, atol=1e-5)


def test_a_degradation_without_parts_is_the_picture_itself():
    assert Degradation("", (), 0.1).operator((3, 8, 8)).measured == (3, 8, 8)


def attending(model: Model, *more: str) -> Model:
    """The model with a network that attends, with noise on its weights."""
    small = ["data.size=16", "network.widths=[8,16]", "network.head_dim=8"]
    recipe = with_settings(named_recipe("lean"), [*small, *more])
    denoiser = build_denoiser(recipe).eval().requires_grad_(False)
    for parameter in denoiser.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return replace(model, recipe=recipe, denoiser=denoiser)


@pytest.mark.parametrize(
    ("task", "size", "own_pag", "solver", "pag"),
    [
        ("blur:1.5", 16, 0, "diffpir", 0),
        ("blur:1.5", 16, 3, "diffpir", 0),
        ("blur:1.5+noise:0.05", 16, 3, "ddrm", 1.5),
        # of a part of the model's picture singular values are not known
        ("blur:1.5+noise:0.05", 32, 0, "pigdm", 0),
        ("motion:5,45+noise:0.05", 16, 0, "ddrm", 0),
        ("noise:0.2", 16, 3, {"name": "ddrm", "eta": 0.8}, 0),
        ("grey", 16, 3, "pigdm", 0),
        ("down:2", 16, 0, "pigdm", 0),
        ("down:2", 16, 3, "ddrm", 3),
        ("down:2", 32, 3, "pigdm", 3),
        ("random:0.5+noise:0.1", 16, 3, "mmps", 0),
        ("jpeg:10", 16, 3, "ddnm", 1.5),
    ],
)
def test_the_defaults_go_by_what_is_missing(model, task, size, own_pag, solver, pag):
    attentive = attending(model, f"data.size={size}", f"sampling.pag={own_pag}")
    degradation = parse_degradation(task)
    settings = restoration_settings(attentive, degradation.operator((3, 16, 16)), degradation.sigma)
    assert (settings.solver, settings.pag) == (SOLVERS.resolve(solver), pag)


def test_guidance_has_its_say(model, monkeypatch):
    """Of a network that attends; one that does not is told apart."""
    operator = OPERATORS.build("down", shape=(3, SIZE, SIZE))(factor=4)
    y = torch.rand(1, *operator.measured) - 0.5
    attentive = attending(model)
    plain, again, led = (answers(attentive, y, operator, pag=pag) for pag in (0.0, 0.0, 2.0))
    assert torch.equal(plain, again) and not torch.allclose(plain, led, atol=1e-3)
    torch.testing.assert_close(operator.A(led[0]), y, rtol=0, atol=1e-4)
    monkeypatch.setattr("alphabar.restoration.tiling.GUIDED", (0.0, 0.0))  # at no noise level
    plain, nowhere = (answers(attentive, y, operator, pag=pag, solver="ddrm") for pag in (0.0, 2.0))
    torch.testing.assert_close(nowhere, plain, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="--pag needs self-attention"):
        restoration_settings(model, operator, 0.0, pag=2.0)
