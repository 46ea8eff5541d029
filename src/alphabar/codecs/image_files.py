"""From a picture file's bytes to upright pixels of one size, or the reason why not.

The pixels are sRGB. The first frame of an animation counts. Transparency is kept (RGBA) or laid on white.
"""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from alphabar.codecs.base import Box, Raw, Unreadable, one_line

LARGEST = 80_000_000  # pixels; more is a bomb or a scan that no model here can use
SMALLEST_SIDE = 4  # pixels; less is a spacer or a tracking pixel

ROWS = 256  # of deep grey that are converted at once

GREY_SIDE = 32  # pixels a side, of the thumbnail on which a picture is found to be grey
GREY_TOLERANCE = 3  # of 255: how far apart its channels may be, for JPEG's and scanners' colour noise

# Only formats that are pixels. Pillow would run Ghostscript for EPS and accept nearly any text as TGA.
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "QOI", "PCX",
    "PSD", "HEIF",
)  # fmt: skip

HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # as telephones write them

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *TIFF_BEGINNINGS)

_UNSUPPORTED = {  # how pictures begin that Pillow cannot read
    **dict.fromkeys((b"\xff\x0a", b"\0\0\0\x0cJXL "), "JPEG XL"),
    **dict.fromkeys((b"PF\n", b"PF "), "PFM, RGB"),
    **dict.fromkeys((b"#?RADIANCE", b"#?RGBE"), "Radiance HDR"),
    **{b"v/1\x01": "OpenEXR", b"DDS ": "DDS", b"II\xbc\x01": "JPEG XR", b"gimp xcf": "XCF"},
}

# What Pillow says of a sound file of a kind that it does not read, such as a TIFF of three floats a pixel.
_UNSUPPORTED_WORDS = re.compile("unknown pixel mode|cannot handle|unsupported|not supported", re.I)


class ReadImage(NamedTuple):
    """A picture as `read_image` returns it.

    pixels: (h, w, 3) RGB on white, or (h, w, 4) RGBA in which colour under alpha 0 is 0.
    width, height: of the upright picture in the file. transparent: whether any of it is. enlarged: whether
    the part that is used has fewer pixels than the result across or down.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    transparent: bool
    enlarged: bool


def looks_like_picture(beginning: bytes) -> bool:
    """Whether a file that begins like this (16 bytes) is a picture of a common format."""
    return (
        beginning.startswith(_BEGINNINGS)
        or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")
        or (beginning[:2] == b"BM" and beginning[6:10] == bytes(4))
        or beginning[4:12] in (b"ftypavif", b"ftypheic")
    )


def squash(width: int, height: int, aspect: float, box: Box | None) -> Box:
    """The whole picture, its sides scaled apart."""
    return 0, 0, width, height


def crop(width: int, height: int, aspect: float, box: Box | None) -> Box:
    """The largest region in the middle whose width is aspect times its height."""
    across, down = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def box(width: int, height: int, aspect: float, box: Box | None) -> Box:
    """The whole annotated object: its box grown to that aspect as far as the picture reaches, then squashed.

    Where nothing is annotated, as `crop`. Raises Unreadable for a box outside the picture.
    """
    if box is None:
        return crop(width, height, aspect, None)
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise Unreadable("codecs.box_outside", box=str(tuple(box)), width=width, height=height)
    across, down = max(x1 - x0, (y1 - y0) * aspect), max(y1 - y0, (x1 - x0) / aspect)
    x0, x1 = _grow(x0, x1, across, width)
    y0, y1 = _grow(y0, y1, down, height)
    return x0, y0, x1, y1


def _grow(low: float, high: float, side: float, limit: float) -> tuple[float, float]:
    side = min(side, limit)
    low = min(max((low + high - side) / 2, 0), limit - side)
    return low, low + side


FITS: dict[str, Callable[[int, int, float, Box | None], Box]] = {"squash": squash, "crop": crop, "box": box}
"""The part (x0, y0, x1, y1) of a picture that is used, from (width, height, aspect of the result, box)."""


def read_image(
    data: Raw, size: tuple[int, ...], fit: str = "squash", box: Box | None = None, alpha: bool = False
) -> ReadImage:
    """The picture in a file's bytes at a size (height, width): upright and in sRGB.

    fit: a name of FITS. alpha: keep transparency instead of laying the picture on white.
    Large JPEGs are decoded at a reduced scale of at least twice the size, then resized once with Pillow's
    antialiased bicubic filter; colours of transparent pictures are weighted by their alpha there.
    Raises Unreadable, with the reason, for everything that is not a whole picture.
    """
    try:
        image = _open(data)
        aspect = size[1] / size[0]
        jpeg = image.format in ("JPEG", "MPO")
        if jpeg:
            width, height = image.size if _orientation(image) < 5 else image.size[::-1]
            x0, y0, x1, y1 = FITS[fit](width, height, aspect, box)
            spare = min((x1 - x0) / (2 * size[1]), (y1 - y0) / (2 * size[0]))
            if spare > 1:
                image.draft(None, (int(image.width / spare), int(image.height / spare)))
        whole, transparent = _upright_color(image, alpha)
        if not jpeg:
            width, height = whole.size
        if min(width, height) < SMALLEST_SIDE:
            raise Unreadable("codecs.too_small", width=width, height=height, least=SMALLEST_SIDE)
        across, down = whole.width / width, whole.height / height
        x0, y0, x1, y1 = FITS[fit](width, height, aspect, box)
        region = (x0 * across, y0 * down, min(x1 * across, whole.width), min(y1 * down, whole.height))
        resized = whole.resize((size[1], size[0]), Image.Resampling.BICUBIC, region, reducing_gap=3.0)
        pixels = np.array(resized)
        if alpha:
            pixels = np.where(pixels[..., 3:] > 0, pixels, np.uint8(0))
        enlarged = round(x1 - x0) < size[1] or round(y1 - y0) < size[0]
        return ReadImage(pixels, width, height, transparent, enlarged)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable("codecs.damaged", error=one_line(error)) from None


def upright_size(data: Raw) -> tuple[int, int]:
    """Width and height of the picture in a file's bytes, upright, as its header says; no pixel is decoded.

    Raises Unreadable where there is no such header.
    """
    try:
        image = _open(data)
        width, height = image.size
        return (width, height) if _orientation(image) < 5 else (height, width)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable("codecs.damaged", error=one_line(error)) from None


def is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture (h, w, 3) shows no colour.

    Its channels, averaged over the regions of a grid of at most 32×32, differ by at most 3 of 255.
    """
    size = (min(pixels.shape[1], GREY_SIDE), min(pixels.shape[0], GREY_SIDE))
    thumbnail = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)).astype(np.int16)
    return bool((thumbnail.max(-1) - thumbnail.min(-1)).max() <= GREY_TOLERANCE)


