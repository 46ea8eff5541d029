"""Every codec inverts itself; pictures are read, previewed and written in 1, 3 and 4 channels."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.codecs import CODECS, build_codec, image_files
from alphabar.codecs.base import Codec, Unreadable, check_codec
from alphabar.codecs.image import ImageCodec
from alphabar.codecs.image_files import is_grey
from alphabar.codecs.latent import LatentCodec, measured_codec
from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.errors import UsageError
from alphabar.networks.autoencoder import Autoencoder
from alphabar.progress import last
from alphabar.recipes.schema import DataSettings

HEIGHT, WIDTH = 16, 24


def latent_codec() -> LatentCodec:
    """A codec with an autoencoder of random weights."""
    torch.manual_seed(0)
    pictures = 2 * torch.rand(8, 3, HEIGHT, WIDTH) - 1
    network = Autoencoder(channels=3, widths=(8, 8)).eval()
    return measured_codec(LatentCodec((HEIGHT, WIDTH), widths=(8, 8)), network, [pictures])


# One line for each codec in the registry: its codecs and files that they read.
CONTRACT = {
    "image": ([ImageCodec((HEIGHT, WIDTH), channels) for channels in (1, 3, 4)], "PNG"),
    "latent": ([latent_codec()], "PNG"),
}
EXAMPLES = [(codec, kind) for codecs, kind in CONTRACT.values() for codec in codecs]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, shape, np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def items_of(codec: Codec, n: int = 3) -> torch.Tensor:
    """Items as reading makes them."""
    files = [encoded(noise(i, 40, 50, 4)) for i in range(n)]
    return torch.from_numpy(np.stack([codec.read(file, codec.fits[0]).item for file in files]))


def test_every_codec_is_tried():
    assert set(CONTRACT) == set(CODECS)


@pytest.mark.parametrize(("codec", "kind"), EXAMPLES, ids=lambda value: str(getattr(value, "shape", value)))
class TestContract:
    def test_items_become_signals_and_come_back(self, codec, kind):
        items = items_of(codec)
        signals = codec.encode(items)
        assert items.shape[1:] == codec.item_shape and items.numpy().dtype == codec.item_dtype
        assert signals.shape[1:] == codec.shape == (codec.channels, *codec.spatial)
        assert signals.dtype is torch.float32 and torch.equal(codec.clamp(signals), signals)
        check_codec(codec, items.numpy())
        back = codec.decode(signals)
        assert (back.double() - items.double()).abs().max() <= codec.tolerance
        # Signals of another precision are decoded too.
        assert torch.equal(codec.decode(signals.double()), back)

    def test_decoded_items_are_items(self, codec, kind):
        check_codec(codec, codec.decode(1.5 * torch.randn(5, *codec.shape)).numpy())

    def test_values_beyond_the_bounds_are_clamped(self, codec, kind):
        wild = 3 * torch.randn(2, *codec.shape)
        assert torch.equal(codec.decode(wild), codec.decode(codec.clamp(wild)))

    def test_previews_are_pictures(self, codec, kind):
        preview = codec.preview(items_of(codec))
        assert preview.dtype is torch.uint8 and preview.ndim == 4 and preview.shape[-1] in (3, 4)

    def test_a_written_item_is_read_again(self, codec, kind, tmp_path):
        item = items_of(codec)[0]
        path = tmp_path / f"sample{codec.suffix}"
        codec.write(item, path, {"seed": 3})
        assert (codec.read(path.read_bytes(), codec.fits[0]).item == item.numpy()).all()

    def test_flip_mirrors_what_the_mask_names(self, codec, kind):
        items = items_of(codec)
        once = codec.flip(items, torch.tensor([True, False, True]))
        assert once.shape == items.shape and torch.equal(once[1], items[1])
        assert torch.equal(codec.flip(once, torch.tensor([True, False, True])), items)

    def test_coarse_content_is_linear_and_small(self, codec, kind):
        a, b = codec.encode(items_of(codec, 2)).double()
        coarse = codec.coarsen(torch.stack([a, b, 2 * a - b]))
        torch.testing.assert_close(coarse[2], 2 * coarse[0] - coarse[1], atol=1e-5, rtol=1e-5)
        assert coarse.ndim == 2 and coarse.shape[1] <= min(1024, a.numel())
        fine = codec.refine(coarse)
        assert fine.shape[1:] == codec.shape
        torch.testing.assert_close(fine[2], 2 * fine[0] - fine[1], atol=1e-5, rtol=1e-5)

    def test_what_is_no_file_of_its_kind_is_unreadable(self, codec, kind):
        with pytest.raises(Unreadable, match="empty: 0 bytes"):
            codec.read(b"", codec.fits[0])


# ---------------------------------------------------------------- a codec that breaks its promises


class Broken(ImageCodec):
    """Forgets the lowest bits."""

    name = "broken"

    def decode(self, signals):
        return super().decode(signals) & 0xF0


class Outside(ImageCodec):
    def encode(self, items):
        return 2 * super().encode(items)


class Undefined(ImageCodec):
    def encode(self, items):
        return super().encode(items) / 0.0


class Transposed(ImageCodec):
    def encode(self, items):
        return super().encode(items).transpose(2, 3)


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        (Broken, r"'broken' does not decode what it encodes: .* error of 15, .* at most 0"),
        (Outside, r"outside its own bounds, -1 to 1"),
        (Undefined, r"not finite"),
        (Transposed, r"encode .* returns \(3, 24, 16\)"),
    ],
)
def test_a_broken_promise_is_named(codec, said):
    with pytest.raises(UsageError, match=said):
        check_codec(codec((HEIGHT, WIDTH)), noise(0, 4, HEIGHT, WIDTH, 3))


def test_a_codec_that_reads_another_size_is_named(picture_folder, tmp_path, monkeypatch):
    class Smaller(ImageCodec):
        def read(self, data, fit="squash", box=None):
            return ImageCodec(8).read(data, fit, box)

    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"read of .* returns \(8, 8, 3\) uint8 .* must be \(16, 16, 3\)"):
        last(prepare(open_source(str(picture_folder)), Smaller(16), "squash"))
    assert not list((tmp_path / "cache" / "datasets").glob("*"))


def test_a_tolerance_is_respected():
    class Tolerant(Broken):
        tolerance = 15.0

    check_codec(Tolerant((HEIGHT, WIDTH)), noise(0, 4, HEIGHT, WIDTH, 3))


# ---------------------------------------------------------------- images


def test_build_codec_follows_the_settings():
    assert build_codec(DataSettings()).shape == (3, 64, 64)
    assert build_codec(DataSettings(size=(96, 64), channels=1)).shape == (1, 96, 64)
    for channels in (0, 2, 5):
        with pytest.raises(UsageError, match=r"data.channels = .*1 \(grey\), 3 \(RGB\) or 4 \(RGBA\)"):
            ImageCodec(8, channels)
    with pytest.raises(UsageError, match=r"data.size = \(0, 8\)"):
        ImageCodec((0, 8))


def test_every_level_survives_the_round_trip():
    codec = ImageCodec(16)
    items = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    signals = codec.encode(items)
    assert signals.is_contiguous(memory_format=torch.channels_last)
    assert signals.min() == -1 and signals.max() == 1
    assert torch.equal(codec.decode(signals), items)


def test_decode_rounds_and_clamps():
    levels = torch.tensor([-3.0, -1.0, 0.49 / 127.5 - 1, 0.51 / 127.5 - 1, 1.0, 1.2])
    signals = levels.reshape(1, 1, 1, -1).repeat(1, 3, 1, 1)
    assert ImageCodec((1, 6)).decode(signals)[0, 0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_colours_are_premultiplied_inside_and_straight_in_files():
    codec = ImageCodec(2, 4)
    item = torch.tensor([[[200, 100, 50, 255], [200, 100, 50, 128]], [[9, 8, 7, 1], [0, 0, 0, 0]]])
    signal = codec.encode(item[None].to(torch.uint8))[0]
    levels = (signal + 1) * 127.5
    assert levels[:, 0, 1].tolist() == pytest.approx([200 * 128 / 255, 100 * 128 / 255, 50 * 128 / 255, 128])
    assert torch.equal(codec.decode(signal[None])[0], item.to(torch.uint8))
    # A network may predict a colour above its alpha: it becomes the brightest there is.
    signal = torch.tensor([1.0, -1.0, 0.0, 0.0])[None, :, None, None].expand(1, 4, 2, 2)
    assert codec.decode(signal)[0, 0, 0].tolist() == [255, 0, 254, 128]


def test_grey_samples_are_exactly_grey(tmp_path):
    codec = ImageCodec((HEIGHT, WIDTH), 1)
    item = codec.decode(torch.randn(1, *codec.shape))[0]
    codec.write(item, tmp_path / "grey.png", {})
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L" and image.size == (WIDTH, HEIGHT)
    preview = codec.preview(item[None])[0]
    assert torch.equal(preview[..., 0], preview[..., 1]) and torch.equal(preview[..., 0], preview[..., 2])


def test_transparent_files_are_transparent_and_carry_their_settings(tmp_path):
    codec = ImageCodec((HEIGHT, WIDTH), 4)
    codec.write(items_of(codec, 1)[0], tmp_path / "a.png", {"seed": 7})
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
    assert read_png_metadata(tmp_path / "a.png") == {"seed": 7}


# ---------------------------------------------------------------- reading pictures


def ramps(height: int, width: int) -> np.ndarray:
    """Red rises from left to right by 1 a pixel, green from top to bottom."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x, y, np.zeros_like(x)], axis=-1)


