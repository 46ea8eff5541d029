"""Self-contained HTML pages in the reader's language: templates, and pictures and files inside the page."""

import base64
import io
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from PIL import Image

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import check_name, read_given_file
from alphabar.messages import Message, message
from alphabar.reporting.values import number, setting
from alphabar.runs.model import holds_model, locate, shipped
from alphabar.runs.run import Run

FIGURES = ("forward", "reverse", "samples", "nearest")  # that `report_figures` makes

MAX_WIDTH = 2160  # pixels; what the width of a page can show on a dense screen


class Picture(NamedTuple):
    """An image that is ready for a page: its ``data:`` address and its size in pixels."""

    uri: str
    width: int
    height: int


class Download(NamedTuple):
    """A file inside a page: its name, and its ``data:`` address."""

    name: str
    uri: str


@cache
def page_template(name: str, language: str) -> Template:
    """A template of the folder ``templates``, by file name. Messages come out in the language."""
    folder = files("alphabar.reporting").joinpath("templates")

    def said(value: Any) -> Any:
        return value.in_language(language) if isinstance(value, Message) else value

    environment = Environment(
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=said,
    )
    environment.filters |= {"number": number, "setting": setting}
    environment.globals |= {"message": message, "language": language}
    return environment.get_template(name)


def files_folder(page: Path) -> Path:
    """The folder beside a page for its tables and figures.

    Raises UsageError where the page is no .html, AlphabarError where a name is too long for the disk.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError("reporting.no_page", path=page)
    folder = page.with_name(f"{page.stem}_files")
    check_name(page)
    check_name(folder)
    return folder


def report_page(path: str | Path) -> Path:
    """Where a report is written: in a run report.html, of a model NAME-report.html in the working folder.

    Raises AlphabarError where there is neither a run nor a model.
    """
    found = locate(path)
    if Run(found).exists:
        return found / "report.html"
    if not holds_model(found):
        raise AlphabarError("reporting.nothing", path=path, shipped=", ".join(s.name for s in shipped()))
    return Path(f"{found.resolve().name}-report.html")


def page_picture(image: Image.Image) -> Picture:
    """An image for a page."""
    return Picture(png_data_uri(image), image.width, image.height)


def read_picture(path: Path, max_width: int = MAX_WIDTH) -> Picture | None:
    """An image file for a page, shrunk to a width; None where it is missing or is no whole image."""
    try:
        with Image.open(io.BytesIO(read_given_file(path))) as image:
            image.thumbnail((max_width, 4 * max_width))
            return page_picture(image)
    except (AlphabarError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def png_data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def download(name: str, content: bytes) -> Download:
    """A file that a page holds for its reader to save."""
    return Download(name, "data:application/octet-stream;base64," + base64.b64encode(content).decode())
