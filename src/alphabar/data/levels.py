"""What the levels of folders above pictures mean: wrappings, splits and classes."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from alphabar.data.items import Item
from alphabar.formatting import folded
from alphabar.messages import Message, message

SPLITS = {
    **dict.fromkeys(("train", "training", "entrenamiento"), "train"),
    **dict.fromkeys(("test", "testing", "prueba", "pruebas"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "validacion", "validación"), "validation"),
    **dict.fromkeys(("eval", "evaluation", "evaluacion", "evaluación"), "evaluation"),
    **dict.fromkeys(("holdout", "hold_out", "held_out", "hold-out", "held-out"), "held out"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled"),
    **{f"fold{mark}{i}": f"fold {i}" for mark in ("", "_", "-", " ") for i in range(100)},
}
"""Names of splits and which split each means."""

APART = re.compile(r"~\d+")
"""Folders that an upload makes for files whose names were there before: they are no classes."""

_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")


def with_labels(items: Sequence[Item], notes: list[Message]) -> list[Item]:
    """The items with the first meaningful folder level as label, and the split above it as attribute.

    A folder around everything is a wrapping, not a class. A level of splits is recognized by two splits side
    by side, whatever else lies beside them, or where there is nothing else, or by one where every folder has
    the same sub-folders, two or more, which are the classes; notes say what lies beside splits.
    """
    parents = [item.key.split("/")[:-1] for item in items]
    parents = [parts[1:] if parts and APART.fullmatch(parts[0]) else parts for parts in parents]
    items = list(items)
    while True:
        tops = Counter(parts[0] for parts in parents if parts)
        if splits := _splits_among(tops, parents):
            items = _with_splits(items, parents, splits, notes)
            _unwrap_each(parents, [item.attributes.get("split") for item in items])
            break
        if not _is_wrapping(parents, tops, notes):
            break
        for parts in parents:
            del parts[:1]
    labels = [parts[0] if parts else None for parts in parents]
    if len(set(labels)) < 2:
        return items
    return [replace(item, label=label) for item, label in zip(items, labels, strict=True)]


def _splits_among(names: Counter[str], parents: Sequence[Sequence[str]]) -> dict[str, str]:
    """The folders that are splits, and which; empty where the level is one of classes.

    names: of the level's folders. parents: the folders around each picture, from that level on.
    """
    exact = {name: SPLITS[folded(name)] for name in names if folded(name) in SPLITS}
    if exact and (len(exact) == len(names) or len({*exact.values()}) > 1 or _same_below(parents)):
        return exact
    # "seg_train" beside "seg_test", "train2017" beside "val2017": apart from the split, names are the same.
    found = {name: _SPLIT_WORD.search(folded(name)) for name in names}
    rests = {_SPLIT_WORD.sub("", folded(name), count=1) for name, split in found.items() if split}
    kinds = {name: SPLITS[split[1]] for name, split in found.items() if split}
    return kinds if len(rests) == 1 and len({*kinds.values()}) > 1 else {}


def _same_below(parents: Sequence[Sequence[str]]) -> bool:
    """Whether all folders of a level hold the same sub-folders, two or more, and no pictures beside them."""
    below: dict[str, set[str]] = {}
    for parts in parents:
        if parts:
            below.setdefault(parts[0], set()).add(folded(parts[1]) if len(parts) > 1 else "")
    inner = next(iter(below.values()))
    return len(inner) > 1 and "" not in inner and all(each == inner for each in below.values())


def _with_splits(
    items: Sequence[Item], parents: list[list[str]], splits: dict[str, str], notes: list[Message]
) -> list[Item]:
    """The items with the folder as attribute "split"; the level is taken off their parents."""
    names = [parts.pop(0) if parts else None for parts in parents]
    used = {name for name in names if name is not None}
    if len(used) > 1:
        notes.append(message("data.splits_of_folder", splits=", ".join(sorted(used))))
    if others := sorted(used - set(splits)):
        notes.append(message("data.beside_splits", folders=", ".join(others)))
    if loose := [item.key for item, name in zip(items, names, strict=True) if name is None]:
        notes.append(message("data.loose_beside_splits", count=len(loose), first=loose[0]))
    return [
        item if name is None else replace(item, attributes={"split": name})
        for item, name in zip(items, names, strict=True)
    ]


def _unwrap_each(parents: list[list[str]], splits: Sequence[str | None]) -> None:
    """Takes off the folders around all pictures of a split: of its own name, or the same in every split."""
    while True:
        below: dict[str, set[str | None]] = {}
        for parts, split in zip(parents, splits, strict=True):
            if split is not None:
                below.setdefault(split, set()).add(parts[0] if parts else None)
        only = {split: next(iter(names)) for split, names in below.items() if len(names) == 1}
        same = len(only) == len(below) and len({*only.values()}) == 1
        wrapped = {s for s, name in only.items() if name and (same or name.lower() == s.lower())}
        if not wrapped:
            return
        for parts, split in zip(parents, splits, strict=True):
            if split in wrapped:
                del parts[0]


def _is_wrapping(parents: list[list[str]], tops: Counter[str], notes: list[Message]) -> bool:
    """Whether one folder is around all pictures, or around the class folders and all others lie loose."""
    if len(tops) != 1:
        return False
    loose = len(parents) - tops.total()
    if loose == 0:
        return True
    inner = [parts[1] if len(parts) > 1 else None for parts in parents if parts]
    if len({*inner} - {None}) < 2 or 2 * inner.count(None) > len(inner):
        return False  # a folder of pictures of its own
    notes.append(message("data.loose_beside_wrapping", count=loose, folder=next(iter(tops))))
    return True
