"""Labels and captions of tables are used where they can be read, and a note says what could not."""

import json
import unicodedata

import pytest
from PIL import Image

from alphabar.conditioning.fields import Categorical, Numeric, label_value
from alphabar.conditioning.vocabulary import build_vocabulary, label_columns
from alphabar.data.sources import open_source
from alphabar.formatting import finite_number

NAMES = tuple(f"p{i}.png" for i in range(6))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 8), (200, 100, 50)).save(folder / name)
    return folder


def tones(source):
    return [item.attributes.get("tone") for item in source.items]


def fields_of(source):
    columns = label_columns("attributes", [], [], [item.attributes for item in source.items])
    return {field.name: field for field in build_vocabulary("attributes", columns).fields}


ROWS = [(name, ("dark", "light")[i % 2]) for i, name in enumerate(NAMES)]
EXPECTED = [tone for _, tone in ROWS]


def csv_text(separator=",", names=("file_name", "tone"), rows=ROWS):
    return "".join(separator.join(cells) + "\n" for cells in (names, *rows))


@pytest.mark.parametrize("blank", ["", ",", ",,", " , "])
@pytest.mark.parametrize("place", range(7))
def test_an_empty_row_loses_nothing(data, blank, place):
    lines = csv_text().splitlines()
    lines.insert(place, blank)
    (data / "metadata.csv").write_text("\n".join(lines))
    source = open_source(data)
    assert tones(source) == EXPECTED
    assert source.notes == [] and source.skipped == []


def test_a_row_without_a_name_is_counted_and_the_others_are_used(data):
    (data / "metadata.csv").write_text(csv_text(rows=[ROWS[0], ("", "lost"), *ROWS[1:], (" ", "lost")]))
    source = open_source(data)
    assert tones(source) == EXPECTED
    assert [note.identifier for note in source.notes] == ["data.metadata_without_name"]
    assert "2 rows" in source.notes[0]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_encodings(data, encoding, suffix):
    rows = [{"file_name": name, "text": "a café", "tone": "grün"} for name in NAMES]
    text = (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        if suffix == "jsonl"
        else csv_text(names=("file_name", "text", "tone"), rows=[row.values() for row in rows])
    )
    (data / f"metadata.{suffix}").write_bytes(text.encode(encoding))
    source = open_source(data)
    assert {(item.caption, item.attributes["tone"]) for item in source.items} == {("a café", "grün")}
    expected = ["data.metadata_code_page"] if encoding in ("cp1252", "latin-1") else []
    assert [note.identifier for note in source.notes] == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_of_captions(data, encoding):
    (data / "p0.txt").write_bytes("a café by the sea\n".encode(encoding))
    source = open_source(data)
    assert source.items[0].caption == "a café by the sea"
    assert [note.identifier for note in source.notes] == ["data.captions_code_page"] * (encoding == "cp1252")


def test_a_caption_cut_within_a_character_stays_unicode(data):
    (data / "p0.txt").write_bytes(b"x" + "é".encode() * 40_000)
    source = open_source(data)
    assert set(source.items[0].caption) == {"x", "é"} and source.notes == []


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("table", ["metadata.csv", "Metadata.CSV", "metadata.tsv"])
@pytest.mark.parametrize("before", ["", "sep={}\n", "\n\n"])
def test_separators(data, separator, table, before):
    (data / table).write_text(before.format(separator) + csv_text(separator))
    source = open_source(data)
    assert tones(source) == EXPECTED and source.notes == []


def test_a_decimal_comma_is_a_number(data):
    rows = [(name, f"{i},5") for i, name in enumerate(NAMES)]
    (data / "metadata.csv").write_text(csv_text(";", ("file_name", "size"), rows))
    assert isinstance(fields_of(open_source(data))["size"], Numeric)


@pytest.mark.parametrize(
    "column",
    [
        "file_name",
        "image",
        "image_path",
        "file",
        "filename",
        "File_Name",
        "IMAGE",
        "Image Path",
        "path",
        "img",
    ],
)
def test_columns_of_file_names(data, column):
    (data / "metadata.csv").write_text(csv_text(names=(column, "tone")))
    source = open_source(data)
    assert tones(source) == EXPECTED and source.notes == []
    assert not any(column in item.attributes for item in source.items)


def test_file_name_is_used_before_the_others(data):
    rows = [(f"http://x/{name}", name) for name in NAMES]
    (data / "metadata.csv").write_text(csv_text(names=("image", "file_name"), rows=rows))
    source = open_source(data)
    assert source.items[0].attributes == {"image": "http://x/p0.png"} and source.skipped == []


@pytest.mark.parametrize("column", ["text", "caption", "Caption", "TEXT", "captions"])
def test_columns_of_captions(data, column):
    (data / "metadata.csv").write_text(csv_text(names=("image", column)))
    source = open_source(data)
    assert [item.caption for item in source.items] == EXPECTED
    assert all(item.attributes == {} for item in source.items)


