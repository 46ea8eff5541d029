"""Masks: inpainting. Some pixels are known, the others are missing."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.diffusion.random import Noise, Purpose
from alphabar.errors import UsageError
from alphabar.registry import Spec
from alphabar.restoration.operators.base import Shape, Spectral, image_size, size_text


class Mask(Spectral):
    """Inpainting: y = known·x. All singular values are 1 (known) or 0 (missing), U and V the identity.

    known: 1 where a pixel is known and 0 where it is missing, (1 or channels, *spatial), or with one mask
    for each sample (n, 1 or channels, *spatial). y has the shape of x; what it holds at missing pixels does
    not matter.
    Raises UsageError for a mask of another size than the shape's.
    """

    is_mask = True
    removes_pixels = True

    def __init__(self, known: Tensor, shape: Shape):
        spatial = tuple(known.shape[-len(shape) + 1 :])
        if spatial != shape[1:]:
            raise UsageError("restoration.mask_size", mask=size_text(spatial), image=size_text(shape[1:]))
        self.shape = self.measurement_shape = shape
        self.s = (known > 0).double()

    def Vt(self, x: Tensor) -> Tensor:
        return x

    def V(self, modes: Tensor) -> Tensor:
        return modes

    def Ut(self, y: Tensor) -> Tensor:
        return y

    def U(self, modes: Tensor) -> Tensor:
        return modes

    def missing(self, sigma_y: float) -> Tensor:
        if sigma_y > 0:
            return super().missing(sigma_y)
        return (self.s == 0).flatten(0, -len(self.shape)).any(0)

    def needs_whole_image(self, extent: Sequence[int]) -> bool:
        known = (self.s > 0).flatten(0, -3).float()
        for axis, side in enumerate(extent):  # some pixel of every region of this extent is known
            window = [1, 1]
            window[axis] = min(side, known.shape[1 + axis])
            known = F.max_pool2d(known, tuple(window), stride=1)
        return not known.all()

    def shrink(self, y: Tensor, spatial: tuple[int, ...]) -> tuple["Mask", Tensor]:
        s = self.s.to(y).expand(y.shape)
        share = F.interpolate(s, spatial, mode="area")
        y = F.interpolate(s * y, spatial, mode="area") / torch.where(share > 0, share, 1)
        return Mask((share > 0).cpu(), (self.shape[0], *spatial)), y

    def select(self, y: Tensor, rows: Sequence[int]) -> tuple["Mask", Tensor]:
        own = self.s.ndim > len(self.shape) and len(self.s) > 1
        return Mask(self.s[list(rows)], self.shape) if own else self, y[list(rows)]

    def default_solver(self, sigma_y: float, *, guided: bool, smaller: bool) -> Spec:
        return "mmps"

    def guidance_share(self, sigma_y: float) -> float:
        return 0.0


def box(
    shape: Shape,
    *,
    x0: int | None = None,
    y0: int | None = None,
    x1: int | None = None,
    y1: int | None = None,
) -> Mask:
    """A box is missing: columns x0 to x1 - 1 and rows y0 to y1 - 1. Without numbers, the middle half.

    Raises UsageError for some but not all numbers, and for a box that is empty or not inside the image.
    """
    h, w = image_size(shape)
    if x0 is None or y0 is None or x1 is None or y1 is None:
        if given := sum(corner is not None for corner in (x0, y0, x1, y1)):
            raise UsageError("restoration.box_incomplete", given=given)
        x0, y0, x1, y1 = w // 4, h // 4, w - w // 4, h - h // 4
    if not (0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h):
        raise UsageError("restoration.box_outside", box=f"{x0},{y0},{x1},{y1}", image=size_text((h, w)))
    known = torch.ones(1, h, w)
    known[:, y0:y1, x0:x1] = 0
    return Mask(known, shape)


def random(shape: Shape, *, share: float = 0.7, seed: int = 0) -> Mask:
    """A share of the pixels, chosen at random, is missing.

    Raises UsageError unless it lies between 0 and 1.
    """
    _check_share("random", share)
    pixels = math.prod(shape[1:])
    order = Noise(seed, [0], Purpose.MASK).normal(0, torch.empty(1, pixels))[0].argsort()
    known = torch.ones(pixels)
    known[order[: round(share * pixels)]] = 0
    return Mask(known.reshape(1, *shape[1:]), shape)


def strokes(shape: Shape, *, share: float = 0.2, seed: int = 0) -> Mask:
    """Thick straight strokes across the image are missing, as many as cover the share.

    Raises UsageError unless the share lies between 0 and 1.
    """
    _check_share("strokes", share)
    h, w = image_size(shape)
    noise, known = Noise(seed, [0], Purpose.MASK), torch.ones(h, w)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    for i in range(10_000):
        if (known == 0).float().mean() >= share:
            break
        px, py, dx, dy = noise.normal(i, torch.empty(1, 4))[0].tolist()
        across = (x - w / 2 - px * w / 3) * dy - (y - h / 2 - py * h / 3) * dx
        known[across.abs() / math.hypot(dx, dy) < max(1.0, min(h, w) / 32)] = 0
    return Mask(known[None], shape)


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise UsageError("restoration.bad_share", name=name, share=f"{share:g}")
