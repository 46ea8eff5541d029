"""What all tabs share: the page's language and models, how errors are shown, and how work is cancelled."""

import functools
import html
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from alphabar.errors import AlphabarError
from alphabar.files import fitting_name
from alphabar.messages import Message, catalogue, message
from alphabar.progress import Progress
from alphabar.runs.model import Model
from alphabar.studio.elements import error_note, note, progress_bar
from alphabar.studio.models import ModelStore

T = TypeVar("T")

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
"""For events that work with a model: one model is in memory."""

LIGHT: dict[str, Any] = {"concurrency_limit": 8, "show_progress": "hidden"}
"""For events that only read."""

LOOKING: dict[str, Any] = {"concurrency_id": "looking", "concurrency_limit": 1, "show_progress": "hidden"}
"""For events that unpack pictures to look at them."""

BETWEEN = 0.2  # seconds between two states of work that the page shows


@dataclass(frozen=True)
class Page:
    """The page in one language.

    language: "en" or "es". models: what it may open. files: the folder of what the browser may read.
    blocks: the Gradio page that the tabs are built in.
    """

    language: str
    models: ModelStore
    files: Path
    blocks: gr.Blocks

    def text(self, key: str, **values: Any) -> str:
        """The text ``studio.<key>`` of the catalogue, in the page's language."""
        return message(f"studio.{key}", **values).in_language(self.language)

    def text_or(self, key: str, otherwise: str) -> str:
        """The text ``studio.<key>``, or another where there is none, as for an extension."""
        return self.text(key) if f"studio.{key}" in catalogue() else otherwise

    def say(self, said: Message | str) -> str:
        """A message of the library in the page's language and words: what names options of the command line
        has another text here, ``studio.page_<identifier>``. Plain text, as of an extension, stays as it is.
        """
        if not isinstance(said, Message):
            return said
        own = f"studio.page_{said.identifier}"
        return (message(own, **said.values) if own in catalogue() else said).in_language(self.language)

    def handler(self, function: Callable[..., Any], status: gr.HTML | None = None) -> Callable[..., Any]:
        """A generator function as the handler of an event: each of its errors is shown as a sentence.

        status: an output of the event, the line next to its button; the error stays there. Without one, the
        error floats over the page until it is closed.
        """

        @functools.wraps(function)
        def showing_errors(*arguments: Any) -> Any:
            try:
                yield from function(*arguments)
                return
            except AlphabarError as error:
                text = self.say(error.message)
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                text = self.text("internal_error", name=type(error).__name__)
            if status is None:
                raise gr.Error(html.escape(text), duration=None, print_exception=False)
            yield {status: error_note(text)}

        return showing_errors

    def with_progress(
        self, records: Iterable[Progress[T]], status: gr.HTML
    ) -> Generator[dict[Any, Any], None, T]:
        """The result of work without pictures, while the line next to the button says what is done."""
        for record in paced(records):
            if record.result is None:
                yield {status: progress_bar(record.done, record.total, self.say(record.stage))}
        assert record.result is not None
        return record.result

    def new_file(self, name: str) -> Path:
        """The path of a new file of this name that the browser may read."""
        return Path(tempfile.mkdtemp(dir=self.files)) / fitting_name(Path(name).stem, Path(name).suffix)

    def cancel_button(self, button: gr.Button, jobs: Sequence[Any], status: gr.HTML) -> None:
        """Let a button cancel jobs. A job that the button has ended says so when it has ended.

        Right after the click would be too soon: the page would ignore a click that begins the job again.
        Gradio counts a job as failed also when it refuses the values of the controls, and says that itself.
        """
        by_hand = gr.Checkbox(visible=False)
        button.click(None, None, None, cancels=list(jobs), js="() => { window.cancelledAt = Date.now() }")
        for job in jobs:
            job.failure(
                lambda cancelled: note(self.text("cancelled")) if cancelled else gr.skip(),
                by_hand,
                status,
                js="() => [Date.now() - (window.cancelledAt ?? 0) < 60000]",
                **LIGHT,
            )


class Tab:
    """What every tab offers to the page as a whole, next to its own events.

    adapted: the outputs of `adapt`. kept: the controls and states that mean the same in every language, whose
    values are still there after a change of the language. views: the outputs of `show_kept`.
    """

    adapted: Sequence[Any] = ()
    kept: Sequence[Any] = ()
    views: Sequence[Any] = ()

    def adapt(self, model: Model) -> dict[Any, Any]:
        """Updates that suit the controls to a model that was just chosen."""
        return {}

    def keep(self, values: Sequence[Any]) -> Sequence[Any]:
        """The values of `kept` as they are stored while the page is loaded in another language."""
        return values

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """Updates of `views` that say in this page's language what the values of `kept` hold."""
        return {}


def paced(records: Iterable[Progress[T]]) -> Iterator[Progress[T]]:
    """The records of work that the page shows: not more than a browser can draw, and always the last.

    A small model takes its steps faster than a browser draws their pictures. Those that wait to be drawn take
    memory, and the end of the work, or of its cancelling, would be seen only after them.
    """
    shown = -BETWEEN
    for record in records:
        if record.result is not None or time.monotonic() - shown >= BETWEEN:
            yield record
            shown = time.monotonic()


def forming(model: Model, record: Any) -> Any:
    """The pictures of what a sampler estimates at a step, from the preview of a progress record."""
    return model.codec.preview(model.codec.decode(record.preview.step.x0.cpu()))
