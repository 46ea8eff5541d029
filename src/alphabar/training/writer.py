"""What the main process of a training writes into its run: losses, averages, checkpoints, measurements."""

import io
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alphabar.data.dataset import Dataset
from alphabar.errors import AlphabarError
from alphabar.files import Damaged, read_folder, write_document, write_folder, writing
from alphabar.messages import Message, message
from alphabar.runs.model import codec_file, codec_sum, model_folder_files
from alphabar.runs.run import Run
from alphabar.runtime import Runtime, machine_load, machine_memory
from alphabar.tensor_files import pack_tensors
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.records import TrainingProgress
from alphabar.training.state import TrainingState
from alphabar.versions import commit

LOG_EVERY = 2.0  # seconds
RETRY_AFTER = 60.0  # seconds, after the disk refused a record


class RunWriter:
    """Writes into a run what is due after each update, and everything at the end.

    statistics: of the training data, as checkpoints hold them. checkpoint_every: seconds between checkpoints.
    resumed: whether the state of the training is that of the newest checkpoint. share: of the training that
    is done.

    patience_over: whether the held-out error has risen for so long that the training is to end.
    """

    def __init__(
        self,
        run: Run,
        training: TrainingState,
        monitor: TrainingMonitor,
        statistics: bytes,
        *,
        checkpoint_every: float,
        resumed: bool,
        share: float,
    ):
        self.run, self.training, self.monitor, self.statistics = run, training, monitor, statistics
        self.checkpoint_every = checkpoint_every
        self._codec_sum = codec_sum(codec_file(run))
        self._events = TensorBoardEvents(run.path, training.images)
        self._losses: list[float] = []
        self._last: TrainingProgress | None = None
        self._saved_at = training.images if resumed else None
        self._measured_at: int | None = None
        self.patience_over = monitor.patience_over
        self._snapshots = int(share * training.recipe.ema.snapshots)  # that were due so far
        self._next_log = time.monotonic() + LOG_EVERY
        self._next_save = time.monotonic() + checkpoint_every

    def after_update(self, record: TrainingProgress) -> Iterator[TrainingProgress]:
        """Writes what is due. record: of the update. Where the disk refuses, a message says so."""
        if record.loss is not None and math.isfinite(record.loss) and not self.training.bad_steps:
            self._losses.append(record.loss)
        self._last, now = record, time.monotonic()
        reached = int(record.done * self.training.recipe.ema.snapshots)
        if reached > self._snapshots:
            self._snapshots = reached
            yield from self._attempt(self.save_averages, "training.write_failed")
        if now >= self._next_log:
            self._next_log = now + LOG_EVERY
            yield from self._attempt(self.log_losses, "training.write_failed")
        # Where the loss is not finite the last checkpoint stays: the weights may be the reason.
        if now >= self._next_save and not self.training.bad_steps:
            self._next_save = now + self.checkpoint_every
            yield from self._attempt(self.save, "training.write_failed")
        if self.monitor.is_due(record.seconds, record.rate):
            yield from self._attempt(self.measure, "training.measuring_failed")

    def finish(self, stopped: bool) -> Iterator[TrainingProgress]:
        """Writes a checkpoint and then what else is due at the end, where a failure is only a message.

        stopped: whether a person stopped the training before its end. Raises AlphabarError where the
        checkpoint cannot be written.
        """
        try:
            self.save_if_new()
        except AlphabarError as error:
            if self._saved_at != self.training.images:
                raise
            yield self.note(message("training.finishing_failed", problem=error.message))
        if stopped or self._last is None:  # nothing was trained
            return
        if self.training.averages:
            yield from self._attempt(self.save_averages, "training.finishing_failed")
        if self._measured_at != self.training.images:
            yield from self._attempt(self.measure, "training.finishing_failed")

    def log_losses(self) -> None:
        """Logs the mean loss since the last time."""
        if not self._losses or self._last is None:
            return
        values = {
            "seconds": round(self.training.seconds, 2),
            "loss": sum(self._losses) / len(self._losses),
            "rate": self._last.rate,
            "lr": self._last.learning_rate,
            "wait": self._last.wait,
            "load": machine_load(),
        }
        self.run.log.append("train", self.training.images, **values)
        self._events.add(self.training.images, values)
        self._losses.clear()

    def save(self) -> None:
        """Writes a checkpoint and the model folder. The log then reaches as far as the checkpoint does.

        Raises AlphabarError where one of them cannot be written; the checkpoint is written even if the log
        is not.
        """
        try:
            self.log_losses()
        finally:
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        training = self.training
        files = training.files(self.statistics)
        self.run.checkpoints.save(training.images, {**files, **self._codec_sum})
        self._saved_at = training.images
        write_folder(self.run.model_folder, self._model(files))

    def _model(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files of the model folder, of those of a checkpoint."""
        return model_folder_files(
            self.training.recipe,
            self.training.images,
            {
                "model.safetensors": files.get("ema.safetensors", files["model.safetensors"]),
                "statistics.safetensors": self.statistics,
                **codec_file(self.run),
                **self.training.shared_files(),
            },
        )

    def save_if_new(self) -> None:
        """Writes a checkpoint unless there is one of this moment; then the model folder where it is another.

        It is, where settings of sampling were changed, and where a kill came before it was written.
        """
        if self._saved_at != self.training.images:
            self.save()
            return
        wanted = self._model(self.training.files(self.statistics))
        try:
            there = read_folder(self.run.model_folder)
        except (Damaged, OSError):
            there = {}
        if there != wanted:
            write_folder(self.run.model_folder, wanted)

    def save_averages(self) -> None:
        """Saves the averages for post-hoc EMA as they are now, in half precision."""
        averages = {name: value.half() for name, value in self.training.averaged().items()}
        self.run.snapshots.save(self.training.images, pack_tensors(averages))

    def measure(self) -> TrainingProgress:
        """Lets the monitor measure the model. Returns a record with its message and, as preview, the grid."""
        training = self.training
        self._measured_at = training.images
        with training.runtime.autocast():
            measured = self.monitor.measure(training.evaluated(), training.images, training.seconds)
        self.patience_over = self.monitor.patience_over
        if measured.grid:  # of a classifier the values are lists
            self._events.add(training.images, measured.values or {})
        return self.note(measured.message, measured.grid)

    def note(self, text: Message, preview: Path | None = None) -> TrainingProgress:
        """A record with a sentence for the person who trains."""
        done = self._last.done if self._last else 0.0
        return TrainingProgress(
            message("training.stage"),
            done,
            1.0,
            None,
            preview,
            text,
            images=self.training.images,
            seconds=self.training.seconds,
        )

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._events.close()

    def _attempt(
        self, work: Callable[[], TrainingProgress | None], failure: str
    ) -> Iterator[TrainingProgress]:
        """Does a piece of work. Yields its record; where it fails, one with the message ``failure``."""
        try:
            record = work()
        except Exception as error:
            self._next_log = time.monotonic() + RETRY_AFTER
            problem = (
                error.message if isinstance(error, AlphabarError) else f"{type(error).__name__}: {error}"
            )
            yield self.note(message(failure, problem=problem))
        else:
            if record:
                yield record


class TensorBoardEvents:
    """A file of TensorBoard events beside the log, where the extra is installed; else nothing.

    torch's SummaryWriter writes in a thread of its own, where a full disk ends in a traceback, so the records
    are written here. images: seen when the training begins; TensorBoard drops what comes after them in older
    files.
    """

    def __init__(self, path: Path, images: int):
        self.folder, self.images = path / "tensorboard", images
        self._file: io.FileIO | None = None

    def add(self, images: int, values: dict[str, Any]) -> None:
        """Adds the numbers among the values, after so many images. Raises AlphabarError where it cannot."""
        numbers = [{"tag": name, "simple_value": v} for name, v in values.items() if isinstance(v, float)]
        if numbers:
            self._write(step=images, summary={"value": numbers})

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()

    def _write(self, **event: Any) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            return
        with writing(self.folder):
            new = self._file is None
            if self._file is None:
                self.folder.mkdir(exist_ok=True)
                name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
                self._file = io.FileIO(self.folder / name, "ab")
            if new:
                self._write(file_version="brain.Event:2")
                self._write(step=self.images, session_log={"status": 1})
            RecordWriter(self._file).write(Event(wall_time=time.time(), **event).SerializeToString())


def write_environment(run: Run, dataset: Dataset, runtime: Runtime) -> None:
    """Writes environment.json: versions, machine, runtime and data of a training."""
    environment = {
        "alphabar": version("alphabar"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": machine_memory(),
        "threads": torch.get_num_threads(),
        "runtime": runtime.to_dict(),
        "data": {
            "fingerprint": dataset.fingerprint,
            "pictures": len(dataset.items),
            "skipped": len(dataset.skipped),
        },
    }
    write_document(run.path / "environment.json", environment)
