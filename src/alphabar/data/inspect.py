"""What is in a data set: counts, sizes, copies and unreadable files, before anything is trained on it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphabar.codecs.base import Unreadable, quietly
from alphabar.codecs.image_files import is_grey, read_image
from alphabar.data.dataset import CHUNK
from alphabar.data.fit import Fit, fit_of, some_of
from alphabar.data.items import Item, Skipped, Source, content_hash, nothing_in, read
from alphabar.data.near_duplicates import COPIES, THUMBNAIL, Copies, ReadableImage, find_copies
from alphabar.data.sources import open_source
from alphabar.formatting import known_value, numbers_and_others, unknown_numbers
from alphabar.messages import Message, message
from alphabar.progress import Progress

USUAL_SIZE = 64  # of the recipes that come with alphabar
SHOWN_VALUES = 5  # of an attribute, in the text
# Names of shapes → the largest width / height that they have.
ASPECTS = {
    "data.aspect_tall": 0.5,
    "data.aspect_portrait": 0.75,
    "data.aspect_upright": 10 / 11,
    "data.aspect_square": 1.1,
    "data.aspect_wide": 4 / 3,
    "data.aspect_landscape": 2.0,
    "data.aspect_panorama": np.inf,
}


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
    attributes: dict[str, dict[str, int]]  # pictures by value of each attribute, most first
    captions: int
    boxes: int
    held_out: float
    copies: tuple[Copies, ...]
    channels: int
    size: int  # the largest that the pictures have pixels for
    fit: str  # that training uses unless ``data.fit`` says otherwise
    reasons: tuple[Message, ...]  # for the fit, and what is to be said about the size

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as text, a message for each fact; long lists are cut and say so."""
        lines: list[str] = [
            message("data.inspect_counts", name=self.name, pictures=self.pictures, skipped=len(self.skipped)),
            message("data.inspect_sides", short=self.shorter_side, long=self.longer_side),
            message("data.inspect_shapes", shapes=_listed(self.aspects)),
        ]
        for identifier, count in (
            ("data.inspect_grey", self.grey),
            ("data.inspect_transparent", self.transparent),
        ):
            if count:
                lines.append(message(identifier, count=count, pictures=self.pictures))
        lines += self._class_lines() + self._attribute_lines()
        for identifier, count in (
            ("data.inspect_captions", self.captions),
            ("data.inspect_boxes", self.boxes),
        ):
            if count:
                lines.append(message(identifier, count=count, pictures=self.pictures))
        lines += self._copy_lines()
        lines += [message("data.inspect_note", note=note) for note in self.notes]
        lines += _some(
            [message("data.inspect_skipped", key=skip.key, reason=skip.reason) for skip in self.skipped], 20
        )
        lines.append(message("data.inspect_training"))
        return lines + [message("data.inspect_item", text=reason) for reason in self.reasons]

    def _class_lines(self) -> list[str]:
        if not self.classes:
            return [message("data.inspect_no_classes")]
        ordered = list(self.classes.items())
        (largest, most), (smallest, least) = ordered[0], ordered[-1]
        lines: list[str] = [
            message(
                "data.inspect_classes", n=len(self.classes), largest=largest, most=most,
                smallest=smallest, least=least,
            )
        ]  # fmt: skip
        if most > least:
            lines.append(message("data.inspect_balance", equal=self.effective_classes))
        if self.unlabelled:
            lines.append(message("data.inspect_unlabelled", n=self.unlabelled))
        return lines

    def _attribute_lines(self) -> list[str]:
        lines: list[str] = []
        for name, values in self.attributes.items():
            about = {"name": name, "known": sum(values.values()), "pictures": self.pictures}
            shown = [f"{value} ({count:,})" for value, count in list(values.items())[:SHOWN_VALUES]]
            if len(values) == len(shown):
                lines.append(message("data.inspect_values", **about, n=len(values), values=", ".join(shown)))
            elif numbers := numbers_and_others(Counter(values).elements())[0]:
                about["known"] = len(numbers)
                lines.append(message("data.inspect_numbers", **about, low=min(numbers), high=max(numbers)))
            else:
                listed = ", ".join([*shown, "…"])
                lines.append(message("data.inspect_values", **about, n=len(values), values=listed))
        return lines

    def _copy_lines(self) -> list[str]:
        lines: list[str] = []
        for kind, meaning in COPIES.items():
            groups = [copies for copies in self.copies if copies.kind == kind]
            across = sum(copies.across_split for copies in groups)
            lines.append(message(meaning, n=len(groups)))
            if across:
                lines.append(message("data.inspect_across", n=across))
            lines += _some([copies.line() for copies in groups], 5)
        return lines


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
        pixels, width, height, transparent, _ = read_image(data, (THUMBNAIL, THUMBNAIL))
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
    attributes = _attributes([s.item for s in seen])
    for name, values in attributes.items():
        notes += unknown_numbers(name, Counter(values).elements())
    fit = _suggestion(source, seen)
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
        attributes=attributes,
        captions=sum(s.item.caption is not None for s in seen),
        boxes=sum(s.item.box is not None for s in seen),
        held_out=held_out,
        copies=tuple(find_copies(source, seen, held_out)),
        channels=1 if grey == len(seen) else 3,
        size=fit.size,
        fit=fit.name,
        reasons=_reasons(fit),
    )


def _attributes(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    counted: dict[str, Counter[str]] = {}
    for item in items:
        for name, value in item.attributes.items():
            if known_value(value) is not None:
                counted.setdefault(name, Counter())[str(value)] += 1
    return {name: dict(values.most_common()) for name, values in sorted(counted.items())}


def _spread(values: NDArray[np.int64]) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _aspects(sides: NDArray[np.int64]) -> dict[str, int]:
    places = np.searchsorted(list(ASPECTS.values()), sides[:, 0] / sides[:, 1], side="left")
    return {message(name): int((places == i).sum()) for i, name in enumerate(ASPECTS)}


def _suggestion(source: Source, seen: list[ReadableImage]) -> Fit:
    """The fit that training would choose: from the pictures that it looks at, as far as they can be read."""
    chosen = {item.key for item in some_of(source.items)}
    some = [s for s in seen if s.item.key in chosen] or seen
    return fit_of(np.array([(s.width, s.height) for s in some]), [s.item for s in some])


def _reasons(fit: Fit) -> tuple[Message, ...]:
    if fit.pixels < USUAL_SIZE:
        return fit.reason, message("data.size_small", pixels=fit.pixels, usual=USUAL_SIZE, size=fit.size)
    if fit.size == USUAL_SIZE:
        return fit.reason, message("data.size_enough", usual=USUAL_SIZE)
    times = (fit.size // USUAL_SIZE) ** 2
    return fit.reason, message("data.size_larger", usual=USUAL_SIZE, size=fit.size, times=times)


def _listed(counts: Mapping[str, int]) -> Message:
    """Names with their counts as one message, so that each is said in the reader's language."""
    each = [message("data.inspect_shape", name=name, count=n) for name, n in counts.items() if n]
    return reduce(lambda listed, one: message("data.inspect_list", listed=listed, one=one), each)


def _some(lines: Sequence[str], most: int) -> list[str]:
    if len(lines) <= most:
        return [*lines]
    return [*lines[:most], message("data.inspect_more", n=len(lines) - most)]
