"""People's own pictures: read, made smaller to work on, shown, and what was painted on them."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.messages import Message
from alphabar.restoration.photo import Photo, read_photo

MAX_SIDE = 1024
"""Pixels of the longest side to which pictures may be made smaller to be worked on."""

SHOWN_SIDE = 480
"""Pixels of the longer side to which a small picture is enlarged to be shown or painted on, at most."""

LARGEST_SHOWN = 800
"""Pixels of the longer side of what is shown; files that are saved have all of theirs."""


def read_upload(file: str | Path) -> Photo:
    """The picture in a file that was uploaded.

    Raises AlphabarError for one that cannot be read, with the file's name and without its temporary folder.
    """
    with suppress(OSError):
        os.utime(file)  # what is in use is the last to be removed
    try:
        return read_photo(Path(file))
    except AlphabarError as error:
        if not isinstance(error.message, Message):
            raise
        values = {**error.message.values, "path": Path(file).name}
        raise AlphabarError(error.message.identifier, **values) from None


def size_of(photo: Photo) -> tuple[int, int]:
    """Width and height in pixels."""
    return photo.pixels.shape[1], photo.pixels.shape[0]


def reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height), made smaller where the longer side has more pixels than that."""
    scale = min(1.0, longest / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def reduced(photo: Photo, longest: int) -> Photo:
    """The picture, made smaller where its longer side has more pixels than that; deep or clear as it was.

    Colours of clear pixels count by their alpha.
    """
    size = reduced_size(size_of(photo), longest)
    if size == size_of(photo):
        return photo

    def smaller(plane: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS))

    full = np.full(photo.pixels.shape[:2], 255, np.uint8) if photo.alpha is None else photo.alpha
    weight = full.astype(np.float32) / np.float32(255)
    mass = smaller(weight)
    planes = [smaller(plane * weight) for plane in np.moveaxis(photo.pixels.astype(np.float32), 2, 0)]
    colors = np.stack(planes, axis=2) / np.maximum(mass, 1e-3)[..., None]
    pixels = colors.round().clip(0, photo.white).astype(photo.pixels.dtype)
    alpha = None if photo.alpha is None else (mass * 255).round().clip(0, 255).astype(np.uint8)
    return replace(photo, pixels=pixels, alpha=alpha)


def cropped(photo: Photo, multiple: int) -> Photo:
    """The picture without what its sides have beyond a multiple of a number."""
    width, height = (max(side // multiple, 1) * multiple for side in size_of(photo))
    alpha = None if photo.alpha is None else photo.alpha[:height, :width]
    return replace(photo, pixels=photo.pixels[:height, :width], alpha=alpha)


def picture_of(photo: Photo) -> Image.Image:
    """The picture in 8 bits for a browser, RGB, or RGBA where it is transparent."""
    levels = photo.pixels if photo.white == 255 else (photo.pixels / (photo.white / 255)).round()
    image = Image.fromarray(np.broadcast_to(levels, (*levels.shape[:2], 3)).astype(np.uint8))
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    return image


def to_show(image: Image.Image, largest: int = LARGEST_SHOWN) -> Image.Image:
    """A picture at a size for the eyes: the pixels of a small one enlarged, a large one made smaller.

    largest: pixels of its longer side, at most.
    """
    factor = SHOWN_SIDE // max(image.size)
    if factor > 1:
        return magnified(image, factor)
    smaller = image.copy()
    smaller.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return smaller


def magnified(image: Image.Image, factor: int) -> Image.Image:
    """The picture with every pixel as factor × factor pixels."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def painted_mask(layers: list[Image.Image], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where anything was painted, (h, w) bool. size: (width, height) of the mask."""
    mask = np.zeros(size[::-1], bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        mask |= np.asarray(alpha.resize(size, Image.Resampling.BOX)) > 12
    return mask
