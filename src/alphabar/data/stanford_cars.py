"""Stanford Cars (Krause et al. 2013), in the layouts that circulate since its official download ended.

16,185 pictures of 196 classes, with a box around each car. Known layouts:

- devkit: ``cars_train/*.jpg``, ``cars_test/*.jpg``, ``devkit/*.mat``; on Kaggle with the pictures one level
  deeper (``cars_train/cars_train/*.jpg``), and the devkit elsewhere or missing;
- renumbered: ``car_ims/*.jpg`` with ``cars_annos.mat``, both splits in one;
- class folders: ``car_data/train/<class>/*.jpg``, with boxes in ``anno_train.csv`` and ``anno_test.csv``.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alphabar.codecs.base import Box, one_line
from alphabar.data.folder import Folder
from alphabar.data.items import Item, Skipped, fingerprint_of
from alphabar.data.mat_files import MatFile, read_mat_files
from alphabar.errors import AlphabarError
from alphabar.messages import Message, message

TRAIN, TEST, RENUMBERED = "cars_train", "cars_test", "car_ims"
PICTURE_FOLDERS = (TRAIN, TEST, RENUMBERED)
SPLIT_OF = {TRAIN: "train", TEST: "test"}
ANNOTATIONS = {
    TRAIN: "cars_train_annos.mat",
    TEST: "cars_test_annos_withlabels.mat",
    RENUMBERED: "cars_annos.mat",
}
CLASS_NAMES = ("cars_meta.mat", "cars_annos.mat")
TEST_WITHOUT_LABELS = "cars_test_annos.mat"

CLASS_FOLDER = re.compile(r".+ (19|20)\d\d")  # every class ends in its year: "Acura TL Sedan 2012"

MAKES_OF_TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")

MAKES = (
    *("Acura", "Audi", "Bentley", "BMW", "Bugatti", "Buick", "Cadillac", "Chevrolet", "Chrysler", "Daewoo"),
    *("Dodge", "Eagle", "Ferrari", "FIAT", "Fisker", "Ford", "Geo", "GMC", "Honda", "HUMMER", "Hyundai"),
    *("Infiniti", "Isuzu", "Jaguar", "Jeep", "Lamborghini", "Lincoln", "Maybach", "Mazda", "McLaren"),
    *("Mercedes-Benz", "MINI", "Mitsubishi", "Nissan", "Plymouth", "Porsche", "Ram", "Rolls-Royce", "Scion"),
    *("smart", "Spyker", "Suzuki", "Tesla", "Toyota", "Volkswagen", "Volvo", *MAKES_OF_TWO_WORDS),
)
# A folder of a class: an album "Italy 2012" ends in a year, too, but begins with no make.
MADE = re.compile(rf"({'|'.join(MAKES)}) .+ (19|20)\d\d", re.I)

BODIES = {  # how class names end before the year
    "Sedan": "sedan",
    "SUV": "SUV",
    "Coupe": "coupe",
    "Coupe IPL": "coupe",
    "Convertible": "convertible",
    "Hatchback": "hatchback",
    "Wagon": "wagon",
    "Minivan": "minivan",
    "Van": "van",
    **{f"{size}Cab": "pickup" for size in ("Super", "Regular ", "Extended ", "Club ", "Crew ", "Quad ")},
}


class Annotation(NamedTuple):
    """What a devkit knows about one picture."""

    number: int | None = None  # of the class, from 1
    box: Box | None = None
    split: str | None = None


class StanfordCars:
    """Stanford Cars as a source: labels are class names, attributes hold the split and what the class names
    say (make, model, body, year), notes what is missing."""

    def __init__(self, folder: Folder, items: Sequence[Item], notes: Sequence[Message]):
        self.name = "Stanford Cars"
        self.items = [self.describe(item) for item in items]
        self.notes = notes
        self.skipped: Sequence[Skipped] = folder.skipped
        self._folder = folder

    @staticmethod
    def describe(item: Item) -> Item:
        """The item with what its class name says: make, model, body and year, and a caption.

        "BMW M3 Coupe 2012" is a "2012 BMW M3 coupe". The body is left out where the class name has none.
        """
        if item.label is None or not CLASS_FOLDER.fullmatch(item.label):
            return item
        name, year = item.label.rsplit(" ", 1)
        make = next((m for m in MAKES_OF_TWO_WORDS if name.startswith(m + " ")), name.split(" ", 1)[0])
        model = name.removeprefix(make).strip()
        known = {"make": make, "model": model, "year": int(year)}
        ending = next((e for e in BODIES if model.endswith(" " + e)), None)
        if ending is not None:
            known["body"] = BODIES[ending]
            known["model"] = model.removesuffix(ending).strip()
        words = (year, make, known["model"], known.get("body"))
        caption = "a " + " ".join(str(word) for word in words if word)
        return replace(item, caption=item.caption or caption, attributes={**item.attributes, **known})

    @staticmethod
    def find(path: Path) -> "StanfordCars | None":
        """Stanford Cars in a folder, None where it is something else, as own classes in its folders are.

        Raises AlphabarError where the annotations are there and the pictures are not.
        """
        root = _unwrapped(path)
        if root.name in PICTURE_FOLDERS or any(os.path.isdir(root / name) for name in PICTURE_FOLDERS):
            return None if _is_own(root) else _numbered_files(root)
        if any(_has_class_folders(root / split) for split in ("", "train", "test")):
            return _class_folders(root)
        if _piece(root, "cars_meta.mat", above=False):
            raise AlphabarError("data.cars_without_pictures", path=path, train=TRAIN, test=TEST)
        return None

    def read(self, item: Item) -> bytes:
        """The file's bytes. Raises Unreadable or OSError."""
        return self._folder.read(item)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and modification times and of all that is known about them."""
        return fingerprint_of(self.items, self._folder.states(self.items), self.skipped)


def _unwrapped(path: Path) -> Path:
    """The folder below wrappers of a single folder, as archives unpack: ``car_data/car_data/train``."""
    for _ in range(3):
        if path.name in PICTURE_FOLDERS:
            break
        folders = _folders_in(path)
        if len(folders) != 1 or folders[0] in ("train", "test", *PICTURE_FOLDERS):
            break
        if any(child.suffix.lower() in (".jpg", ".jpeg", ".png") for child in path.iterdir()):
            break
        path = path / folders[0]
    return path


def _is_own(root: Path) -> bool:
    """Whether only the folders are called as in the set: no file of the devkit, but classes or a table."""
    files = (*CLASS_NAMES, *ANNOTATIONS.values(), TEST_WITHOUT_LABELS)
    if any(_piece(root, name) for name in files):
        return False
    items = [item for item in Folder(root).items if _picture_folder(root, item.key)]
    return any(
        item.label not in (None, *PICTURE_FOLDERS) or item.caption or set(item.attributes) - {"split"}
        for item in items
    )


def _numbered_files(root: Path) -> StanfordCars:
    folder = Folder(root, other_tables=False)
    notes: list[Message] = []
    devkit = _devkit(root)
    names = _class_names(devkit, notes)
    where = {item.key: _picture_folder(root, item.key) for item in folder.items}
    known = {name: _annotations(devkit, name, notes) for name in PICTURE_FOLDERS if name in where.values()}
    if not known:
        raise AlphabarError("data.cars_empty", path=root)
    items, annotated = [], dict.fromkeys(known, 0)
    for item in folder.items:
        pictures = where[item.key]
        if pictures is None:
            continue  # not of the set: a screenshot beside the folders
        annotation = known[pictures].get(item.key.rsplit("/", 1)[-1], Annotation())
        annotated[pictures] += annotation != Annotation()
        split = annotation.split or SPLIT_OF.get(pictures)
        items.append(
            replace(
                item,
                label=_label(annotation.number, names),
                attributes={"split": split} if split else {},
                box=annotation.box,
            )
        )
    for pictures, annotations in known.items():
        there = sum(name == pictures for name in where.values())
        if annotations and annotated[pictures] < there:
            notes.append(
                message("data.cars_not_annotated", count=there - annotated[pictures], folder=pictures)
            )
        if len(annotations) > annotated[pictures]:
            missing = len(annotations) - annotated[pictures]
            notes.append(
                message("data.cars_not_there", count=missing, total=len(annotations), folder=pictures)
            )
    for absent in {TRAIN, TEST} - set(known):
        if RENUMBERED not in known and root.name not in PICTURE_FOLDERS:
            notes.append(message("data.cars_folder_missing", folder=absent, used=", ".join(known)))
    return StanfordCars(folder, items, notes)


def _picture_folder(root: Path, key: str) -> str | None:
    """Which of the set's folders a picture is in, above or below the root."""
    return next((part for part in (root.name, *key.split("/")[:-1]) if part in PICTURE_FOLDERS), None)


