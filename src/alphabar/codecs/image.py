"""The image codec: uint8 pictures (h, w, c) with 1, 3 or 4 channels ↔ signals (c, h, w) in [-1, 1]."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from alphabar.codecs.base import Box, Codec, Raw, Reading
from alphabar.codecs.image_files import FITS, is_grey, read_image
from alphabar.codecs.png_metadata import png_metadata
from alphabar.errors import UsageError

THUMBNAIL = 8  # pixels: the side of the thumbnails that are the coarse content of a picture


def decode_pictures(signals: Tensor) -> Tensor:
    """Signals (n, c, h, w) as the nearest pictures (n, h, w, c) uint8, clamped to [-1, 1]."""
    levels = signals.to(torch.float32).clamp(-1, 1).add(1).mul(127.5)
    if levels.shape[1] == 4:
        color, alpha = levels.split([3, 1], dim=1)
        alpha = alpha.round()
        straight = torch.where(alpha > 0, color * 255 / alpha.clamp(min=1), 0.0).clamp(max=255)
        levels = torch.cat([straight, alpha], dim=1)
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def thumbnail_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape (channels, height, width) of the thumbnails of signals of that shape."""
    channels, height, width = shape
    return channels, min(height, THUMBNAIL), min(width, THUMBNAIL)


def enlarge_thumbnails(coarse: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flattened thumbnails (n, m) enlarged bicubically to signals (n, *shape)."""
    thumbnails = coarse.unflatten(1, thumbnail_shape(shape))
    return interpolate(thumbnails, size=tuple(shape[1:]), mode="bicubic")


class ImageCodec(Codec):
    """Pictures of one size: grey (1 channel), RGB (3) or RGBA (4).

    size: the side of a square, or (height, width), in pixels.
    A signal is linear in the levels: 0 → -1, 255 → 1. Colours of transparent pictures are premultiplied by
    alpha in the signal and straight in the item. Under alpha 0 there is no colour, but black.
    """

    name = "image"
    suffix = ".png"
    version = 2
    bounds = (-1.0, 1.0)
    fits = tuple(FITS)
    item_dtype = np.dtype(np.uint8)

    def __init__(self, size: int | tuple[int, int], channels: int = 3):
        if channels not in (1, 3, 4):
            raise UsageError("codecs.channels", channels=channels)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise UsageError("codecs.size", size=size)
        self.shape = (channels, height, width)
        self.item_shape = (height, width, channels)

    def read(self, data: Raw, fit: str = "squash", box: Box | None = None) -> Reading:
        """The picture in a file's bytes, upright and in sRGB; fit: see `image_files.FITS`.

        A codec without alpha lays transparent pictures on white, a grey one converts colours to their luma
        (ITU-R 601); the remarks say so, and where a picture is enlarged. Raises Unreadable, with the reason,
        for what is not a whole picture.
        """
        height, width, _ = self.item_shape
        image = read_image(data, (height, width), fit, box, alpha=self.channels == 4)
        pixels = image.pixels
        remarks: tuple[str, ...] = ("codecs.enlarged",) if image.enlarged else ()
        if image.transparent and self.channels != 4:
            remarks += ("codecs.laid_on_white",)
        if self.channels == 1:
            if not is_grey(pixels):
                remarks += ("codecs.made_grey",)
            pixels = np.array(Image.fromarray(pixels).convert("L"))[..., None]
        return Reading(pixels, remarks)

    def encode(self, items: Tensor) -> Tensor:
        """Pictures (n, h, w, c) uint8 as signals (n, c, h, w) float32, channels last in memory."""
        signals = items.permute(0, 3, 1, 2).to(torch.float32)
        if self.channels == 4:
            color, alpha = signals.split([3, 1], dim=1)
            signals = torch.cat([color * (alpha / 255), alpha], dim=1)
        return signals.div_(127.5).sub_(1)

    def decode(self, signals: Tensor) -> Tensor:
        """Signals (n, c, h, w) as the nearest pictures (n, h, w, c) uint8, clamped to [-1, 1]."""
        return decode_pictures(signals)

    def preview(self, items: Tensor) -> Tensor:
        """The pictures as they are, grey ones as RGB: (n, h, w, 3 or 4)."""
        return items.expand(*items.shape[:-1], 3) if self.channels == 1 else items

    def write(self, item: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write a picture (h, w, c) as a grey, RGB or RGBA PNG file. Raises OSError where it cannot."""
        levels = item.numpy()
        image = Image.fromarray(levels[..., 0] if self.channels == 1 else levels)
        image.save(path, format="PNG", pnginfo=png_metadata(metadata))

    def coarsen(self, signals: Tensor) -> Tensor:
        """Thumbnails of at most `THUMBNAIL` pixels a side."""
        return adaptive_avg_pool2d(signals, thumbnail_shape(self.shape)[1:]).flatten(1)

    def refine(self, coarse: Tensor) -> Tensor:
        """Thumbnails enlarged bicubically."""
        return enlarge_thumbnails(coarse, self.shape)

    def flip(self, items: Tensor, mask: Tensor) -> Tensor:
        """Pictures (n, h, w, c) whose left and right are exchanged where the mask (n,) says so."""
        return torch.where(mask[:, None, None, None], items.flip(2), items)