@pytest.mark.parametrize("column", ["where", "image_id", "id"])
@pytest.mark.parametrize("suffix", [".png", ""])
def test_a_column_of_another_name_is_found_by_what_is_in_it(data, column, suffix):
    rows = [(tone, name.replace(".png", suffix)) for name, tone in ROWS]
    (data / "metadata.csv").write_text(csv_text(names=("tone", column), rows=rows))
    source = open_source(data)
    assert tones(source) == EXPECTED and source.items[0].attributes == {"tone": "dark"}
    assert [note.identifier for note in source.notes] == ["data.metadata_column"]


def test_columns_without_names_of_pictures_are_told(data):
    (data / "metadata.csv").write_text(csv_text(names=("where", "tone"), rows=[("x.png", "dark")] * 3))
    source = open_source(data)
    assert [note.identifier for note in source.notes] == ["data.metadata_without_column"]
    assert "where, tone" in source.notes[0] and "file_name" in source.notes[0]


def test_a_column_without_a_name_is_none(data):
    rows = [(str(i), *row) for i, row in enumerate(ROWS)]
    (data / "metadata.csv").write_text(csv_text(names=("", "file_name", "tone"), rows=rows))
    assert set(fields_of(open_source(data))) == {"tone"}


MISSING = ["NaN", "nan", "N/A", "n/a", "None", "null", "NULL", "#N/A", "", "  ", "<NA>"]


@pytest.mark.parametrize("missing", [*MISSING, None, float("nan")])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_missing_number_leaves_a_number(data, missing, suffix):
    values = [missing if i % 3 == 0 else 1990 + i for i in range(6)]
    if suffix == "csv":
        text = csv_text(names=("file_name", "year"), rows=[(n, str(v)) for n, v in zip(NAMES, values)])
    else:
        text = "\n".join(json.dumps({"file_name": n, "year": v}) for n, v in zip(NAMES, values))
    (data / f"metadata.{suffix}").write_text(text)
    source = open_source(data)
    field = fields_of(source)["year"]
    assert isinstance(field, Numeric) and field.mean == pytest.approx(1993)
    assert source.notes == []


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_name_is_no_name(data, missing):
    rows = [(name, missing if i > 3 else tone, missing) for i, (name, tone) in enumerate(ROWS)]
    (data / "metadata.csv").write_text(csv_text(names=("file_name", "tone", "label"), rows=rows))
    source = open_source(data)
    assert fields_of(source) == {"tone": Categorical("tone", ("dark", "light"))}
    assert {item.label for item in source.items} == {None}


