"""That something is refused, by the identifier of its message."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import Message


@contextmanager
def refused(identifier: str, error: type[AlphabarError] = UsageError, **values: object) -> Iterator[None]:
    """The block raises the error with this message, and with these of its values."""
    with pytest.raises(error) as caught:
        yield
    message = caught.value.message
    assert isinstance(message, Message) and message.identifier == identifier, str(message)
    assert values.items() <= message.values.items()
