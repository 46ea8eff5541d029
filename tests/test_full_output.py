"""A standard output that takes nothing, because its disk is full or its reader has ended: one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from test_compare import make_run

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no full disk at hand")


def ended(stdout, *arguments, stderr=subprocess.PIPE):
    """Exit code and words of a command whose results go somewhere."""
    command = [sys.executable, "-m", "alphabar.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=stdout, stderr=stderr, text=True)
    return done.returncode, (done.stderr or "").splitlines()


@needs_full
@pytest.mark.parametrize(
    "arguments", [["inspect", "DATA"], ["inspect", "DATA", "--json"], ["--version"], ["--help"]]
)
def test_a_full_disk_is_one_sentence(picture_folder, arguments):
    with FULL.open("w") as full:
        code, words = ended(full, *[picture_folder if word == "DATA" else word for word in arguments])
    assert code == 1 and "cannot be written to the standard output: No space left" in words[-1]
    assert not any("Traceback" in line or "Exception" in line for line in words)


@needs_full
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_mistake_keeps_its_sentence_and_code(tmp_path, more):
    with FULL.open("w") as full:
        code, words = ended(full, "inspect", tmp_path / "nothing", *more)
    assert code == 2 and len(words) == 1 and "There is no data called" in words[0]


@needs_full
def test_a_full_disk_for_sentences_too_is_an_exit_code(picture_folder):
    with FULL.open("w") as full:
        assert ended(full, "inspect", picture_folder, stderr=full)[0] == 1


def test_a_reader_that_has_ended_is_no_error_to_speak_of(picture_folder):
    reads, writes = os.pipe()
    os.close(reads)
    code, words = ended(writes, "inspect", picture_folder)
    os.close(writes)
    assert code == 1 and not any("alphabar:" in line or "Traceback" in line for line in words)


@needs_full
def test_an_evaluation_is_kept_before_it_is_printed(call, monkeypatch, picture_folder, tmp_path):
    run = make_run(tmp_path / "run")
    with FULL.open("w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        about = ("--against", picture_folder, "-n", 8, "--features", "lite0_96", "--steps", 1)
        code, _, _ = call("evaluate", run, *about)
    assert code == 1
    (kept,) = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert kept["n"] == 8


@needs_full
def test_a_comparison_is_written_before_it_is_printed(call, monkeypatch, tmp_path):
    runs, page = [make_run(tmp_path / name) for name in ("one", "two")], tmp_path / "page.html"
    with FULL.open("w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        code, _, _ = call("compare", *runs, "--out", page)
    assert code == 1
    assert "</html>" in page.read_text(encoding="utf-8")


def test_a_comparison_is_printed_where_its_page_cannot_be_written(call, tmp_path):
    runs, page = [make_run(tmp_path / name) for name in ("one", "two")], tmp_path / "page.html"
    page.mkdir()
    code, out, err = call("compare", *runs, "--out", page)
    assert code == 1 and "parameters" in out and "page.html" in err
