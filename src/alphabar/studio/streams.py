"""The stream of answers to each browser's page, which Gradio closes when no job is left."""

import asyncio
from contextlib import suppress

CLOSING = b'data: {"msg":"close_stream"'
"""How the last event of a stream begins."""

PAUSE = 0.1
"""Seconds that a browser has, after the end of a stream, to see the end."""

LONGEST = 10.0
"""Seconds that a job waits for the end of a stream, at most: of one that nobody reads there may be none."""


class Streams:
    """Holds jobs back while the stream that would bring their answers is being closed.

    Gradio's page looks whether its stream is open when a job has been accepted, and opens one if not. A job
    that is accepted after the server has closed the stream and before the page has heard of it would remain
    without an answer until the page begins another job.
    """

    def __init__(self) -> None:
        self._closing: dict[str, asyncio.Event] = {}

    def sends(self, session: str, body: bytes) -> None:
        """Called with each part of a stream before it goes out."""
        if body.startswith(CLOSING):
            self._closing.setdefault(session, asyncio.Event())

    def ended(self, session: str) -> None:
        """Called when a stream has been sent to its end, or its reader has gone."""
        if closing := self._closing.get(session):
            asyncio.get_running_loop().call_later(PAUSE, self._release, session, closing)

    async def closed(self, session: str) -> None:
        """Returns at once, or when the browser has seen the end of the stream that is being closed."""
        if closing := self._closing.get(session):
            with suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), LONGEST)

    def _release(self, session: str, closing: asyncio.Event) -> None:
        closing.set()
        if self._closing.get(session) is closing:
            del self._closing[session]
