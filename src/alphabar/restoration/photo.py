"""Photographs: image files of any size, with everything of them that a restored file can keep.

The image codec stores samples of one size in 8 bits. Files to restore may be larger, deep (16 bits) and
transparent, and carry EXIF data and a colour profile.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from alphabar.codecs.base import Unreadable
from alphabar.codecs.color import LUMA
from alphabar.codecs.image_files import full_pixels, upright
from alphabar.data.folder import CAMERA_RAW, Folder
from alphabar.data.items import Skipped, nothing_in
from alphabar.errors import AlphabarError
from alphabar.files import check_no_pipe, read_given_file


@dataclass(frozen=True)
class Photo:
    """An image file, upright, and what of it is to be kept.

    pixels: (h, w, 3) uint8, or (h, w, 1) uint8 or uint16 where the file is grey.
    alpha: (h, w) uint8, where it has transparency. extras: what Pillow writes into the new file, EXIF data
    and the colour profile.
    """

    name: str
    pixels: NDArray[Any]
    alpha: NDArray[np.uint8] | None
    extras: dict[str, Any]

    @property
    def grey(self) -> bool:
        """Whether the file has no colours."""
        return self.pixels.shape[2] == 1

    @property
    def white(self) -> int:
        """The level of white, 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def without_color(self) -> "Photo":
        """The same image in grey (BT.601)."""
        x = to_grey(levels_to_signal(torch.from_numpy(self.pixels.astype(np.int32)), self.white))
        return replace(self, pixels=signal_to_levels(x[0], self.white).numpy().astype(self.pixels.dtype))

    def signal(self, channels: int = 3) -> Tensor:
        """(1, channels, h, w) in [-1, 1], float32: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels.

        Without an alpha channel transparent pixels lie on white; with one, colours are premultiplied by it.
        """
        x = levels_to_signal(torch.from_numpy(self.pixels.astype(np.int32)), self.white)
        alpha = np.full(self.pixels.shape[:2], 255, np.uint8) if self.alpha is None else self.alpha
        opaque = torch.from_numpy(alpha.astype(np.float32)) / 255
        if channels in (2, 4):
            colors = self._colors(opaque * (x + 1) - 1, channels - 1)
            return torch.cat([colors, (2 * opaque - 1).expand(1, 1, -1, -1)], dim=1)
        return self._colors(x if self.alpha is None else opaque * x + (1 - opaque), channels)

    def _colors(self, x: Tensor, channels: int) -> Tensor:
        return to_grey(x) if channels == 1 and x.shape[1] == 3 else x.expand(-1, channels, -1, -1)

    def image(self, x: Tensor, known: Tensor | None = None, colored: bool = False) -> Image.Image:
        """A signal (channels, h, w) as an image of this one's kind: grey, deep, transparent where it is.

        A signal without an alpha channel is what a person sees on white, as `signal` has it; so is the image
        with its transparency, as far as a colour can be that dark.
        known: (h, w) bool, pixels to take from this file as they are. colored: a grey file becomes one of
        8-bit RGB. A signal with an alpha channel becomes a transparent image of 8 bits.
        """
        x, generated = x.cpu(), None
        if len(x) in (2, 4):
            x, generated = straight(x)
        keep = None if known is None else known.cpu().numpy()
        alpha = self._transparency(x.shape[-2:], generated, keep)
        if alpha is not None and generated is None:
            x = off_white(x, alpha)
        if self.grey and not colored and len(x) == 3:
            x = to_grey(x[None])[0]
        # No format has 16 bits beside an alpha channel, and colours have 8 here.
        white = 255 if colored or alpha is not None else self.white
        levels = signal_to_levels(x, white).numpy()
        if keep is not None:
            levels = np.where(keep[..., None], np.rint(self.pixels * (white / self.white)), levels)
        if levels.shape[2] == 3:
            image = Image.fromarray(levels.astype(np.uint8))
        else:
            image = Image.fromarray(levels[..., 0].astype(np.uint16 if white > 255 else np.uint8))
        if alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        return image

    def _transparency(
        self, size: Sequence[int], generated: NDArray[np.uint8] | None, keep: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8] | None:
        """The alpha of an image (h, w) that a signal becomes; None where all of it is opaque.

        generated: that of the signal. keep: which pixels are this file's; others are opaque without it.
        """
        own = None if self.alpha is None else _resized(self.alpha, size)
        if keep is None or (own is None and generated is None):
            return own if generated is None else generated
        kept, new = (255 if part is None else part for part in (own, generated))
        return np.where(keep, kept, new).astype(np.uint8)


