"""Tables and captions in the forms that people bring: nothing that can be told is lost, the rest is said."""

import datetime
import json

import pytest
from PIL import Image

from alphabar.data.folder import OTHER_FILES
from alphabar.data.parquet import Parquet
from alphabar.data.sources import open_source
from alphabar.data.stanford_cars import StanfordCars

NAMES = tuple(f"p{i}.png" for i in range(6))
TONES = ["dark", "light"] * 3
ROWS = [{"file_name": name, "tone": tone} for name, tone in zip(NAMES, TONES, strict=True)]


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 100, 50)).save(folder / name)
    return folder


@pytest.fixture
def data(tmp_path):
    return pictures(tmp_path / "data", *NAMES)


def tones(source):
    return [item.attributes.get("tone") for item in source.items]


def labels(source):
    return [item.label for item in source.items]


def captions(source):
    return [item.caption for item in source.items]


def identifiers(source):
    return [note.identifier for note in source.notes]


def table(rows, separator=","):
    return "".join(separator.join(row) + "\n" for row in (rows[0], *(row.values() for row in rows)))


# ---------------------------------------------------------------- tables of another name


@pytest.mark.parametrize(
    "name", ["labels.csv", "train.tsv", "captions.txt", "annotations.jsonl", "Data.JSON"]
)
def test_a_table_of_another_name_is_used_where_it_names_the_pictures(data, name):
    text = table(ROWS) if "json" not in name.lower() else "\n".join(map(json.dumps, ROWS))
    (data / name).write_text(text)
    source = open_source(data)
    assert tones(source) == TONES and captions(source) == [None] * 6
    assert identifiers(source) == ["data.table_used"] and "6 of the 6" in source.notes[0]


@pytest.mark.parametrize("name", ["labels.csv", "notes.txt", "other.json", "sample_submission.csv"])
def test_a_table_of_other_things_is_left_alone(data, name):
    rows = [{"file_name": f"x{i}.png", "tone": "dark"} for i in range(6)]
    if "submission" in name:
        rows = ROWS
    (data / name).write_text(table(rows) if "json" not in name else json.dumps(rows))
    source = open_source(data)
    assert tones(source) == [None] * 6 and source.skipped == []
    told = ["data.table_not_used"] if name == "labels.csv" else []
    assert identifiers(source) == [*told, "data.other_files"]


def test_the_hub_table_adds_to_one_of_another_name(data):
    (data / "labels.csv").write_text("file,label,tone\np0.png,cat,dark\np1.png,dog,dark\n")
    (data / "metadata.csv").write_text("file_name,tone,text\np0.png,light,a cat\n")
    first, second, *_ = open_source(data).items
    assert (first.label, first.caption, first.attributes) == ("cat", "a cat", {"tone": "light"})
    assert (second.label, second.attributes) == ("dog", {"tone": "dark"})


@pytest.mark.parametrize("wrapped", ["img/", "images/all/"])
def test_a_table_above_the_pictures(tmp_path, wrapped):
    pictures(tmp_path, *(wrapped + name for name in NAMES))
    (tmp_path / "list.csv").write_text(table(ROWS))
    assert tones(open_source(tmp_path)) == TONES


def test_a_table_of_a_split_is_about_its_folder(tmp_path):
    pictures(tmp_path, *(f"{split}/p{i}.png" for split in ("train", "test") for i in range(2)))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"id,label\np0,{split} 0\np1,{split} 1\n")
    assert labels(open_source(tmp_path)) == ["test 0", "test 1", "train 0", "train 1"]


def test_a_name_that_two_folders_have_means_none(tmp_path):
    pictures(tmp_path, "a/p0.png", "b/p0.png", "b/p1.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\np0.png,which\np1.png,this\n")
    source = open_source(tmp_path)
    assert {item.key: item.caption for item in source.items if item.caption} == {"b/p1.png": "this"}
    assert [skip.key for skip in source.skipped] == ["p0.png"]


@pytest.mark.parametrize(("cells", "kind"), [(TONES, "label"), ([f"a {t} thing" for t in TONES], "caption")])
@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_a_table_without_a_header(data, cells, kind, name):
    (data / name).write_text("".join(f"{n},{cell}\n" for n, cell in zip(NAMES, cells, strict=True)))
    source = open_source(data)
    assert [getattr(item, kind) for item in source.items] == cells
    assert "data.metadata_without_header" in identifiers(source)


