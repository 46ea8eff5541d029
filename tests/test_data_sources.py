"""Every source recognises what it is given, says what is missing, and never guesses."""

import csv
import json
import os
import re
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import prepare
from alphabar.data.items import Item
from alphabar.data.parquet import GROUPS_KEPT, Parquet
from alphabar.data.sources import LAYOUTS, SOURCES, open_source
from alphabar.data.stanford_cars import StanfordCars
from alphabar.errors import AlphabarError, UsageError

CARS = Path(os.environ.get("ALPHABAR_STANFORD_CARS", "../shared/data/stanford_cars"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))


def picture(path: Path, color=(200, 100, 50), size=(16, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def facts(source):
    return {item.key: (item.label, item.caption, dict(item.attributes)) for item in source.items}


# ---------------------------------------------------------------- what an argument names


def test_an_unknown_name_says_the_three_forms():
    with pytest.raises(
        UsageError,
        match=r"did you mean 'toycars'.*folder.*name of a source.*toycars.*hf://datasets/owner/name",
    ):
        open_source("toycar")


@pytest.mark.parametrize("data", ["hf://owner/name", "hf://datasets/name", "hf://models/a/b", "hf://", "hf"])
def test_another_hub_form_is_refused(data):
    with pytest.raises(UsageError, match=r"the form is hf://datasets/owner/name"):
        open_source(data)


def test_a_single_file_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a.png is a single file. Name the folder"):
        open_source(tmp_path / "a.png")


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(AlphabarError, match=r"no pictures in .*It needs files such as .jpg"):
        open_source(tmp_path)


def test_a_built_in_name_wins_over_a_folder(tmp_path, monkeypatch, name="toycars"):
    picture(tmp_path / name / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source(name).items) > 1
    assert len(open_source(f"./{name}").items) == 1


def test_a_source_of_ones_own_is_called_by_its_name(tmp_path, monkeypatch):
    class Numbers:
        name, skipped, notes, fingerprint = "numbers", (), (), "numbers"

        def __init__(self, n):
            self.items = [Item(str(i)) for i in range(n)]

        def read(self, item):
            return Image.new("L", (16, 16), int(item.key))

    monkeypatch.setitem(SOURCES, "numbers", lambda rest: Numbers(int(rest or 3)))
    assert len(open_source("numbers").items) == 3
    *_, record = prepare(open_source("numbers:5"), ImageCodec(8, 1))
    assert record.result.items[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="did you mean 'numbers'"):
        open_source("number")


def test_a_layout_of_ones_own_comes_before_the_built_in_ones(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    assert open_source(tmp_path).name == tmp_path.name
    own = object()
    monkeypatch.setitem(LAYOUTS, "own", lambda path, name: own if (path / "own.txt").exists() else None)
    assert open_source(tmp_path) is not own
    (tmp_path / "own.txt").write_text("")
    assert open_source(tmp_path) is own


def test_toycars_of_a_number():
    source = open_source("toycars:12")
    assert len(source.items) == 12
    *_, last = prepare(source, ImageCodec(16))
    assert last.result.items.shape == (12, 16, 16, 3)
    assert all(last.result.captions)
    for wrong in ("toycars:", "toycars:0", "toycars:many", "toycars:-3"):
        with pytest.raises(UsageError, match=r"the number of pictures must be a whole number"):
            open_source(wrong)


# ---------------------------------------------------------------- folders


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in ("b.png", "a.jpg"):
        picture(tmp_path / name)
    assert facts(open_source(tmp_path)) == {"a.jpg": (None, None, {}), "b.png": (None, None, {})}


def test_sub_folders_are_classes_and_hidden_ones_are_not(tmp_path):
    for name in (
        "cats/1.png", "cats/deep/2.png", "dogs/3.png",
        ".ipynb_checkpoints/4.png", "cats/.ipynb_checkpoints/5.png", "dogs/.hidden.png", "__MACOSX/6.png",
    ):  # fmt: skip
        picture(tmp_path / name)
    assert {k: label for k, (label, _, _) in facts(open_source(tmp_path)).items()} == {
        "cats/1.png": "cats", "cats/deep/2.png": "cats", "dogs/3.png": "dogs",
    }  # fmt: skip


def test_one_folder_around_everything_is_no_class(tmp_path):
    for name in ("images/1.png", "images/2.png"):
        picture(tmp_path / name)
    assert [label for label, _, _ in facts(open_source(tmp_path)).values()] == [None, None]


def test_splits_above_classes(tmp_path):
    for name in ("train/cats/1.png", "train/dogs/2.png", "test/cats/3.png"):
        picture(tmp_path / name)
    source = open_source(tmp_path)
    assert facts(source) == {
        "test/cats/3.png": ("cats", None, {"split": "test"}),
        "train/cats/1.png": ("cats", None, {"split": "train"}),
        "train/dogs/2.png": ("dogs", None, {"split": "train"}),
    }
    assert source.notes == ["The splits test, train are used together; name a sub-folder to use one alone."]


def test_classes_are_in_natural_order(tmp_path):
    for name in ("class 10/1.png", "class 9/2.png", "a/3.png"):
        picture(tmp_path / name)
    *_, last = prepare(open_source(tmp_path), ImageCodec(8))
    assert last.result.classes == ("a", "class 9", "class 10")


def test_captions_from_sidecars(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        picture(tmp_path / name)
    (tmp_path / "a.txt").write_text("﻿a réd car\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("  \n")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    os.mkfifo(tmp_path / "d.txt")
    assert [item.caption for item in open_source(tmp_path).items] == ["a réd car", None, "café", None]


def test_metadata_csv(tmp_path):
    for name in ("a.png", "sub/b.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text(
        "file_name,text,color,label\na.png,a car,red,sedan\n./sub/b.png,,blue,\ngone.png,lost,,\n",
        "utf-8-sig",
    )
    source = open_source(tmp_path)
    assert facts(source) == {
        "a.png": ("sedan", "a car", {"color": "red"}),
        "c.png": (None, None, {}),
        "sub/b.png": ("sub", None, {"color": "blue"}),
    }
    assert [(skip.key, skip.reason) for skip in source.skipped] == [
        ("gone.png", "named in the metadata, but there is no such picture")
    ]


def test_metadata_jsonl_in_a_sub_folder(tmp_path):
    for name in ("train/a.png", "train/b.png"):
        picture(tmp_path / name)
    rows = [{"file_name": "a.png", "caption": "a\u2028car", "year": 1999}, {"file_name": "../../x.png"}]
    (tmp_path / "train" / "metadata.jsonl").write_text(
        "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8"
    )
    source = open_source(tmp_path)
    assert facts(source)["train/a.png"] == (None, "a\u2028car", {"split": "train", "year": 1999})
    assert [skip.key for skip in source.skipped] == ["../x.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", b"name,text\nz.png,x\n"),
        ("metadata.csv", b"\xff\xfe\x00broken"),
        ("metadata.jsonl", b'{"file_name": "a.png"\n'),
        ("metadata.jsonl", b"[1, 2]\n"),
        ("metadata.jsonl", b'{"file_name": true}\n'),
    ],
)
def test_broken_metadata_is_a_note(tmp_path, name, content):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path)
    assert facts(source) == {"a.png": (None, None, {})}
    assert len(source.notes) == 1 and source.notes[0].startswith(name)


def test_a_file_name_that_is_no_text(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only text as names")
    picture(tmp_path / "a.png")
    source = open_source(tmp_path)
    assert [item.key for item in source.items] == ["a.png", "caf\\xe9.png"]
    assert [source.read(item) == b"" for item in source.items] == [False, True]
    *_, last = prepare(source, ImageCodec(8))
    assert last.result.skipped[0].key.encode() == b"caf\\xe9.png"


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    root = tmp_path / "root"
    picture(root / "b.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert [item.key for item in open_source(root).items] == ["b.png", "linked/a.png"]


def test_other_files_are_counted(tmp_path):
    for name in ("a.png", "b.docx", "c.docx", "d.csv", "e"):
        (tmp_path / name).write_bytes(b"x")
    assert open_source(tmp_path).notes == [
        "4 files are not pictures and were left alone (2 .docx, 1 .csv, 1 '')."
    ]


# ---------------------------------------------------------------- Stanford Cars

NAMES = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
MADE = [
    {"make": "AM General", "model": "Hummer", "body": "SUV", "year": 2000},
    {"make": "Acura", "model": "RL", "body": "sedan", "year": 2012},
]
BOX_FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]


def annotations(rows, fields):
    """A MATLAB struct array 1×n as the devkit has it."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


TRAIN_FIELDS = [*BOX_FIELDS, "class", "fname"]


def cell(names):
    array = np.empty((1, len(names)), dtype=object)
    array[0, :] = names
    return array


def devkit(folder: Path) -> None:
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "cars_meta.mat", {"class_names": cell(NAMES)})
    rows = [[1, 1, 16, 12, 3, "00001.jpg"], [5, 3, 10, 8, 1, "00002.jpg"], [2, 2, 9, 9, 2, "00003.jpg"]]
    savemat(
        folder / "cars_train_annos.mat", {"annotations": annotations(rows, [*BOX_FIELDS, "class", "fname"])}
    )
    rows = [[1, 1, 8, 8, "00001.jpg"], [2, 2, 9, 9, "00002.jpg"]]
    savemat(folder / "cars_test_annos.mat", {"annotations": annotations(rows, [*BOX_FIELDS, "fname"])})
    rows = [[1, 1, 8, 8, 2, "00001.jpg"], [2, 2, 9, 9, 1, "00002.jpg"]]
    savemat(
        folder.parent / "cars_test_annos_withlabels.mat",
        {"annotations": annotations(rows, [*BOX_FIELDS, "class", "fname"])},
    )


def cars(root: Path, nested: bool = False) -> Path:
    for name, count in (("cars_train", 3), ("cars_test", 2)):
        for i in range(1, count + 1):
            picture(root / name / (name if nested else "") / f"{i:05d}.jpg")
    return root


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("place", ["devkit", "car_devkit/devkit", "devkit/devkit", "."])
def test_devkit_layout(tmp_path, nested, place):
    root = cars(tmp_path / "stanford", nested)
    devkit(root / place)
    if place != ".":
        where = root / place
        (where.parent / "cars_test_annos_withlabels.mat").rename(root / "cars_test_annos_withlabels.mat")
    else:
        (tmp_path / "cars_test_annos_withlabels.mat").rename(root / "cars_test_annos_withlabels.mat")
    source = open_source(root)
    assert isinstance(source, StanfordCars)
    by_name = {(item.attributes["split"], item.key[-9:]): item for item in source.items}
    assert {key: item.label for key, item in by_name.items()} == {
        ("train", "00001.jpg"): NAMES[2], ("train", "00002.jpg"): NAMES[0], ("train", "00003.jpg"): NAMES[1],
        ("test", "00001.jpg"): NAMES[1], ("test", "00002.jpg"): NAMES[0],
    }  # fmt: skip
    # MATLAB's box 5..10 × 3..8 is six pixels wide and high, from pixel 4 and 2 counted from 0.
    assert by_name["train", "00002.jpg"].box == (4, 2, 10, 8)
    assert source.notes == [] and source.skipped == []
    *_, last = prepare(source, ImageCodec(8), "box")
    assert len(last.result.items) == 5
    assert last.result.classes == tuple(NAMES)


def test_one_picture_folder_named_alone(tmp_path):
    root = cars(tmp_path, nested=True)
    devkit(root / "devkit")
    for path in (root / "cars_train", root / "cars_train" / "cars_train"):
        source = open_source(path)
        assert [item.label for item in source.items] == [NAMES[2], NAMES[0], NAMES[1]]
        assert source.notes == []


def test_a_wrapping_folder(tmp_path):
    root = cars(tmp_path / "archive" / "stanford_cars")
    devkit(root / "devkit")
    assert isinstance(open_source(tmp_path / "archive"), StanfordCars)


@pytest.mark.parametrize(
    ("missing", "note", "labels", "boxes"),
    [
        (["cars_meta.mat"], "cars_meta.mat is missing.*numbers 1 to 196; everything else works", 5, 5),
        (
            ["cars_train_annos.mat"],
            "cars_train_annos.mat is missing.*training without classes works.*cars_train have no class",
            2,
            2,
        ),
        (
            ["cars_test_annos_withlabels.mat"],
            "cars_test_annos_withlabels.mat is missing, cars_test_annos.mat is there: fit 'box'.*no class",
            3,
            5,
        ),
        (
            ["cars_test_annos_withlabels.mat", "cars_test_annos.mat"],
            "cars_test_annos_withlabels.mat is missing .*cars_test have no class and fit 'box' finds no",
            3,
            3,
        ),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_a_missing_piece_is_named_exactly(tmp_path, missing, note, labels, boxes, damaged):
    root = cars(tmp_path)
    devkit(root / "devkit")
    for name in missing:
        path = root / name if "withlabels" in name else root / "devkit" / name
        path.write_bytes(b"MATLAB 5.0, cut off") if damaged else path.unlink()
    source = open_source(root)
    assert sum(item.label is not None for item in source.items) == labels
    assert sum(item.box is not None for item in source.items) == boxes
    notes = [n for n in source.notes if "treated as missing" not in n]
    assert len(notes) == 1
    assert re.search(note, notes[0])
    if damaged:
        assert [n.split()[0] for n in source.notes if "treated as missing" in n] == missing
    if missing == ["cars_meta.mat"]:
        assert [item.label for item in source.items[-3:]] == ["3", "1", "2"]
    *_, last = prepare(source, ImageCodec(8))
    assert len(last.result.items) == 5


def test_kaggle_pictures_without_any_devkit(tmp_path):
    source = open_source(cars(tmp_path, nested=True))
    assert isinstance(source, StanfordCars)
    assert {note.split()[0] for note in source.notes} == {
        "cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat",
    }  # fmt: skip
    *_, last = prepare(source, ImageCodec(8))
    assert last.result.classes == () and (last.result.labels == -1).all()
    with pytest.raises(UsageError, match=r"no annotated boxes.*cars_train_annos.mat is missing"):
        next(prepare(source, ImageCodec(8), "box"))


@pytest.mark.parametrize("named", [".", "cars_train"])
def test_own_classes_in_folders_of_those_names_are_a_plain_folder(tmp_path, named):
    for name in ("cars_train/sedan/1.png", "cars_train/suv/1.png", "cars_test/suv/1.png"):
        picture(tmp_path / name)
    source = open_source(tmp_path / named)
    assert not isinstance(source, StanfordCars)
    assert {item.label for item in source.items} == {"sedan", "suv"}
    if named == ".":
        assert {item.attributes["split"] for item in source.items} == {"cars_train", "cars_test"}


def test_an_own_table_in_folders_of_those_names_is_used(tmp_path):
    (cars(tmp_path) / "metadata.csv").write_text("file_name,label,tone\ncars_train/00001.jpg,suv,red\n")
    assert ("suv", None, {"tone": "red", "split": "cars_train"}) in facts(open_source(tmp_path)).values()


def test_annotations_without_pictures(tmp_path):
    devkit(tmp_path / "devkit")
    with pytest.raises(
        AlphabarError, match=r"has the annotations of Stanford Cars but no pictures.*cars_train"
    ):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("records", "unread"),
    [
        (np.array(["a", "b"]), 2),
        (np.array([1.0, 2.0]), 2),
        (lambda: annotations([["00001.jpg", 1]], ["fname", "class"]), 1),
        (
            lambda: annotations([[1, 1, 9, 9, 2, "00001.jpg"], [1, "x", 9, 9, 1, "00002.jpg"]], TRAIN_FIELDS),
            1,
        ),
        (
            lambda: annotations(
                [[1, 1, 9, 9, 2, "00001.jpg"], [1, 1, np.nan, 9, 1, "00002.jpg"]], TRAIN_FIELDS
            ),
            1,
        ),
    ],
)
def test_annotations_of_another_form_are_counted(tmp_path, records, unread):
    from scipy.io import savemat

    root = cars(tmp_path)
    devkit(root / "devkit")
    made = records() if callable(records) else records
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": made})
    source = open_source(root)
    assert len(source.items) == 5
    assert sum(item.box is not None for item in source.items) == 2 + np.size(made) - unread
    assert any(note.identifier == "data.cars_damaged_annotations" for note in source.notes)


def test_pictures_and_annotations_that_do_not_match_are_counted(tmp_path):
    root = cars(tmp_path)
    devkit(root / "devkit")
    (root / "cars_train" / "00002.jpg").unlink()
    picture(root / "cars_test" / "00099.jpg")
    notes = open_source(root).notes
    assert "1 of 3 annotated pictures is not in cars_train." in notes
    assert "1 picture of cars_test is not in its annotations: it has no class and no box." in notes


@pytest.mark.parametrize(
    ("label", "caption", "known"),
    [
        ("BMW M3 Coupe 2012", "a 2012 BMW M3 coupe", ("BMW", "M3", "coupe", 2012)),
        ("Ford F-150 Regular Cab 2007", "a 2007 Ford F-150 pickup", ("Ford", "F-150", "pickup", 2007)),
        ("Ford Ranger SuperCab 2011", "a 2011 Ford Ranger pickup", ("Ford", "Ranger", "pickup", 2011)),
        ("Ram C/V Cargo Van Minivan 2012", "a 2012 Ram C/V Cargo Van minivan",
         ("Ram", "C/V Cargo Van", "minivan", 2012)),
        ("Acura TL Type-S 2008", "a 2008 Acura TL Type-S", ("Acura", "TL Type-S", None, 2008)),
        ("17", None, (None, None, None, None)),
    ],
)  # fmt: skip
def test_what_a_class_of_stanford_cars_says(label, caption, known):
    item = StanfordCars.describe(Item("1.jpg", label))
    assert item.caption == caption
    assert tuple(item.attributes.get(name) for name in ("make", "model", "body", "year")) == known


def test_renumbered_layout(tmp_path):
    from scipy.io import savemat

    rows = [["car_ims/000001.jpg", 1, 1, 8, 8, 2, 0], ["car_ims/000002.jpg", 3, 1, 8, 8, 1, 1]]
    fields = ["relative_im_path", *BOX_FIELDS, "class", "test"]
    savemat(
        tmp_path / "cars_annos.mat", {"annotations": annotations(rows, fields), "class_names": cell(NAMES)}
    )
    for i in (1, 2):
        picture(tmp_path / "car_ims" / f"{i:06d}.jpg")
    source = open_source(tmp_path)
    assert [(item.label, item.attributes, item.box) for item in source.items] == [
        (NAMES[1], {"split": "train", **MADE[1]}, (0, 0, 8, 8)),
        (NAMES[0], {"split": "test", **MADE[0]}, (2, 0, 8, 8)),
    ]
    assert source.notes == []


@pytest.mark.parametrize("inner", ["car_data/car_data", "car_data", "."])
def test_class_folders(tmp_path, inner):
    for split, name, number in (
        ("train", NAMES[0], 1),
        ("train", NAMES[1], 2),
        ("test", NAMES[0], 1),
        ("test", NAMES[1], 3),
    ):
        picture(tmp_path / inner / split / name / f"{number:05d}.jpg")
    for split in ("train", "test"):
        with open(tmp_path / f"anno_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["00001.jpg", 3, 4, 10, 11, 1], ["00002.jpg", 1, 1, 9, 9, 2]])
    source = open_source(tmp_path)
    assert isinstance(source, StanfordCars)
    assert sorted((i.attributes["split"], i.label, i.box) for i in source.items if i.box) == [
        ("test", NAMES[0], (2, 3, 10, 11)),
        ("train", NAMES[0], (2, 3, 10, 11)),
        ("train", NAMES[1], (0, 0, 9, 9)),
    ]  # fmt: skip
    (tmp_path / "anno_test.csv").unlink()
    notes = open_source(tmp_path).notes
    assert any("anno_test.csv is missing: fit 'box' finds no boxes" in note for note in notes)


@pytest.mark.skipif(not CARS.is_dir(), reason=f"no Stanford Cars at {CARS}")
def test_the_real_devkit():
    source = open_source(CARS)
    assert isinstance(source, StanfordCars)
    labels = {item.label for item in source.items}
    assert len(labels) == 196 and "AM General Hummer SUV 2000" in labels
    first = next(item for item in source.items if item.key.endswith("00001.jpg"))
    assert first.label == "Audi TTS Coupe 2012"
    assert all(item.box is not None for item in source.items)
    with Image.open(BytesIO(source.read(first))) as image:
        assert first.box == (0, 0, *image.size)


# ---------------------------------------------------------------- parquet and the Hub


def encoded(color, kind="PNG") -> bytes:
    out = BytesIO()
    Image.new("RGB", (12, 12), color).save(out, kind)
    return out.getvalue()


COLORS = [(10 * i, 5, 250 - 10 * i) for i in range(10)]


def write_parquet(path: Path, columns: dict, features: dict | None = None, rows_a_group: int = 4) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_a_group)


def hub_file(path: Path) -> None:
    """A file as the Hub has Stanford Cars: an image struct and a ClassLabel."""
    write_parquet(
        path,
        {
            "image": [{"bytes": encoded(color), "path": f"{i}.png"} for i, color in enumerate(COLORS)],
            "label": [i % 3 for i in range(9)] + [-1],
            "year": [2000 + i for i in range(10)],
        },
        {
            "image": {"_type": "Image"},
            "label": {"names": NAMES, "_type": "ClassLabel"},
            "year": {"_type": "Value"},
        },
    )


@pytest.mark.parametrize("named", ["file", "folder"])
def test_parquet_of_the_hub(tmp_path, named):
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    hub_file(file)
    source = open_source(file if named == "file" else tmp_path)
    assert isinstance(source, Parquet)
    *_, last = prepare(source, ImageCodec(8))
    dataset = last.result
    assert [tuple(picture[0, 0]) for picture in dataset.items] == COLORS
    assert dataset.classes == tuple(NAMES)
    assert [dataset.classes[label] for label in dataset.labels[:9]] == NAMES * 3 and dataset.labels[9] == -1
    assert dataset.attributes[4] == {"year": 2004, "split": "train"}


def test_parquet_without_class_names(tmp_path):
    write_parquet(
        tmp_path / "a.parquet",
        {"img": [encoded(c) for c in COLORS], "class": list(range(10)), "caption": ["a car"] * 9 + [None]},
    )
    *_, last = prepare(open_source(tmp_path), ImageCodec(8))
    assert last.result.classes == tuple(map(str, range(10)))
    assert last.result.captions == ("a car",) * 9 + (None,)


def test_parquet_in_disorder(tmp_path):
    """Threads may ask for any row; each gets its own."""
    hub_file(tmp_path / "a.parquet")
    source = open_source(tmp_path)
    for i in np.random.Generator(np.random.PCG64(0)).integers(0, 10, 50):
        assert source.read(source.items[i]) == encoded(COLORS[i])
        assert len(source._groups) <= GROUPS_KEPT


def test_bad_rows_and_files_are_named(tmp_path):
    write_parquet(
        tmp_path / "a.parquet",
        {"image": [{"bytes": b"", "path": None}, {"bytes": None, "path": "gone.png"}, None,
                   {"bytes": None, "path": "there.png"}]},
    )  # fmt: skip
    picture(tmp_path / "there.png")
    write_parquet(tmp_path / "b.parquet", {"x": [1], "y": ["z"]})
    (tmp_path / "c.parquet").write_bytes(b"PAR1 cut off")
    *_, last = prepare(Parquet(tmp_path), ImageCodec(8))
    assert last.result.keys == ("a.parquet/0000003",)
    assert [(skip.key, skip.reason.split(":")[0]) for skip in last.result.skipped] == [
        ("b.parquet", "no column of pictures among x, y"),
        ("c.parquet", "damaged"),
        ("a.parquet/0000000", "empty"),
        ("a.parquet/0000001", "named in the metadata, but there is no such picture"),
        ("a.parquet/0000002", "an empty cell"),
    ]


def test_a_damaged_row_group_is_skipped_and_the_others_are_not(tmp_path):
    path = tmp_path / "a.parquet"
    hub_file(path)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36  # where the pictures of the first group begin
    path.write_bytes(data)
    *_, last = prepare(open_source(tmp_path), ImageCodec(8))
    assert [key[-1] for key in last.result.keys] == list("456789")
    assert [skip.key[-1] for skip in last.result.skipped] == list("0123")
    assert "row group is damaged" in last.result.skipped[0].reason


def test_parquet_changes_are_noticed(tmp_path):
    hub_file(tmp_path / "a.parquet")
    before = open_source(tmp_path).fingerprint
    assert open_source(tmp_path).fingerprint == before
    os.utime(tmp_path / "a.parquet", (1, 1))
    assert open_source(tmp_path).fingerprint != before


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(AlphabarError, match=r"needs pyarrow: pip install 'alphabar\[parquet\]'"):
        open_source(tmp_path)


def test_the_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AlphabarError, match=r"pip install 'alphabar\[hub\]'"):
        open_source("hf://datasets/someone/cars")


def stand_in_hub(monkeypatch, root: Path, files: list[str]):
    """huggingface_hub as far as it is used; returns what was asked of it."""
    asked = SimpleNamespace()

    class HfApi:
        def list_repo_files(self, repo, *, repo_type, revision):
            asked.repo, asked.repo_type, asked.listed = repo, repo_type, revision
            if repo == "no/one":
                raise RuntimeError("404 Client Error.\nRepository Not Found")
            return files

    def snapshot_download(repo, *, repo_type, revision, allow_patterns):
        asked.fetched, asked.patterns = revision, allow_patterns
        return str(root)

    module = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_the_hub_with_parquet(tmp_path, monkeypatch):
    hub_file(tmp_path / "data" / "train-00000-of-00001.parquet")
    asked = stand_in_hub(monkeypatch, tmp_path, ["README.md", "data/train-00000-of-00001.parquet"])
    source = open_source("hf://datasets/someone/cars@v2")
    assert (asked.repo, asked.repo_type, asked.listed, asked.fetched) == (
        "someone/cars",
        "dataset",
        "v2",
        "v2",
    )
    assert asked.patterns == ["*.parquet"]
    assert len(source.items) == 10 and source.name == "someone/cars@v2"


def test_data_of_the_hub_name_no_files_outside(tmp_path, monkeypatch):
    picture(tmp_path / "mine.png")
    names = [{"bytes": None, "path": path} for path in (str(tmp_path / "mine.png"), "../mine.png")]
    write_parquet(tmp_path / "hub" / "a.parquet", {"image": names})
    stand_in_hub(monkeypatch, tmp_path / "hub", ["a.parquet"])
    source = open_source("hf://datasets/someone/cars")
    for item in source.items:
        with pytest.raises(Unreadable, match="no such picture"):
            source.read(item)


def test_the_hub_with_pictures_in_a_folder(tmp_path, monkeypatch):
    picture(tmp_path / "small" / "cats" / "a.png")
    picture(tmp_path / "small" / "dogs" / "b.png")
    files = ["small/cats/a.png", "small/dogs/b.png", "small/metadata.csv", "large.parquet"]
    asked = stand_in_hub(monkeypatch, tmp_path, files)
    source = open_source("hf://datasets/someone/cars/small")
    assert "small/*.png" in asked.patterns and "small/*metadata.csv" in asked.patterns
    assert [item.label for item in source.items] == ["cats", "dogs"]


def test_the_hub_with_its_own_conversion(tmp_path, monkeypatch):
    hub_file(tmp_path / "default" / "train" / "0000.parquet")
    asked = stand_in_hub(monkeypatch, tmp_path, ["cars.tgz", "cars.py"])
    source = open_source("hf://datasets/someone/cars")
    assert asked.fetched == "refs/convert/parquet"
    assert source.items[0].attributes["split"] == "train"


def test_the_hub_that_does_not_answer(monkeypatch, tmp_path):
    stand_in_hub(monkeypatch, tmp_path, [])
    with pytest.raises(
        AlphabarError, match=r"^hf://datasets/no/one cannot be fetched: 404 Client Error. Repository"
    ):
        open_source("hf://datasets/no/one")
