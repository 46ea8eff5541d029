"""Samples written as they come: a sampling that is stopped anywhere goes on and ends as if it never was."""

import signal
import subprocess
import sys

import pytest

from alphabar.cli.console import STOPPING_SIGNALS, told_when_stopped
from alphabar.errors import AlphabarError
from alphabar.progress import last
from alphabar.sampling import sample_folder
from alphabar.sampling.comparison import comparison_settings
from alphabar.sampling.outputs import sampling_metadata
from alphabar.sampling.sample_folder import SampleFolder, sample_into
from alphabar.sampling.settings import sampling_settings
from delivered import deliver
from refusals import refused
from test_sampling import LABELS, NETWORK, made

N = 5


@pytest.fixture(scope="module")
def model():
    frequencies = ({"class": "first"}, {"class": "second"}, {})
    return made("lean", "condition.on=class", *NETWORK, vocabulary=LABELS, frequencies=frequencies)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(sample_folder, "batch_size", lambda model, variants=1: 2 // variants)


def work(model, out, *, n=N, compare=(), **chosen):
    """A sampling into a folder, and the folder."""
    settings = sampling_settings(model, steps=3, **chosen)
    variants = comparison_settings(model, settings, "class", compare) if compare else [settings]
    about = sampling_metadata(model, settings, "tiny")
    folder = SampleFolder(out, model.codec, about, n * len(variants))
    return sample_into(folder, model, n, variants), folder


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("compare", [(), ("first", "second")])
def test_a_sampling_that_is_stopped_anywhere_goes_on_to_the_same_bits(model, tmp_path, compare):
    records, folder = work(model, tmp_path / "straight", compare=compare)
    steps = sum(1 for _ in records)
    straight = contents(folder.path)
    assert folder.kept() == folder.n == N * (2 if compare else 1)
    for stop in range(1, steps, 2):
        records, folder = work(model, tmp_path / f"stopped{stop}", compare=compare)
        for _ in range(stop):
            next(records)
        records.close()
        assert (folder.path / "samples.json").is_file()
        again = work(model, folder.path, compare=compare)[0]
        assert last(again) == folder.path
        assert contents(folder.path) == straight


def test_samples_are_there_as_they_come_and_are_not_made_twice(model, tmp_path):
    records, folder = work(model, tmp_path / "out")
    kept = {folder.kept() for _ in records}
    assert kept == {0, 2, 4, 5}
    before = {file: file.stat().st_mtime_ns for file in folder.path.glob("*.png")}
    folder.file(3).unlink()
    assert sum(record.preview is not None for record in work(model, folder.path)[0]) <= 4
    after = {file: file.stat().st_mtime_ns for file in folder.path.glob("*.png")}
    same = [file for file in before if file not in (folder.file(2), folder.file(3))]
    assert all(before[file] == after[file] for file in same) and folder.kept() == N


@pytest.mark.parametrize("other", [{"seed": 1}, {"n": 6}, {"conditions": [{"class": "first"}]}])
def test_samples_with_other_settings_are_refused_and_left_alone(model, tmp_path, other):
    records, folder = work(model, tmp_path / "out")
    for _ in records:
        if folder.kept():
            break
    before = contents(folder.path)
    with refused("sampling.other_samples", AlphabarError, path=folder.path):
        last(work(model, folder.path, **other)[0])
    assert contents(folder.path) == before


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}"])
def test_a_folder_of_something_else_is_refused(model, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/samples.json").write_bytes(content)
    with refused("sampling.other_samples" if content == b"{}" else "sampling.unknown_samples", AlphabarError):
        last(work(model, tmp_path / "out")[0])
    (tmp_path / "out/samples.json").rename(tmp_path / "out/mine.txt")
    with refused("sampling.folder_not_empty", AlphabarError):
        last(work(model, tmp_path / "out")[0])
    assert len(contents(tmp_path / "out")) == 1


def test_a_sample_that_was_damaged_since_is_named(model, tmp_path):
    records, folder = work(model, tmp_path / "out")
    last(records)
    folder.file(1).write_bytes(b"no picture")
    with refused("sampling.unreadable", AlphabarError, file=folder.file(1)):
        last(work(model, folder.path)[0])


SIGNALLED = """
import signal, sys
from alphabar.cli.console import told_when_stopped
number = int(sys.argv[1])
before = signal.getsignal(number)
try:
    with told_when_stopped(lambda: "3 of 5 are kept"):
        for _ in range(2):
            signal.raise_signal(number)
finally:
    print(signal.getsignal(number) == before)
"""


@pytest.mark.parametrize("number", STOPPING_SIGNALS)
def test_a_signal_ends_with_one_line_and_its_exit_code(number):
    """In a process of its own: what runs the tests has its own use for these signals."""
    command = [sys.executable, "-c", SIGNALLED, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 128 + number
    assert ended.stderr.strip() == "stopped: 3 of 5 are kept"
    assert ended.stdout == "True\n"


def test_a_signal_that_nohup_ignores_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_when_stopped(lambda: ""):
            deliver(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
