"""Image files: the grammar of degradations, photographs in and out, noise estimation, and the commands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import hostile
from alphabar.errors import AlphabarError, UsageError
from alphabar.restoration.degradation import Degradation, inpainting, parse_degradation
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.jpeg import JPEG
from alphabar.restoration.photo import levels_to_signal, on_white, read_photo, signal_to_levels
from alphabar.restoration.task import degrade, panels, png_names, read_task, sample_std
from alphabar.runs.model import Model
from refusals import refused
from restoration_models import untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return untrained(tmp_path_factory.mktemp("files"))


def ramp(h, w):
    y, x = np.mgrid[:h, :w]
    return np.stack([8 * y, 8 * x, 4 * (x + y)], 2).astype(np.uint8)


def save(folder, image, name="picture.png", **extras):
    path = folder / name
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **extras)
    return path


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.3])
def test_noise_is_estimated(sigma):
    y, x = torch.meshgrid(torch.linspace(-3, 3, 64), torch.linspace(-3, 3, 64), indexing="ij")
    scene = torch.stack([torch.sin(2 * x + y), torch.tanh(3 * x - y), torch.cos(x * y)]) * 0.7
    noisy = scene + sigma * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert estimate_noise(noisy) == pytest.approx(sigma, rel=0.1)


def test_an_image_too_small_to_estimate_is_refused():
    with refused("restoration.too_small_for_noise", image="8×8"):
        estimate_noise(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("size", [(20, 24), (20, 3), (3, 20)])
def test_a_degraded_image_keeps_its_colours_and_misses_what_is_masked(tmp_path, size):
    pixels = ramp(*size)
    found = np.asarray(degrade(read_photo(save(tmp_path, pixels)), parse_degradation("box:1,1,2,2")))
    pixels[1, 1] = 128  # mid-grey
    assert np.array_equal(found, pixels)
    grey = save(tmp_path, Image.fromarray(ramp(*size)).convert("L"))
    found = degrade(read_photo(grey), parse_degradation("noise:0.1"), seed=3)
    assert found.mode == "L" and found.size == size[::-1]


# ---------------------------------------------------------------- the grammar


def test_degradations_parse():
    parsed = parse_degradation("blur:1.5+downsample:2+noise:0.05")
    assert parsed.sigma == 0.05 and parsed.factor == 2
    assert parsed.parts == ({"name": "blur", "std": 1.5}, {"name": "downsample", "factor": 2})
    assert parsed.operator((3, 16, 24)).measurement_shape == (3, 8, 12)
    assert parse_degradation("noise:auto").sigma is None
    assert parse_degradation("box:1,2,3,4").operator((3, 8, 8)).s.sum() == 60
    assert parse_degradation("motion:7,30").parts[0]["angle"] == 30
    assert isinstance(parse_degradation("jpeg:10").operator((3, 16, 16)), JPEG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr:1", "'blur'"),
        ("blur:x", "blur"),
        ("noise:0.1+blur:1", "noise comes last"),
        ("noise:-1", "neither auto nor"),
        ("noise:nan", "neither auto nor"),
        ("grayscale:1", "takes 0 values"),
        ("mask", "mask needs an image file"),
        ("", "degradation ''"),
        ("downsample:2.5", "downsample"),
    ],
)
def test_what_does_not_parse_is_refused_with_the_grammar(text, message):
    with pytest.raises(UsageError) as error:
        parse_degradation(text)
    said = error.value.message
    assert said.identifier == "restoration.bad_degradation"
    assert message in said and "blur:STD" in said and "\n" not in said
    assert "Escriba partes" in said.in_language("es")


@pytest.mark.parametrize("text", ["blurr:1", "jpeg:0.5", "box:x", "noise:x", "mask", "noise:1+blur"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_what_does_not_parse_and_the_grammar_are_two_sentences(text, language):
    with pytest.raises(UsageError) as error:
        parse_degradation(text)
    values = error.value.message.values
    problem, grammar = (values[key].in_language(language) for key in ("problem", "grammar"))
    assert problem.endswith(".") and not problem.endswith("..")
    assert error.value.in_language(language).endswith(f"{problem} {grammar}")


@pytest.mark.parametrize("numbers", ["10", "0,0", "0,0,5"])
def test_a_box_has_four_numbers_or_none(numbers):
    with refused("restoration.box_incomplete", UsageError, given=len(numbers.split(","))):
        parse_degradation(f"box:{numbers}").operator((3, 16, 16))
    middle = parse_degradation("box").operator((3, 16, 16)).s
    assert torch.equal(middle, parse_degradation("box:4,4,12,12").operator((3, 16, 16)).s)


def test_the_name_of_a_file_ends_where_a_part_follows():
    parsed = parse_degradation("kernel:a+b+c.png+downsample:2+mask:my+noise.png+noise:0.1")
    assert parsed.parts == (
        {"name": "kernel", "file": "a+b+c.png"},
        {"name": "downsample", "factor": 2},
        {"name": "mask", "file": "my+noise.png"},
    )
    assert parsed.sigma == 0.1


@pytest.mark.parametrize("name", ["my+mask.png", "a+blur", "b+noise:1"])
def test_a_mask_file_to_inpaint_with_may_have_any_name(name):
    made = inpainting(name, "0.1")
    assert made.parts == ({"name": "mask", "file": name},) and made.sigma == 0.1
    assert inpainting("box:1,2,3,4", "auto") == parse_degradation("box:1,2,3,4+noise:auto")


def test_a_degradation_without_parts_is_the_image_itself():
    assert Degradation("", (), 0.1).operator((3, 8, 8)).measurement_shape == (3, 8, 8)


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


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bits_become_eight_beside_an_alpha_channel(tmp_path, channels):
    deep = (np.arange(480).reshape(20, 24) * 136).astype(np.uint16)
    photo = read_photo(save(tmp_path, deep))
    known = torch.arange(480).reshape(20, 24) % 2 == 0
    for keep in (None, known):
        again = photo.image(photo.signal(channels)[0], keep)
        assert again.mode == "LA" and again.getchannel("A").getextrema() == (255, 255)
        assert np.abs(np.asarray(again.getchannel("L")) - deep / 257).max() <= 1
    colored = photo.image(torch.full((3, 20, 24), -1.0), known, colored=True)
    shown = np.where(known.numpy()[..., None], np.rint(deep / 257)[..., None], 0)
    assert colored.mode == "RGB" and np.array_equal(np.asarray(colored), np.broadcast_to(shown, (20, 24, 3)))


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


def test_files_that_are_no_images_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with refused("restoration.unusable_image", AlphabarError, path=tmp_path / "a.png"):
        read_photo(tmp_path / "a.png")
    with refused("restoration.cannot_read", AlphabarError, path=tmp_path / "b.png"):
        read_photo(tmp_path / "b.png")


def test_signals_with_alpha_are_premultiplied_and_files_are_straight(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    pixels[0, :, 3], pixels[0, :, :3] = 0, 0  # no colour where nothing is seen
    pixels[1:, :, 3] |= 128
    photo = read_photo(save(tmp_path, pixels))
    x = photo.signal(4)
    opacity = torch.from_numpy(pixels[..., 3] / 255)
    wanted = torch.from_numpy(pixels[..., 0] / 255) * opacity
    torch.testing.assert_close((x[0, 0].double() + 1) / 2, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close((x[0, 3].double() + 1) / 2, opacity, rtol=0, atol=1e-6)
    assert np.array_equal(np.asarray(photo.image(x[0])), pixels)
    torch.testing.assert_close(on_white(x), photo.signal(3), rtol=0, atol=1e-6)
    assert photo.image(photo.signal(2)[0]).mode == "LA"


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_model_without_alpha_restores_is_seen_on_white_as_it_is(tmp_path, channels):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (16, 16, channels + 1), np.uint8)
    pixels[0, :, -1] = 0
    image = Image.fromarray(pixels, "LA" if channels == 1 else "RGBA")
    image.save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    x = photo.signal(3)
    back = np.asarray(photo.image(x[0]))
    seen = pixels[..., -1] > 0
    assert np.array_equal(back[..., -1], pixels[..., -1]) and np.array_equal(back[seen], pixels[seen])
    # Another, larger picture, where no colour has to be darker than black.
    whole = (0.5 + 0.5 * torch.from_numpy(rng.random((channels, 32, 32)))).float()
    result = photo.image(whole)
    (tmp_path / "b").mkdir()
    result.save(tmp_path / "b/b.png")
    found = read_photo(tmp_path / "b/b.png").signal(channels)[0]
    visible = torch.from_numpy(np.asarray(result)[..., -1] > 160)
    assert visible.sum() > 100 and (found - whole)[:, visible].abs().max() < 1.01 / 255
    # Filled pixels are opaque, and those that a mask keeps are the file's own.
    known = torch.from_numpy(rng.random((16, 16)) > 0.5)
    filled = np.asarray(photo.image(x[0], known))
    assert np.array_equal(filled[known], pixels[known]) and (filled[~known][:, -1] == 255).all()
    on = np.rint(255 * (x[0, :channels].permute(1, 2, 0)[~known].numpy() + 1) / 2)
    assert np.abs(filled[~known][:, :-1] - on).max() <= 1


def test_rounding_to_bytes_counts_as_noise(tmp_path):
    path = save(tmp_path, ramp(16, 16))
    assert read_task(path, parse_degradation("blur:1")).sigma_y == pytest.approx(2 / 255 / 12**0.5)
    assert read_task(path, parse_degradation("blur:1+noise:0.1")).sigma_y == 0.1
    assert read_task(path, parse_degradation("box")).sigma_y == 0
    assert read_task(path, parse_degradation("downsample:4")).operator.shape == (3, 64, 64)
    for through in ("box", "jpeg:10", "blur:1+random:0.5"):
        with refused("restoration.noise_not_estimable"):
            read_task(path, parse_degradation(f"{through}+noise:auto"))


def test_a_grey_model_takes_images_in_colour_and_says_so(tmp_path):
    task = read_task(save(tmp_path, ramp(16, 16)), parse_degradation("downsample:2"), channels=1)
    assert task.operator.shape == (1, 32, 32) and task.y.shape == (1, 1, 16, 16)
    assert [note.identifier for note in task.notes] == ["restoration.grey_model"]
    assert task.photo.image(torch.zeros(1, 32, 32)).mode == "L"
    assert np.array_equal(task.photo.pixels[..., 0], np.asarray(Image.fromarray(ramp(16, 16)).convert("L")))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["rgb", "grey", "transparent"])
@pytest.mark.parametrize("text", ["box", "downsample:2", "grayscale", "blur:1+noise:0.1"])
def test_every_kind_of_file_fits_every_kind_of_model(tmp_path, channels, kind, text):
    pixels = ramp(16, 16)
    alpha = np.full((16, 16), 90, np.uint8)
    pixels = {"rgb": pixels, "grey": pixels[..., 0], "transparent": np.dstack([pixels, alpha])}[kind]
    task = read_task(save(tmp_path, pixels), parse_degradation(text), channels)
    assert task.operator.shape[0] == channels
    assert tuple(task.y.shape[1:]) == task.operator.measurement_shape
    x = torch.rand(2, *task.operator.shape)
    assert panels(task, x).shape == (4, *task.operator.shape[1:], 3)
    image = task.photo.image(x[0], task.known, task.colored)
    in_color = channels > 1 and (kind != "grey" or text == "grayscale")
    with_alpha = channels == 4 or kind == "transparent"
    assert image.mode == ("RGB" if in_color else "L") + "A" * with_alpha
    if text == "box" and kind != "transparent":
        kept = np.asarray(image.convert("RGB" if in_color else "L"))[0]
        assert np.array_equal(kept, task.photo.pixels.squeeze()[0])


def test_the_standard_deviation_of_samples():
    x = torch.zeros(2, 1, 3, 4, 4)
    x[0, 0, :, 1, 2], x[1, 0, :, 1, 2] = 0.5, -0.5
    apart = sample_std(x)
    assert apart.shape == (1, 4, 4) and (apart > 0).sum() == 1
    assert apart[0, 1, 2].item() == pytest.approx(0.5**0.5)


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


def test_deep_grey_and_transparent_images_are_inpainted_in_kind(model, tmp_path, call):
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
    assert (
        call("degrade", path, "--degradation", "downsample:4+noise:0.02", "--out", tmp_path / "small")[0] == 0
    )
    small = tmp_path / "small/picture.png"
    assert Image.open(small).size == (8, 4)
    args = ("--factor", 4, "--noise", 0.02, "--out", tmp_path / "large", "--steps", 2)
    assert call("upscale", model.path, small, *args)[0] == 0
    assert Image.open(tmp_path / "large/picture-1.png").size == (32, 16)


def test_grey_images_get_colours(model, tmp_path, call):
    path = save(tmp_path, ramp(16, 16)[..., 0])
    args = ("--degradation", "grayscale", "--out", tmp_path / "out", "--steps", 2)
    assert call("restore", model.path, path, *args)[0] == 0
    assert Image.open(tmp_path / "out/picture-1.png").mode == "RGB"


def test_a_grey_image_stays_grey_and_its_noise_is_counted_once(model, tmp_path, call):
    path = save(tmp_path, ramp(16, 16)[..., 0])
    what = ("--degradation", "blur:1+noise:0.05", "--out")
    assert call("degrade", path, *what, tmp_path / "degraded")[0] == 0
    degraded = tmp_path / "degraded/picture.png"
    assert Image.open(degraded).mode == "L"
    task = read_task(degraded, parse_degradation("blur:1+noise:0.05"))
    assert task.operator.measurement_shape == (1, 16, 16) and task.y.shape == (1, 1, 16, 16)
    assert call("restore", model.path, degraded, *what, tmp_path / "out", "--steps", 2)[0] == 0
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
    assert {path.name for path in (tmp_path / "x").glob("a*.png")} == {"a.png", "a.bmp.png"}
    assert np.array_equal(a, np.asarray(Image.open(tmp_path / "y/a.png")))
    assert np.std(a / 127.5 - 1) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("names", [["a.png"], ["a.png", "b.png"]])
def test_why_an_image_cannot_be_degraded_is_said_once(tmp_path, call, names):
    (tmp_path / "in").mkdir()
    for name in names:
        save(tmp_path / "in", ramp(8, 8), name)
    source = tmp_path / "in" if len(names) > 1 else tmp_path / "in/a.png"
    code, _, err = call("degrade", source, "--degradation", "blur:-2", "--out", tmp_path / "out")
    assert code == 2 and not (tmp_path / "out").exists()
    assert [err.count(f"{name} cannot be degraded") for name in names] == [1] * len(names)


def test_a_damaged_image_among_others_is_named_and_left_out(tmp_path, call):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c\nd.png"):
        save(folder, ramp(8, 8), name)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "e.png").symlink_to("nowhere.png")
    save(folder, ramp(8, 8), "raw.tif")
    (folder / "raw.tif").rename(folder / "raw.dng")
    code, out, err = call("degrade", folder, "--degradation", "blur:1", "--out", tmp_path / "out", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["n"] == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "c\\nd.png", "degradation.json"}
    assert all(
        text in err for text in ("b.png", "damaged", "e.png", "a link to nothing", "raw.dng", "raw file")
    )
    (folder / "a.png").unlink(), (folder / "c\nd.png").unlink()
    code, out, err = call("degrade", folder, "--degradation", "blur:1", "--out", tmp_path / "none")
    assert code == 1 and "b.png" in err and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("names", "targets"),
    [
        (["a.jpg", "a.png", "a.webp"], ["a.jpg.png", "a.png", "a.webp.png"]),
        (["a.jpg", "A.webp"], ["a.jpg.png", "A.webp.png"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png", "a.jpg.png.png", "a.png"]),
        (["a.jpg", "sub/a.bmp"], ["a.png", "sub/a.png"]),
    ],
)
def test_images_of_one_name_do_not_collide(names, targets):
    assert list(png_names(names).values()) == targets


def test_a_transparent_level_of_deep_grey_is_kept(tmp_path):
    path = tmp_path / "deep.png"
    level = hostile.RAMP[0, 100]
    path.write_bytes(hostile.deep_grey_png(int(level)))
    photo = read_photo(path)
    assert (
        photo.pixels.dtype == np.uint16
        and (photo.alpha == 0).sum() == np.count_nonzero(level == hostile.RAMP) > 0
    )


def test_a_deep_grey_file_whose_white_is_zero_is_no_negative(tmp_path):
    path = tmp_path / "deep.tif"
    path.write_bytes(hostile.tiff(65535 - hostile.RAMP.astype("<u2"), 16, 0))
    assert np.array_equal(read_photo(path).pixels[..., 0], hostile.RAMP.astype(np.uint16))


def test_bad_input_is_one_line_and_writes_nothing(model, tmp_path, call):
    path, mask = save(tmp_path, ramp(16, 16)), save(tmp_path, ramp(8, 8), "mask.png")
    out = ("--out", tmp_path / "out")
    for args, code, message in (
        (
            ("inpaint", model.path, path, "--mask", mask),
            2,
            "mask of 8×8 pixels does not fit an image of 16×16",
        ),
        (("inpaint", model.path, path, "--mask", "box:4,4,20,8"), 2, "not a box inside an image of 16×16"),
        (("inpaint", model.path, path, "--mask", tmp_path / "no.png"), 1, "no.png"),
        (("upscale", model.path, path, "--factor", 0), 2, "factor"),
        (("restore", model.path, path, "--degradation", "blurr:2"), 2, "parts joined by +"),
        (
            ("restore", model.path, mask.with_name("none.png"), "--degradation", "grayscale"),
            1,
            "cannot be read",
        ),
        (("restore", tmp_path, path, "--degradation", "grayscale"), 1, "neither a run folder"),
        (("restore", model.path, path, "--degradation", "blur:1", "--solver", "nope"), 2, "nope"),
        (("restore", model.path, path, "--degradation", "blur:1", "--solver", "ddnm"), 2, "without noise"),
        (("degrade", path, "--degradation", "downsample:5"), 2, "does not divide an image of 16×16"),
        (("degrade", path, "--degradation", "noise:auto"), 2, "for restoring"),
        (("degrade", tmp_path / "none", "--degradation", "grayscale"), 1, "no image or folder"),
    ):
        got, _, err = call(*args, *out)
        told = [line for line in err.splitlines() if line.startswith("alphabar:")]
        assert got == code, (args, err)
        assert len(told) == 1 and message in told[0], (args, err)
        assert not (tmp_path / "out").exists() and not (tmp_path / ".writing-out").exists(), args
    path.with_name("taken").mkdir()
    (tmp_path / "taken/x").write_text("x")
    got, _, err = call("degrade", path, "--degradation", "grayscale", "--out", tmp_path / "taken")
    assert got == 1 and "not empty" in err
