"""Folders are what a person meant by them: wrappings, splits, classes, and what is no data at all."""

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from alphabar.data.folder import Folder
from alphabar.data.parquet import Parquet
from alphabar.data.sources import open_source
from alphabar.data.stanford_cars import StanfordCars
from alphabar.errors import AlphabarError


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 100, 50)).save(root / name, "PNG")
    return root


def classes(source):
    return {item.label for item in source.items}


def splits(source):
    return {item.attributes.get("split") for item in source.items}


def identifiers(source):
    return [note.identifier for note in source.notes]


@pytest.mark.parametrize("around", ["", "archive/", "archive/archive/", "a/b/c/", "train/"])
def test_folders_around_everything_keep_the_classes(tmp_path, around):
    source = open_source(
        pictures(tmp_path, f"{around}cats/1.png", f"{around}dogs/2.png", f"{around}dogs/x/3.png")
    )
    assert [item.label for item in source.items] == ["cats", "dogs", "dogs"]
    assert source.notes == []


@pytest.mark.parametrize("around", ["", "archive/"])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "Val"), ("seg_train", "seg_test"), ("train_images", "test_images"),
        ("train2017", "val2017"), ("Cars_Train", "Cars_Test"), ("my-training-set", "my-validation-set"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inner", ["", "same/", "own"])
def test_splits(tmp_path, around, train, test, inner):
    for split in (train, test):
        inside = f"{split}/" if inner == "own" else inner
        pictures(tmp_path / around, f"{split}/{inside}sea/1.png", f"{split}/{inside}street/2.png")
    source = open_source(tmp_path)
    assert classes(source) == {"sea", "street"} and splits(source) == {train, test}
    assert identifiers(source) == ["data.splits_of_folder"]


def test_stray_pictures_beside_splits(tmp_path):
    source = open_source(
        pictures(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "preview.png")
    )
    assert {item.key: item.label for item in source.items} == {
        "preview.png": None, "test/cat/3.png": "cat", "train/cat/1.png": "cat", "train/dog/2.png": "dog",
    }  # fmt: skip
    assert splits(source) == {"train", "test", None}
    assert identifiers(source) == ["data.splits_of_folder", "data.loose_beside_splits"]
    assert "preview.png" in source.notes[1]


def test_a_stray_picture_beside_one_split(tmp_path):
    source = open_source(pictures(tmp_path, "train/cat/1.png", "train/dog/2.png", "preview.png"))
    assert classes(source) == {"cat", "dog", None}
    assert identifiers(source) == ["data.loose_beside_splits"]


@pytest.mark.parametrize("third", ["unlabeled", "dev", "extra", "images_more"])
def test_a_third_folder_beside_splits_is_said(tmp_path, third):
    source = open_source(pictures(tmp_path, "train/1.png", "validation/2.png", f"{third}/3.png"))
    assert classes(source) == {None} and splits(source) == {"train", "validation", third}
    assert all(third in note for note in source.notes)
    assert len(source.notes) == 1 + (third in ("extra", "images_more"))


@pytest.mark.parametrize(
    "names", [("train", "bus", "car"), ("test_tube", "train_station"), ("training", "race")]
)
def test_classes_that_only_sound_like_splits(tmp_path, names):
    source = open_source(pictures(tmp_path, *(f"{name}/1.png" for name in names)))
    assert classes(source) == set(names) and splits(source) == {None}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "eval"), ("train", "holdout"), ("entrenamiento", "prueba"), ("fold1", "fold2", "fold_10"),
        ("train", "Held-out"), ("entrenamiento", "validacio\u0301n"),
    ],
)  # fmt: skip
def test_other_names_of_splits(tmp_path, names):
    source = open_source(pictures(tmp_path, *(f"{name}/{c}/1.png" for name in names for c in ("cat", "dog"))))
    assert classes(source) == {"cat", "dog"} and len(splits(source)) == len(names)
    assert identifiers(source) == ["data.splits_of_folder"]


