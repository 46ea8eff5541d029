"""Settings inside a PNG file: how a sample was made travels with it."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alphabar.errors import AlphabarError
from alphabar.files import read_given_file

KEY = "alphabar"  # of the text chunk


def png_metadata(about: Mapping[str, Any]) -> PngInfo:
    """What Pillow's ``save(…, pnginfo=)`` takes to write ``about``, as JSON, into the file."""
    info = PngInfo()
    info.add_text(KEY, json.dumps(about))
    return info


def read_png_metadata(path: str | Path) -> dict[str, Any]:
    """What `png_metadata` wrote into a PNG file. Raises AlphabarError where there is nothing of it."""
    try:
        with Image.open(BytesIO(read_given_file(Path(path))), formats=("PNG",)) as image:
            about = json.loads(image.info.get(KEY, "null"))
    # Pillow raises SyntaxError and ValueError for chunks that are damaged, RecursionError comes from JSON.
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, Image.DecompressionBombError):
        about = None
    if not isinstance(about, dict):
        raise AlphabarError("codecs.no_metadata", name=Path(path).name)
    return about