@pytest.mark.parametrize("column", ["label", "Label", "labels", "class", "class_name", "category"])
@pytest.mark.parametrize(("value", "label"), [("3", "3"), ("3.0", "3"), ("cat", "cat"), (" cat ", "cat")])
def test_columns_of_labels(data, column, value, label):
    (data / "metadata.csv").write_text(f"file_name,{column}\np0.png,{value}\np1.png,\n")
    assert labels(open_source(data)) == [label] + [None] * 5


def test_many_tables_of_one_kind_are_about_one_picture_each(data):
    for i in range(OTHER_FILES + 1):
        (data / f"x{i}.json").write_text(json.dumps(ROWS))
    source = open_source(data)
    assert tones(source) == [None] * 6 and identifiers(source) == ["data.other_files"]


# ---------------------------------------------------------------- forms of JSON

COCO = {
    "images": [{"id": i, "file_name": name} for i, name in enumerate(NAMES)],
    "annotations": [{"image_id": i // 2, "caption": f"thing {i}"} for i in range(12)],
}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ({name: {"label": tone} for name, tone in zip(NAMES, TONES)}, "label", TONES),
        (dict(zip(NAMES, TONES)), "label", TONES),
        ({"labels": [[name, i] for i, name in enumerate(NAMES)]}, "label", list("012345")),
        ({name: f"a {t} thing" for name, t in zip(NAMES, TONES)}, "caption", [f"a {t} thing" for t in TONES]),
        ({name: [f"{t} one", "2"] for name, t in zip(NAMES, TONES)}, "caption", [f"{t} one" for t in TONES]),
        ({"file_name": dict(enumerate(NAMES)), "label": dict(enumerate(TONES))}, "label", TONES),
        ({"file_name": NAMES, "label": TONES}, "label", TONES),
        ([{"image": {"path": name}, "label": t} for name, t in zip(NAMES, TONES)], "label", TONES),
        (COCO, "caption", [f"thing {2 * i}" for i in range(6)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl", "captions.json"])
def test_forms_of_json(data, value, kind, expected, indent, name):
    (data / name).write_text(json.dumps(value, indent=indent))
    source = open_source(data)
    assert [getattr(item, kind) for item in source.items] == expected
    assert identifiers(source) == ["data.table_used"] * (name == "captions.json")


def test_a_list_that_is_cut_off_keeps_the_lines_that_are_whole(data):
    text = "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]"
    (data / "metadata.json").write_text(text[:-25])
    source = open_source(data)
    assert tones(source) == [*TONES[:5], None] and identifiers(source) == ["data.metadata_lines"]


# ---------------------------------------------------------------- damaged and mixed tables


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "{end}"])
def test_ends_of_lines(data, end, last):
    (data / "metadata.csv").write_bytes(
        (table(ROWS).strip().replace("\n", end) + last.format(end=end)).encode()
    )
    source = open_source(data)
    assert tones(source) == TONES and source.notes == []


@pytest.mark.parametrize("damage", ['p2.png,"dark', 'p2.png,"da"rk', '"p2.png,dark', 'p2.png,"dark\n'])
def test_a_quote_out_of_place_spoils_its_own_row_only(data, damage):
    lines = table(ROWS).splitlines()
    lines[3] = damage
    (data / "metadata.csv").write_text("\n".join(lines))
    source = open_source(data)
    assert [tone for i, tone in enumerate(tones(source)) if i != 2] == [
        t for i, t in enumerate(TONES) if i != 2
    ]
    assert "data.metadata_lines" in identifiers(source)
    assert "line 4" in source.notes[identifiers(source).index("data.metadata_lines")]


def test_a_file_too_large_for_a_table_is_not_read(data, monkeypatch):
    monkeypatch.setattr("alphabar.data.folder.LARGEST_TABLE", 99)
    (data / "instances_train.json").write_text(json.dumps(COCO))
    assert identifiers(open_source(data)) == ["data.other_files"]


def test_text_of_several_lines_in_quotes_is_one_caption(data):
    (data / "metadata.csv").write_text('file_name,text\np0.png,"a thing,\non a ""table"""\np1.png,a thing\n')
    source = open_source(data)
    assert captions(source)[:2] == ['a thing,\non a "table"', "a thing"] and source.notes == []


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_marks_that_only_look_like_ends_of_lines(data, mark):
    (data / "metadata.csv").write_text(f"file_name,text\np0.png,a{mark}thing\n", encoding="utf-8")
    assert captions(open_source(data))[0] == f"a{mark}thing"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_rows_with_another_separator_than_the_header(data, separator):
    (data / "metadata.csv").write_text("file_name,tone\n" + table(ROWS, separator).split("\n", 1)[1])
    source = open_source(data)
    assert tones(source) == TONES and source.notes == []


def test_spaces_around_cells_are_none_of_theirs(data):
    (data / "metadata.csv").write_text(
        'file_name, text , tone\np0.png, "a thing, red",dark \np1.png,b, dark\n'
    )
    source = open_source(data)
    assert captions(source)[:2] == ["a thing, red", "b"] and tones(source)[:2] == ["dark"] * 2
    assert source.notes == []


@pytest.mark.parametrize("before", ["# made by me\n", "# made by me, yesterday\n\n", "sep=,\n#\n"])
def test_comments_before_the_header(data, before):
    (data / "metadata.csv").write_text(before + table(ROWS))
    source = open_source(data)
    assert tones(source) == TONES and source.notes == []


def test_columns_of_one_name_are_both_kept(data):
    (data / "metadata.csv").write_text("file_name,tone,tone,\np0.png,dark,large,\n")
    source = open_source(data)
    assert source.items[0].attributes == {"tone": "dark", "tone.2": "large"} and source.notes == []


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
@pytest.mark.parametrize(
    ("cells", "read", "between_semicolons"),
    [
        (("1,234", "2,000", "10"), ["1234", "2000", "10"], ["1.234", "2.000", "10"]),
        (("1,234.5", "2,000,000"), ["1234.5", "2000000"], ["1,234.5", "2,000,000"]),
        (("1,234", "2,5"), ["1.234", "2.5"], ["1.234", "2.5"]),
        (("0,234", "1,234"), ["0.234", "1.234"], ["0.234", "1.234"]),
        (("1234,567", "1,234"), ["1234.567", "1.234"], ["1234.567", "1.234"]),
    ],
)
def test_commas_between_thousands(data, separator, cells, read, between_semicolons):
    lines = ["file_name" + separator + "tone", *map(separator.join, zip(NAMES, cells, strict=False))]
    (data / "metadata.csv").write_text("\n".join(lines))
    found = tones(open_source(data))[: len(cells)]
    assert found == (between_semicolons if separator == ";" else read)


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (("1,900", "2,900", "900", "n.a."), ["1900", "2900", "900", "n.a."]),
        (("1,234.5", "2,000,000", ""), ["1234.5", "2000000", ""]),
        (("1,9", "12,25", "3"), ["1.9", "12.25", "3"]),
        (("255,0,0", "255,255,100"), ["255,0,0", "255,255,100"]),
        (("small, red", "1,900"), ["small, red", "1900"]),
    ],
)
def test_quoted_numbers_between_commas(data, cells, read):
    lines = ["file_name,tone", *(f'{n},"{cell}"' for n, cell in zip(NAMES, cells, strict=False))]
    (data / "metadata.csv").write_text("\n".join(lines))
    assert tones(open_source(data))[: len(cells)] == read


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (("1.234,50", "12,5"), ["1234.50", "12.5"]),
        (("1.900", "2.900", "900", "n.a."), ["1900", "2900", "900", "n.a."]),
        (("1.234.567", "2.000"), ["1234567", "2000"]),
        (("1.234", "2.345"), ["1.234", "2.345"]),
        (("1.234", "0.345", "7"), ["1.234", "0.345", "7"]),
        (("12.05.2024", "1.234"), ["12.05.2024", "1.234"]),
    ],
)
def test_points_between_thousands(data, cells, read):
    lines = ["file_name;tone", *map(";".join, zip(NAMES, cells, strict=False))]
    (data / "metadata.csv").write_text("\n".join(lines))
    assert tones(open_source(data))[: len(cells)] == read


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_decimal_commas(data, separator):
    (data / "metadata.csv").write_text(f"file_name{separator}size\np0.png{separator}1,5\n")
    assert open_source(data).items[0].attributes == {"size": "1.5"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_table_whose_last_byte_is_cut_off(data, encoding):
    (data / "metadata.csv").write_bytes(table(ROWS).encode(encoding)[:-1])
    source = open_source(data)
    assert tones(source) == TONES and identifiers(source) == ["data.metadata_lines"]


@pytest.mark.parametrize("name", ["metadata.xlsx", "labels.xls", "t.ods", "metadata.csv.gz", "t.JSONL.GZ"])
def test_a_table_of_a_form_that_is_not_read_is_named(data, name):
    (data / name).write_bytes(b"PK")
    source = open_source(data)
    assert identifiers(source) == ["data.table_not_read"] and name in source.notes[0]


def test_ndjson_is_another_name_of_jsonl(data):
    (data / "metadata.ndjson").write_text("\n".join(map(json.dumps, ROWS)))
    source = open_source(data)
    assert tones(source) == TONES and source.notes == []


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_of_another_encoding_spoil_only_themselves(data, mark):
    pictures(data, "Größe.png")
    rows = "file_name,text\nGröße.png,this\n".encode() + "p0.png,grün\n".encode("cp1252")
    (data / "metadata.csv").write_bytes(mark + rows)
    source = open_source(data)
    assert {item.key: item.caption for item in source.items if item.caption} == {
        "Größe.png": "this",
        "p0.png": "grün",
    }
    assert identifiers(source) == ["data.metadata_code_page"]


def test_lists_and_objects_are_said_not_to_be_used(data):
    row = {
        "file_name": "p0.png",
        "tags": ["red", "big"],
        "box": {"x": 1},
        "none": [],
        "label": ["cat", "dog"],
    }
    (data / "metadata.jsonl").write_text(json.dumps(row))
    source = open_source(data)
    assert labels(source)[0] == "cat, dog" and not any(source.items[0].attributes.values())
    assert identifiers(source) == ["data.metadata_parts"] and "tags, box hold" in source.notes[0]


# ---------------------------------------------------------------- captions in files


@pytest.mark.parametrize("beside", ["p0.txt", "P0.TXT", "p0.caption", "p0.png.txt"])
def test_names_of_caption_files(data, beside):
    (data / beside).write_text("a thing")
    source = open_source(data)
    assert captions(source)[0] == "a thing" and source.notes == []


@pytest.mark.parametrize("other", ["p0.cr2", "p0.heic", "p0.jpg"])
def test_pictures_that_differ_in_their_suffix_share_a_caption(data, other):
    (data / other).write_bytes(b"as a camera writes it")
    (data / "p0.txt").write_text("a thing")
    source = open_source(data)
    assert {i.key: i.caption for i in source.items if i.caption} == dict.fromkeys(
        ("p0.png", other), "a thing"
    )
    assert source.notes == []


def test_captions_whose_names_differ_in_case_alone(data):
    pictures(data, "P0.png")
    (data / "p0.txt").write_text("small")
    (data / "P0.txt").write_text("large")
    found = {item.key: item.caption for item in open_source(data).items if item.caption}
    assert found == {"P0.png": "large", "p0.png": "small"}


def test_captions_that_no_picture_has_are_counted(data):
    (data / "p9.txt").write_text("a thing")
    assert identifiers(open_source(data)) == ["data.other_files"]


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.2 0.1\n1 0.25 0.5 1e-2 0.3\n", "3 .5 .5 1 1 0.9"])
def test_boxes_of_detectors_are_no_captions(data, text):
    (data / "p0.txt").write_text(text)
    source = open_source(data)
    assert captions(source)[0] is None and "data.captions_numbers" in identifiers(source)


def test_a_file_of_boxes_is_counted_once(data):
    (data / "p0.txt").write_text("0 .5 .5 .1 .1")
    note = next(note for note in open_source(data).notes if note.identifier == "data.captions_numbers")
    assert note.values == {"count": 1, "first": "p0.png"}


@pytest.mark.parametrize("text", ["1984", "12 3 4", "5 6 7 8 apples"])
def test_captions_of_few_numbers_are(data, text):
    (data / "p0.txt").write_text(text)
    assert captions(open_source(data))[0] == text


# ---------------------------------------------------------------- parquet


def parquet(path, **columns):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("name", ["metadata.parquet", "labels.parquet"])
def test_a_parquet_table_beside_pictures(data, name):
    parquet(data / name, file_name=NAMES, tone=TONES, image=[{"bytes": b"x"}] * 6)
    source = open_source(data)
    assert tones(source) == TONES and identifiers(source) == ["data.table_used"] * (name == "labels.parquet")


def test_parquet_is_cleaned_as_tables_are(tmp_path):
    pa = pytest.importorskip("pyarrow")
    png = pictures(tmp_path, "a.png").joinpath("a.png").read_bytes()
    (tmp_path / "a.png").unlink()
    parquet(
        tmp_path / "x.parquet",
        image=[png] * 3,
        Caption=pa.array([["  ", "a thing"], [], None], pa.list_(pa.string())),
        Label=[3.0, float("nan"), None],
        year=[1990.0, float("nan"), float("inf")],
        tone=pa.array(["dark", "light", "N/A"]).dictionary_encode(),
        day=[datetime.date(2020, 1, 2)] * 3,
        tags=[["red"], [], None],
    )
    source = open_source(tmp_path)
    assert isinstance(source, Parquet)
    assert captions(source) == ["a thing", None, None] and labels(source) == ["3", None, None]
    assert [item.attributes["year"] for item in source.items] == [1990.0, None, None]
    assert tones(source)[:2] == ["dark", "light"]
    assert source.items[0].attributes["day"] == "2020-01-02"
    assert identifiers(source) == ["data.metadata_numbers", "data.metadata_parts"]
    json.dumps([item.attributes for item in source.items])


@pytest.mark.parametrize(
    "path", ["img/a.png", "img\\a.png", "/home/me/data/img/a.png", "C:\\data\\img\\a.png", "a.png"]
)
def test_paths_in_parquet(tmp_path, path):
    pictures(tmp_path, "img/a.png")
    parquet(tmp_path / "img" / "x.parquet", image=[{"bytes": None, "path": path}])
    source = Parquet(tmp_path)
    assert source.read(source.items[0]) == (tmp_path / "img" / "a.png").read_bytes()


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "junk", ["__MACOSX/._p0.png", "._p0.png", ".ipynb_checkpoints/p0-checkpoint.png", ".DS_Store"]
)
def test_what_systems_leave_behind_is_ignored(data, junk):
    (data / junk).parent.mkdir(exist_ok=True)
    (data / junk).write_bytes(b"\0\5\26\7")
    source = open_source(data)
    assert len(source.items) == 6 and source.skipped == [] and source.notes == []