@pytest.mark.parametrize(
    ("size", "fit", "box", "expected"),
    [
        ((30, 20), "squash", None, (0, 0, 200, 100)),
        ((30, 20), "crop", None, (66.7, 0, 133.3, 100)),  # two thirds as wide as high
        ((20, 80), "crop", None, (0, 25, 200, 75)),
        ((30, 20), "box", None, (66.7, 0, 133.3, 100)),
        (
            (40, 20),
            "box",
            (100, 20, 140, 40),
            (100, 0, 140, 80),
        ),  # grown down to the aspect, held by the edge
        ((20, 40), "box", (100, 20, 120, 40), (90, 20, 130, 40)),  # grown to both sides
        ((20, 40), "box", (0, 0, 60, 90), (0, 0, 180, 90)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "large JPEG"])
def test_fits_show_the_right_part_at_any_aspect(size, fit, box, expected, kind):
    scale = 1
    image = Image.fromarray(ramps(100, 200))
    if kind == "large JPEG":  # is decoded at a reduced scale
        scale = 16
        image = image.resize((200 * scale, 100 * scale), Image.Resampling.BILINEAR)
        box = box and tuple(scale * v for v in box)
    data = encoded(image, "JPEG", quality=95) if scale > 1 else encoded(image)
    pixels = ImageCodec(size).read(data, fit, box).item.astype(float)
    assert pixels.shape == (*size, 3)
    seen = pixels[:, 0, 0].mean(), pixels[0, :, 1].mean(), pixels[:, -1, 0].mean(), pixels[-1, :, 1].mean()
    tolerance = 2 + (expected[2] - expected[0]) / size[1] + (expected[3] - expected[1]) / size[0]
    assert np.abs(np.subtract(seen, expected)).max() <= tolerance


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
def test_a_reduced_jpeg_is_as_sharp_as_a_whole_one(size):
    """The scale of decoding follows the side that needs the most pixels."""
    stripes = (np.indices((1600, 1600)).sum(0) // 50 % 2 * 255).astype(np.uint8)
    jpeg = encoded(stripes, "JPEG", quality=95)
    whole = Image.open(BytesIO(jpeg)).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)
    difference = ImageCodec(size).read(jpeg, "squash").item.astype(float) - np.asarray(whole)
    assert np.abs(difference).mean() < 4


def test_a_jpeg_that_lies_on_its_side_is_reduced_upright():
    picture = Image.fromarray(ramps(100, 200)).resize((3200, 1600), Image.Resampling.BILINEAR)
    tags = Image.Exif()
    tags[0x0112] = 6  # stored turned by 90°
    jpeg = encoded(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=tags.tobytes())
    pixels = ImageCodec((20, 40)).read(jpeg, "squash").item.astype(float)
    assert np.abs(pixels[:, -1, 0] - 197).max() < 8 and np.abs(pixels[-1, :, 1] - 97).max() < 8


@pytest.mark.parametrize("orientation", [1, 6])
def test_alpha_follows_the_picture(orientation):
    """Transparency turns with it, and the hidden colour under it does not bleed into the visible one."""
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (32, 0, 64, 64))
    tags = Image.Exif()
    tags[0x0112] = orientation
    reading = ImageCodec(16, 4).read(encoded(image, exif=tags.tobytes()), "squash")
    item = reading.item if orientation == 1 else reading.item.transpose(1, 0, 2)
    assert reading.remarks == ()
    assert (item[:, :6, 3] == 0).all() and (item[:, 10:, 3] == 255).all()
    assert (item[item[..., 3] == 0] == 0).all()
    assert (item[item[..., 3] > 8][:, 0] == 0).all()


