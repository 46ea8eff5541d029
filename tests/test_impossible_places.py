"""Places that cannot be: names that are too long, and folders that cannot be entered. One sentence."""

import os

import pytest
from PIL import Image

LONG = "x" * 300
IN = {
    "sample": ["cars64", "-n", "1", "--steps", "1", "--precision", "fp32", "--out"],
    "interpolate": [
        "cars64",
        "--rows",
        "1",
        "--columns",
        "2",
        "--steps",
        "1",
        "--precision",
        "fp32",
        "--out",
    ],
    "edit": ["cars64", "{picture}", "--steps", "1", "--precision", "fp32", "--out"],
    "restore": [
        "cars64",
        "{picture}",
        "--degradation",
        "blur:1",
        "--steps",
        "1",
        "--precision",
        "fp32",
        "--out",
    ],
    "inpaint": [
        "cars64",
        "{picture}",
        "--mask",
        "box:0,0,8,8",
        "--steps",
        "1",
        "--precision",
        "fp32",
        "--out",
    ],
    "upscale": ["cars64", "{picture}", "--steps", "1", "--precision", "fp32", "--out"],
    "degrade": ["{picture}", "--degradation", "blur:1", "--out"],
    "evaluate": ["--against", "toycars:50", "-n", "5"],
    "studio": ["--no-open"],
    "train": ["toycars:20", "--images", "8", "--runtime"],
    "inspect": ["toycars:20", "--extension"],
}


@pytest.fixture
def said(call, tmp_path):
    """The sentence with which a command ends that is given a place."""
    Image.new("RGB", (16, 16)).save(tmp_path / "p.png")

    def run(command, place):
        words = [word.format(picture=tmp_path / "p.png") for word in IN[command]]
        code, out, err = call(command, *words, place)
        assert code in (1, 2) and not out
        return err.splitlines()[-1]

    return run


@pytest.mark.parametrize("command", IN)
def test_a_name_that_is_too_long(said, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    sentence = said(command, LONG)
    assert sentence.startswith("alphabar: ") and "xxxxx" in sentence
    assert os.listdir(tmp_path) == ["p.png"]


@pytest.mark.parametrize("command", IN)
def test_a_folder_that_cannot_be_entered(said, tmp_path, monkeypatch, permissions_hold, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "locked").chmod(0)
    try:
        sentence = said(command, "locked/in/out")
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert sentence.startswith("alphabar: ") and "locked/in/out" in sentence
    assert "Permission denied" in sentence


@pytest.mark.parametrize("place", ["circle", "circle/in"])
@pytest.mark.parametrize("command", ["sample", "restore", "degrade"])
def test_links_that_lead_in_a_circle(said, tmp_path, monkeypatch, command, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    sentence = said(command, place)
    assert f"Cannot write {place}" in sentence and "symbolic links" in sentence


def test_an_extension_that_is_no_python_file(said, tmp_path):
    assert "there is no extension at" in said("inspect", tmp_path / "p.png")


def test_an_extension_that_cannot_be_read(said, tmp_path, permissions_hold):
    (tmp_path / "own.py").touch(0o000)
    assert "Permission denied" in said("inspect", tmp_path / "own.py")


def test_what_the_system_refuses_anywhere_is_one_sentence_with_the_path(call, monkeypatch):
    def refuses(*about):
        raise OSError(5, "Input/output error", "some/file")

    monkeypatch.setattr("alphabar.data.inspect.inspect", refuses)
    code, _, err = call("inspect", "toycars:9")
    assert code == 1 and "some/file cannot be used: Input/output error" in err