def test_boxes_of_cars_are_no_table_of_labels(tmp_path):
    pictures(tmp_path, *(f"{split}/Acura RL Sedan 2012/{split}1.png" for split in ("train", "test")))
    pictures(tmp_path, "train/AM General Hummer SUV 2000/train2.png")
    (tmp_path / "anno_train.csv").write_text("train1.png,1,1,5,5,1\n\nbad\ntrain2.png,2,2,6,6,2\n")
    source = open_source(tmp_path)
    assert isinstance(source, StanfordCars)
    boxes = {item.key.rsplit("/", 1)[-1]: item.box for item in source.items}
    assert boxes == {"train1.png": (0, 0, 5, 5), "train2.png": (1, 1, 6, 6), "test1.png": None}
    assert "data.table_used" not in identifiers(source)


@pytest.mark.parametrize("suffix", ["pef", "srw", "NRW"])
def test_camera_raw_is_named(data, suffix):
    (data / f"a.{suffix}").write_bytes(b"II*\0")
    assert any(item.key == f"a.{suffix}" for item in open_source(data).items)


@pytest.mark.parametrize(
    ("beginning", "is_picture"), [(b"\xff\xd8\xff\xe0", True), (b"II*\0", False), (b"BM is", False)]
)
def test_files_of_another_suffix_are_looked_into(data, beginning, is_picture):
    (data / "a.dat").write_bytes(beginning + bytes(20) if is_picture else beginning + b"x" * 20)
    assert any(item.key == "a.dat" for item in open_source(data).items) == is_picture
