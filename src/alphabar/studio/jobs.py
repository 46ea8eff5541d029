"""Trainings that the page starts: the ordinary command, in a process of its own."""

import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.run import Run
from alphabar.studio.models import ModelStore

NAME = re.compile(r"[\w][\w.-]{0,60}")


AT_ONCE = 1  # trainings of one page: two would take each other's time


PATIENCE = 60.0  # seconds for a training to save when the studio closes


LEAVING = 10.0  # seconds for one that has saved to leave


@dataclass
class TrainingJob:
    """A training that was started here."""

    process: subprocess.Popen[bytes]
    spoken: IO[bytes]  # what the command printed
    budget: str

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_line(self) -> str:
        """The last thing that the command said."""
        self.spoken.seek(0)
        lines = self.spoken.read()[-4000:].decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class TrainingJobs:
    """The trainings of one studio, by the name of their run."""

    def __init__(self, shelf: ModelStore):
        self.shelf = shelf
        self.started: dict[str, TrainingJob] = {}

    def place(self, name: str) -> Path:
        """The folder of a new run. Raises UsageError for a name that cannot be one, or is taken."""
        if self.shelf.single:
            raise UsageError("a single model is open: open a folder of runs to train another")
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a name: letters, digits, '-', '_' and '.' can")
        path = self.shelf.path / name
        if path.exists():
            raise UsageError(f"there is a {name!r} already: resume it, or choose another name")
        return path

    def start(self, path: Path, data: str, budget: str, *options: str) -> None:
        """Run ``alphabar train``. Raises AlphabarError while another training of this page runs."""
        for name, training in self.started.items():
            if training.running and not Run(self.shelf.path / name).is_training():
                with suppress(subprocess.TimeoutExpired):
                    training.process.wait(LEAVING)
        if sum(training.running for training in self.started.values()) >= AT_ONCE:
            raise AlphabarError("a training is running already: pause it first")
        command = [
            sys.executable,
            "-m",
            "alphabar.cli",
            "train",
            data,
            "--run",
            str(path),
            "--budget",
            budget,
        ]
        spoken = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=spoken,
            stderr=spoken,
            start_new_session=True,
        )
        self.started[path.name] = TrainingJob(process, spoken, budget)

    def pause(self, name: str) -> None:
        """Ask a training to save and leave. Raises AlphabarError for one that was not started here."""
        training = self.started.get(name)
        if training is None or not training.running:
            raise AlphabarError(f"no training of {name!r} was started on this page")
        training.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let all trainings save and leave."""
        running = [training for training in self.started.values() if training.running]
        for training in running:
            training.process.send_signal(signal.SIGTERM)
        for training in running:
            try:
                training.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                training.process.kill()
                training.process.wait()
