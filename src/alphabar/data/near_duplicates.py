"""Copies in a data set: equal files, equal pixels, and pictures that show the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import full_pixels
from alphabar.data.items import Item, Source, held_out_position, read
from alphabar.messages import message

THUMBNAIL = 32  # pixels a side

# Correlation of thumbnails from which two pictures show the same. On Stanford Cars, all pairs above are one
# photograph in two crops; just below begin different black cars on white.
SAME = 0.95
CANDIDATE = 0.97  # cosine between descriptors from which two pictures are compared by their pixels
KEYS_SHOWN = 6
BLOCK = 512  # rows of the matrix of similarities held at once


class ReadableImage(NamedTuple):
    """One readable picture: its size in the file, the hash of its bytes and a thumbnail (32, 32, 3)."""

    item: Item
    width: int
    height: int
    transparent: bool
    content: str
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Copies:
    """Pictures that show the same.

    kind: "bytes" (the same file), "pixels" (another file, every pixel equal) or "near" (resized, compressed
        again, slightly retouched or mirrored).
    across_split: whether they fall on both sides of the held-out split, where they make an evaluation too
        good.
    """

    kind: str
    keys: tuple[str, ...]
    across_split: bool

    def line(self) -> str:
        """The group as a line of text; of a large one, some."""
        more = len(self.keys) - KEYS_SHOWN
        shown = " = ".join(self.keys[:KEYS_SHOWN])
        return message("data.copies_more", shown=shown, n=more) if more > 0 else f"  {shown}"


COPIES = {"bytes": "data.copies_bytes", "pixels": "data.copies_pixels", "near": "data.copies_near"}
"""Kind of `Copies` → the message that counts its groups."""


def find_copies(source: Source, seen: Sequence[ReadableImage], held_out: float) -> Iterator[Copies]:
    """The groups of copies among the pictures of a source, those of equal bytes first.

    held_out: the share that is held out, for `Copies.across_split`.
    """
    held = [held_out_position(one.content) < held_out for one in seen]

    def copies(kind: str, members: Sequence[int]) -> Copies:
        return Copies(kind, tuple(seen[i].item.key for i in members), len({held[i] for i in members}) > 1)

    same_bytes: dict[str, list[int]] = {}
    for i, one in enumerate(seen):
        same_bytes.setdefault(one.content, []).append(i)
    yield from (copies("bytes", members) for members in same_bytes.values() if len(members) > 1)
    # One of each from here on, or every group of byte copies would come again.
    distinct = [members[0] for members in same_bytes.values()]
    for group in near_duplicates(np.stack([seen[i].thumbnail for i in distinct])):
        first, *others = (distinct[i] for i in group)
        equal = [i for i in others if _equal_pixels(source, seen[first], seen[i])]
        near = [i for i in others if i not in equal]
        if equal:
            yield copies("pixels", [first, *equal])
        if near:
            yield copies("near", [first, *near])


def near_duplicates(thumbnails: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of thumbnails (n, s, s, 3) that show the same as the group's first, as they are or mirrored.

    Candidates are pairs whose 8×8 lowest cosine frequencies point the same way (a perceptual hash that keeps
    its real values); of these, pairs count whose pixels correlate. Time grows with n², memory with n.
    """
    described = _descriptors(thumbnails)
    # Mirroring a picture changes the sign of its odd horizontal frequencies, so the larger of the two cosines
    # is the even part plus the size of the odd part.
    even, odd = described[:, 0::2], described[:, 1::2]
    free = np.ones(len(thumbnails), dtype=bool)
    groups = []
    for start in range(0, len(thumbnails), BLOCK):
        rows = slice(start, min(start + BLOCK, len(thumbnails)))
        similar = even[rows] @ even[start:].T + np.abs(odd[rows] @ odd[start:].T) > CANDIDATE
        for i in range(start, rows.stop):
            near = np.flatnonzero(similar[i - start]) + start
            near = near[(near > i) & free[near]]
            if not (free[i] and len(near)):
                continue
            same = near[_correlation(thumbnails[i], thumbnails[near]) > SAME]
            if len(same):
                free[same] = False
                groups.append([i, *same.tolist()])
    return groups


def _descriptors(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 64) of length 1: the lowest 8×8 frequencies of the grey thumbnail's DCT-II, without the mean."""
    side = thumbnails.shape[1]
    frequency, place = np.arange(8)[:, None], np.arange(side)[None, :]
    cosines = np.cos(np.pi * frequency * (place + 0.5) / side).astype(np.float32) / np.sqrt(side / 2)
    described = np.empty((len(thumbnails), 64), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        grey = thumbnails[start : start + BLOCK].mean(-1, dtype=np.float32)
        described[start : start + BLOCK] = (cosines @ grey @ cosines.T).reshape(len(grey), 64)
    described[:, 0] = 0
    # A contrast below 1 of 255 is noise: such a picture is too short here to be a candidate.
    return described / np.maximum(np.linalg.norm(described, axis=1, keepdims=True), side)


def _correlation(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n,): the correlation of one thumbnail's pixels with each other's, or of its mirror image if larger."""

    def unit(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        centred = pictures - pictures.mean((-3, -2), keepdims=True, dtype=np.float32)
        flat = centred.reshape(*pictures.shape[:-3], -1)
        return flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)

    both = np.stack([unit(one), unit(one[:, ::-1])], axis=1)
    parts = (others[i : i + BLOCK] for i in range(0, len(others), BLOCK))
    return np.concatenate([(unit(part) @ both).max(1) for part in parts])


def _equal_pixels(source: Source, a: ReadableImage, b: ReadableImage) -> bool:
    if (a.width, a.height) != (b.width, b.height):
        return False
    try:
        x, y = (full_pixels(read(source, one.item)) for one in (a, b))
    except Unreadable:
        return False  # it was readable a moment ago
    return np.array_equal(x, y)
