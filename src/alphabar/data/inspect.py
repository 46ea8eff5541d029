"""What is in a data set: a look at every picture before anything is trained on it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphabar.data.dataset import CHUNK, content_hash, read
from alphabar.data.decode import decode, quietly
from alphabar.data.items import Item, Skipped, Source, Unreadable, nothing_in
from alphabar.data.near_duplicates import COPIES, THUMBNAIL, Copies, ReadableImage, _copies
from alphabar.data.sources import open_source
from alphabar.progress import Progress

SIZES = (32, 64, 128, 256)  # that networks here take


@dataclass(frozen=True)
class Report:
    """What ``inspect`` found. Sizes are in pixels; ``aspects`` counts pictures by width / height."""

    name: str
    pictures: int
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    shorter_side: tuple[int, int, int]  # smallest, median, largest
    longer_side: tuple[int, int, int]
    aspects: dict[str, int]
    classes: dict[str, int]  # pictures by class, most first
    unlabelled: int
    effective_classes: float  # exp(entropy of the class shares): the number of equally large classes
    captions: int
    boxes: int
    held_out: float
    copies: tuple[Copies, ...]
    size: int  # suggested
    fit: str  # suggested
    reasons: tuple[str, ...]  # for the suggestion

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as text, one line a fact; long lists are cut and say so."""
        short, long = self.shorter_side, self.longer_side
        text = [
            f"{self.name}: {self.pictures:,} pictures, {len(self.skipped):,} skipped",
            f"shorter side {short[0]} to {short[2]} px (median {short[1]}),"
            f" longer side {long[0]} to {long[2]} px (median {long[1]})",
            "width / height: "
            + ", ".join(f"{name} {count:,}" for name, count in self.aspects.items() if count),
        ]
        text += self._class_lines()
        if self.captions:
            text.append(f"captions: {self.captions:,} of {self.pictures:,} pictures")
        if self.boxes:
            text.append(f"annotated boxes: {self.boxes:,} of {self.pictures:,} pictures")
        for kind, meaning in COPIES.items():
            groups = [copies for copies in self.copies if copies.kind == kind]
            across = sum(copies.across_split for copies in groups)
            text.append(
                f"{meaning}: {len(groups):,} group{'s' * (len(groups) != 1)}"
                + (f", {across:,} of them across the held-out split" if across else "")
            )
            text += _some([copies.line() for copies in groups], 5)
        text += [f"note: {note}" for note in self.notes]
        text += _some([f"skipped {skip.key}: {skip.reason}" for skip in self.skipped], 20)
        text.append(f"suggestion: size {self.size}, fit {self.fit}")
        return text + [f"  {reason}" for reason in self.reasons]

    def _class_lines(self) -> list[str]:
        if not self.classes:
            return ["no classes"]
        ordered = list(self.classes.items())
        (largest, most), (smallest, least) = ordered[0], ordered[-1]
        return [
            f"{len(self.classes):,} classes: largest {largest} ({most:,}), smallest {smallest} ({least:,}),"
            f" ratio {most / least:.1f}, balanced like {self.effective_classes:.1f} equal ones"
            + (f"; {self.unlabelled:,} pictures without a class" if self.unlabelled else "")
        ]


def inspect(data: str | Path | Source, *, held_out: float = 0.1) -> Iterator[Progress[Report]]:
    """Look at every picture of a source; the last record has the report.

    data: a Source, or what ``open_source`` takes. held_out: the share that training would hold out.
    Raises what ``open_source`` raises, and AlphabarError where no picture can be read.
    """
    source = open_source(data) if isinstance(data, str | Path) else data
    seen: list[ReadableImage] = []
    skipped = list(source.skipped)
    total = len(source.items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, total, CHUNK):
            yield Progress("inspecting", start, total)
            with quietly():
                chunk = source.items[start : start + CHUNK]
                for result in pool.map(lambda item: _look(source, item), chunk):
                    if isinstance(result, Skipped):
                        skipped.append(result)
                    else:
                        seen.append(result)
    if not seen:
        raise nothing_in(source.name, skipped)
    with quietly():
        report = _report(source, seen, skipped, held_out)
    yield Progress("inspecting", total, total, report)


