"""JSON documents that alphabar reads again: no changed byte of them counts unnoticed."""

import json
import sys
import warnings

import pytest
from PIL import Image

from alphabar import files
from alphabar.data.channels import choose_channels
from alphabar.data.dataset import cache_root
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError
from alphabar.files import (
    Damaged,
    DamagedFile,
    pack_json,
    read_document,
    read_folder,
    write_document,
    write_folder,
)
from alphabar.messages import message
from alphabar.progress import last
from alphabar.result_folder import ResultFolder
from alphabar.runs.run import Run
from refusals import refused

CONTENT = {"seconds": 12.5, "of": ["a", None, True], "größe": {"n": 3}, "1": (4, 5)}


def changed(file):
    """Every change of one byte of a file, which is whole again afterwards."""
    whole = file.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)
        yield place
    file.write_bytes(whole)


def test_a_document_is_read_as_it_was_written(tmp_path):
    write_document(tmp_path / "x.json", CONTENT)
    assert read_document(tmp_path / "x.json") == {**CONTENT, "1": [4, 5]}
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "y.json")


@pytest.mark.parametrize("required", [True, False])
def test_no_changed_byte_of_a_document_counts(tmp_path, required):
    write_document(file := tmp_path / "x.json", CONTENT)
    whole, unnoticed = read_document(file), 0
    for _ in changed(file):
        try:
            assert read_document(file, required=required) == whole  # a space may have become another
            unnoticed += 1
        except Damaged:
            pass
    assert unnoticed < 20


@pytest.mark.parametrize("content", [CONTENT, {}, {"of": 64 * "a"}, [], 3])
def test_a_document_without_a_checksum_is_damaged_or_of_an_earlier_version(tmp_path, content):
    (tmp_path / "x.json").write_bytes(pack_json(content))
    with pytest.raises(Damaged):
        read_document(tmp_path / "x.json")
    if isinstance(content, dict):
        assert read_document(tmp_path / "x.json", required=False) == json.loads(pack_json(content))
    else:
        with pytest.raises(Damaged):
            read_document(tmp_path / "x.json", required=False)


@pytest.mark.parametrize(
    ("name", "value", "without"), [("preparation", 123.456, 0.0), ("data", "toycars:200", None)]
)
def test_what_a_run_remembers_is_right_or_said_to_be_damaged(tmp_path, name, value, without):
    run = Run(tmp_path)
    {"preparation": run.remember_preparation, "data": run.remember_data}[name](value)
    noticed = 0
    for place in changed(tmp_path / f"{name}.json"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = getattr(run, name)
        assert found == (without if said else value), place
        assert all(one.category is DamagedFile for one in said)
        noticed += bool(said)
    assert noticed > 60 and getattr(run, name) == value


def test_the_fingerprint_of_the_data_is_right_or_not_known(tmp_path):
    write_document(tmp_path / "environment.json", {"data": {"fingerprint": "0a1b"}})
    assert Run(tmp_path).data_fingerprint == "0a1b"
    file = tmp_path / "environment.json"
    file.write_bytes(file.read_bytes().replace(b"0a1b", b"0a1c"))
    with pytest.warns(DamagedFile, match=r"environment\.json is damaged and is not used"):
        assert Run(tmp_path).data_fingerprint is None


def test_a_changed_number_of_channels_is_looked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (200, 10 * i, 3)).save(tmp_path / "pictures" / f"{i}.png")
    source = open_source(tmp_path / "pictures")
    assert last(choose_channels(source)) == 3
    (file,) = (cache_root() / "channels").iterdir()
    for wrong in (b"1", b"7", b"x"):
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b'"channels": 3', b'"channels": ' + wrong))
        with pytest.warns(DamagedFile, match="made again"):
            assert last(choose_channels(source)) == 3
        assert file.read_bytes() == whole


def test_results_of_settings_that_are_damaged_are_not_gone_on_with(tmp_path):
    def folder():
        return ResultFolder(tmp_path / "out", "samples.json", {"runtime": {"batch": 16}}, ["a.png"])

    folder().begin()
    assert folder().begun()
    file = tmp_path / "out" / "samples.json"
    file.write_bytes(file.read_bytes().replace(b"16", b"17"))
    with refused("sampling.unknown_samples", AlphabarError, path=tmp_path / "out", file="samples.json"):
        folder().begun()


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, exchanged):
    """Between two renamings neither folder would have the name: the second one fails here."""
    write_folder(tmp_path / "x", {"a": b"old"})
    rename, count = files.Path.rename, []

    def fails_second(self, target):
        count.append(target)
        if len(count) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(files.Path, "rename", fails_second)
    if not exchanged:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    if exchanged and sys.platform == "linux":
        write_folder(tmp_path / "x", {"a": b"new"})
        assert not count and read_folder(tmp_path / "x") == {"a": b"new"}
    else:
        with pytest.raises(AlphabarError):
            write_folder(tmp_path / "x", {"a": b"new"})
        assert read_folder(tmp_path / "x") == {"a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_command_says_a_warning_as_one_sentence(call, capsys):
    assert call("inspect", "toycars:8", language="es")[0] == 0
    damaged = message("files.cache_damaged", path="x")
    warnings.warn(damaged, DamagedFile, stacklevel=1)
    assert capsys.readouterr().err == damaged.in_language("es") + "\n"
