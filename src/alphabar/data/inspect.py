"""What is in a data set: counts, sizes, copies and unreadable files, before anything is trained on it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphabar.codecs.base import Unreadable, quietly
from alphabar.codecs.image_files import is_grey, read_image
from alphabar.data.dataset import CHUNK
from alphabar.data.items import Item, Skipped, Source, content_hash, nothing_in, read
from alphabar.data.near_duplicates import COPIES, THUMBNAIL, Copies, ReadableImage, find_copies
from alphabar.data.sources import open_source
from alphabar.messages import Message, message
from alphabar.progress import Progress

SIZES = (32, 64, 128, 256)  # that networks here take


@dataclass(frozen=True)
class Report:
    """What ``inspect`` found. Sizes are in pixels; ``aspects`` counts pictures by width / height.

    grey, transparent: how many pictures show no colour, and how many have alpha. channels: what training uses
    unless ``data.channels`` says otherwise.
    """

    name: str
    pictures: int
    grey: int
    transparent: int
    skipped: tuple[Skipped, ...]
    notes: tuple[Message, ...]
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
    channels: int
    size: int  # suggested
    fit: str  # suggested
    reasons: tuple[Message, ...]  # for the suggestion

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
        for what, count in (("grey", self.grey), ("transparent", self.transparent)):
            if count:
                text.append(f"{what}: {count:,} of {self.pictures:,} pictures")
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
    """Read every picture of a source; the last record has the report.

    data: a Source, or what ``open_source`` takes. held_out: the share that training would hold out.
    Raises what ``open_source`` raises, and AlphabarError where no picture can be read.
    """
    source = open_source(data) if isinstance(data, str | Path) else data
    seen: list[ReadableImage] = []
    skipped = list(source.skipped)
    total = len(source.items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, total, CHUNK):
            yield Progress(message("data.stage_inspecting"), start, total)
            with quietly():
                chunk = source.items[start : start + CHUNK]
                for result in pool.map(lambda item: _inspect(source, item), chunk):
                    if isinstance(result, Skipped):
                        skipped.append(result)
                    else:
                        seen.append(result)
    if not seen:
        raise nothing_in(source.name, skipped)
    with quietly():
        report = _report(source, seen, skipped, held_out)
    yield Progress(message("data.stage_inspecting"), total, total, report)


def _inspect(source: Source, item: Item) -> ReadableImage | Skipped:
    try:
        data = read(source, item)
        pixels, width, height, transparent = read_image(data, (THUMBNAIL, THUMBNAIL))
        return ReadableImage(item, width, height, transparent, content_hash(data), pixels)
    except Unreadable as error:
        return Skipped(item.key, error.message)


def _report(source: Source, seen: list[ReadableImage], skipped: list[Skipped], held_out: float) -> Report:
    sides = np.array([(s.width, s.height) for s in seen])
    counted = Counter(s.item.label for s in seen if s.item.label is not None)
    shares = np.array(list(counted.values()), dtype=np.float64) / max(counted.total(), 1)
    grey, transparent = sum(is_grey(s.thumbnail) for s in seen), sum(s.transparent for s in seen)
    notes = list(source.notes)
    if transparent:
        notes.append(message("codecs.laid_on_white", count=transparent, total=len(seen)))
    if grey == len(seen):
        notes.append(message("data.all_grey"))
    fit, why, sharp = _suggest_fit(sides, [s.item for s in seen])
    size, reasons = _suggest_size(sharp)
    return Report(
        name=source.name,
        pictures=len(seen),
        grey=grey,
        transparent=transparent,
        skipped=tuple(skipped),
        notes=tuple(notes),
        shorter_side=_spread(sides.min(1)),
        longer_side=_spread(sides.max(1)),
        aspects=_aspects(sides),
        classes=dict(counted.most_common()),
        unlabelled=len(seen) - counted.total(),
        effective_classes=float(np.exp(-(shares * np.log(shares)).sum())),
        captions=sum(s.item.caption is not None for s in seen),
        boxes=sum(s.item.box is not None for s in seen),
        held_out=held_out,
        copies=tuple(find_copies(source, seen, held_out)),
        channels=1 if grey == len(seen) else 3,
        size=size,
        fit=fit,
        reasons=(why, *reasons),
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


def _suggest_fit(sides: NDArray[np.int64], items: Sequence[Item]) -> tuple[str, Message, NDArray[np.float64]]:
    """(fit, why, how many pixels a side each picture then fills (n,)) from the shapes and the boxes."""
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
    sharp = sides.min(1).astype(np.float64)
    if len(boxed) > len(items) / 2 and share < 0.75:
        return "box", message("data.fit_box", share=f"{share:.0%}"), np.sqrt(share) * sharp
    if spread < 1.15:
        return "squash", message("data.fit_squash", ratio=f"{spread:.2f}"), sharp
    if lost < 0.3:
        return "crop", message("data.fit_crop", lost=f"{lost:.0%}"), sharp
    return "squash", message("data.fit_squash_varied", lost=f"{lost:.0%}"), sharp


def _suggest_size(sharp: NDArray[np.float64]) -> tuple[int, list[Message]]:
    """(size, reasons) from how many pixels a side there are (n,)."""
    enough = float(np.quantile(sharp, 0.1))
    size = max([s for s in SIZES if s <= enough], default=SIZES[0])
    reasons = [message("data.size_enough", pixels=f"{enough:.0f}", size=size)]
    if size > 64:
        reasons.append(message("data.size_64_first", times=(size // 64) ** 2, size=size))
    return size, reasons


def _some(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[:most], f"  … and {len(lines) - most:,} more"]
