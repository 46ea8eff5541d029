"""Self-contained HTML pages: templates, and pictures inside the page."""

import base64
import io
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from PIL import Image

from alphabar.reporting.values import number, setting

MAX_WIDTH = 2160  # pixels; what the width of a page can show on a dense screen


class Picture(NamedTuple):
    """An image that is ready for a page: its ``data:`` address and its size in pixels."""

    uri: str
    width: int
    height: int


@cache
def page_template(name: str) -> Template:
    """A template of the folder ``templates``, by file name."""
    folder = files("alphabar.reporting").joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "setting": setting}
    return environment.get_template(name)


def page_picture(image: Image.Image) -> Picture:
    """An image for a page."""
    return Picture(png_data_uri(image), image.width, image.height)


def read_picture(path: Path, max_width: int = MAX_WIDTH) -> Picture | None:
    """An image file for a page, shrunk to a width; None where it is missing or is no whole image."""
    try:
        with Image.open(path) as image:
            image.thumbnail((max_width, 4 * max_width))
            return page_picture(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def png_data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
