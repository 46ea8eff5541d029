"""What all tabs share: the page's language and models, how errors are shown, and how work is cancelled."""

import functools
import html
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.errors import AlphabarError
from alphabar.messages import catalogue, message
from alphabar.runs.model import Model
from alphabar.studio.elements import note
from alphabar.studio.models import ModelStore

ERROR_SECONDS = 8
"""How long an error stays on the page."""

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
"""For events that work with a model: one model is in memory."""

LIGHT: dict[str, Any] = {"concurrency_limit": 8, "show_progress": "hidden"}
"""For events that only read."""


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

    def handler(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A generator function as the handler of an event: each of its errors is shown as a sentence."""

        @functools.wraps(function)
        def showing_errors(*arguments: Any) -> Any:
            try:
                yield from function(*arguments)
            except AlphabarError as error:
                text = html.escape(error.in_language(self.language))
                raise gr.Error(text, duration=ERROR_SECONDS, print_exception=False) from None
            except (gr.Error, GeneratorExit):
                raise
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                text = self.text("internal_error", name=type(error).__name__)
                raise gr.Error(text, duration=ERROR_SECONDS, print_exception=False) from None

        return showing_errors

    def new_file(self, suffix: str) -> Path:
        """A new empty file that the browser may read."""
        with tempfile.NamedTemporaryFile(dir=self.files, suffix=suffix, delete=False) as file:
            return Path(file.name)

    def cancel_button(self, button: gr.Button, jobs: Sequence[Any], status: gr.HTML) -> None:
        """Let a button cancel jobs. A job says that it has ended when it has, by the button or by an error.

        Right after the click would be too soon: the page would ignore a click that begins the job again.
        """
        button.click(None, None, None, cancels=list(jobs))
        for job in jobs:
            job.failure(lambda: note(self.text("cancelled")), None, status, **LIGHT)


def forming(model: Model, record: Any) -> Any:
    """The pictures of what a sampler estimates at a step, from the preview of a progress record."""
    return model.codec.preview(model.codec.decode(record.preview.step.x0.cpu()))
