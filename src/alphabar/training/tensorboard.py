"""TODO-DOC from training.trainer"""

from pathlib import Path
from typing import Any


class TensorBoardLog:
    """TensorBoard events beside log.jsonl, where the extra is installed."""

    def __init__(self, path: Path, images: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(path / "tensorboard"), purge_step=images or None)

    def scalars(self, images: int, values: dict[str, Any]) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, images)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