def test_transparency_without_alpha_is_laid_on_white_and_remarked():
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    reading = ImageCodec(16).read(encoded(image), "squash")
    assert (reading.item == 255).all() and reading.remarks == ("codecs.laid_on_white",)
    opaque = Image.new("RGBA", (32, 32), (255, 0, 0, 255))
    assert ImageCodec(16).read(encoded(opaque), "squash").remarks == ()
    assert ImageCodec(16, 4).read(encoded(opaque.convert("RGB")), "squash").item[..., 3].min() == 255


@pytest.mark.parametrize(("fit", "enlarged"), [("squash", False), ("crop", False), ("box", True)])
def test_a_picture_whose_used_part_is_smaller_is_remarked(fit, enlarged):
    for (width, height), expected in (((40, 30), True), ((64, 48), enlarged)):
        read = ImageCodec((48, 64)).read(encoded(Image.new("RGB", (width, height))), fit, (4, 4, 24, 24))
        assert ("codecs.enlarged" in read.remarks) is expected


def test_a_grey_codec_converts_colours_and_remarks_it():
    colored = ImageCodec(16, 1).read(encoded(Image.new("RGB", (32, 32), (255, 0, 0))), "squash")
    assert (colored.item == 76).all() and colored.remarks == ("codecs.made_grey",)
    grey = noise(0, 16, 16)
    for image in (Image.fromarray(grey), Image.fromarray(grey).convert("RGB")):
        reading = ImageCodec(16, 1).read(encoded(image), "squash")
        assert (reading.item[..., 0] == grey).all() and reading.remarks == ()