def full_pixels(data: Raw) -> NDArray[np.uint8]:
    """All pixels (h, w, 3) of a picture, on white. Raises Unreadable as `read_image` does."""
    try:
        return np.asarray(_upright_color(_open(data), alpha=False)[0])
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable("codecs.damaged", error=one_line(error)) from None


def upright(data: Raw) -> Image.Image:
    """The picture in a file's bytes in the mode it is stored in, upright; ``info`` holds what came with it.

    Grey of 9 to 16 bits has 65535 for white. Raises Unreadable, with the reason, for everything that is not a
    whole picture.
    """
    try:
        image = _open(data)
        image.load()
        turn = _TURNS[_orientation(image)]
        if image.mode.startswith("I;16"):
            image = _sixteen_bits(image)
        return image if turn is None else image.transpose(turn)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable("codecs.damaged", error=one_line(error)) from None


def _open(data: Raw) -> Image.Image:
    if isinstance(data, Image.Image):
        return data
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise Unreadable("codecs.gigantic", limit=LARGEST // 10**6) from None
    except Image.UnidentifiedImageError:
        raise _unidentified(data) from None
    if image.width * image.height > LARGEST:
        raise Unreadable(
            "codecs.gigantic_size", width=image.width, height=image.height, limit=LARGEST // 10**6
        )
    return image


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()
    with suppress(ImportError):  # the extra [heif]
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def _unidentified(data: bytes) -> Unreadable:
    """What the bytes are that Pillow does not take for a picture."""
    beginning = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return Unreadable("codecs.empty_file")
    if not any(data[:1024]):
        return Unreadable("codecs.zeros")
    for start, kind in _UNSUPPORTED.items():
        if data.startswith(start):
            return Unreadable("codecs.unsupported", kind=kind)
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and "HEIF" not in _formats():
        return Unreadable("codecs.heif")
    if data[4:8] == b"ftyp":
        return Unreadable("codecs.film", format=data[8:12].decode("ascii", "replace").strip())
    if looks_like_picture(data[:16]):
        problem = _problem_with_header(data)
        if _UNSUPPORTED_WORDS.search(problem):
            return Unreadable("codecs.unsupported", kind=problem)
        return Unreadable("codecs.bad_header")
    if beginning.startswith(b"version https://git-lfs"):
        return Unreadable("codecs.git_lfs")
    if b"<svg" in beginning:
        return Unreadable("codecs.svg")
    if beginning.startswith((b"<!doctype html", b"<html")):
        return Unreadable("codecs.web_page")
    if beginning.startswith(b"%pdf"):
        return Unreadable("codecs.pdf")
    return Unreadable("codecs.no_picture", beginning=repr(data[:12]))


def _problem_with_header(data: bytes) -> str:
    """Why Pillow does not open a file that begins like one of its formats: its format and words."""
    for name in _formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is True:
            try:
                factory(BytesIO(data), "")
            except Exception as error:  # decoders raise whatever a broken file leads them to
                return f"{name}, {one_line(error)}"
    return ""


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata around a sound picture
        return 1
    return value if value in _TURNS else 1


_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright_color(image: Image.Image, alpha: bool) -> tuple[Image.Image, bool]:
    """The picture as RGB on white, or as RGBA, and whether any of it is transparent."""
    image.load()
    # After load(): some formats keep it behind the pixels, TIFF turns itself.
    turn = _TURNS[_orientation(image)]
    made, transparent = _color(image, alpha)
    return (made if turn is None else made.transpose(turn)), transparent


def _color(image: Image.Image, alpha: bool) -> tuple[Image.Image, bool]:
    profile = image.info.get("icc_profile")
    opaque = None
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        grey = Image.fromarray(_eight_bits(image))
        level = image.info.get("transparency")
        if isinstance(level, int):
            grey.putalpha(Image.fromarray(np.where(np.asarray(image) == level, np.uint8(0), np.uint8(255))))
            image = grey
        else:
            opaque = grey.convert("RGB")
    elif image.mode == "CMYK":
        opaque = _srgb(image, profile)
    elif not image.has_transparency_data:
        opaque = _srgb(image.convert("RGB"), profile)
    if opaque is not None:
        return (opaque.convert("RGBA") if alpha else opaque), False
    image = image.convert("RGBA")
    coverage = image.getchannel("A")
    transparent = coverage.getextrema()[0] < 255  # type: ignore[operator]
    if alpha:
        made = _srgb(image.convert("RGB"), profile)
        made.putalpha(coverage)
        return made, transparent
    white = Image.new("RGBA", image.size, "white")
    return _srgb(Image.alpha_composite(white, image).convert("RGB"), profile), transparent


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits with 0 for black and 65535 for white, where the file has it otherwise."""
    white, inverted = _white_of_tiff(image)
    if white == 65535 and not inverted:
        return image
    grey = np.asarray(image).astype(np.float64) * (65535 / white)
    made = Image.fromarray(np.rint(65535 - grey if inverted else grey).clip(0, 65535).astype(np.uint16))
    made.info = image.info
    return made


def _white_of_tiff(image: Image.Image) -> tuple[int, bool]:
    """The largest level that a file's whole numbers can have (65535 where it is no TIFF), and whether it is
    black: Pillow turns a picture whose white is zero only where it has 8 bits or less."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    return 2 ** bits[0] - 1, tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 9 to 32 bits or floating point as 8 bits, scaled instead of clipped.

    9 to 16 bits: the largest level that fits is white. 32-bit integers and floats have no agreed white, so it
    is the smallest of 1 (floats only), 255 and 65535 that the values do not exceed, and 2³² - 1 for unsigned
    integers that need more than 24 bits; all others are stretched.
    """
    white, inverted = _white_of_tiff(image)
    unsigned = (
        image.mode == "I"
        and getattr(image, "tag_v2", {}).get(TiffImagePlugin.SAMPLEFORMAT) == (1,)
        and white == 2**32 - 1
    )
    grey = np.asarray(image)
    grey = grey.view(np.uint32) if unsigned else grey
    low, high = float(grey.min()), float(grey.max())
    if not math.isfinite(low + high):
        raise Unreadable("codecs.pixels_not_finite")
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        low, high = 0.0, float(white)
    elif low >= 0 and high <= 65535:
        low, high = (
            0.0,
            next(white for white in (1, 255, 65535) if high <= white and (white > 1 or image.mode == "F")),
        )
    elif unsigned and high >= 2**24:
        low, high = 0.0, float(white)
    made = np.empty(grey.shape, np.uint8)
    for row in range(0, len(grey), ROWS):  # in pieces: they need eight times the memory
        part = grey[row : row + ROWS].astype(np.float64)
        made[row : row + ROWS] = np.rint((part - low) * (255 / max(high - low, 1e-300)))
    return 255 - made if inverted else made


def _srgb(image: Image.Image, profile: Any) -> Image.Image:
    transform = _to_srgb(profile, image.mode) if isinstance(profile, bytes) else None
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if converted is None else converted


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion from an embedded colour profile; None where it is sRGB or does not fit the picture."""
    try:
        opened = ImageCms.getOpenProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(opened):
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except ImageCms.PyCMSError:
        return None
