"""Trainings that are killed and continue: a quick one, and the part of the campaign with kills."""

import hashlib
import json
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


class Command:
    """``alphabar train`` of a tiny network as a process of its own, without an end of its own."""

    def __init__(self, pictures: Path, run: Path, images: int = 1_000_000):
        settings = ["data.size=16", "batch=8", "monitor.share=0", "monitor.distance=0", "monitor.samples=1"]
        settings += ["network=tutorial_unet", "network.widths=[8,16]"]
        command = [sys.executable, "-m", "alphabar.cli", "train", str(pictures), "--run", str(run)]
        command += ["--recipe", "ddpm", "--images", str(images)]
        self.child = subprocess.Popen(
            [*command, *(part for setting in settings for part in ("--set", setting))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.run = run

    def wait_until_it_trains(self) -> None:
        deadline = time.monotonic() + 120
        while not any(kind == "train" for kind in self.logged()):
            assert self.child.poll() is None and time.monotonic() < deadline, (
                self.child.stderr.read().decode()
            )
            time.sleep(0.02)

    def logged(self) -> list[str]:
        log = self.run / "log.jsonl"
        return [json.loads(line)["kind"] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("names", [("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGHUP", "SIGINT", "SIGINT")])
def test_a_signal_however_often_it_is_delivered_saves_and_ends(picture_folder, tmp_path, names):
    if not all(hasattr(signal, name) for name in names):
        pytest.skip("this system has no such signal")
    run = tmp_path / "run"
    command = Command(picture_folder, run)
    command.wait_until_it_trains()
    for name in names:
        command.child.send_signal(getattr(signal, name))
        time.sleep(0.05)
    _, said = command.child.communicate(timeout=120)
    # A repetition may come when all is saved and the process is about to leave.
    assert command.child.returncode in (0, *(-getattr(signal, name) for name in names[1:])), said.decode()
    reached = Run(run).checkpoints.newest()[0].images
    assert 0 < reached < 1_000_000
    again = Command(picture_folder, run, reached + 8)
    _, said = again.child.communicate(timeout=120)
    assert again.child.returncode == 0, said.decode()
    assert Run(run).checkpoints.newest()[0].images == reached + 8


INTERRUPTED = """
import signal, sys, threading
from alphabar.cli import console
now, stop = [100.0], threading.Event()
console.monotonic = lambda: now[0]
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
ended = False
try:
    with console.stop_on_signal(stop):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert stop.is_set()
        now[0] += float(sys.argv[1])
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    ended = True
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
print(ended)
"""


@pytest.mark.parametrize(("between", "ends"), [(0.0, False), (0.9, False), (1.0, True)])
def test_only_a_later_ctrl_c_ends_at_once(between, ends):
    """In a process of its own: what runs the tests has its own use for Ctrl-C."""
    command = [sys.executable, "-c", INTERRUPTED, str(between)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ends}\n"


@pytest.mark.slow
def test_kills_over_all_recipes_change_no_bit(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--out", str(tmp_path), "--parts", "kills"]
    command += ["--kills", "27", "--ranks", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
