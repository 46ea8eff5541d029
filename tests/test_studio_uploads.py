"""Uploads: what belongs together stays together, and nothing is lost in silence."""

import time
import zipfile
from pathlib import Path

import pytest

from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.models import ModelStore
from alphabar.studio.upload import unpack
from refusals import refused
from test_studio_faults import page_of

PNG = b"\x89PNG\r\n\x1a\n"
ONE, TWO = PNG + b"one", PNG + b"two"


@pytest.fixture
def archive(tmp_path):
    def write(name, *members):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for path, content in members:
                file.writestr(path, content)
        return tmp_path / name

    return write


@pytest.fixture
def loose(tmp_path):
    def write(name, content, upload):
        (tmp_path / upload).mkdir(exist_ok=True)
        (tmp_path / upload / name).write_bytes(content)
        return tmp_path / upload / name

    return write


@pytest.fixture
def known(tmp_path):
    def read(*files):
        unpack(files, tmp_path / "out")
        source = open_source(tmp_path / "out")
        return [(source.read(item), item.label, item.caption) for item in source.items]

    return read


def labels(value):
    return f"file_name,label\n0.png,{value}\n".encode()


@pytest.mark.parametrize("table", ["metadata.csv", "labels.csv"])
def test_archives_of_equal_names_keep_their_tables(archive, known, table):
    cats = archive("cats.zip", ("0.png", ONE), (table, labels("cat")))
    dogs = archive("dogs.zip", ("0.png", TWO), (table, labels("dog")))
    assert known(cats, dogs) == [(ONE, "cat", None), (TWO, "dog", None)]


def test_archives_of_equal_names_keep_their_captions_and_become_no_class(archive, known):
    first, second = archive("1.zip", ("a.png", ONE)), archive("2.zip", ("a.png", TWO), ("a.txt", b"two"))
    assert known(first, second) == [(ONE, None, None), (TWO, None, "two")]


def test_archives_of_equal_names_keep_their_classes(archive, known):
    first = archive("1.zip", ("cats/0.png", ONE), ("dogs/0.png", ONE))
    second = archive("2.zip", ("cats/0.png", TWO), ("dogs/1.png", TWO))
    assert known(first, second) == [
        (ONE, "cats", None), (ONE, "dogs", None), (TWO, "cats", None), (TWO, "dogs", None)
    ]  # fmt: skip


def test_a_folder_of_the_name_that_is_made_hides_nothing(archive, known):
    first = archive("1.zip", ("a.png", ONE), ("~2/a.png", ONE))
    assert len(known(first, archive("2.zip", ("a.png", TWO)))) == 3


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_an_archive_has_twice_is_there_twice(archive, known):
    assert [data for data, *_ in known(archive("1.zip", ("a.png", ONE), ("a.png", TWO)))] == [ONE, TWO]


def test_files_of_equal_names_keep_their_captions(loose, known):
    files = [loose("a.png", ONE, "x"), loose("a.txt", b"one", "x")]
    files += [loose("a.png", TWO, "y"), loose("a.txt", b"two", "y")]
    assert known(*files) == [(ONE, None, "one"), (TWO, None, "two")]


@pytest.mark.parametrize("table", ["metadata.csv", "labels.csv", "metadata.jsonl"])
def test_two_tables_of_one_name_are_refused(loose, known, table):
    files = [loose(table, labels("cat"), "x"), loose("0.png", ONE, "x"), loose(table, labels("dog"), "y")]
    with pytest.raises(UsageError, match=f"holds {table} more than once"):
        known(*files)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_many_equal_names_take_no_time(archive, known):
    began = time.process_time()
    known(archive("1.zip", *[("a.png", ONE)] * 5000))
    assert time.process_time() - began < 10


@pytest.mark.parametrize("name", ["IMG_0001", "photos/IMG_0001", "a.dat"])
def test_a_picture_without_a_suffix_belongs_to_an_upload(archive, loose, known, name):
    zipped = archive("1.zip", ("a.png", ONE), (name, TWO))
    assert sorted(data for data, *_ in known(zipped)) == [ONE, TWO]
    assert known(loose(name.rpartition("/")[2], TWO, "x"))[0][0] == TWO


def test_what_was_left_out_is_said(archive, loose, tmp_path):
    zipped = archive("1.zip", ("a.png", ONE), ("b.docx", b"x"), ("c/d.docx", b"x"), ("IMG_1", b"x"))
    unpack([zipped, loose("run.sh", b"x", "x")], tmp_path / "out")
    assert open_source(tmp_path / "out").notes == [
        "4 files are not pictures and were left alone (2 .docx, 1 .sh, 1 '')."
    ]


@pytest.mark.parametrize("content", ["", "[]", '{".docx": "x"}', "{"])
def test_a_record_of_what_was_left_out_is_not_trusted(tmp_path, content):
    (tmp_path / "a.png").write_bytes(ONE)
    (tmp_path / ".left_out.json").write_text(content)
    assert open_source(tmp_path).notes == []


@pytest.mark.parametrize("name", ["metadata.csv", "labels.tsv", "a.txt", "metadata.jsonl"])
def test_tables_and_captions_alone_are_no_pictures(loose, archive, tmp_path, name):
    with refused("studio.upload_without_pictures", UsageError):
        unpack([loose(name, labels("cat"), "1")], tmp_path / "out")
    with refused("studio.upload_without_pictures", UsageError):
        unpack([archive("1.zip", (name, labels("cat")))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_names_in_other_alphabets_keep_their_ends(archive, known):
    found = known(archive("1.zip", ("猫" * 120 + "/日" + "本" * 120 + ".png", ONE), ("dogs/a.png", TWO)))
    assert sorted(found) == sorted([(ONE, "猫" * 50, None), (TWO, "dogs", None)])


@pytest.mark.parametrize(
    "members",
    [["a.png", "a.png/b.png"], ["a.png/b.png", "a.png"], ["d" * 100 + "/" + "/d" * 3000 + "/a.png"]],
)
def test_names_that_no_folder_can_hold_are_named(archive, tmp_path, members):
    file = archive("1.zip", *((name, ONE) for name in members))
    with refused("studio.archive_name", AlphabarError, file="1.zip", name=members[-1][-80:]):
        unpack([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tab", ["DataTab", "TrainingForm"])
def test_the_page_takes_tables_captions_and_names_that_gradio_does_not_know(tmp_path, tab):
    page = page_of(ModelStore(tmp_path / "opened"), tmp_path)
    from alphabar.studio.tabs.data import DataTab
    from alphabar.studio.tabs.training_form import TrainingForm

    with page.blocks:
        upload = (DataTab(page) if tab == "DataTab" else TrainingForm(page, TrainingJobs(page.models))).files
    from gradio.data_classes import FileData, ListFiles

    names = ("a.png", "metadata.jsonl", "labels.csv", "a.txt", "b.jpg_large", "c.pjpeg", "d.zip")
    for name in names:
        (tmp_path / name).write_bytes(ONE)
    given = ListFiles(root=[FileData(path=str(tmp_path / name), orig_name=name) for name in names])
    assert [Path(file).name for file in upload.preprocess(given)] == list(names)