def _label(number: int | None, names: Sequence[str]) -> str | None:
    if number is None:
        return None
    return names[number - 1] if 1 <= number <= len(names) else str(number)


def _piece(root: Path, name: str, above: bool = True) -> Path | None:
    """Where a file of the devkit is: in the folder, in a devkit folder inside it, or the same above it."""
    near = (root, *root.resolve().parents[:2]) if above else (root,)
    for place in near:
        for devkit in ("", "devkit", "devkit/devkit", "car_devkit", "car_devkit/devkit"):
            if os.path.isfile(place / devkit / name):
                return place / devkit / name
    return None


def _devkit(root: Path) -> dict[str, MatFile]:
    """What the MATLAB files of the devkit say, by their names, as far as they are there."""
    names = {*CLASS_NAMES, *ANNOTATIONS.values(), TEST_WITHOUT_LABELS}
    paths = {name: path for name in sorted(names) if (path := _piece(root, name))}
    read = read_mat_files(paths.values(), ("class_names", "annotations"))
    return {name: read[path] for name, path in paths.items()}


def _variable(
    devkit: Mapping[str, MatFile], name: str, variable: str, notes: list[Message]
) -> list[Any] | None:
    """A variable of a MATLAB file; None, with a note where the file is there but damaged."""
    file = devkit.get(name)
    if file is None:
        return None
    if variable not in file.values:
        notes.append(message("data.file_damaged", file=name, error=file.error or repr(variable)))
        return None
    value = file.values[variable]
    return value if isinstance(value, list) else [value]