def _look(source: Source, item: Item) -> ReadableImage | Skipped:
    try:
        data = read(source, item)
        pixels, width, height = decode(data, (THUMBNAIL, THUMBNAIL))
        return ReadableImage(item, width, height, content_hash(data), pixels)
    except Unreadable as error:
        return Skipped(item.key, str(error))


def _report(source: Source, seen: list[ReadableImage], skipped: list[Skipped], held_out: float) -> Report:
    sides = np.array([(s.width, s.height) for s in seen])
    counted = Counter(s.item.label for s in seen if s.item.label is not None)
    shares = np.array(list(counted.values()), dtype=np.float64) / max(counted.total(), 1)
    size, fit, reasons = _suggest(sides, [s.item for s in seen])
    return Report(
        name=source.name,
        pictures=len(seen),
        skipped=tuple(skipped),
        notes=tuple(source.notes),
        shorter_side=_spread(sides.min(1)),
        longer_side=_spread(sides.max(1)),
        aspects=_aspects(sides),
        classes=dict(counted.most_common()),
        unlabelled=len(seen) - counted.total(),
        effective_classes=float(np.exp(-(shares * np.log(shares)).sum())),
        captions=sum(s.item.caption is not None for s in seen),
        boxes=sum(s.item.box is not None for s in seen),
        held_out=held_out,
        copies=tuple(_copies(source, seen, held_out)),
        size=size,
        fit=fit,
        reasons=reasons,
    )


def _spread(values: NDArray[np.int64]) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _aspects(sides: NDArray[np.int64]) -> dict[str, int]:
    edges = {
        "under 1:2": 0.5,
        "1:2 to 3:4": 0.75,
        "3:4 to 10:11": 10 / 11,
        "square": 1.1,
        "11:10 to 4:3": 4 / 3,
    }
    edges |= {"4:3 to 2:1": 2.0, "over 2:1": np.inf}
    places = np.searchsorted(list(edges.values()), sides[:, 0] / sides[:, 1], side="left")
    return {name: int((places == i).sum()) for i, name in enumerate(edges)}


def _suggest(sides: NDArray[np.int64], items: Sequence[Item]) -> tuple[int, str, tuple[str, ...]]:
    """(size, fit, reasons) from the sizes, the shapes and the boxes."""
    width, height = sides.T
    boxed = [i for i, item in enumerate(items) if item.box is not None]
    share = 1.0
    if boxed:
        boxes = np.array([items[i].box for i in boxed])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = float(np.median(areas / (width * height)[boxed]))
    log_aspect = np.log(width / height)
    spread = float(np.exp(np.quantile(log_aspect, 0.95) - np.quantile(log_aspect, 0.05)))
    lost = float(np.median(1 - sides.min(1) / sides.max(1)))
    sharp = sides.min(1)
    if len(boxed) > len(items) / 2 and share < 0.75:
        fit = "box"
        why = f"box: the annotated objects fill {share:.0%} of their pictures (median)"
        sharp = np.sqrt(share) * sharp
    elif spread < 1.15:
        fit = "squash"
        why = f"squash: all pictures have nearly one shape (ratio {spread:.2f}), so nothing is lost or mixed"
    elif lost < 0.3:
        fit = "crop"
        why = f"crop: shapes vary, and a central square loses only {lost:.0%} of a picture (median)"
    else:
        fit = "squash"
        why = f"squash: shapes vary, and a central square would lose {lost:.0%} of a picture (median)"
    enough = float(np.quantile(sharp, 0.1))
    size = max([s for s in SIZES if s <= enough], default=SIZES[0])
    reasons = [why, f"size: nine pictures in ten have {enough:.0f} px or more to fill {size} with"]
    if size > 64:
        reasons.append(f"64 trains about {(size // 64) ** 2} times faster than {size}: begin there")
    return size, fit, tuple(reasons)


def _some(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[:most], f"  … and {len(lines) - most:,} more"]
