"""What every target of an export promises, and what is exported."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings

MakeItems = Callable[[int, int], Tensor]
"""(first, count) -> samples number first to first + count - 1 as items (count, *item_shape), on the CPU."""


@dataclass(frozen=True)
class Export:
    """What is exported: a model and the way in which it generates samples by default.

    precision: of the exported network, one of the target's `precisions`.
    """

    model: Model
    settings: SamplingSettings
    precision: str


class Target(ABC):
    """Something that a model can be exported to. Keyword parameters with defaults are its settings.

    precisions: what its network can compute in, the default first. modules: the Python modules that it needs;
    extra: the extra of alphabar that brings them.
    """

    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "export"

    def check(self, export: Export) -> None:
        """Raises UsageError or AlphabarError where this export cannot be, before anything is written.

        A target with further conditions adds them to these: the precision, and the modules that it needs.
        """
        if export.precision not in self.precisions:
            raise UsageError(
                "export.no_precision",
                target=type(self).__name__.lower(),
                precision=export.precision,
                known=", ".join(self.precisions),
            )
        require_modules(self.modules, self.extra)

    @abstractmethod
    def write(self, export: Export, folder: Path) -> Iterator[Progress[Mapping[str, Any]]]:
        """Writes the files of the export into an empty folder, which gets its final name later.

        Yields records; the last one carries what is to be told about the export in parity.json, by key, as
        JSON holds it; {} for nothing.
        """

    @abstractmethod
    def load(self, export: Export, folder: Path) -> MakeItems:
        """What generates samples from the written files alone, for the parity report.

        It takes the seed and everything else of ``export.settings``. Raises AlphabarError for damaged files.
        """


def require_modules(modules: tuple[str, ...], extra: str) -> None:
    """Raises AlphabarError naming the extra to install where one of these Python modules is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise AlphabarError("export.not_installed", missing=", ".join(missing), extra=extra)
