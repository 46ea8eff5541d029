"""People's own pictures: made smaller to work on, enlarged to be painted on, and what was painted."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_SIDE = 512
"""Pixels of the longest side that the page works on."""

PAINTING_SIDE = 480
"""Pixels of the longer side to which a small picture is enlarged for painting, at most."""


def limited(image: Image.Image, longest: int) -> Image.Image:
    """The picture, made smaller where a side has more pixels than that, or than `MAX_SIDE`."""
    image = image.copy()
    image.thumbnail((min(longest, MAX_SIDE),) * 2, Image.Resampling.LANCZOS)
    return image


def magnified(image: Image.Image, factor: int) -> Image.Image:
    """The picture with every pixel as factor × factor pixels."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def painting_factor(width: int, height: int) -> int:
    """How many times a picture is enlarged to be painted on, because the editor does not enlarge it."""
    return max(PAINTING_SIDE // max(width, height), 1)


def enlarged_for_painting(image: Image.Image) -> Image.Image:
    """A small picture with its pixels enlarged, so that a brush is finer than they are."""
    return magnified(image, painting_factor(*image.size))


def without_enlargement(image: Image.Image) -> Image.Image:
    """The picture before `enlarged_for_painting`, exactly; another picture as it is."""
    for factor in range(PAINTING_SIDE // 8, 1, -1):
        width, height = image.width // factor, image.height // factor
        if (width * factor, height * factor) == image.size and painting_factor(width, height) == factor:
            small = image.resize((width, height), Image.Resampling.NEAREST)
            if np.array_equal(np.asarray(enlarged_for_painting(small)), np.asarray(image)):
                return small
    return image


def painted_mask(layers: list[Image.Image], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where anything was painted, (h, w) bool. size: (width, height) of the mask."""
    mask = np.zeros(size[::-1], bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        mask |= np.asarray(alpha.resize(size, Image.Resampling.BOX)) > 12
    return mask
