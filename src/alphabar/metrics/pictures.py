"""Items of any codec as the pictures that metrics work on: RGB with 8 bits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.images import on_white
from alphabar.messages import message
from alphabar.parts import Rows


def metric_pictures(codec: Codec, items: Any) -> Any:
    """Items (n, *item_shape), a tensor, array or `Rows`, as pictures (n, h, w, 3) uint8.

    RGB images are their own pictures; other items become a tensor, or rows, of their previews, transparency
    laid on white.
    """
    if codec.item_shape[-1:] == (3,):
        return items
    if isinstance(items, Rows):
        return items.map(lambda some: metric_pictures(codec, some))
    return on_white(codec.preview(torch.as_tensor(np.asarray(items))))


def picture_protocol(codec: Codec, features: str) -> str:
    """The protocol of features, and where `metric_pictures` changes the items of a codec, how."""
    if codec.item_shape[-1:] == (3,):
        return features
    preview = codec.preview(torch.from_numpy(np.zeros((1, *codec.item_shape), codec.item_dtype)))
    change = message("metrics.laid_on_white" if preview.shape[-1] == 4 else "metrics.grey_as_rgb")
    return message("metrics.joined", first=features, rest=change)


def channels_first(pictures: Tensor) -> Tensor:
    """Pictures (n, h, w, c) as networks take them, (n, c, h, w); the channels stay last in memory."""
    return pictures.permute(0, 3, 1, 2)