@pytest.mark.parametrize(
    "huge", [int("9" * 400), int("9" * 4000), -int("9" * 309), float("inf"), "inf", "-Infinity"]
)
def test_a_number_beyond_all_numbers_is_unknown_and_said(data, huge):
    rows = [{"file_name": name, "n": huge if i == 3 else i} for i, name in enumerate(NAMES)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(data)
    assert fields_of(source)["n"].mean == pytest.approx(12 / 5)
    (note,) = source.notes
    assert note.identifier == "data.metadata_numbers"
    assert (note.values["count"], note.values["columns"]) == (1, "n")


def test_a_number_of_five_thousand_digits(data):
    lines = [f'{{"file_name": "{name}", "n": {i}}}' for i, name in enumerate(NAMES)]
    lines[3] = '{"file_name": "p3.png", "n": ' + "9" * 5000 + "}"
    (data / "metadata.jsonl").write_text("\n".join(lines))
    assert fields_of(open_source(data))["n"].mean == pytest.approx(12 / 5)


@pytest.mark.parametrize(
    ("cell", "caption"),
    [
        (["a round thing", "a thing"], "a round thing"),
        (["  ", "a thing"], "a thing"),
        ([], None),
        ([["a thing"]], "a thing"),
        ("   ", None),
        ("\u00a0", None),
        ("NaN", None),
        (None, None),
        (float("nan"), None),
        ({"raw": "a thing"}, None),
        ("['a round thing', 'a thing']", "a round thing"),
        ("[a] thing", "[a] thing"),
        (7, "7"),
    ],
)
def test_captions(data, cell, caption):
    (data / "metadata.jsonl").write_text(json.dumps({"file_name": "p0.png", "text": cell}))
    assert open_source(data).items[0].caption == caption


def test_a_blank_cell_leaves_the_caption_beside_the_picture(data):
    (data / "p0.TXT").write_text("a thing")
    (data / "metadata.csv").write_text("file_name,text\np0.png,   \n")
    assert open_source(data).items[0].caption == "a thing"


@pytest.mark.parametrize(
    "written",
    [
        "sub/Größe.png", "./sub/Größe.png", "SUB/GRÖSSE.PNG", "sub\\Größe.png", "C:\\my files\\data\\sub\\Größe.png",  # noqa: E501
        "/home/me/data/sub/Größe.png", "data/sub/Größe.png", " sub/Größe.png ", "file:///x/sub/Größe.png",
        unicodedata.normalize("NFD", "sub/Größe.png"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_ways_to_write_a_name(data, written, form):
    (data / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(data / "sub" / unicodedata.normalize(form, "Größe.png"))
    (data / "metadata.jsonl").write_text(json.dumps({"file_name": written, "text": "this"}), "utf-8")
    source = open_source(data)
    assert [item.key[:4] for item in source.items if item.caption == "this"] == ["sub/"]
    assert source.skipped == []


def test_a_name_that_may_mean_two_pictures_means_none(data):
    for name in ("A.png", "a.PNG"):
        Image.new("RGB", (8, 8)).save(data / name)
    (data / "metadata.csv").write_text("file_name,text\na.png,which\nA.png,this\n")
    source = open_source(data)
    assert {item.key for item in source.items if item.caption} == {"A.png"}
    assert [skip.key for skip in source.skipped] == ["a.png"]


def test_a_missing_picture_is_not_another_folders(data):
    (data / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(data / "sub" / "x.png")
    (data / "sub" / "metadata.csv").write_text("file_name,text\np0.png,lost\n")
    source = open_source(data)
    assert not any(item.caption for item in source.items)
    assert [skip.key for skip in source.skipped] == ["sub/p0.png"]


def test_a_picture_listed_twice_is_said(data):
    (data / "metadata.csv").write_text("file_name,tone\np0.png,dark\nP0.PNG,light\np1.png,dark\n")
    source = open_source(data)
    assert source.items[0].attributes == {"tone": "light"}
    assert [note.identifier for note in source.notes] == ["data.metadata_twice"]
    assert "1 picture, the first p0.png" in source.notes[0]


@pytest.mark.parametrize("line", ['{"file_name": "p1.png', "[1]", "3", "nonsense"])
def test_a_damaged_line_loses_only_itself(data, line):
    lines = [json.dumps({"file_name": name, "tone": tone}) for name, tone in ROWS]
    lines[1] = line
    (data / "metadata.jsonl").write_text("\n".join(lines))
    source = open_source(data)
    assert tones(source) == [EXPECTED[0], None, *EXPECTED[2:]]
    assert [note.identifier for note in source.notes] == ["data.metadata_lines"]
    assert "line 2" in source.notes[0]


def test_text_after_the_last_column_is_said(data):
    (data / "metadata.csv").write_text("file_name,text\np0.png,a thing, on a table\np1.png,a thing\n")
    source = open_source(data)
    assert [note.identifier for note in source.notes] == ["data.metadata_lines"]


def test_labels_of_values():
    assert [label_value(value) for value in ("N/A", float("inf"), 10**400, [1], True, "a", 3)] == [
        None, None, None, None, "true", "a", 3,
    ]  # fmt: skip
    assert finite_number(10**400) is None


def known(tmp_path, name, content):
    for picture in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / picture)
    (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path)
    return source, [(item.label, item.caption) for item in source.items]


@pytest.mark.parametrize("name", ["metadata.json", "annotations.json"])
def test_categories_are_labels_where_each_picture_has_one(tmp_path, name):
    value = {
        "images": [{"id": i, "file_name": file} for i, file in enumerate(("a.png", "b.png", "c.png"))],
        "annotations": [{"image_id": i, "category_id": number} for i, number in ((0, 1), (0, 1), (1, 2))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    _, found = known(tmp_path, name, json.dumps(value).encode())
    assert found == [("cat", None), ("dog", None), (None, None)]
    value["annotations"].append({"image_id": 0, "category_id": 2})
    _, found = known(tmp_path, name, json.dumps(value).encode())
    assert found == [(None, None)] * 3


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_chinese_in_utf_16_without_a_mark(tmp_path, encoding):
    captions = ["一辆红色的汽车在路边停着等人一二三" * 3, "一辆蓝色的汽车", "黑色"]
    rows = "".join(f"{name}.png,{text}\n" for name, text in zip("abc", captions, strict=True))
    source, found = known(tmp_path, "metadata.csv", f"file_name,text\n{rows}".encode(encoding))
    assert [caption for _, caption in found] == captions and source.notes == []


def test_half_a_character_in_json_is_replaced(tmp_path):
    rows = r"""{"file_name": "a.png", "text": "\ud83d hi", "label": "x\udfff"}
{"file_name": "b.png", "text": "\ud83d\ude97", "label": "\\ud83d"}"""
    _, found = known(tmp_path, "metadata.jsonl", rows.encode())
    assert found == [("x?", "? hi"), ("\\ud83d", "\U0001f697"), (None, None)]


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e999", "NaN"])
def test_an_infinite_label_is_unknown_and_said(tmp_path, value):
    rows = f'{{"file_name": "a.png", "label": {value}}}\n{{"file_name": "b.png", "label": 3.0}}'
    source, found = known(tmp_path, "metadata.jsonl", rows.encode())
    assert [label for label, _ in found] == [None, "3", None]
    said = [note.identifier for note in source.notes]
    assert said == ([] if value == "NaN" else ["data.metadata_numbers"])
