"""Pipes in the place of files that a person gives: reading one may never end, so it is refused at once."""

import os
import signal

import pytest
from PIL import Image

from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.data.sources import open_source
from alphabar.errors import UsageError
from alphabar.files import read_given_file
from alphabar.recipes.schema import read_recipe
from alphabar.reporting import report_figures
from alphabar.reporting.report import write_report
from alphabar.restoration.degradation import file_hash
from alphabar.restoration.photo import image_files, read_photo
from alphabar.training.given_runtime import given_runtime
from refusals import refused
from test_compare import make_run

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")


@pytest.fixture(autouse=True)
def _no_waiting():
    """What waits for a pipe is ended, so that the test fails."""

    def stop(*_):
        raise AssertionError("waits for a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


COMMANDS = [
    "train toycars:20 --images 8 --recipe {pipe}.toml",
    "train toycars:20 --images 8 --runtime {pipe}",
    "train {pipe} --images 8",
    "inspect {pipe}.parquet",
    "inspect toycars:20 --extension {pipe}.py",
    "restore cars64 {pipe} --degradation blur:1 --out out",
    "restore cars64 {picture} --degradation kernel:{pipe} --out out",
    "inpaint cars64 {picture} --mask {pipe} --out out",
    "degrade {pipe} --degradation blur:1 --out out",
    "degrade {picture} --degradation mask:{pipe} --out out",
    "edit cars64 {pipe} --out out",
    "evaluate {pipe} --against toycars:50 -n 10",
    "evaluate cars64 --against {pipe} -n 10 --yes",
    "studio --no-open --password-file {pipe}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_a_pipe_in_one_sentence(tmp_path, monkeypatch, call, command):
    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".toml", ".parquet", ".py"):
        os.mkfifo(f"pipe{suffix}")
    Image.new("RGB", (16, 16)).save("picture.png")
    words = [word.format(pipe="pipe", picture="picture.png") for word in command.split()]
    code, out, err = call(*words)
    assert code == 2 and not out
    assert "alphabar: pipe" in err and "save what it holds as a file" in err.splitlines()[-1]
    code, _, err = call(*words, language="es")
    assert code == 2 and "tubería" in err
    assert not os.path.exists("out") and not os.path.exists("runs")


READERS = [
    read_given_file,
    read_recipe,
    given_runtime,
    read_photo,
    image_files,
    file_hash,
    open_source,
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_pipes_devices_and_links_to_them(tmp_path, read, kind):
    path = tmp_path / "given"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    if kind == "device":
        path = path.resolve()
    with refused("files.pipe", UsageError, path=path):
        read(path)


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "own").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("own")
    assert read_given_file(tmp_path / "link") == b"bytes"


def test_metadata_of_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with refused("files.pipe", UsageError):
        read_png_metadata(tmp_path / "a.png")


def test_a_report_of_a_run_with_pipes_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(report_figures, "SAMPLES", 4)
    run = make_run(tmp_path / "run")
    (run / "samples").mkdir(exist_ok=True)
    for name in ("evaluation.json", "environment.json", "log.jsonl", "copies.png", "samples/000999.png"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    html = write_report(run).read_text(encoding="utf-8")
    for name in ("evaluation.json", "environment.json", "log.jsonl"):
        assert name in html
    assert "a pipe, a socket or a device" in html
