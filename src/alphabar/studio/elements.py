"""Pieces of HTML that the tabs share: notes, progress bars, figures and grids of pictures."""

import base64
import html
import io
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.messages import LANGUAGES, catalogue

Picture = NDArray[np.uint8] | Tensor
"""One picture, (h, w, 3 or 4) uint8."""

MAX_PIXELATED = 128
"""Pixels a side: larger pictures are smoothed where they are enlarged."""


def note(text: str) -> str:
    """A sentence in quiet type."""
    return f'<p class="note">{html.escape(text)}</p>'


def error_note(text: str) -> str:
    """A sentence about what went wrong, next to what was clicked."""
    return f'<p class="note error" role="alert">{html.escape(text)}</p>'


def progress_bar(done: float, total: float, text: str) -> str:
    """A bar, and a sentence below it."""
    return f'<progress max="{total}" value="{done}"></progress>{note(text)}'


def placeholder(text: str) -> str:
    """A quiet frame in the place where pictures will be."""
    return f'<div class="placeholder"><span>{html.escape(text)}</span></div>'


def heading(text: str) -> str:
    """The heading of a part of a tab."""
    return f'<h2 class="part">{html.escape(text)}</h2>'


def scrolling(table: str) -> str:
    """A table that scrolls sideways where it is wider than the page, with the keyboard too."""
    return f'<div class="scroll" tabindex="0">{table}</div>'


def data_address(data: bytes, suffix: str) -> str:
    """The bytes of a file as a ``data:`` address. suffix: of the file's name, such as ".png"."""
    kind = mimetypes.guess_type(f"file{suffix}")[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_address(picture: Picture, lossless: bool = True) -> str:
    """A picture as a ``data:`` address; where it need not be lossless and has no alpha, as a smaller JPEG."""
    array, buffer = np.asarray(picture), io.BytesIO()
    jpeg = not lossless and array.shape[-1] == 3
    if jpeg:
        Image.fromarray(array).save(buffer, "JPEG", quality=88)
    else:
        Image.fromarray(array).save(buffer, "PNG")
    return data_address(buffer.getvalue(), ".jpg" if jpeg else ".png")


def figure(address: str, caption: str) -> str:
    """A picture with a line below it."""
    text = html.escape(caption)
    return f'<figure><img src="{address}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def figures(pictures: Iterable[Picture], captions: Iterable[str], kind: str = "figures") -> str:
    """Pictures side by side with their captions. kind: the class in the style sheet."""
    shown = "".join(figure(picture_address(p), text) for p, text in zip(pictures, captions, strict=True))
    return f'<div class="{kind}">{shown}</div>'


def picture_grid(
    pictures: Sequence[Picture] | Tensor,
    files: Sequence[bytes] | None = None,
    names: Sequence[str] = (),
    uses: bool = False,
) -> str:
    """Pictures (n, h, w, 3 or 4) uint8 as a grid.

    files: of the pictures, with their names, for those that a click enlarges and that can then be saved.
    uses: whether they can also be sent to be restored and edited. Cells are as large with files as without.
    """
    cells = []
    for i, picture in enumerate(pictures):
        address = picture_address(picture, lossless=files is not None)
        file = None if files is None else (data_address(files[i], Path(names[i]).suffix), names[i])
        cells.append(picture_cell(address, f"{i + 1}", file))
    columns = min(len(cells), 8 if len(cells) > 24 else 4 if len(cells) <= 16 else 6)
    kind = "grid fine" if max(np.shape(pictures[0])[:2]) > MAX_PIXELATED else "grid"
    used = ' data-uses="1"' if uses else ""
    return f'<div class="{kind}" style="--columns:{columns}"{used}>{"".join(cells)}</div>'


def picture_cell(address: str, label: str, file: tuple[str, str] | None = None) -> str:
    """A picture that a click enlarges, where it has a file to save: its address and its name."""
    text = html.escape(label)
    image = f'<img src="{address}" alt="{text}">'
    if file is None:
        return f"<span>{image}</span>"
    return f'<a href="{file[0]}" download="{html.escape(file[1])}">{image}</a>'


def item_files(codec: Codec, items: Tensor, metadata: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The files of items (n, *item_shape), each with its metadata inside."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"item{codec.suffix}"
        files = []
        for item, about in zip(items, metadata, strict=True):
            codec.write(item, path, about)
            files.append(path.read_bytes())
    return files


def glossary_terms(language: str) -> dict[str, tuple[str, str]]:
    """The terms that the page explains: key → (name, explanation), in a language, in order of the names."""
    texts = catalogue()
    keys = [key.removeprefix("term.") for key in texts if key.startswith("term.")]
    parts = {key: texts[f"term.{key}"][language].partition(": ") for key in keys}
    named = {key: (name, explanation) for key, (name, _, explanation) in parts.items()}
    return dict(sorted(named.items(), key=lambda item: item[1][0].casefold()))


def term(key: str, language: str, shown: str | None = None) -> str:
    """A term with its explanation as a tooltip, and a link to its place in the page's glossary.

    key: of `glossary_terms`, such as "snr". shown: a text for the term instead of its name.
    """
    name, explanation = (html.escape(text) for text in glossary_terms(language)[key])
    folder = "" if language == LANGUAGES[0] else f"{language}/"
    return (
        f'<a class="term" href="{folder}glossary#{key}" target="_blank">{shown or name}'
        f'<span role="tooltip">{explanation}</span></a>'
    )


def terms(language: str, *keys: str) -> str:
    """A line of terms with their tooltips, for below controls that use these words."""
    return f'<p class="terms">{" · ".join(term(key, language) for key in keys)}</p>'
