"""From a file's bytes to upright RGB pixels of one size; or the reason why not."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from alphabar.data.items import Box, Unreadable, one_line

VERSION = 1  # part of every cache's name: raise it when the same file gives other pixels


LARGEST = 80_000_000  # pixels; more is a bomb or a scan that no model here can use


SMALLEST_SIDE = 4  # pixels; less is a spacer or a tracking pixel


# Only formats that are pixels. Pillow would run Ghostscript for EPS and accept nearly any text as TGA.
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "QOI", "PCX",
    "PSD",
)  # fmt: skip


_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class Decoded(NamedTuple):
    pixels: NDArray[np.uint8]  # (size, size, 3), RGB
    width: int  # of the upright picture in the file
    height: int


@contextmanager
def quietly() -> Iterator[None]:
    """Without Pillow's warnings about oddities of files; what matters is raised as Unreadable.

    Filters are process-wide, so this goes around work that other threads wait for and never across a yield.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def looks_like_picture(beginning: bytes) -> bool:
    """Whether a file that begins like this (16 bytes) is a picture of a common format."""
    return beginning.startswith(_BEGINNINGS) or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")


def squash(width: int, height: int, box: Box | None) -> Box:
    """The whole picture, its sides scaled apart."""
    return 0, 0, width, height


def crop(width: int, height: int, box: Box | None) -> Box:
    """The largest square in the middle."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def box(width: int, height: int, box: Box | None) -> Box:
    """The whole annotated object: its box grown to a square as far as the picture reaches, then squashed.

    Where nothing is annotated, the largest square in the middle. Raises Unreadable for a box outside
    the picture.
    """
    if box is None:
        return crop(width, height, None)
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise Unreadable(f"its box {tuple(box)} lies outside the picture of {width}×{height}")
    side = max(x1 - x0, y1 - y0)
    x0, x1 = _grow(x0, x1, side, width)
    y0, y1 = _grow(y0, y1, side, height)
    return x0, y0, x1, y1


def _grow(low: float, high: float, side: float, limit: float) -> tuple[float, float]:
    side = min(side, limit)
    low = min(max((low + high - side) / 2, 0), limit - side)
    return low, low + side


FITS: dict[str, Callable[[int, int, Box | None], Box]] = {"squash": squash, "crop": crop, "box": box}


def decode(
    data: bytes | Image.Image, size: tuple[int, ...], fit: str = "squash", box: Box | None = None
) -> Decoded:
    """The picture in a file's bytes as (*size, 3) uint8: upright, RGB, on white, in sRGB.

    The first frame of an animation. Large JPEGs are decoded at a reduced scale of at least twice the size
    asked for, then resized once with Pillow's antialiased bicubic filter.
    Raises Unreadable, with the reason, for everything that is not a whole picture.
    """
    try:
        image = _open(data)
        jpeg = image.format in ("JPEG", "MPO")
        if jpeg:
            width, height = image.size if _orientation(image) < 5 else image.size[::-1]
            x0, y0, x1, y1 = FITS[fit](width, height, box)
            spare = min(x1 - x0, y1 - y0) / (2 * max(size))
            if spare > 1:
                image.draft(None, (int(image.width / spare), int(image.height / spare)))
        rgb = _upright_rgb(image)
        if not jpeg:
            width, height = rgb.size
        if min(width, height) < SMALLEST_SIDE:
            raise Unreadable(f"{width}×{height} pixels: a side under {SMALLEST_SIDE}")
        across, down = rgb.width / width, rgb.height / height
        x0, y0, x1, y1 = FITS[fit](width, height, box)
        region = (x0 * across, y0 * down, min(x1 * across, rgb.width), min(y1 * down, rgb.height))
        resized = rgb.resize(size[::-1], Image.Resampling.BICUBIC, region, reducing_gap=3.0)
        return Decoded(np.asarray(resized), width, height)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable(f"damaged: {one_line(error)}") from None


def full_pixels(data: bytes | Image.Image) -> NDArray[np.uint8]:
    """All pixels (h, w, 3) of a picture that ``decode`` accepts."""
    return np.asarray(_upright_rgb(_open(data)))


def upright(data: bytes) -> Image.Image:
    """The picture in a file's bytes in the mode it is stored in, upright; ``info`` holds what came with it.

    Raises Unreadable, with the reason, for everything that is not a whole picture.
    """
    try:
        image = _open(data)
        image.load()
        turn = _TURNS[_orientation(image)]
        return image if turn is None else image.transpose(turn)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise Unreadable(f"damaged: {one_line(error)}") from None


def _open(data: bytes | Image.Image) -> Image.Image:
    if isinstance(data, Image.Image):
        return data
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise Unreadable(f"gigantic: over {LARGEST // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        raise Unreadable(_what(data)) from None
    if image.width * image.height > LARGEST:
        raise Unreadable(f"gigantic: {image.width}×{image.height}, over {LARGEST // 10**6} megapixels")
    return image


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _what(data: bytes) -> str:
    """What the bytes are that Pillow does not take for a picture."""
    beginning = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty: 0 bytes"
    if not any(data[:1024]):
        return "begins with zeros: never written, or lost"
    if looks_like_picture(data[:16]):
        return "damaged: begins like a picture, but its header cannot be read"
    if beginning.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture: run git lfs pull"
    if b"<svg" in beginning:
        return "an SVG drawing, not pixels: convert it first"
    if beginning.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture: the download failed"
    if beginning.startswith(b"%pdf"):
        return "a PDF, not a picture: convert it first"
    if data[4:8] == b"ftyp":
        kind = data[8:12].decode("ascii", "replace").strip()
        return f"a film or phone picture ({kind}) that Pillow cannot read here: convert it first"
    return f"not a picture: begins with {data[:12]!r}"


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


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS[
        _orientation(image)
    ]  # after load(): some formats keep it behind the pixels, TIFF turns itself
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode == "CMYK":
        return _srgb(image, profile)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return _srgb(image.convert("RGB"), profile)


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 16 or 32 bits or floating point as 8 bits, scaled instead of clipped.

    16 bits: 65535 is white. 32-bit integers and floats have no agreed white, so it is the smallest of 1
    (floats only), 255 and 65535 that the values do not exceed; beyond these, or below 0, they are stretched.
    """
    grey = np.asarray(image).astype(np.float64)
    if not np.isfinite(grey).all():
        raise Unreadable("has pixels that are NaN or infinite")
    low, high = grey.min(), grey.max()
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 65535:
        low, high = (
            0.0,
            next(white for white in (1, 255, 65535) if high <= white and (white > 1 or image.mode == "F")),
        )
    return np.rint((grey - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


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
