"""TODO-DOC from restoring"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image import levels_to_signal, signal_to_levels
from alphabar.codecs.image_files import full_pixels, upright
from alphabar.data.folder import Folder
from alphabar.data.items import nothing_in
from alphabar.errors import AlphabarError
from alphabar.restoration.operators.separable import LUMA


@dataclass(frozen=True)
class Photo:
    """A picture file, upright, and what of it is to be kept.

    pixels: (h, w, 3) uint8, or (h, w, 1) uint8 or uint16 where the file is grey.
    alpha: (h, w) uint8, where it has transparency. extras: what Pillow writes into the new file, EXIF and
    the colour profile.
    """

    name: str
    pixels: NDArray[Any]
    alpha: NDArray[np.uint8] | None
    extras: dict[str, Any]

    @property
    def grey(self) -> bool:
        return self.pixels.shape[2] == 1

    @property
    def white(self) -> int:
        return int(np.iinfo(self.pixels.dtype).max)

    def signal(self, channels: int = 3) -> Tensor:
        """(1, channels, h, w) in [-1, 1]; transparent pixels on white."""
        levels = torch.from_numpy(self.pixels.astype(np.int32))
        x = levels_to_signal(levels, self.white)
        if self.alpha is not None:
            opaque = torch.from_numpy(self.alpha.astype(np.float32)) / 255
            x = opaque * x + (1 - opaque)
        if channels == 1 and x.shape[1] == 3:
            return torch.einsum("c,nchw->nhw", LUMA.to(x), x)[:, None]
        return x.expand(-1, channels, -1, -1)

    def image(self, x: Tensor, known: Tensor | None = None, coloured: bool = False) -> Image.Image:
        """A signal (3, h, w) as a file of the same kind: grey, deep and transparent where this one is.

        known: (h, w) bool, pixels to take from this file as they are. coloured: a grey file becomes colour.
        """
        x, deep = x.cpu(), self.white > 255
        if self.grey and not coloured:
            x = torch.einsum("c,chw->hw", LUMA.to(x), x)[None]
        levels = signal_to_levels(x, 255 if coloured else self.white).numpy()
        alpha = self.alpha
        if known is not None:
            keep = known.cpu().numpy()
            levels = np.where(keep[..., None], self.pixels, levels)
            alpha = None if alpha is None else np.where(keep, alpha, 255).astype(np.uint8)
        if levels.shape[2] == 3:
            image = Image.fromarray(levels.astype(np.uint8))
        else:
            image = Image.fromarray(levels[..., 0].astype(np.uint16 if deep else np.uint8))
        if alpha is not None:
            transparency = Image.fromarray(alpha)
            if transparency.size != image.size:
                transparency = transparency.resize(image.size, Image.Resampling.BICUBIC)
            image.putalpha(transparency)
        return image


def read_photo(path: Path) -> Photo:
    """The picture in a file. Raises AlphabarError where it cannot be read as one."""
    try:
        data = path.read_bytes()
        image = upright(data)
        mode = image.mode
        extras = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
        if "exif" in extras:
            exif = image.getexif()
            exif.pop(ExifTags.Base.Orientation, None)
            extras["exif"] = exif.tobytes()
        alpha = None
        if mode.startswith("I;16"):
            return Photo(path.stem, np.array(image).astype(np.uint16)[..., None], None, extras)
        if mode in ("I", "F", "CMYK", "LAB", "YCbCr"):
            extras.pop("icc_profile", None)
            return Photo(path.stem, full_pixels(data), None, extras)
        if image.has_transparency_data:
            image = image.convert("LA" if mode in ("L", "LA") else "RGBA")
            alpha = np.array(image.getchannel("A"))
        grey = mode in ("1", "L", "LA")
        pixels = np.array(image.convert("L" if grey else "RGB"))
        return Photo(path.stem, pixels[..., None] if grey else pixels, alpha, extras)
    except OSError as error:
        raise AlphabarError(f"cannot read {path}: {error.strerror or error}") from None
    except Unreadable as reason:
        raise AlphabarError(f"{path} cannot be used: {reason}") from None


def picture_files(path: Path) -> tuple[list[Path], list[str]]:
    """The picture files that a path names, and what to call them: the file itself, or all in a folder.

    Raises AlphabarError where there is none.
    """
    if path.is_file():
        return [path], [path.name]
    if not path.is_dir():
        raise AlphabarError(f"there is no picture or folder at {path}")
    folder = Folder(path, None)
    if not folder.items:
        raise nothing_in(str(path), folder.skipped)
    names = [item.key for item in folder.items]
    return [path / name for name in names], names