@pytest.mark.parametrize("other", ["mine", "second half"])
def test_a_folder_of_the_same_classes_beside_a_split(tmp_path, other):
    names = [f"{name}/{c}/1.png" for name in ("train", other) for c in ("cat", "dog")]
    source = open_source(pictures(tmp_path, *names))
    assert classes(source) == {"cat", "dog"} and splits(source) == {"train", other}
    assert identifiers(source) == ["data.splits_of_folder", "data.beside_splits"]


@pytest.mark.parametrize(
    "names",
    [
        ("red/cat/1.png", "red/dog/1.png", "blue/cat/1.png", "blue/dog/1.png"),  # no split
        ("train/cat/1.png", "train/dog/1.png", "bus/cat/1.png"),  # not the same below
        ("train/cat/1.png", "bus/cat/1.png"),  # a single one
        ("train/cat/1.png", "train/dog/1.png", "bus/cat/1.png", "bus/dog/1.png", "bus/1.png"),
    ],
)
def test_sub_folders_of_classes(tmp_path, names):
    source = open_source(pictures(tmp_path, *names))
    assert classes(source) == {name.partition("/")[0] for name in names} and splits(source) == {None}


def test_a_class_that_only_one_split_has_stays_a_class(tmp_path):
    source = open_source(pictures(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/x/3.png"))
    assert classes(source) == {"cat", "dog"}


def test_two_spellings_of_one_class_are_one(tmp_path):
    source = open_source(pictures(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "bar/3.png"))
    assert classes(source) == {"caf\u00e9", "bar"}
    (tmp_path / "metadata.csv").write_text(
        "file_name,an\u0303o,text\nbar/3.png,nin\u0303o,un nin\u0303o\n", encoding="utf-8"
    )
    (item,) = (item for item in open_source(tmp_path).items if item.key == "bar/3.png")
    assert item.attributes == {"a\u00f1o": "ni\u00f1o"} and item.caption == "un ni\u00f1o"


def test_a_picture_beside_the_folder_around_classes(tmp_path):
    source = open_source(pictures(tmp_path, "animals/cat/1.png", "animals/dog/2.png", "cover.png"))
    assert classes(source) == {"cat", "dog", None}
    assert identifiers(source) == ["data.loose_beside_wrapping"]


@pytest.mark.parametrize(
    "albums",
    [
        ("Italy 2012", "Spain 2014"),
        ("Summer in Rome 2009", "Ford meeting 2010"),
        ("Acura RL Sedan 2012", "Rome 2012"),
    ],
)
@pytest.mark.parametrize("above", ["", "train/"])
def test_albums_with_years_are_no_cars(tmp_path, albums, above):
    source = open_source(pictures(tmp_path, *(f"{above}{album}/1.png" for album in albums)))
    assert not isinstance(source, StanfordCars)
    assert classes(source) == set(albums) and not any(item.caption for item in source.items)


def test_class_folders_of_cars_are(tmp_path):
    source = open_source(
        pictures(tmp_path, "Acura RL Sedan 2012/1.png", "smart fortwo Convertible 2012/1.png")
    )
    assert isinstance(source, StanfordCars)


@pytest.mark.parametrize(
    "files", [("recipe.toml",), ("recipe.toml", "log.jsonl"), ("recipe.json", "MANIFEST.json")]
)
def test_a_run_or_model_inside_is_no_data(tmp_path, files):
    pictures(tmp_path, "cats/1.png", "dogs/2.png", "runs/first/samples/3.png", "runs/first/4.png")
    for name in files:
        (tmp_path / "runs" / "first" / name).write_text("")
    source = open_source(tmp_path)
    assert classes(source) == {"cats", "dogs"}
    assert [(skip.key, skip.reason.identifier) for skip in source.skipped] == [("runs/first", "data.is_run")]
    assert len(open_source(tmp_path / "runs" / "first").items) == 2  # named itself, it is what is meant


@pytest.mark.parametrize("name", ["samples.json", "restoration.json", "degradation.json"])
def test_results_inside_are_no_data(tmp_path, name):
    pictures(tmp_path, "1.png", "2.png", "out/000000.png", "out/overview/grid.png")
    (tmp_path / "out" / name).write_text("{}")
    source = open_source(tmp_path)
    assert [item.key for item in source.items] == ["1.png", "2.png"] and classes(source) == {None}
    assert [(skip.key, skip.reason.identifier) for skip in source.skipped] == [("out", "data.is_result")]
    assert name in source.skipped[0].reason


@pytest.mark.parametrize("picture", ["000000.png", "cats/000000.png"])
def test_samples_named_themselves_are_without_their_overview(tmp_path, picture):
    pictures(tmp_path, picture, "000001.png", "overview/grid.png", "overview/reverse.png")
    (tmp_path / "samples.json").write_text("{}")
    source = open_source(tmp_path)
    assert [item.key for item in source.items] == sorted([picture, "000001.png"])
    assert "overview" not in classes(source) and source.skipped == []


def test_dishes_with_recipes_and_an_overview_are_data(tmp_path):
    pictures(tmp_path, "pizza/1.png", "soup/2.png", "overview/3.png")
    (tmp_path / "pizza" / "recipe.json").write_text("{}")
    assert classes(open_source(tmp_path)) == {"pizza", "soup", "overview"}


@pytest.mark.parametrize("name", ["dogs", "dogs.png", "cats/1.txt", "metadata.csv"])
def test_dead_links_are_named(tmp_path, name):
    pictures(tmp_path, "cats/1.png")
    (tmp_path / name).symlink_to("/nowhere/at/all")
    source = open_source(tmp_path)
    assert [(skip.key, skip.reason.identifier) for skip in source.skipped] == [(name, "data.dead_link")]


def forbid(monkeypatch, folder):
    """Makes a folder unreadable, also for root."""
    real, status = os.scandir, os.stat

    def scandir(path="."):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    def stat(path, *args, **settings):
        if isinstance(path, str | os.PathLike) and str(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return status(path, *args, **settings)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path=".": [entry.name for entry in scandir(path)])
    monkeypatch.setattr(os, "stat", stat)


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    pictures(tmp_path, "cats/1.png", "dogs/2.png")
    forbid(monkeypatch, tmp_path / "dogs")
    source = open_source(tmp_path)
    assert [(skip.key, skip.reason.identifier) for skip in source.skipped] == [
        ("dogs", "data.folder_unreadable")
    ]


def test_an_unreadable_root_is_one_sentence(tmp_path, monkeypatch):
    root = pictures(tmp_path / "data", "1.png")
    forbid(monkeypatch, root)
    with pytest.raises(AlphabarError, match="Permission denied"):
        open_source(root)


@pytest.mark.parametrize(
    "name",
    ["a.jpg_large", "b.jpg-large", "c.jpg?w=640", "d.jpeg.1", "e.PNG:large", "f.jpg~", "g.jpg.bak", "h.dat"],
)
def test_names_of_downloads(tmp_path, name):
    assert [item.key for item in open_source(pictures(tmp_path, name)).items] == [name]


def test_files_that_are_left_alone_are_named_where_there_is_nothing_else(tmp_path):
    (tmp_path / "a.jpg~").write_text("no picture")
    with pytest.raises(AlphabarError, match=r"1 file is not a picture.*1 \.jpg~"):
        open_source(tmp_path)


def test_an_ordinary_folder_is_what_it_was(tmp_path):
    """The fingerprint decides about decoded data: it stays for folders without anything odd."""
    pictures(tmp_path, "train/cats/1.png", "train/dogs/2.png", "test/cats/3.png")
    (tmp_path / "train" / "metadata.csv").write_text(
        "file_name,text,color,label\ncats/1.png,a cat,red,tabby\n"
    )
    (tmp_path / "train" / "dogs" / "2.txt").write_text("a dog")
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"x" * 100)
        os.utime(path, ns=(10**18, 10**18))
    assert Folder(tmp_path).fingerprint == "9f279db390cc14561ed0e2cfb7370e5e320de5144a2ca983bb90b7f2a94d322a"


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    """Nine class folders with links to all others have 986,409 paths through them."""
    names = [f"c{i}" for i in range(9)]
    pictures(tmp_path, *(f"{name}/1.png" for name in names))
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / name / f"a-{other}").symlink_to(tmp_path / other)
    source = open_source(tmp_path)
    assert [(item.key, item.label) for item in source.items] == [(f"{name}/1.png", name) for name in names]
    assert {skip.reason.identifier for skip in source.skipped} == {"data.folder_twice"}
    assert len(source.skipped) == 72


