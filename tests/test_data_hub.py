"""Data sets of the Hugging Face Hub, fetched from a local server: what is read of a folder is fetched."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from io import BytesIO

import pytest
from PIL import Image

from hub_server import hub_server

pa = pytest.importorskip("pyarrow")
pytest.importorskip("huggingface_hub")

DATA = "hf://datasets/someone/cars"
PROGRAM = """
import json, sys
from alphabar.data.sources import open_source
source = open_source(sys.argv[1])
print(json.dumps({i.key: [i.label, i.caption, dict(i.attributes)] for i in source.items}))
"""


def png(level):
    file = BytesIO()
    Image.new("RGB", (16, 12), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def parquet(**columns):
    from pyarrow.parquet import write_table

    file = BytesIO()
    write_table(pa.table(columns), file)
    return file.getvalue()


@contextmanager
def fetching(tmp_path, files):
    """How to read a data set of these files as a person does: (read, paths that the server was asked for)."""
    with hub_server() as (address, repositories):
        repositories.add("datasets/someone/cars", files)
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

        def read(data=DATA):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, data], env={**os.environ, **hub}, capture_output=True
            )
            assert done.returncode == 0, done.stderr.decode()
            return json.loads(done.stdout)

        yield read, repositories.asked


PICTURES = {"train/a.png": png(1), "train/b.JPG": png(2)}
TABLE = {"file_name": ["train/a.png", "train/b.JPG"], "text": ["red", "blue"], "year": [1999, 2004]}
CSV = b"file_name,text,year\ntrain/a.png,red,1999\ntrain/b.JPG,blue,2004\n"
CAPTIONS = {"train/a.png": "red", "train/b.JPG": "blue"}
TABLES = {
    "metadata.parquet": parquet(**TABLE),
    "labels.parquet": parquet(**TABLE),
    "metadata.csv": CSV,
    "Metadata.CSV": CSV,
    "labels.csv": CSV,
}


@pytest.mark.parametrize("table", TABLES)
def test_pictures_are_paired_with_their_table(tmp_path, table):
    with fetching(tmp_path, {**PICTURES, table: TABLES[table], "README.md": b"Cars."}) as (read, asked):
        found = read()
        assert {key: caption for key, (_, caption, _) in found.items()} == CAPTIONS
        assert [float(known["year"]) for _, _, known in found.values()] == [1999, 2004]
        assert not any("README" in path for _, path in asked), "what says nothing of pictures stays there"


def test_a_folder_of_the_data_set_is_fetched_alone(tmp_path):
    table = parquet(file_name=["a.png", "b.JPG"], text=["red", "blue"])
    files = {**PICTURES, "train/metadata.parquet": table, "test/c.png": png(3)}
    with fetching(tmp_path, files) as (read, asked):
        assert {key: caption for key, (_, caption, _) in read(f"{DATA}/train").items()} == {
            "a.png": "red",
            "b.JPG": "blue",
        }
        assert not any("test/c.png" in path for _, path in asked)


def test_captions_beside_pictures_are_fetched(tmp_path):
    captions = {"train/a.caption": b"red", "train/b.TXT": b"blue"}
    with fetching(tmp_path, {**PICTURES, **captions}) as (read, _):
        assert [caption for _, caption, _ in read().values()] == ["red", "blue"]


@pytest.mark.parametrize("n", [1, 4])
def test_a_picture_of_the_page_is_no_data_beside_parquet_files_that_hold_as_many(tmp_path, n):
    cells = [{"bytes": png(level), "path": None} for level in range(n)]
    files = {"data/train-0.parquet": parquet(image=cells), "logo.png": png(200)}
    with fetching(tmp_path, files) as (read, asked):
        assert [key.rpartition("/")[0] for key in read()] == n * ["data/train-0.parquet"]
        assert not any("/resolve/" in path and "logo.png" in path for _, path in asked)


def test_of_many_files_of_a_kind_none_is_fetched_as_a_table(tmp_path):
    boxes = {f"boxes/{i}.json": b"{}" for i in range(21)}
    with fetching(tmp_path, {**PICTURES, **boxes}) as (read, asked):
        assert list(read()) == list(PICTURES)
        assert not any("/resolve/" in path and ".json" in path for _, path in asked)
