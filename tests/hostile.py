"""Pictures as they are found in the wild: odd ones that must come out right, bad ones that must be named.

``python tests/hostile.py DIR`` writes the corpus into DIR and prints what alphabar makes of it.
"""

import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from alphabar.codecs.image import ImageCodec

SIZE = 32  # that the corpus is decoded at
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 180, 40), (30, 40, 200), (255, 255, 255)
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Case:
    """One file.

    make: writes it to the path given.
    expected: its pixels (32, 32, 3) when squashed to 32 px; None where it must be skipped.
    reason: part of the reason for skipping. tolerance: mean difference from expected, of 255.
    ignored: it must not count as a picture at all.
    """

    name: str
    what: str
    make: Callable[[Path], None]
    expected: np.ndarray | None = None
    reason: str = ""
    tolerance: float = 6.0
    ignored: bool = False


def quadrants(a=RED, b=GREEN, c=BLUE, d=WHITE, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Four colours: top left, top right, bottom left, bottom right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = a, b
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = c, d
    return picture


def plain(value: tuple[int, int, int]) -> np.ndarray:
    return quadrants(value, value, value, value)


UPRIGHT = quadrants(height=48, width=64)  # what most files show
SEEN = quadrants()  # the same at 32 px
GREY_SEEN = np.repeat(np.asarray(Image.fromarray(SEEN).convert("L"))[..., None], 3, axis=2)
# Grey from black to white, 64×224. The steps are no multiples of 257: else wrapping around would go unseen.
RAMP = np.linspace(0, 65535, 224)[None].repeat(64, 0)
RAMP_SEEN = (np.linspace(0, 255, 224).reshape(SIZE, -1).mean(1)[None, :, None]).repeat(SIZE, 0).repeat(3, 2)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def stored(orientation: int) -> np.ndarray:
    """The upright picture as a camera stores it, from EXIF 2.32: which sides row 0 and column 0 show."""
    rows = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}
    columns = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    row, column = rows[orientation], columns[orientation]
    picture = UPRIGHT[::-1] if "bottom" in (row, column) else UPRIGHT
    picture = picture[:, ::-1] if "right" in (row, column) else picture
    return np.ascontiguousarray(picture.transpose(1, 0, 2) if row in ("left", "right") else picture)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG from its raw rows, for kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    middle = b"".join(chunk(kind, data) for kind, data in extra)
    body = chunk(b"IHDR", header) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(levels: np.ndarray, bits: int, white: int, samples: int = 1, kind: int = 1) -> bytes:
    """A TIFF of one strip, for kinds that Pillow does not write.

    white: PhotometricInterpretation (0: white is zero, 1: black is zero, 2: RGB). kind: SampleFormat
    (1: unsigned, 3: floating point).
    """
    h, w = levels.shape[:2]
    tags = [
        *((256, 4, w), (257, 4, h), (258, 3, bits), (259, 3, 1), (262, 3, white), (273, 4, 134)),
        *((277, 3, samples), (278, 4, h), (279, 4, levels.nbytes), (339, 3, kind)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory
    return head.ljust(134, b"\0") + levels.tobytes()


def deep_grey_png(transparent: int) -> bytes:
    """16-bit grey, one level of which is transparent."""
    rows = b"".join(b"\0" + row.tobytes() for row in RAMP.astype(">u2"))
    return png(224, 64, 16, 0, rows, (b"tRNS", struct.pack(">H", transparent)))


def twelve_bits() -> bytes:
    """The grey ramp as a TIFF of 12 bits: two pixels in three bytes."""
    a, b = (RAMP.astype(np.int32) >> 4).reshape(-1, 2).T
    packed = np.stack([a >> 4, ((a & 15) << 4) | (b >> 8), b & 255], 1).astype(np.uint8)
    return tiff(packed.reshape(64, -1), 12, 1).replace(
        struct.pack("<HHII", 256, 4, 1, 336), struct.pack("<HHII", 256, 4, 1, 224)
    )


def deep_png() -> bytes:
    """16 bits a channel, RGB."""
    rows = (UPRIGHT.astype(">u2") * 257).tobytes()
    line = UPRIGHT.shape[1] * 6
    return png(64, 48, 16, 2, b"".join(b"\0" + rows[i : i + line] for i in range(0, len(rows), line)))


def with_alpha(alpha: int) -> Image.Image:
    """The upright picture whose left half has this alpha."""
    image = Image.fromarray(UPRIGHT).convert("RGBA")
    mask = Image.new("L", image.size, 255)
    mask.paste(alpha, (0, 0, 32, 48))
    image.putalpha(mask)
    return image


def over_white(alpha: int) -> np.ndarray:
    def mixed(color: tuple[int, int, int]) -> tuple[int, ...]:
        return tuple(round((alpha * c + (255 - alpha) * 255) / 255) for c in color)

    return quadrants(mixed(RED), GREEN, mixed(BLUE), WHITE)


def palette(transparent: bool) -> bytes:
    image = Image.fromarray(UPRIGHT).quantize(4)
    red = image.getpixel((5, 5))
    return encoded(image, "PNG", **({"transparency": red} if transparent else {}))


def frames() -> list[Image.Image]:
    return [Image.fromarray(UPRIGHT), Image.fromarray(255 - UPRIGHT), Image.fromarray(UPRIGHT[::-1])]


def animated(kind: str) -> bytes:
    first, *rest = frames()
    return encoded(first, kind, save_all=True, append_images=rest, duration=100)


def swapped_profile() -> bytes:
    """A colour profile in which red and blue are exchanged, so that ignoring it shows."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
        profile = profile.replace(old, new, 1)
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def float_tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values.astype(np.float32)), "TIFF")


def cmyk() -> Image.Image:
    return Image.fromarray(UPRIGHT).convert("CMYK")


def huge_jpeg() -> bytes:
    """A small JPEG whose header claims 65,500 × 65,500 pixels."""
    data = bytearray(JPEG)
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def zero_height() -> bytes:
    data = bytearray(JPEG)
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 2] = b"\0\0"
    return bytes(data)


def twelve_bit_jpeg() -> bytes:
    data = bytearray(JPEG)
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def bad_checksum() -> bytes:
    data = bytearray(PNG)
    data[data.index(b"IDAT") + 8] ^= 0xFF
    return bytes(data)


def circular_tiff() -> bytes:
    """A TIFF whose directory says that it is followed by itself."""
    data = bytearray(TIFF)
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    end = start + 2 + 12 * count
    data[end : end + 4] = struct.pack("<I", start)
    return bytes(data)


JPEG = encoded(UPRIGHT, "JPEG", quality=95)
PNG = encoded(UPRIGHT, "PNG")
TIFF = encoded(UPRIGHT, "TIFF")
NOISE = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (96, 96, 3), dtype=np.uint8)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def data(content: bytes | Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content()) and None


def cut(content: bytes, share: float) -> Callable[[Path], None]:
    return data(content[: int(len(content) * share)])


def _right() -> list[Case]:
    def case(name: str, what: str, content: Any, expected: np.ndarray = SEEN, **options: Any) -> Case:
        return Case(name, what, data(content), expected, **options)

    def turned(i: int) -> Case:
        content = encoded(stored(i), "JPEG", quality=95, exif=exif(i))
        return case(f"orientation-{i}.jpg", f"EXIF orientation {i}", content)

    first = frames()[0]
    return [
        case("plain.jpg", "an ordinary JPEG", JPEG),
        *(turned(i) for i in range(1, 9)),
        case("orientation-6.png", "EXIF orientation in PNG", encoded(stored(6), "PNG", exif=exif(6))),
        case("orientation-8.webp", "EXIF orientation in WebP",
             encoded(stored(8), "WEBP", exif=exif(8), lossless=True)),
        case("orientation-5.tif", "orientation tag of TIFF", encoded(stored(5), "TIFF", tiffinfo={274: 5})),
        case("orientation-99.jpg", "an orientation that does not exist",
             encoded(UPRIGHT, "JPEG", exif=exif(99))),
        case("exif-damaged.jpg", "damaged EXIF",
             encoded(UPRIGHT, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")),
        case("cmyk-adobe.jpg", "CMYK JPEG, inverted as Adobe writes it", encoded(cmyk(), "JPEG", quality=95)),
        case("cmyk.tif", "CMYK TIFF", encoded(cmyk(), "TIFF")),
        case("palette.png", "256-colour palette", palette(False)),
        case("palette-transparent.png", "palette with a transparent colour", palette(True),
             quadrants(WHITE, GREEN, BLUE, WHITE)),
        case("palette-transparent.gif", "GIF with transparency",
             encoded(with_alpha(0), "GIF"), over_white(0)),
        case("alpha-half.png", "half transparent", encoded(with_alpha(128), "PNG"), over_white(128)),
        case("alpha-none.webp", "transparent WebP", encoded(with_alpha(0), "WEBP", lossless=True),
             over_white(0)),
        case("grey-alpha.png", "grey with alpha", encoded(with_alpha(0).convert("LA"), "PNG"),
             quadrants(WHITE, tuple(GREY_SEEN[0, -1]), WHITE, WHITE)),
        case("grey-transparent.png", "grey with one transparent level (tRNS)",
             encoded(Image.new("L", (64, 48), 40), "PNG", transparency=40), plain(WHITE)),
        case("rgb-transparent.png", "RGB with one transparent colour (tRNS)",
             encoded(first, "PNG", transparency=RED), quadrants(WHITE, GREEN, BLUE, WHITE)),
        case("grey.jpg", "grey JPEG", encoded(first.convert("L"), "JPEG", quality=95), GREY_SEEN),
        case("one-bit.png", "1 bit: black and white",
             encoded(Image.fromarray(quadrants(BLACK, WHITE, WHITE, BLACK, 48, 64)).convert("1"), "PNG"),
             quadrants(BLACK, WHITE, WHITE, BLACK)),
        case("grey16.png", "16-bit grey ramp, PNG", encoded(RAMP.astype(np.uint16), "PNG"), RAMP_SEEN),
        case("grey16.tif", "16-bit grey ramp, TIFF", encoded(RAMP.astype(np.uint16), "TIFF"), RAMP_SEEN),
        case("grey16-big.tif", "16-bit grey ramp, big-endian TIFF",
             encoded(Image.frombytes("I;16B", (224, 64), RAMP.astype(">u2").tobytes()), "TIFF"), RAMP_SEEN),
        case("grey16.pgm", "16-bit grey ramp, PGM",
             b"P5 224 64 65535\n" + RAMP.astype(">u2").tobytes(), RAMP_SEEN),
        case("grey32.tif", "32-bit integer grey ramp up to 65535",
             encoded(RAMP.astype(np.int32), "TIFF"), RAMP_SEEN),
        case("grey32-unsigned.tif", "32-bit unsigned grey ramp",
             tiff(RAMP.astype("<u4") * np.uint32(65537), 32, 1), RAMP_SEEN),
        case("grey12.tif", "12-bit grey ramp, TIFF", twelve_bits, RAMP_SEEN),
        case("grey16-white-is-zero.tif", "16-bit grey ramp, TIFF whose white is zero",
             tiff(65535 - RAMP.astype("<u2"), 16, 0), RAMP_SEEN),
        case("float-white-is-zero.tif", "float grey ramp, TIFF whose white is zero",
             tiff((1 - RAMP / 65535).astype("<f4"), 32, 0, kind=3), RAMP_SEEN),
        case("grey16-transparent.png", "16-bit grey with one transparent level (tRNS)",
             png(64, 48, 16, 0, (b"\0" + b"\3\xe8" * 64) * 48, (b"tRNS", b"\3\xe8")), plain(WHITE)),
        case("rgb16.png", "16 bits a channel, RGB", deep_png),
        case("float-1.tif", "float grey ramp from 0 to 1", float_tiff(RAMP / 65535), RAMP_SEEN),
        case("float-255.tif", "float grey ramp from 0 to 255", float_tiff(RAMP / 257), RAMP_SEEN),
        case("float-signed.tif", "float grey ramp from -1 to 1", float_tiff(RAMP / 32767.5 - 1), RAMP_SEEN),
        case("animated.gif", "animation: the first frame", animated("GIF")),
        case("animated.png", "animated PNG: the first frame", animated("PNG")),
        case("animated.webp", "animated WebP: the first frame", animated("WEBP"), tolerance=12),
        case("pages.tif", "TIFF of several pages: the first", animated("TIFF")),
        case("circular.tif", "TIFF whose directory leads back to itself", circular_tiff),
        case("two-pictures.mpo", "camera's multi-picture JPEG: the first",
             encoded(first, "MPO", save_all=True, append_images=frames()[1:])),
        case("icon.ico", "icon", encoded(first.resize((64, 64)), "ICO", sizes=[(64, 64)])),
        case("bitmap.bmp", "BMP", encoded(first, "BMP")),
        case("jpeg2000.jp2", "JPEG 2000", encoded(first, "JPEG2000")),
        # Compressed, since Pillow 12.3 takes an uncompressed one for RGBX and calls it truncated.
        case("ycbcr.tif", "YCbCr TIFF", encoded(first.convert("YCbCr"), "TIFF", compression="tiff_lzw"),
             tolerance=8),
        case("progressive.jpg", "progressive JPEG", encoded(first, "JPEG", progressive=True, quality=95)),
        case("png-inside.jpg", "a PNG named .jpg", PNG),
        case("jpeg-inside.png", "a JPEG named .png", JPEG),
        case("gif-inside.webp", "a GIF named .webp", encoded(first, "GIF")),
        case("UPPER.JPG", "upper-case suffix", JPEG),
        case("no-suffix", "no suffix, but a JPEG", JPEG),
        case("name with ünïcode 車.jpg", "a name with spaces and unicode", JPEG),
        case("line\nbreak.jpg", "a name with a line break", JPEG),
        case("trailing-garbage.jpg", "bytes after the end of the JPEG", JPEG + b"garbage" * 100),
        case("profile-swapped.png", "a colour profile that exchanges red and blue: converted",
             lambda: encoded(first, "PNG", icc_profile=swapped_profile()), SEEN[..., ::-1]),
        case("profile-damaged.png", "a damaged colour profile: ignored",
             encoded(first, "PNG", icc_profile=b"not a profile")),
        case("wide.png", "4,000 × 8", encoded(quadrants(height=8, width=4000), "PNG"), tolerance=10),
        case("tall.jpg", "8 × 4,000",
             encoded(quadrants(height=4000, width=8), "JPEG", quality=95), tolerance=14),
        case("large.jpg", "24 megapixels: decoded at a reduced scale",
             lambda: encoded(quadrants(height=4000, width=6000), "JPEG", quality=80)),
    ]  # fmt: skip


def _bad() -> list[Case]:
    def case(name: str, what: str, content: Any, reason: str) -> Case:
        return Case(name, what, data(content), reason=reason)

    def broken(name: str, what: str, make: Callable[[Path], None], reason: str) -> Case:
        return Case(name, what, make, reason=reason)

    noise = {kind: encoded(NOISE, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")}
    claims = png(30_000, 30_000, 1, 0, b"")
    return [
        case("empty.jpg", "0 bytes", b"", "empty"),
        case("zeros.jpg", "only zero bytes", bytes(5000), "zeros"),
        case("random.jpg", "random bytes", NOISE.tobytes(), "not a picture"),
        case("text.jpg", "text", b"this is not a picture\n", "not a picture"),
        case("error-page.jpg", "a web page saved as a picture", HTML, "web page"),
        case("drawing.svg", "SVG", SVG, "SVG"),
        case("drawing.jpg", "SVG named .jpg", SVG, "SVG"),
        case("document.jpg", "PDF named .jpg", b"%PDF-1.7\n%\xe2\xe3\n", "PDF"),
        case("postscript.jpg", "EPS, which would run Ghostscript", EPS, "not a picture"),
        case("archive.png", "ZIP named .png", b"PK\x03\x04" + bytes(100), "not a picture"),
        case("pointer.jpg", "Git LFS pointer", LFS, "LFS"),
        case("phone.heic", "HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "heic"),
        case("film.jpg", "MP4 named .jpg", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(100), "isom"),
        case("raw.dng", "camera raw, whose TIFF thumbnail must not be taken", TIFF, "raw"),
        broken("half.jpg", "JPEG cut in half", cut(noise["JPEG"], 0.5), "truncated"),
        broken("head.jpg", "JPEG cut in its header", cut(JPEG, 0.02), "damaged"),
        case("without-end.jpg", "JPEG without its end marker", JPEG[:-2], "truncated"),
        broken("half.png", "PNG cut in half", cut(noise["PNG"], 0.5), "truncated"),
        broken("half.webp", "WebP cut in half", cut(noise["WEBP"], 0.5), "damaged"),
        broken("half.gif", "GIF cut in half", cut(noise["GIF"], 0.5), "truncated"),
        broken("half.tif", "TIFF cut in half", cut(noise["TIFF"], 0.5), "damaged"),
        broken("half.bmp", "BMP cut in half", cut(noise["BMP"], 0.5), "truncated"),
        broken("half.ppm", "PPM cut in half", cut(noise["PPM"], 0.5), "truncated"),
        case("checksum.png", "PNG with a wrong checksum and damaged data", bad_checksum, "broken"),
        case("no-height.jpg", "JPEG of height 0", zero_height, "damaged"),
        case("no-size.png", "PNG of 0 × 0", png(0, 0, 8, 2, b""), "damaged"),
        case("no-pixels.png", "PNG without pixels", png(64, 64, 8, 2, b""), "damaged"),
        case("claims.png", "PNG that claims 30,000 × 30,000", claims, "gigantic"),
        case("claims.jpg", "JPEG that claims 65,500 × 65,500", huge_jpeg, "gigantic"),
        case("bomb.png", "12,000 × 9,000, compressed to a few kB: not decoded",
             png(12_000, 9_000, 1, 0, bytes(1501) * 9_000), "gigantic"),
        case("text-bomb.png", "PNG with a text chunk of 10 MB, compressed",
             png(64, 48, 8, 2, b"", (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**7), 9))), "damaged"),
        case("nan.tif", "float TIFF with NaN", float_tiff(np.full((64, 64), np.nan)), "NaN"),
        case("float-color.tif", "float RGB TIFF, which Pillow cannot read",
             tiff(np.zeros((48, 64, 3), "<f4"), 32, 2, samples=3, kind=3), "TIFF, unknown pixel mode"),
        case("float-color.pfm", "RGB PFM, which Pillow cannot read", b"PF\n1 1\n-1.0\n" + bytes(12), "PFM"),
        case("twelve.jpg", "12-bit JPEG, which Pillow cannot read", twelve_bit_jpeg, "12-bit"),
        case("picture.jxl", "JPEG XL", b"\xff\x0a" + bytes(100), "JPEG XL"),
        case("pixel.png", "1 × 1: a tracking pixel", encoded(NOISE[:1, :1], "PNG"), "under"),
        case("line.png", "1 × 96", encoded(NOISE[:, :1], "PNG"), "under"),
        case("icon-empty.ico", "icon without a picture", b"\0\0\1\0\0\0", "not a picture"),
        case("gif-header.gif", "GIF of a header alone", b"GIF89a\x40\0\x30\0\0\0\0", "damaged"),
        broken("gone.jpg", "a link to nothing", lambda path: path.symlink_to("nowhere.jpg"), "link"),
        broken("loop.jpg", "a link to itself", lambda path: path.symlink_to(path.name), "link"),
        broken("pipe.jpg", "a named pipe, which would block for ever", lambda path: os.mkfifo(path), "pipe"),
        broken("folder.jpg", "a folder", lambda path: path.mkdir(), "folder"),
    ]  # fmt: skip


def _ignored() -> list[Case]:
    return [
        Case("._plain.jpg", "macOS's shadow of a file", data(b"\0\5\26\7" + bytes(100)), ignored=True),
        Case("Thumbs.db", "Windows's thumbnails", data(bytes(100)), ignored=True),
        Case("readme.md", "text beside the pictures", data(b"# cars"), ignored=True),
    ]


def cases() -> list[Case]:
    """Every file of the corpus. The same on every machine."""
    return _right() + _bad() + _ignored()


def write(folder: Path) -> list[Case]:
    folder.mkdir(parents=True, exist_ok=True)
    corpus = cases()
    for case in corpus:
        case.make(folder / case.name)
    return corpus


def key(name: str) -> str:
    return name.replace("\n", "\\n")


def main() -> None:
    from alphabar.data.dataset import prepare
    from alphabar.data.sources import open_source

    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("usage: python tests/hostile.py DIR    (a folder that does not exist yet)")
    folder = Path(sys.argv[1])
    corpus = write(folder)
    *_, last = prepare(open_source(folder), ImageCodec(SIZE))
    dataset = last.result
    reasons = {skip.key: skip.reason for skip in dataset.skipped}
    pixels = dict(zip(dataset.keys, dataset.items, strict=True))
    print("| file | what it is | what happened |")
    print("|---|---|---|")
    for case in corpus:
        name = key(case.name)
        if name in reasons:
            outcome = f"skipped: {reasons[name]}".replace("|", "\\|")
        elif name in pixels and case.expected is not None:
            difference = np.abs(case.expected - pixels[name].astype(float)).mean()
            outcome = f"used; pixels off by {difference:.1f} of 255 on average"
        elif name in pixels:
            outcome = "WRONG: used, although it is no whole picture"
        else:
            outcome = "left alone: not a picture"
        print(f"| `{name}` | {case.what} | {outcome} |")


if __name__ == "__main__":
    main()
