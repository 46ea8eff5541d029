"""Mask pictures as people and programs make them: what is marked is filled in, and it is said how much."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from alphabar.errors import UsageError
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.mask_files import read_mask
from alphabar.restoration.task import read_task
from refusals import refused

SQUARE = np.zeros((64, 64), bool)
SQUARE[20:40, 20:40] = True


def levels(inside, outside, dtype=np.uint8):
    """The square in one colour on another."""
    marked = SQUARE if np.ndim(inside) == 0 else SQUARE[..., None]
    return Image.fromarray(np.where(marked, inside, outside).astype(dtype))


def palette(transparent):
    image = Image.fromarray(SQUARE.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 200, 30, 60])
    if transparent:
        image.info["transparency"] = 0
    return image


MASKS = {
    "white on black": levels(255, 0),
    "white strokes on a clear layer": levels((255, 255, 255, 255), (0, 0, 0, 0)),
    "red strokes on a clear layer": levels((255, 0, 0, 255), (0, 0, 0, 0)),
    "black strokes on a clear layer": levels((0, 0, 0, 255), (0, 0, 0, 0)),
    "white strokes on a clear white layer": levels((255, 255, 255, 255), (255, 255, 255, 0)),
    "strokes of a weak brush": levels((0, 200, 0, 90), (0, 0, 0, 0)),
    "a hole in black": levels((0, 0, 0, 0), (0, 0, 0, 255)),
    "a hole in white": levels((0, 0, 0, 0), (255, 255, 255, 255)),
    "opaque, with alpha": levels((255, 255, 255, 255), (0, 0, 0, 255)),
    "all clear, with colours": levels((255, 255, 255, 0), (0, 0, 0, 0)),
    "0 and 1": levels(1, 0),
    "0 and 128": levels(128, 0),
    "two light greys": levels(255, 200),
    "16 bits, 0 and 65535": levels(65535, 0, np.uint16),
    "16 bits, 0 and 255": levels(255, 0, np.uint16),
    "16 bits, 0 and 1": levels(1, 0, np.uint16),
    "1 bit": levels(255, 0).convert("1"),
    "red on black": levels((255, 0, 0), (0, 0, 0)),
    "blue on black": levels((0, 0, 255), (0, 0, 0)),
    "dark red on black": levels((70, 0, 0), (0, 0, 0)),
    "red on white": levels((255, 0, 0), (255, 255, 255)),
    "white on red": levels((255, 255, 255), (255, 0, 0)),
    "a palette": palette(False),
    "a palette with a clear colour": palette(True),
    "grey and alpha": levels((0, 0, 0, 255), (0, 0, 0, 0)).convert("LA"),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_is_marked_is_filled_in(tmp_path, name):
    MASKS[name].save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), SQUARE)


@pytest.mark.parametrize("name", ["white on black", "red on black", "blue on black", "two light greys"])
def test_masks_from_jpeg_files_are_right_but_for_their_edges(tmp_path, name):
    MASKS[name].save(tmp_path / "mask.jpg", quality=90)
    assert (read_mask(tmp_path / "mask.jpg") != SQUARE).mean() < 0.02


LOWER = np.zeros((64, 64), bool)
LOWER[24:] = True


def over_most_of_the_border(color):
    """Strokes over most of the picture and of its border, on a clear layer."""
    return Image.fromarray(np.where(LOWER[..., None], color, (0, 0, 0, 0)).astype(np.uint8))


def erased_photograph(alpha, mode="RGBA"):
    """A photograph the lower part of which is erased, over most of its border."""
    ramps = np.add.outer(3 * np.arange(64), np.arange(64))
    colors = [ramps % 256, (2 * ramps) % 256, (255 - ramps) % 256]
    image = Image.fromarray(np.stack(colors, 2).astype(np.uint8)).convert(mode.removesuffix("A"))
    image.putalpha(Image.fromarray(np.where(LOWER, alpha, 255).astype(np.uint8)))
    return image


OVER_THE_BORDER = {
    "white strokes": over_most_of_the_border((255, 255, 255, 255)),
    "red strokes": over_most_of_the_border((255, 0, 0, 255)),
    "weak strokes": over_most_of_the_border((0, 0, 0, 60)),
    "a photograph": erased_photograph(0),
    "a photograph, half erased": erased_photograph(100),
    "a grey photograph": erased_photograph(0, "LA"),
}


@pytest.mark.parametrize("name", OVER_THE_BORDER)
def test_a_transparent_mask_is_never_inverted_however_much_of_the_border_is_marked(tmp_path, name):
    OVER_THE_BORDER[name].save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), LOWER)


def test_lossy_strokes_of_one_colour_are_no_photograph(tmp_path):
    OVER_THE_BORDER["red strokes"].save(tmp_path / "mask.webp", quality=60)
    assert (read_mask(tmp_path / "mask.webp") != LOWER).mean() < 0.02


def stroke(colors):
    """A stroke on a clear layer, in the colours (64, 64, 3)."""
    pixels = np.dstack([colors, np.full((64, 64), 255)]) * SQUARE[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


def photograph():
    """Colours of many kinds, (64, 64, 3)."""
    return np.array(erased_photograph(0))[..., :3]


@pytest.mark.parametrize("brush", ["gradient", "texture", "photograph"])
def test_what_is_painted_on_a_clear_layer_is_filled_in_whatever_its_colours(tmp_path, brush):
    y, x = np.mgrid[:64, :64]
    colors = {
        "gradient": np.stack([4 * x, 4 * y, 255 - 4 * x], 2),
        "texture": np.random.default_rng(0).integers(0, 256, (64, 64, 3)),
        "photograph": photograph(),
    }
    stroke(colors[brush]).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), SQUARE)


@pytest.mark.parametrize("quality", [30, 80])
def test_a_thin_stroke_in_a_lossy_file_is_filled_in(tmp_path, quality):
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[100:108, 60:200] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "mask.webp", quality=quality)
    assert np.array_equal(read_mask(tmp_path / "mask.webp"), pixels[..., 3] > 0)


@pytest.mark.parametrize("alpha", [0, 60, 150, 230])
def test_a_hole_in_a_photograph_is_filled_in_however_transparent_it_is(tmp_path, alpha):
    pixels = np.dstack([photograph(), np.where(SQUARE, alpha, 255)])
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), SQUARE)


@pytest.mark.parametrize("painted", [None, (255, 255, 255), (255, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("opaque", [True, False])
def test_a_photograph_is_no_mask(tmp_path, painted, opaque):
    pixels, path = photograph(), tmp_path / "photo.png"
    if painted:
        pixels[SQUARE] = painted
    if not opaque:
        pixels = np.dstack([pixels, np.full((64, 64), 200, np.uint8)])
    Image.fromarray(pixels).save(path)
    with refused("restoration.mask_is_photograph", UsageError, file=path):
        read_mask(path)


@pytest.mark.parametrize("quality", [10, 90])
def test_labels_of_many_colours_in_a_lossy_file_are_no_photograph(tmp_path, quality):
    pixels, marked = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), bool)
    for i, color in enumerate([(255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255)]):
        area = np.s_[48 * i : 48 * i + 40, 16:240]
        pixels[area], marked[area] = color, True
    Image.fromarray(pixels).save(tmp_path / "mask.jpg", quality=quality)
    assert (read_mask(tmp_path / "mask.jpg") != marked).mean() < 0.05


@pytest.mark.parametrize("colors", [((255, 255, 255), (0, 0, 0)), ((255, 0, 0), (255, 255, 255))])
def test_soft_edges_and_poor_compression_are_no_photograph(tmp_path, colors):
    mask = levels(*colors).resize((256, 256), Image.Resampling.BICUBIC)
    whole = np.kron(SQUARE, np.ones((4, 4), bool))
    mask.filter(ImageFilter.GaussianBlur(12)).save(tmp_path / "soft.png")
    mask.save(tmp_path / "poor.jpg", quality=10)
    for name in ("soft.png", "poor.jpg"):
        assert (read_mask(tmp_path / name) != whole).mean() < 0.03


def test_alpha_that_is_clear_nowhere_is_ignored(tmp_path):
    pixels = np.array(MASKS["opaque, with alpha"])
    pixels[0, 0, 3] = 200
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), SQUARE)


def test_labels_are_filled_in_whatever_their_number(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 20:30], labels[20:40, 30:40] = 1, 2
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), SQUARE)


@pytest.mark.parametrize("most", [2, 7, 12])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_more_than_two_levels_are_labels_where_they_form_areas_and_else_noise(tmp_path, most, mode):
    path = tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, most + 1, (64, 64), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    with refused("restoration.mask_marks_nothing", UsageError, file=path):
        read_mask(path)
    labels = np.minimum(np.arange(64) // 4, most).astype(np.uint8)
    Image.fromarray(np.where(SQUARE, labels, 0)).convert(mode).save(path)
    assert np.array_equal(read_mask(path), SQUARE & (labels > 0))
    Image.fromarray(noise // most).convert(mode).save(path)  # exactly two levels mean something anywhere
    assert np.array_equal(read_mask(path), noise == most)


def test_a_grey_mask_is_divided_at_half_of_white(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ramp >= 128)


def test_white_is_filled_in_also_around_the_picture(tmp_path):
    levels(0, 255).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ~SQUARE)


@pytest.mark.parametrize(("level", "marks"), [(0, "nothing"), (1, "nothing"), (255, "everything")])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_mask_that_marks_nothing_or_everything_is_refused(tmp_path, level, marks, mode):
    path = tmp_path / "mask.png"
    levels(level, level).convert(mode).save(path)
    with refused(f"restoration.mask_marks_{marks}", UsageError, file=path):
        read_mask(path)


def test_the_share_that_is_filled_in_is_said(tmp_path):
    Image.new("RGB", (64, 64), "green").save(tmp_path / "photo.png")
    MASKS["red strokes on a clear layer"].save(tmp_path / "mask.png")
    task = read_task(tmp_path / "photo.png", parse_degradation(f"mask:{tmp_path / 'mask.png'}"))
    (said,) = task.notes
    assert said.identifier == "restoration.share_filled" and said.values["share"] == "9.77 %"
    with refused("restoration.everything_to_fill", UsageError):
        read_task(tmp_path / "photo.png", parse_degradation("box:0,0,64,64"))
    with refused("restoration.nothing_to_fill", UsageError):
        read_task(tmp_path / "photo.png", parse_degradation("random:0.00001"))


def test_the_command_says_how_much_is_filled_in(tmp_path, call):
    Image.new("RGB", (16, 16), "green").save(tmp_path / "photo.png")
    Image.new("L", (16, 16)).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    code, _, err = call(
        "inpaint", "cars64", tmp_path / "photo.png", "--mask", tmp_path / "mask.png", "--out", out
    )
    assert code and "marks nothing" in err and not out.exists()
    args = ("--mask", "box:0,0,8,8", "--out", out, "-n", 1, "--steps", 1)
    code, _, err = call("inpaint", "cars64", tmp_path / "photo.png", *args)
    assert code == 0 and "25 % of the image is filled in" in err


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "LA"])
def test_a_grey_photograph_is_no_mask(tmp_path, mode):
    """Detail on every scale, as photographs have it."""
    grey, path = np.zeros((64, 64)), tmp_path / "photo.png"
    for side in (4, 8, 16, 32, 64):
        detail = np.random.default_rng(side).normal(0, 60 / side**0.5, (side, side)).astype(np.float32)
        grey += np.asarray(Image.fromarray(detail).resize((64, 64), Image.Resampling.BICUBIC))
    grey = Image.fromarray((128 + 2 * grey).clip(0, 255).astype(np.uint8))
    image = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    )
    image.save(path)
    with refused("restoration.mask_is_photograph", UsageError, file=path):
        read_mask(path)


@pytest.mark.parametrize("kind", ["blurred", "ramp", "paper", "labels"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_masks_of_many_levels_are_no_photographs(tmp_path, kind, suffix):
    y, x = np.mgrid[:256, :256]
    round_ones = np.hypot(x % 64 - 32, y % 64 - 32) < 24
    noise = np.random.default_rng(0).integers(-20, 20, (256, 256))
    blurred = Image.fromarray(np.uint8(255 * round_ones)).filter(ImageFilter.GaussianBlur(6))
    grey, marked = {
        "blurred": (np.asarray(blurred), np.asarray(blurred) > 127),
        "ramp": (x, x > 127),
        "paper": (np.where(round_ones, 200, 40) + noise, round_ones),
        "labels": (x // 32 * 32 + y // 128 * 16, x // 32 * 32 + y // 128 * 16 > 127),
    }[kind]
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / f"mask.{suffix}")
    assert (read_mask(tmp_path / f"mask.{suffix}") != marked).mean() < 0.06
