"""Picture files and tables with something wrong in their structure, each a function of a seed and a number.

A mutation knows the parts of its format (JPEG's segments, PNG's chunks, TIFF's directory, RIFF's chunks, the
boxes of AVIF and JPEG 2000, the fields of a BMP, the blocks of a GIF) and changes lengths, dimensions, depths
and order; others know nothing and flip bits, cut, repeat, and splice two files.
"""

import json
import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, features

import hostile

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    32,
    127,
    128,
    255,
    256,
    4095,
    32767,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
"""At which programs go wrong: they are put in the place of lengths, dimensions and counts."""

PARTS = 400  # that are looked for in one file
LARGEST_SEED = 100_000  # bytes of a file that is mutated

Mutation = Callable[[bytes, random.Random], bytes]


class Part(NamedTuple):
    """A part of a file: data[start:end], whose length is stored in `width` bytes at `length`, or nowhere."""

    start: int
    end: int
    length: int | None = None
    width: int = 4
    big: bool = True


# ---------------------------------------------------------------- sound files to begin with


def picture_seeds() -> dict[str, bytes]:
    """Sound picture files of every kind by name: the odd ones of `hostile` and some more."""
    seeds = {}
    for case in hostile.cases():
        if case.expected is not None and not case.name.startswith(("large", "tall", "wide", "line")):
            seeds[case.name] = _made(case)
    first = Image.fromarray(hostile.UPRIGHT)
    noise = Image.fromarray(hostile.NOISE)
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        seeds[f"compressed-{kind}.tif"] = hostile.encoded(first, "TIFF", compression=kind)
    seeds["fax.tif"] = hostile.encoded(first.convert("1"), "TIFF", compression="group4")
    seeds["tiled.webp"] = hostile.encoded(noise, "WEBP", quality=60)
    seeds["palette.bmp"] = hostile.encoded(first.quantize(16), "BMP")
    seeds["fax.pbm"] = b"P4 64 48\n" + bytes(range(8)) * 48
    seeds["text.ppm"] = b"P3 8 8 255\n" + b" ".join(b"%d" % i for i in range(192))
    seeds["noise.jpg"] = hostile.encoded(noise, "JPEG", progressive=True, restart_marker_blocks=4)
    seeds["noise.png"] = hostile.encoded(noise, "PNG")
    seeds["first.pcx"] = hostile.encoded(first, "PCX")
    seeds["first.dib"] = hostile.encoded(first, "DIB")
    seeds["first.psd"] = _psd()
    seeds["first.qoi"] = hostile.encoded(first, "QOI")
    seeds["interlaced.png"] = _interlaced()
    if features.check("avif"):
        seeds["first.avif"] = hostile.encoded(first, "AVIF")
        seeds["animated.avif"] = hostile.animated("AVIF")
    return {name: data for name, data in seeds.items() if len(data) <= LARGEST_SEED}


def _made(case: hostile.Case) -> bytes:
    taken: list[bytes] = []

    class Taking:
        def write_bytes(self, data: bytes) -> None:
            taken.append(data)

    case.make(Taking())  # type: ignore[arg-type]
    return taken[0]


def _psd() -> bytes:
    rows = hostile.UPRIGHT.transpose(2, 0, 1).tobytes()
    return b"8BPS" + struct.pack(">H6xHIIHHIIIH", 1, 3, 48, 64, 8, 3, 0, 0, 0, 0) + rows


def _interlaced() -> bytes:
    """A PNG in Adam7's seven passes."""
    rows = b""
    for x, y, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in hostile.UPRIGHT[y::down, x::across])
    data = bytearray(hostile.png(64, 48, 8, 2, rows))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


# ---------------------------------------------------------------- the parts of a format


