"""Trainings that the page begins: the ordinary command, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alphabar.errors import AlphabarError, UsageError
from alphabar.extensions import LOADED
from alphabar.runs.run import Run
from alphabar.studio.models import ModelStore

NAME = re.compile(r"[\w][\w.-]{0,60}")
MAX_RUNNING = 1  # trainings of one page: two would take each other's time
SECONDS_TO_SAVE = 60.0  # that a training has when the studio closes
SECONDS_TO_LEAVE = 10.0  # that a training has that has saved
LOCALES = {"en": "C.UTF-8", "es": "es_ES.UTF-8"}  # of the command's messages


@dataclass
class TrainingJob:
    """A training that the page began. output: what its command has printed."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def last_line(self) -> str:
        """The last line that the command has printed."""
        self.output.seek(0)
        lines = self.output.read()[-4000:].decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def time_left(self) -> str:
        """The time left as the last line of progress states it; "" where it states none."""
        return self.last_line().rpartition("  left ")[2] if "  left " in self.last_line() else ""


class TrainingJobs:
    """The trainings of one studio, by the name of their run."""

    def __init__(self, models: ModelStore):
        self.models = models
        self.jobs: dict[str, TrainingJob] = {}

    def new_run(self, name: str) -> Path:
        """The folder of a new run. Raises UsageError for a name that cannot be one, or is taken."""
        if self.models.single:
            raise UsageError("studio.single_model")
        if not NAME.fullmatch(name):
            raise UsageError("studio.bad_run_name", name=name)
        path = self.models.path / name
        if path.exists():
            raise UsageError("studio.run_exists", name=name)
        return path

    def launch(self, run: Path, command: Sequence[str], budget: str, language: str = "en") -> TrainingJob:
        """Run ``alphabar train`` or ``finetune`` with these arguments, into a run folder, for a time.

        command: the command's name and its arguments but the run and the budget. language: of its messages.
        Raises AlphabarError while another training of this page runs.
        """
        for name, job in self.jobs.items():
            if job.running and not Run(self.models.path / name).is_training():
                with suppress(subprocess.TimeoutExpired):
                    job.process.wait(SECONDS_TO_LEAVE)
        if sum(job.running for job in self.jobs.values()) >= MAX_RUNNING:
            raise AlphabarError("studio.already_training")
        extensions = [part for e in LOADED.values() if e.file for part in ("--extension", str(e.file))]
        output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "alphabar.cli", *extensions),
                *(*command, "--run", str(run), "--budget", budget),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "LC_ALL": LOCALES[language], "PYTHONUTF8": "1"},
        )
        self.jobs[run.name] = TrainingJob(process, output)
        return self.jobs[run.name]

    def pause(self, name: str) -> None:
        """Ask a training to save and end. Raises AlphabarError for one that this page did not begin."""
        job = self.jobs.get(name)
        if job is None or not job.running:
            raise AlphabarError("studio.not_training_here", name=name)
        job.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let all trainings save and end."""
        running = [job for job in self.jobs.values() if job.running]
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            try:
                job.process.wait(SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
