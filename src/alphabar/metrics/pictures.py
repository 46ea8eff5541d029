"""Items of any codec as the pictures that metrics work on: RGB with 8 bits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.images import on_white


def metric_pictures(codec: Codec, items: Any) -> Any:
    """Items (n, *item_shape), a tensor or array, as pictures (n, h, w, 3) uint8.

    RGB images are their own pictures; other items become a tensor of their previews, transparency laid on
    white.
    """
    if codec.item_shape[-1:] == (3,):
        return items
    return on_white(codec.preview(torch.as_tensor(np.asarray(items))))


def picture_protocol(codec: Codec) -> str:
    """What a metric's protocol must say about `metric_pictures`; "" for RGB images."""
    if codec.item_shape[-1:] == (3,):
        return ""
    preview = codec.preview(torch.from_numpy(np.zeros((1, *codec.item_shape), codec.item_dtype)))
    return "; transparent pictures laid on white" if preview.shape[-1] == 4 else "; grey pictures as RGB"


def channels_first(pictures: Tensor) -> Tensor:
    """Pictures (n, h, w, c) as networks take them, (n, c, h, w); the channels stay last in memory."""
    return pictures.permute(0, 3, 1, 2)
