"""The log of a run: whatever happens to a line, the others count."""

import errno
import os
from pathlib import Path

import pytest

from alphabar.errors import AlphabarError
from alphabar.runs.log import RunLog
from refusals import refused


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    for images in (16, 32, 48):
        log.append("train", images, loss=0.5, rate=float("inf"), note="día")
    return log


def test_records_come_back_and_nothing_is_said(log, tmp_path):
    assert [r["images"] for r in log.records()] == [16, 32, 48]
    assert log.records()[0] == {
        "kind": "train",
        "images": 16,
        "loss": 0.5,
        "rate": float("inf"),
        "note": "día",
    }
    assert log.problem() is None
    assert RunLog(tmp_path / "none").records() == [] and RunLog(tmp_path / "none").problem() is None


def test_one_changed_byte_loses_its_line_at_most(log):
    data = log.path.read_bytes()
    whole = log.records()
    first = data.index(b"\n")
    second = data.index(b"\n", first + 1)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        log.path.write_bytes(damaged)
        read = log.records()
        # A damaged record is never taken for a whole one; that the checksum has another name is no damage.
        assert all(any(record.items() >= known.items() for known in whole) for record in read)
        assert len(read) >= (1 if place in (first, second) else 2)
        if len(read) < 3 and place < second:
            assert log.problem() is not None


LINES = (
    b"\xff\xfe",
    b"null",
    b"[" * 9999,
    b'{"kind": 3, "images": 1}',
    b'{"kind": "x"}',
    b'{"kind": "x", "images": "3"}',
    b'{"kind": "x", "images": ' + b"9" * 400 + b"}",
    b"\xe2\x80\xa8",
)


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_is_left_out_and_said(log, line):
    log.path.write_bytes(line + b"\n" + log.path.read_bytes())
    assert [r["images"] for r in log.records()] == [16, 32, 48]
    assert log.problem().values["lines"] == "1"
    log.rewind(32)
    assert [r["images"] for r in log.records()] == [16, 32] and log.problem() is None


def test_a_line_that_a_kill_cut_short_is_no_damage_and_the_next_one_stands_apart(log):
    with open(log.path, "ab") as file:
        file.write(b'{"kind": "trai')
    assert log.problem() is None and len(log.records()) == 3
    log.append("train", 64)
    assert [r["images"] for r in log.records()] == [16, 32, 48, 64]


def test_lines_of_others_without_a_checksum_count(log):
    with open(log.path, "ab") as file:
        file.write(b'{"kind": "train", "images": 64}')
    assert [r["images"] for r in log.records()] == [16, 32, 48, 64]


def test_a_log_that_cannot_be_read_is_said_and_stays(log, monkeypatch):
    before = log.path.read_bytes()

    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        assert log.records() == [] and log.problem().identifier == "files.unreadable"
        with refused("files.unreadable", AlphabarError, path=log.path):
            log.rewind(16)
    assert log.path.read_bytes() == before


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_the_log_is_not_waited_for(log):
    log.path.unlink()
    os.mkfifo(log.path)
    assert log.records() == [] and log.problem().identifier == "files.no_plain_file"
    with refused("files.no_plain_file", AlphabarError, path=log.path):
        log.rewind(16)
    with refused("files.cannot_write", AlphabarError, path=log.path):
        log.append("train", 64)