def _class_names(devkit: Mapping[str, MatFile], notes: list[Message]) -> list[str]:
    for file in CLASS_NAMES:
        names = _variable(devkit, file, "class_names", notes)
        if names is not None:
            return [str(name) for name in names]
    notes.append(message("data.cars_without_names"))
    return []


def _annotations(devkit: Mapping[str, MatFile], pictures: str, notes: list[Message]) -> dict[str, Annotation]:
    """By file name, what the devkit knows of the pictures in one folder; a note says what is missing."""
    name = ANNOTATIONS[pictures]
    records = _variable(devkit, name, "annotations", notes)
    if records is None and pictures == TEST:
        records = _variable(devkit, TEST_WITHOUT_LABELS, "annotations", notes)
        if records is not None:
            notes.append(message("data.cars_test_without_labels", file=name, folder=TEST))
    if records is None:
        notes.append(message("data.cars_without_annotations", file=name, folder=pictures))
        return {}
    known: dict[str, Annotation] = {}
    damaged = 0
    for record in records:
        try:
            file, annotation = _annotation(record)
            known[file] = annotation
        except (KeyError, OverflowError, TypeError, ValueError):
            damaged += 1
    if damaged:
        notes.append(message("data.cars_damaged_annotations", file=name, count=damaged, total=len(records)))
    return known


def _annotation(record: Any) -> tuple[str, Annotation]:
    """The name of the picture and what a record says of it. Raises many things for what is no record."""
    path = record["fname"] if "fname" in record else record["relative_im_path"]
    # MATLAB counts pixels from 1 and includes the last one.
    x0, y0, x1, y1 = (float(record[f"bbox_{corner}"]) for corner in ("x1", "y1", "x2", "y2"))
    if not np.isfinite((x0, y0, x1, y1)).all():
        raise ValueError("a box without an end")
    return str(path).rsplit("/", 1)[-1], Annotation(
        number=int(record["class"]) if "class" in record else None,
        box=(x0 - 1, y0 - 1, x1, y1),
        split=("test" if int(record["test"]) else "train") if "test" in record else None,
    )


def _has_class_folders(folder: Path) -> bool:
    names = _folders_in(folder)
    return len(names) > 1 and all(MADE.fullmatch(name) for name in names)


def _folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder that are not hidden; none where it cannot be read."""
    try:
        return [n for n in os.listdir(folder) if not n.startswith(".") and os.path.isdir(folder / n)]
    except OSError:
        return []


def _class_folders(root: Path) -> StanfordCars:
    folder = Folder(root, other_tables=False)
    notes = list(folder.notes)
    boxes: dict[str, dict[str, Box]] = {}
    items = []
    for item in folder.items:
        split = item.attributes.get("split") or (root.name if root.name in ("train", "test") else "train")
        if split not in boxes:
            boxes[split] = _boxes(root, f"anno_{split}.csv", notes)
        items.append(replace(item, box=boxes[split].get(item.key.rsplit("/", 1)[-1])))
    return StanfordCars(folder, items, notes)


def _boxes(root: Path, name: str, notes: list[Message]) -> dict[str, Box]:
    for place in (root, *root.resolve().parents[:3]):
        if os.path.isfile(place / name):
            try:
                return dict(_csv_boxes(place / name))
            except (OSError, ValueError, IndexError, csv.Error) as error:
                notes.append(message("data.file_damaged", file=name, error=one_line(error)))
    notes.append(message("data.cars_without_boxes", file=name))
    return {}


def _csv_boxes(path: Path) -> Iterator[tuple[str, Box]]:
    """Rows of file name, x1, y1, x2, y2, class number; with a header or without."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            if len(row) > 4 and all(value.strip().isdecimal() for value in row[1:5]):
                x0, y0, x1, y1 = (float(value) for value in row[1:5])
                yield row[0], (x0 - 1, y0 - 1, x1, y1)