@pytest.mark.parametrize("link", ["a/link", "z", "dogs/up"])
def test_a_link_takes_nothing_from_the_folder_itself(tmp_path, link):
    pictures(tmp_path, "cats/1.png", "dogs/2.png", "a/3.png")
    (tmp_path / link).symlink_to(tmp_path if link.endswith("up") else tmp_path / "cats")
    source = open_source(tmp_path)
    assert [item.key for item in source.items] == ["a/3.png", "cats/1.png", "dogs/2.png"]
    assert [(skip.key, skip.reason.identifier) for skip in source.skipped] == [(link, "data.folder_twice")]


def parquet(path: Path, rows: int, **columns: list) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": [f"class {i % 3}" for i in range(rows)], **columns}), path)
    return path


INSIDE = [{"bytes": b"\x89PNG", "path": "a.png"}] * 30


@pytest.mark.parametrize("name", ["data/train-00000.parquet", "train.parquet"])
@pytest.mark.parametrize("loose", [("banner.png",), ("assets/a.png", "assets/b.png", "logo.png")])
def test_stray_pictures_do_not_hide_parquet_files(tmp_path, name, loose):
    parquet(tmp_path / name, 30, image=INSIDE)
    source = open_source(pictures(tmp_path, *loose))
    assert isinstance(source, Parquet) and len(source.items) == 30
    assert identifiers(source) == ["data.loose_beside_parquet"] and loose[0] in source.notes[0]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("metadata.parquet", {"image": INSIDE, "file_name": ["p0.png"] * 30}),
        ("table.parquet", {"file_name": ["p0.png"] * 30}),
        ("table.parquet", {"image": [{"bytes": None, "path": "p0.png"}] * 30}),
    ],
)
def test_parquet_tables_beside_pictures_are_tables(tmp_path, name, columns):
    parquet(tmp_path / name, 30, **columns)
    source = open_source(pictures(tmp_path, "p0.png", "p1.png"))
    assert isinstance(source, Folder) and len(source.items) == 2
    assert "file_name" not in columns or source.items[0].label == "class 2"