def parts_of(data: bytes) -> list[Part]:
    """The parts of a file, as far as its format is known and its lengths lead anywhere."""
    if data[:2] == b"\xff\xd8":
        return _segments(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _walk(data, 8, lambda at: 12 + int.from_bytes(data[at : at + 4], "big"), 0)
    if data[:4] == b"RIFF":
        return _walk(
            data, 12, lambda at: 8 + (n := int.from_bytes(data[at + 4 : at + 8], "little")) + n % 2, 4, False
        )
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _entries(data)
    if data[4:8] in (b"ftyp", b"jP  "):
        return _boxes(data, 0, len(data), 0)
    if data[:4] == b"GIF8":
        return _blocks(data)
    return []


def _walk(data: bytes, at: int, size: Callable[[int], int], length: int, big: bool = True) -> list[Part]:
    parts = []
    while at + 8 <= len(data) and len(parts) < PARTS:
        end = at + size(at)
        parts.append(Part(at, min(end, len(data)), at + length, 4, big))
        at = end
    return parts


def _segments(data: bytes) -> list[Part]:
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and len(parts) < PARTS:
        if data[at + 1] in (0xD8, 0xD9, 0x01) or 0xD0 <= data[at + 1] <= 0xD7:
            parts.append(Part(at, at + 2))
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(Part(at, end, at + 2, 2))
        if data[at + 1] == 0xDA:  # coded pixels follow, up to the next marker
            while end + 1 < len(data) and not (
                data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))
            ):
                end += 1
        at = end
    return parts


def _entries(data: bytes) -> list[Part]:
    big = data[:2] == b"MM"
    order = "big" if big else "little"
    at = int.from_bytes(data[4:8], order)
    parts = [Part(4, 8)]
    for i in range(min(int.from_bytes(data[at : at + 2], order), PARTS)):
        start = at + 2 + 12 * i
        parts += [Part(start, start + 12, start + 4, 4, big), Part(start, start + 12, start + 8, 4, big)]
    return parts


def _boxes(data: bytes, at: int, end: int, depth: int) -> list[Part]:
    parts: list[Part] = []
    while at + 8 <= end and len(parts) < PARTS:
        size = int.from_bytes(data[at : at + 4], "big")
        parts.append(Part(at, min(at + max(size, 8), end), at))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"jp2h": 8, b"moov": 8, b"trak": 8, b"mdia": 8}
        if (kind := data[at + 4 : at + 8]) in inside and depth < 4:
            parts += _boxes(data, at + inside[kind], min(at + size, end), depth + 1)
        at += max(size, 8)
    return parts


def _blocks(data: bytes) -> list[Part]:
    at = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 128 else 0)
    parts = [Part(6, 10), Part(10, 13)]
    while at < len(data) and len(parts) < PARTS:
        start = at
        if data[at] == 0x2C and at + 10 < len(data):
            at += 11 + (3 * 2 ** ((data[at + 9] & 7) + 1) if data[at + 9] & 128 else 0)
        elif data[at] == 0x21:
            at += 2
        else:
            break
        parts.append(Part(start, at))
        while at < len(data) and data[at]:
            parts.append(Part(at, at + 1 + data[at], at, 1))
            at += 1 + data[at]
        at += 1
    return parts


# ---------------------------------------------------------------- mutations


def _put(data: bytes, at: int, width: int, value: int, big: bool = True) -> bytes:
    new = (value % 256**width).to_bytes(width, "big" if big else "little")
    return data[:at] + new + data[at + width :]


def other_length(data: bytes, r: random.Random) -> bytes:
    """Another length, count or offset of a part."""
    parts = [part for part in parts_of(data) if part.length is not None]
    if not parts:
        return other_number(data, r)
    part = r.choice(parts)
    now = int.from_bytes(data[part.length : part.length + part.width], "big" if part.big else "little")
    return _put(data, part.length, part.width, r.choice((*NUMBERS, now + 1, now - 1, now * 2)), part.big)


def other_part(data: bytes, r: random.Random) -> bytes:
    """A part removed, repeated, exchanged with another, or filled with other bytes."""
    parts = parts_of(data)
    if not parts:
        return blocks(data, r)
    a, b = r.choice(parts), r.choice(parts)
    piece, other = data[a.start : a.end], data[b.start : b.end]
    match r.randrange(5):
        case 0:
            return data[: a.start] + data[a.end :]
        case 1:
            return data[: a.end] + piece * r.choice((1, 2, 50)) + data[a.end :]
        case 2:
            return data[: a.start] + other + data[a.end :]
        case 3:
            return data[: a.start] + piece[:8] + r.randbytes(max(len(piece) - 8, 0)) + data[a.end :]
    return data[: a.start] + piece + other + data[a.start :]


