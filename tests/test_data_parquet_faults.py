"""Parquet files that strangers made: whatever their cells name, they end in a sentence."""

import json
import os

import pytest

from alphabar.codecs.base import Unreadable
from alphabar.data.parquet import Parquet

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

PICTURE = b"\x89PNG inside"


def source(folder, image, features=None, confined=True, **columns):
    table = pa.table({"image": image, **columns})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "a.parquet")
    return Parquet(folder, confined=confined)


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    (tmp_path / "data" / "pictures" / "in.png").write_bytes(PICTURE)
    (tmp_path / "out.png").write_bytes(b"\x89PNG outside")
    return tmp_path / "out.png"


@pytest.mark.parametrize(
    "path",
    [
        *("../out.png", "x/../../out.png", "pictures/../../out.png", "OUTSIDE", "file://OUTSIDE"),
        *("pipe.png", "/dev/zero", "a\0b.png", "", " ", "pictures", ".", "x" * 5000, "/".join("x" * 5000)),
        *("gone.png", "pictures/gone.png"),
    ],
)
def test_a_cell_that_names_no_file_of_the_data_is_skipped(outside, path):
    os.mkfifo(outside.parent / "data" / "pipe.png")
    path = path.replace("OUTSIDE", str(outside))
    found = source(outside.parent / "data", [{"bytes": None, "path": path}])
    with pytest.raises(Unreadable):
        found.read(found.items[0])


@pytest.mark.parametrize("path", ["pictures/in.png", "./x/../pictures/in.png", "/home/me/pictures/in.png"])
@pytest.mark.parametrize("cell", ["struct", "text"])
def test_a_cell_that_names_a_file_of_the_data_is_read(outside, path, cell):
    image = [path if cell == "text" else {"bytes": None, "path": path}]
    found = source(outside.parent / "data", image, {"image": {"_type": "Image"}})
    assert found.read(found.items[0]) == PICTURE


@pytest.mark.parametrize("path", ["../out.png", "OUTSIDE"])
def test_cells_of_a_file_of_ones_own_may_name_any_file(outside, path):
    image = [{"bytes": None, "path": path.replace("OUTSIDE", str(outside))}]
    found = source(outside.parent / "data", image, confined=False)
    assert found.read(found.items[0]) == outside.read_bytes()


@pytest.mark.parametrize("cell", [7, [1, 2], {"bytes": 7, "path": 7}, {"bytes": "text", "path": None}])
def test_cells_of_another_kind_are_skipped(tmp_path, cell):
    found = source(tmp_path, [cell], {"image": {"_type": "Image"}})
    with pytest.raises(Unreadable):
        found.read(found.items[0])


@pytest.mark.parametrize(
    ("features", "label"),
    [
        *(([1], "1"), ("text", "1"), (7, "1"), (None, "1"), ({"label": [1]}, "1"), ({"label": None}, "1")),
        *(({"label": {"_type": "ClassLabel", "names": names}}, "1") for names in ("text", 7, {}, None, [])),
        ({"label": {"_type": "ClassLabel", "names": {"0": "cat", "1": "dog", "x": "y"}}}, "dog"),
        ({"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}, "dog"),
        ({"label": {"_type": ["ClassLabel"], "names": ["cat", "dog"]}}, "1"),
    ],
)
def test_metadata_of_any_kind(tmp_path, features, label):
    found = source(tmp_path, [{"bytes": PICTURE, "path": None}], features, label=[1])
    assert [item.label for item in found.items] == [label]


def test_deep_metadata(tmp_path):
    table = pa.table({"image": [PICTURE]}).replace_schema_metadata({"huggingface": "[" * 200_000})
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(Parquet(tmp_path).items) == 1
