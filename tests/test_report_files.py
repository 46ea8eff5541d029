"""A report where files are missing, were changed, or cannot be written."""

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.files import write_document
from alphabar.progress import last
from alphabar.reporting import report_figures
from alphabar.reporting.exports import csv_bytes, latex_rows, save_picture, svg_file
from alphabar.reporting.report import write_report
from alphabar.reporting.report_figures import make_report_figures
from alphabar.runs.run import Run
from refusals import refused
from test_compare import make_run


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(report_figures, "SAMPLES", 4)


@pytest.fixture
def run(tmp_path):
    """A run that remembers pictures, with the fingerprint "f" of its data."""
    for i in range(3):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / "data" / f"{i}.png")
    run = Run(make_run(tmp_path / "run"))
    run.remember_data(str(tmp_path / "data"))
    return run


def notes(records):
    return [record.message.identifier for record in records if record.message]


def test_pictures_that_have_moved_are_said_and_the_page_is_made(run, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    assert notes(make_report_figures(run)) == ["reporting.data_gone"]
    html = write_report(run.path).read_text(encoding="utf-8")
    assert html.count("data:image/png") >= 2
    with pytest.raises(AlphabarError):
        list(make_report_figures(run, tmp_path / "data"))
    assert (run.path / "report_files" / "samples.png").is_file(), "a report that fails leaves the old figures"


def test_other_pictures_at_their_place_are_said(run):
    assert notes(make_report_figures(run)) == ["reporting.other_data"]
    assert not (run.path / "report_files" / "nearest.png").exists()


def test_the_same_pictures_are_shown(run, monkeypatch):
    shown = []

    def nearest(model, dataset, samples, folder):
        shown.append(len(dataset.items))
        yield from ()
        return []

    monkeypatch.setattr(report_figures, "_nearest", nearest)
    write_document(run.path / "environment.json", {})  # of an unknown data set
    assert notes(make_report_figures(run)) == [] and shown == [3]


def test_a_page_elsewhere_leaves_the_run_alone(run, tmp_path):
    before = sorted(run.path.rglob("*"))
    page = tmp_path / "page.html"
    assert last(make_report_figures(run, page=page)) == tmp_path / "page_files"
    assert write_report(run.path, page) == page
    assert page.read_text(encoding="utf-8").count("data:image/png") >= 2
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_nothing_is_one_sentence(run, monkeypatch, code):
    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", fails)
    with refused("files.cannot_write", AlphabarError, path=run.path / "report_files"):
        list(make_report_figures(run))
    monkeypatch.setattr(Path, "write_bytes", fails)
    with refused("files.cannot_write", AlphabarError, path=run.path / "report_files"):
        write_report(run.path)


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "missing" / "samples.png"
    with refused("files.cannot_write", AlphabarError, path=file):
        save_picture(Image.new("RGB", (8, 8)), file)


def test_half_a_character_is_an_escape():
    half = "a\ud83d"  # which JSON and the names of files may hold
    for written in (csv_bytes([{half: half}]), latex_rows([(half,), (half,)], half, "en"), svg_file(half)):
        assert b"ud83d" in written.replace(b"{}", b"") and written.decode()
