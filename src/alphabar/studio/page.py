"""What all tabs share: the page they are on, how errors are told, and how pictures become HTML."""

import base64
import functools
import html
import io
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import Unreadable
from alphabar.codecs.png_metadata import png_metadata
from alphabar.errors import AlphabarError
from alphabar.studio.models import ModelStore
from alphabar.studio.translations import TEXTS

SHOWN = 8  # seconds that an error stays


ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
"""For events that work with a model: there is one in memory."""


LIGHT: dict[str, Any] = {"concurrency_limit": 8, "show_progress": "hidden"}
"""For events that only read."""


@dataclass(frozen=True)
class Page:
    """The page in one language. files: what the browser may read lies there; blocks: where it is built."""

    language: int  # the column of TEXTS
    shelf: ModelStore
    files: Path
    blocks: gr.Blocks

    def text(self, key: str, **values: Any) -> str:
        """A text in the page's language."""
        return TEXTS[key][self.language].format(**values)

    def told(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler (a generator function), its errors one sentence each."""

        @functools.wraps(handler)
        def telling(*arguments: Any) -> Any:
            try:
                yield from handler(*arguments)
            except (AlphabarError, Unreadable) as error:
                raise gr.Error(html.escape(str(error)), duration=SHOWN, print_exception=False) from None
            except (gr.Error, GeneratorExit):
                raise
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                said = self.text("broken", name=type(error).__name__)
                raise gr.Error(said, duration=SHOWN, print_exception=False) from None

        return telling

    def new_file(self, suffix: str) -> Path:
        """A new empty file that the browser may read."""
        with tempfile.NamedTemporaryFile(dir=self.files, suffix=suffix, delete=False) as file:
            return Path(file.name)

    def progress(self, done: float, total: float, said: str) -> str:
        """A bar, and a line below it."""
        return f'<progress max="{total}" value="{done}"></progress><p class="said">{html.escape(said)}</p>'

    def note(self, said: str) -> str:
        return f'<p class="said">{html.escape(said)}</p>'


def data_uri(
    picture: np.ndarray | Image.Image, about: Mapping[str, Any] | None = None, quick: bool = False
) -> str:
    """A picture (h, w, 3) uint8 as a ``data:`` address: PNG with its settings inside, or a quick JPEG."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    if quick:
        image.save(buffer, "JPEG", quality=88)
    else:
        image.save(buffer, "PNG", pnginfo=png_metadata(about) if about is not None else None)
    kind = "jpeg" if quick else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def sheet(
    pictures: Tensor, abouts: Sequence[Mapping[str, Any]] | None = None, name: str = "", hint: str = ""
) -> str:
    """Pictures (n, h, w, 3) uint8 as a grid. With ``abouts`` each is a PNG that a click saves."""
    cells = []
    for i, picture in enumerate(pictures.numpy()):
        if abouts is None:
            cells.append(f'<img src="{data_uri(picture, quick=True)}" alt="">')
            continue
        file, title = html.escape(f"{name}-{i + 1}.png"), html.escape(hint)
        uri = data_uri(picture, abouts[i])
        cells.append(f'<a href="{uri}" download="{file}" title="{title}"><img src="{uri}" alt="{i + 1}"></a>')
    columns = min(len(cells), 8 if len(cells) > 16 else 4)
    return f'<div class="sheet" style="--columns:{columns}">{"".join(cells)}</div>'


def empty(said: str) -> str:
    """A quiet frame where pictures will be."""
    return f'<div class="empty"><span>{html.escape(said)}</span></div>'


def cancelling(page: Page, button: gr.Button, jobs: Sequence[Any], said: gr.HTML) -> None:
    """Make a button end jobs. A job says so when it has ended, by the button or by an error.

    Right after the click would be too soon: until then the page ignores a click that begins the job anew.
    """
    button.click(None, None, None, cancels=list(jobs))
    for job in jobs:
        job.failure(lambda: page.note(page.text("stopped")), None, said, **LIGHT)
