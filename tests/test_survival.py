"""Trainings that are killed and continue: a quick one, and the benchmark with twenty kills."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alphabar.runs.run import Run

CHILD = Path(__file__).with_name("training_child.py")
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "crash_safety.py"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def train_in_a_process(pictures: Path, run: Path, images: int, checkpoint_every: float) -> subprocess.Popen:
    command = [sys.executable, str(CHILD), str(pictures), str(run), str(images), str(checkpoint_every)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def hashes(run: Path, images: int) -> list[str]:
    checkpoint, problems = Run(run).checkpoints.newest()
    assert checkpoint is not None and checkpoint.images == images and not problems
    return [hashlib.sha256(checkpoint.files[name]).hexdigest() for name in FILES]


def test_a_kill_changes_no_bit(picture_folder, tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    child = train_in_a_process(picture_folder, killed, 100_000, 0)
    deadline = time.monotonic() + 120
    while not Run(killed).checkpoints.folders() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not Run(killed).is_training()
    reached = Run(killed).checkpoints.newest()[0].images
    for run in (killed, undisturbed):
        child = train_in_a_process(picture_folder, run, reached + 40, 1000)
        _, problems = child.communicate(timeout=120)
        assert child.returncode == 0, problems.decode()
    assert hashes(killed, reached + 40) == hashes(undisturbed, reached + 40)


@pytest.mark.slow
def test_twenty_kills_change_no_bit():
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| yes |") == 3
