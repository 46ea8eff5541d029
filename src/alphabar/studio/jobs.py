"""Trainings that the page begins: the ordinary command, in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alphabar.errors import AlphabarError
from alphabar.extensions import LOADED
from alphabar.messages import LANGUAGES, message
from alphabar.runs.run import Run
from alphabar.studio.models import ModelStore

SECONDS_TO_SAVE = 60.0  # that a training has when the studio closes
SECONDS_TO_LEAVE = 10.0  # that a training has that has saved
ENDS_OF_PAUSED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)  # the last two before there is anything to save


@dataclass
class TrainingJob:
    """A training that the page began.

    output: what its command has printed. pictures: the folder that was made for it and that no run has yet,
    or None. pausing: whether it was asked to save and end. language: of its output.
    """

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    pictures: Path | None = None
    pausing: bool = False
    language: str = LANGUAGES[0]

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it has ended by an error. One that was paused before it could save has not failed."""
        return not self.running and self.process.returncode not in (ENDS_OF_PAUSED if self.pausing else (0,))

    def pause(self) -> None:
        """Ask it to save and end."""
        self.pausing = True
        self.process.send_signal(signal.SIGTERM)

    def last_line(self) -> str:
        """The last line that the command has printed."""
        self.output.seek(0)
        lines = self.output.read()[-4000:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last.removeprefix("alphabar: ")

    def time_left(self) -> str:
        """The time left as the last line of progress states it; "" where it states none."""
        _, left, time = self.last_line().rpartition(f"  {message('cli.left').in_language(self.language)} ")
        return time if left else ""


class TrainingJobs:
    """The trainings of one studio, by the name of their run. One runs at a time."""

    def __init__(self, models: ModelStore):
        self.models = models
        self.jobs: dict[str, TrainingJob] = {}
        self._launching = threading.Lock()

    def running(self) -> str | None:
        """The name of the run that this page trains now."""
        return next((name for name, job in list(self.jobs.items()) if job.running), None)

    def check_free(self) -> None:
        """Raises AlphabarError while another training of this page runs. One that has saved may end first."""
        for name, job in list(self.jobs.items()):
            if job.running and (job.pausing or not Run(self.models.path / name).is_training()):
                with suppress(subprocess.TimeoutExpired):
                    job.process.wait(SECONDS_TO_LEAVE)
        if self.running():
            raise AlphabarError("studio.already_training", name=self.running())

    def launch(
        self, run: Path, command: Sequence[str], language: str = "en", pictures: Path | None = None
    ) -> TrainingJob:
        """Run ``alphabar train`` or ``finetune`` with these arguments, into a run folder.

        command: the command's name and its arguments but the run. language: of its messages. pictures: the
        folder that was made for the training; it goes where the training fails before there is a run.
        Raises AlphabarError as `check_free` does.
        """
        with self._launching:  # two people may click at once
            self.check_free()
            return self._launch(run, command, language, pictures)

    def _launch(self, run: Path, command: Sequence[str], language: str, pictures: Path | None) -> TrainingJob:
        extensions = [part for e in LOADED.values() if e.file for part in ("--extension", str(e.file))]
        output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        process = subprocess.Popen(
            [sys.executable, "-m", "alphabar.cli", *extensions, *command, "--run", str(run)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "ALPHABAR_LANGUAGE": language, "PYTHONUTF8": "1"},
        )
        self.jobs.pop(run.name, None)
        self.jobs[run.name] = TrainingJob(process, output, pictures, language=language)
        return self.jobs[run.name]

    def latest(self) -> tuple[str, TrainingJob] | None:
        """The training that was begun last, by its name; pictures of one that came to nothing are removed."""
        for name, job in list(self.jobs.items()):
            ended = not job.running  # first: a run may appear until then
            if job.pictures and Run(self.models.path / name).exists:
                job.pictures = None  # the run has them, whatever it is called later
            elif job.pictures and ended:
                if not self.models.uses(job.pictures):
                    shutil.rmtree(job.pictures, ignore_errors=True)
                job.pictures = None
        return next(reversed(self.jobs.items()), None)

    def pause(self) -> str:
        """Ask the training of this page to save and end; the name of its run. AlphabarError without."""
        name = self.running()
        if name is None:
            raise AlphabarError("studio.not_training_here")
        self.jobs[name].pause()
        return name

    def close(self) -> None:
        """Let all trainings save and end."""
        running = [job for job in list(self.jobs.values()) if job.running]
        for job in running:
            job.pause()
        for job in running:
            try:
                job.process.wait(SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
        self.latest()
