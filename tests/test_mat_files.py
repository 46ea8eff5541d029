"""MATLAB files are read by a process of their own: one that ends it costs that file and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import alphabar.data.mat_files as mat_files
from alphabar.data.sources import open_source
from mutated_files import devkit

REAL_CHILD = mat_files.CHILD


def cars(folder: Path, **changed: bytes) -> Path:
    """A devkit of six cars, with other bytes for the files of these names."""
    (folder / "cars_train").mkdir()
    for i in range(6):
        Image.new("RGB", (8, 8)).save(folder / "cars_train" / f"{i + 1:05d}.jpg")
    for name, data in devkit().items():
        (folder / name).write_bytes(changed.get(name.removesuffix(".mat"), data))
    return folder


def child_that(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Replace the child by one that does something, as code, when it reads files of a name."""
    script = tmp_path / "child.py"
    script.write_text(
        "import os, runpy, scipy.io\n"
        "sound = scipy.io.loadmat\n"
        "def loadmat(path, **options):\n"
        f"    if path.endswith({where!r}):\n        {what}\n"
        "    return sound(path, **options)\n"
        "scipy.io.loadmat = loadmat\n"
        f"runpy.run_path({str(REAL_CHILD)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(mat_files, "CHILD", script)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os._exit(7)", "it crashes the process that reads it, exit code 7"),
        ("print('{', end='', flush=True); os._exit(7)", "exit code 7"),
    ],
)
def test_what_ends_the_reading_costs_one_file(tmp_path, monkeypatch, what, said):
    child_that(what, tmp_path, monkeypatch, "cars_meta.mat")
    source = open_source(cars(tmp_path))
    notes = [note for note in source.notes if note.identifier == "data.file_damaged"]
    assert len(notes) == 1 and notes[0].startswith("cars_meta.mat cannot be read (") and said in notes[0]
    assert notes[0].in_language("es").startswith("cars_meta.mat no se puede leer (")
    assert [item.label for item in source.items] == ["1", "2"] * 3  # from the file that was read after it
    assert all(item.box == (0, 0, 8, 8) for item in source.items)


def test_what_takes_too_long_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(mat_files, "CHILD", tmp_path / "child.py")
    (tmp_path / "child.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(mat_files, "SECONDS", 0.1)
    source = open_source(cars(tmp_path))
    assert sum("it is not read within" in note for note in source.notes) == 2
    assert len(source.items) == 6


def test_a_file_that_crashes_scipy_is_one_sentence(tmp_path):
    damaged = bytearray(devkit()["cars_train_annos.mat"])
    damaged[1705] = 255  # file 808 of the campaign of mutated files: a segmentation fault in SciPy 1.17
    source = open_source(cars(tmp_path, cars_train_annos=bytes(damaged)))
    assert len(source.items) == 6
    said = [note for note in source.notes if note.startswith("cars_train_annos.mat cannot be read (")]
    assert len(said) == 1


def test_all_files_are_read_by_one_process(tmp_path, monkeypatch):
    started = []

    def run(*words, **options):
        started.append(words)
        return real(*words, **options)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)
    source = open_source(cars(tmp_path))
    assert len(started) == 1
    assert {item.label for item in source.items} == {"Acura RL Sedan 2012", "Audi S6 Sedan 2011"}
    assert not any(note.identifier == "data.file_damaged" for note in source.notes)


def test_a_program_that_comes_from_stdin_reads_them_too(tmp_path):
    script = (
        f"from alphabar.data.sources import open_source; print(open_source({str(cars(tmp_path))!r}).items[0])"
    )
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True)
    assert "label='Acura RL Sedan 2012'" in done.stdout, done.stderr


def test_a_process_that_cannot_be_started_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    source = open_source(cars(tmp_path))
    assert sum(note.identifier == "data.file_damaged" for note in source.notes) == 2
    assert len(source.items) == 6