def test_is_grey_allows_noise_and_not_tints():
    grey = noise(0, 64, 64, 1).repeat(3, 2)
    assert is_grey(grey)
    jittered = np.clip(grey + (noise(1, 64, 64, 3) % 3 - 1.0), 0, 255).astype(np.uint8)
    assert is_grey(jittered)  # noise of every pixel's own
    sepia = np.clip(grey * [1.0, 0.97, 0.93], 0, 255).astype(np.uint8)
    assert not is_grey(sepia)
    spot = grey.copy()
    spot[10:16, 20:26] = (200, 30, 30)
    assert not is_grey(spot)
    photograph = Image.fromarray(noise(2, 8, 8)).resize((128, 128), Image.Resampling.BICUBIC).convert("RGB")
    data = encoded(photograph, "JPEG", quality=60)
    assert is_grey(ImageCodec(64).read(data, "squash").item)


def test_a_telephones_picture_is_read_or_the_extra_is_named(monkeypatch):
    beginning = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    monkeypatch.setattr(image_files, "_formats", lambda: ["PNG"])
    with pytest.raises(Unreadable, match=r"alphabar\[heif\]"):
        image_files.read_image(beginning, (8, 8))
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif, the extra [heif]")
    heif.register_heif_opener()
    made = BytesIO()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(made, "HEIF")
    pixels = image_files.read_image(made.getvalue(), (8, 8)).pixels
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() < 12
