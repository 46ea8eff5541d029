"""Long work as a generator of progress records: whoever consumes it can show it, stop it, or wait for it."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress(Generic[T]):
    """How far a piece of work has come. The last record of the work carries its result.

    stage: what is being done, a short phrase. done, total: how much of it, in units of the work's own.
    preview: something to look at on the way, such as a sampler's step. message: a sentence for the person.

    Closing the generator that yields these records cancels the work.
    """

    stage: str
    done: float
    total: float
    result: T | None = None
    preview: Any = None
    message: str | None = None


def last(records: Iterable[Progress[T]]) -> T:
    """Does the work to its end and returns its result. Raises ValueError where there is none."""
    result = None
    for record in records:
        result = record.result
    if result is None:
        raise ValueError("this work ended without a result")
    return result


def staged(records: Iterable[Progress[T]], stage: str | None = None) -> Generator[Progress[Any], None, T]:
    """The records of a part of a larger work without their result, under another stage's name if given.

    A generator's ``return`` hands the result to ``yield from``::

        features = yield from staged(extract(...), "features of the samples")
    """
    result = None
    for record in records:
        result = record.result
        yield Progress(stage or record.stage, record.done, record.total, None, record.preview, record.message)
    assert result is not None
    return result