def inside_a_part(data: bytes, r: random.Random) -> bytes:
    """A number within a part, near its beginning, where formats have their fields. PNG's checksum fits."""
    parts = parts_of(data)
    if not parts:
        return other_number(data, r)
    part = r.choice(parts)
    at = part.start + r.randrange(min(max(part.end - part.start, 1), 32))
    data = _put(data, at, r.choice((1, 2, 4)), r.choice(NUMBERS), r.random() < 0.5)
    return _with_checksums(data)


def header(data: bytes, r: random.Random) -> bytes:
    """A number in the first 64 bytes: dimensions, depth, kind of pixels."""
    at = r.randrange(2, 64)
    return _with_checksums(_put(data, at, r.choice((1, 2, 4)), r.choice(NUMBERS), r.random() < 0.5))


def other_number(data: bytes, r: random.Random) -> bytes:
    """Another number anywhere."""
    return _put(
        data, r.randrange(max(len(data), 1)), r.choice((1, 2, 4)), r.choice(NUMBERS), r.random() < 0.5
    )


def bits(data: bytes, r: random.Random) -> bytes:
    """Up to twenty bits flipped anywhere."""
    changed = bytearray(data)
    for _ in range(r.randint(1, 20)):
        if changed:
            changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def cut(data: bytes, r: random.Random) -> bytes:
    """The beginning of the file alone."""
    return data[: r.randrange(len(data) + 1)]


def blocks(data: bytes, r: random.Random) -> bytes:
    """A block removed, repeated, set to zero or made random."""
    a, b = sorted((r.randrange(len(data) + 1), r.randrange(len(data) + 1)))
    b = min(b, a + r.choice((1, 4, 16, 4096)))
    new = r.choice((b"", data[a:b] * 2, bytes(b - a), r.randbytes(b - a), b"\xff" * (b - a)))
    return data[:a] + new + data[b:]


def metadata(data: bytes, r: random.Random) -> bytes:
    """EXIF data, a colour profile or text that is damaged or huge, where the format has a place for it."""
    orientation = bytearray(hostile.exif(r.randrange(12)))
    junk = bytes(orientation) if r.random() < 0.5 else bits(bytes(orientation), r)
    profile = bits(hostile.swapped_profile(), r)
    if data[:2] == b"\xff\xd8":
        extra = b"Exif\0\0" + junk if r.random() < 0.5 else b"ICC_PROFILE\0\1\1" + profile
        extra = extra[:65000]
        kind = 0xE1 if extra.startswith(b"Exif") else 0xE2
        return data[:2] + bytes((0xFF, kind)) + struct.pack(">H", len(extra) + 2) + extra + data[2:]
    if data[:4] == b"\x89PNG":
        kinds = {
            b"eXIf": junk,
            b"iCCP": b"x\0\0" + zlib.compress(profile),
            b"tRNS": r.randbytes(r.randrange(9)),
        }
        kinds |= {
            b"zTXt": b"a\0\0" + zlib.compress(bytes(2**21)),
            b"acTL": r.randbytes(8),
            b"pHYs": r.randbytes(9),
        }
        kind, content = r.choice(list(kinds.items()))
        chunk = (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )
        return data[:33] + chunk + data[33:]
    return other_part(data, r)


def pixels(data: bytes, r: random.Random) -> bytes:
    """PNG's compressed rows with other bytes in them; elsewhere bytes of the second half."""
    if data[:4] == b"\x89PNG":
        for part in parts_of(data):
            if data[part.start + 4 : part.start + 8] == b"IDAT":
                try:
                    rows = zlib.decompress(data[part.start + 8 : part.end - 4])
                except zlib.error:
                    break
                packed = zlib.compress(blocks(rows, r))
                new = struct.pack(">I", len(packed)) + b"IDAT" + packed + bytes(4)
                return _with_checksums(data[: part.start] + new + data[part.end :])
    half = len(data) // 2
    return data[:half] + bits(data[half:], r)


def _with_checksums(data: bytes) -> bytes:
    """A PNG with checksums that fit, so that its reader gets beyond them; other files as they are."""
    if data[:4] != b"\x89PNG":
        return data
    fixed = bytearray(data)
    for part in parts_of(data):
        if part.end - part.start >= 12:
            fixed[part.end - 4 : part.end] = struct.pack(
                ">I", zlib.crc32(data[part.start + 4 : part.end - 4])
            )
    return bytes(fixed)


MUTATIONS: tuple[Mutation, ...] = (
    other_length, other_part, inside_a_part, header, other_number, bits, cut, blocks, metadata, pixels,
)  # fmt: skip


