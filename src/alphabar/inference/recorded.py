"""What files say about how their network computed, and computing so again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError
from alphabar.files import Damaged, read_document
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of, with_runtime
from alphabar.inference.runtime import AUTO, PLAIN, missing, read_runtime
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.runtime import Runtime, broadcast

KEY = "runtime"
"""Under which the description stands in samples.json, in a PNG and in an evaluation."""

LARGEST_BATCH = 256
"""Samples that are generated to repeat one to the bit, at most."""


def describe_runtime(model: Model, batch: int) -> dict[str, Any]:
    """How a model computes, as JSON holds it: runtime, samples at a time, machine and versions."""
    runtime = runtime_of(model) or PLAIN
    return {**runtime.to_dict(), "batch": batch, "machine": runtime.describe(model.device)}


def as_described(model: Model, about: Mapping[str, Any]) -> Iterator[Progress[tuple[Model, dict[str, Any]]]]:
    """The model, computing as a file describes it, and the description: the last record's result.

    Yields a record with a message before where the file is of another machine or other versions: results may
    differ by rounding. Raises UsageError for a description that is none, AlphabarError where something is
    missing here.
    """
    runtime = read_runtime(about)
    if problem := missing(runtime, model.device):
        raise AlphabarError("inference.cannot_repeat", runtime=runtime.name, problem=problem)
    here = runtime.describe(model.device)
    if about.get("machine") != here:
        text = message("inference.other_machine", machine=str(about.get("machine")), here=here)
        yield Progress(message("inference.stage"), 1, 1, message=text)
    yield Progress(message("inference.stage"), 1, 1, (with_runtime(model, runtime), dict(about)))


def batch_of(about: Mapping[str, Any], position: int, n: Any) -> range:
    """The positions of the samples that a sample was generated with, from what its file says, which may be
    anything; the sample's alone where that makes no sense.

    about: the description of the runtime. n: the number of samples of the work.
    """
    size = about.get("batch")
    if type(size) is not int or type(n) is not int or not (0 < size <= LARGEST_BATCH and n > position):
        return range(position, position + 1)
    first = position // size * size
    return range(first, min(first + size, n))


def choose_or_repeat(
    model: Model,
    begun: Path | None,
    *,
    evaluations: int,
    batch: int,
    precision: str | None = None,
    gradients: bool = False,
    early: bool = True,
) -> Iterator[Progress[tuple[Model, dict[str, Any]]]]:
    """The model, computing as results were begun, else as `choose_runtime` chooses; and the description.

    The last record's result is both.

    begun: the JSON file of results that may be there already, or None: work that goes on gives the bits of
    work that was never stopped. precision: what the person gives, which must be that of the results; None is
    "auto".
    gradients, early: as `choose_runtime` takes them.
    Raises as `choose_runtime` and `as_described` do.
    """
    about = broadcast(_read(begun) if begun and Runtime().is_main else None)
    if about is not None and precision in (None, AUTO, about.get("precision")):
        yield from as_described(model, about)
        return
    for record in choose_runtime(
        model,
        evaluations=evaluations,
        batch=batch,
        precision=precision or AUTO,
        gradients=gradients,
        early=early,
    ):
        chosen = record.result
        result = None if chosen is None else (chosen, describe_runtime(chosen, batch))
        yield Progress(record.stage, record.done, record.total, result, message=record.message)


def _read(begun: Path) -> dict[str, Any] | None:
    """The description in a file; None where there is none, which whoever reads the file next says."""
    try:
        about = read_document(begun, required=False).get(KEY)
    except (OSError, Damaged):
        return None
    return about if isinstance(about, dict) else None