def test_a_parquet_file_beside_more_pictures_is_left_alone(tmp_path):
    parquet(tmp_path / "sample.parquet", 3, image=INSIDE[:3])
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    source = open_source(pictures(tmp_path, "1.png", "2.png", "3.png", "4.png"))
    assert isinstance(source, Folder) and identifiers(source) == ["data.other_files"]


@pytest.mark.parametrize("stray", ["archive/cover.png", "archive/a/x.png"])
def test_strays_inside_and_outside_the_folder_around_classes(tmp_path, stray):
    names = [f"archive/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
    source = open_source(pictures(tmp_path, "preview.png", stray, *names))
    assert {item.label for item in source.items if item.key in names} == {"cat", "dog"}
    assert "archive" not in classes(source) and "data.loose_beside_wrapping" in identifiers(source)


def test_a_folder_of_loose_pictures_beside_others_stays_a_class(tmp_path):
    source = open_source(
        pictures(tmp_path, "1.png", *(f"art/{i}.png" for i in range(5)), "art/a/1.png", "art/b/1.png")
    )
    assert classes(source) == {None, "art"}


def test_a_line_break_and_a_backslash_in_names_are_two_pictures(tmp_path):
    pictures(tmp_path, "a\nb.png", "a\\nb.png")
    (tmp_path / "metadata.csv").write_text('file_name,label\n"a\nb.png",line\na\\nb.png,backslash\n')
    source = open_source(tmp_path)
    assert {source.paths[item.key].name: item.label for item in source.items} == {
        "a\nb.png": "line", "a\\nb.png": "backslash"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x/" * 4000 + "1.png", "/x" * 4000 + "/1.png", "../" * 4000 + "1.png"])
def test_a_name_of_many_parts_takes_no_time(tmp_path, name):
    pictures(tmp_path, "cats/1.png", "dogs/2.png")
    (tmp_path / "metadata.jsonl").write_text((json.dumps({"file_name": name, "label": "x"}) + "\n") * 20)
    began = time.process_time()
    open_source(tmp_path)
    assert time.process_time() - began < 5