def mutated(data: bytes, r: random.Random, others: list[bytes]) -> bytes:
    """The file with one to three mutations, or spliced with another one."""
    if r.random() < 0.03:
        other = r.choice(others)
        return data[: r.randrange(len(data) + 1)] + other[r.randrange(len(other) + 1) :]
    for _ in range(r.choice((1, 1, 2, 3))):
        data = r.choice(MUTATIONS)(data, r)
    return data


def picture(seed: int, number: int, seeds: dict[str, bytes]) -> tuple[str, bytes]:
    """The mutated picture of a number: its name, which ends as that of the file it was, and its bytes."""
    r = random.Random(f"picture {seed} {number}")
    name = sorted(seeds)[number % len(seeds)]
    suffix = Path(name).suffix or ".jpg"
    return f"{number:06d}{suffix}", mutated(seeds[name], r, list(seeds.values()))


# ---------------------------------------------------------------- tables, captions, .mat, parquet, models


def table_texts() -> dict[str, bytes]:
    """Sound tables about the pictures p0.png to p5.png by the names of their files, and a caption."""
    rows = [
        {"file_name": f"p{i}.png", "label": "ab"[i % 2], "text": f"a größe {i}", "size": i / 2, "ok": i > 2}
        for i in range(6)
    ]
    table = "\n".join(";".join(map(str, row)) for row in ([*rows[0]], *(row.values() for row in rows)))
    lines = "\n".join(json.dumps(row) for row in rows)
    return {
        "metadata.csv": table.replace(";", ",").encode(),
        "metadata.tsv": table.replace(";", "\t").encode("utf-16"),
        "labels.csv": table.encode("cp1252"),
        "metadata.jsonl": lines.encode(),
        "metadata.json": json.dumps(rows).encode(),
        "p0.txt": "eine Größe in grün".encode(),
        "metadata.parquet": _parquet(rows),
    }


def _parquet(rows: list[dict[str, object]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def picture_table() -> bytes:
    """A parquet file with six pictures in it."""
    png = hostile.encoded(Image.fromarray(hostile.UPRIGHT).resize((16, 16)), "PNG")
    return _parquet(
        [{"image": {"bytes": png, "path": f"p{i}.png"}, "label": i % 2, "text": "a"} for i in range(6)]
    )


def devkit() -> dict[str, bytes]:
    """The MATLAB files of Stanford Cars for the pictures 00001.jpg to 00006.jpg."""
    from scipy.io import savemat

    kinds = [(f"bbox_{c}", "O") for c in ("x1", "y1", "x2", "y2")] + [("class", "O"), ("fname", "O")]
    notes = np.array([[(1, 1, 8, 8, 1 + i % 2, f"{i + 1:05d}.jpg") for i in range(6)]], dtype=kinds)
    names = np.array([["Acura RL Sedan 2012", "Audi S6 Sedan 2011"]], dtype=object)
    files = {"cars_meta.mat": {"class_names": names}, "cars_train_annos.mat": {"annotations": notes}}
    made = {}
    for name, values in files.items():
        out = BytesIO()
        savemat(out, values, do_compression=name == "cars_meta.mat")
        made[name] = out.getvalue()
    return made


def mutated_text(data: bytes, r: random.Random) -> bytes:
    """A table or another small file with lines, cells, quotes, brackets and bytes out of place."""
    pieces = (
        b'"',
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"{",
        b"]",
        b"null",
        b"NaN",
        b"9" * 400,
        b"\xff\xfe",
        b"\\",
        b"../",
    )
    for _ in range(r.choice((1, 1, 2, 4))):
        lines = data.split(b"\n")
        a = r.randrange(len(data) + 1)
        match r.randrange(7):
            case 0:
                data = bits(data, r)
            case 1:
                data = cut(data, r)
            case 2:
                data = data[:a] + r.choice(pieces) * r.choice((1, 1, 300)) + data[a:]
            case 3:
                r.shuffle(lines)
                data = b"\n".join(lines)
            case 4:
                lines.insert(r.randrange(len(lines) + 1), r.choice(lines)[: r.randrange(60)])
                data = b"\n".join(lines)
            case 5:
                data = data.replace(r.choice((b"file_name", b"p1", b",", b";", b":", b'"')), r.choice(pieces))
            case _:
                data = blocks(data, r)
    return data