def read_photo(path: Path) -> Photo:
    """The image in a file.

    Raises AlphabarError where it cannot be read as one, is a camera raw file or a pipe.
    """
    try:
        if path.suffix.lower() in CAMERA_RAW:
            raise Unreadable("data.camera_raw")
        data = read_given_file(path)
        image = upright(data)
        mode = image.mode
        extras = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
        if "exif" in extras:
            exif = image.getexif()
            exif.pop(ExifTags.Base.Orientation, None)
            extras["exif"] = exif.tobytes()
        alpha = None
        if mode.startswith("I;16"):
            levels = np.array(image).astype(np.uint16)
            if isinstance(level := image.info.get("transparency"), int):
                alpha = np.where(levels == level, 0, 255).astype(np.uint8)
            return Photo(path.stem, levels[..., None], alpha, extras)
        if mode in ("I", "F", "CMYK", "LAB", "YCbCr"):
            extras.pop("icc_profile", None)
            return Photo(path.stem, full_pixels(data), None, extras)
        if image.has_transparency_data:
            image = image.convert("LA" if mode in ("L", "LA") else "RGBA")
            alpha = np.array(image.getchannel("A"))
        grey = mode in ("1", "L", "LA")
        pixels = np.array(image.convert("L" if grey else "RGB"))
        return Photo(path.stem, pixels[..., None] if grey else pixels, alpha, extras)
    except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise AlphabarError("restoration.cannot_read", path=path, reason=reason) from None
    except Unreadable as reason:
        raise AlphabarError("restoration.unusable_image", path=path, reason=reason.message) from None


def image_files(path: Path) -> tuple[dict[str, Path], Sequence[Skipped]]:
    """The image files that a path names, by what to call them, and what in a folder is none.

    Raises AlphabarError where there is none.
    """
    check_no_pipe(path)
    if os.path.isfile(path):
        return {path.name: path}, ()
    if not os.path.isdir(path):  # also where the name cannot be one
        raise AlphabarError("restoration.no_image_or_folder", path=path)
    folder = Folder(path, None)
    if not folder.items:
        raise nothing_in(str(path), folder.skipped)
    return folder.paths, folder.skipped


def levels_to_signal(levels: Tensor, white: int) -> Tensor:
    """One image (h, w, c) of whole numbers 0..white, however deep, as a float32 signal (1, c, h, w)."""
    return (levels.permute(2, 0, 1)[None].double() * (2 / white) - 1).float()


def signal_to_levels(signal: Tensor, white: int) -> Tensor:
    """The inverse: (c, h, w) as the nearest whole numbers (h, w, c), int32; values outside are clamped."""
    return ((signal.double().clamp(-1, 1) + 1) * (white / 2)).round().int().permute(1, 2, 0)


def to_grey(x: Tensor) -> Tensor:
    """RGB signals (n, 3, h, w) in grey, (n, 1, h, w)."""
    return torch.einsum("c,nchw->nhw", LUMA.to(x), x)[:, None]


def straight(x: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
    """The colours (c, h, w) and the alpha (h, w) uint8 of a premultiplied signal (c + 1, h, w).

    Where alpha is 0 the colour is black.
    """
    alpha = ((x[-1].double().clamp(-1, 1) + 1) * 127.5).round()
    colors = torch.where(alpha > 0, (x[:-1].double() + 1) * 255 / alpha.clamp(min=1) - 1, -1.0)
    return colors.float(), alpha.numpy().astype(np.uint8)


def off_white(x: Tensor, alpha: NDArray[np.uint8]) -> Tensor:
    """The colours (c, h, w) that lie on white as x (c, h, w) does, where their opacity is alpha (h, w).

    Where alpha is 0 any colour does, and x is taken; what no colour can be is clamped.
    """
    opaque = torch.from_numpy(alpha.astype(np.float64)) / 255
    colors = (x.double() - (1 - opaque)) / opaque.clamp(min=1 / 255)
    return torch.where(opaque > 0, colors.clamp(-1, 1), x.double()).float()


def _resized(alpha: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Transparency for an image of another size (h, w)."""
    if alpha.shape == tuple(size):
        return alpha
    height, width = size
    return np.asarray(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))


def on_white(x: Tensor) -> Tensor:
    """Signals (n, 1 to 4 channels, h, w) as RGB (n, 3, h, w): grey three times, transparent ones on white."""
    colors = x[:, :-1] - x[:, -1:] + 1 if x.shape[1] in (2, 4) else x
    return colors.expand(-1, 3, -1, -1)
