"""TODO-DOC from restoration.operators"""

import math

import torch
from torch import Tensor

from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Shape, Spectral
from alphabar.restoration.operators.separable import Separable


class Mask(Spectral):
    """Inpainting: pixels that are known, and pixels that are not.

    known: 1 where a pixel is known and 0 where not, (1 or c, h, w), or (n, 1 or c, h, w) with one a picture.
    y has the shape of the picture; what it holds at unknown pixels does not matter.
    """

    def __init__(self, known: Tensor, shape: Shape):
        if tuple(known.shape[-2:]) != shape[1:]:
            raise UsageError(
                f"a mask of {known.shape[-1]}×{known.shape[-2]} does not fit"
                f" a picture of {shape[2]}×{shape[1]}"
            )
        self.shape, self.measured = shape, shape
        self.s = (known > 0).double()

    def analyse(self, x: Tensor) -> Tensor:
        return x

    def synthesise(self, modes: Tensor) -> Tensor:
        return modes

    def measure(self, y: Tensor) -> Tensor:
        return y

    def emit(self, modes: Tensor) -> Tensor:
        return modes


def denoise(shape: Shape) -> Separable:
    """The picture itself; with noise, plain denoising."""
    return Separable(shape)


def box(
    shape: Shape,
    *,
    x0: int | None = None,
    y0: int | None = None,
    x1: int | None = None,
    y1: int | None = None,
) -> Mask:
    """A box is missing: columns x0 to x1 - 1 and rows y0 to y1 - 1. Without numbers, the middle half."""
    _, h, w = shape
    x0, x1 = w // 4 if x0 is None else x0, w - w // 4 if x1 is None else x1
    y0, y1 = h // 4 if y0 is None else y0, h - h // 4 if y1 is None else y1
    if not (0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h):
        raise UsageError(f"box:{x0},{y0},{x1},{y1} is not a box inside a picture of {w}×{h}")
    known = torch.ones(1, h, w)
    known[:, y0:y1, x0:x1] = 0
    return Mask(known, shape)


def random(shape: Shape, *, share: float = 0.7, seed: int = 0) -> Mask:
    """A share of the pixels is missing, here and there."""
    _checked_share("random", share)
    _, h, w = shape
    order = Noise(seed, [0], "mask").normal(0, torch.empty(1, h * w))[0].argsort()
    known = torch.ones(h * w)
    known[order[: round(share * h * w)]] = 0
    return Mask(known.reshape(1, h, w), shape)


def strokes(shape: Shape, *, share: float = 0.2, seed: int = 0) -> Mask:
    """Thick straight strokes across the picture are missing, as many as cover the share."""
    _checked_share("strokes", share)
    _, h, w = shape
    noise, known = Noise(seed, [0], "mask"), torch.ones(h, w)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    for i in range(10_000):
        if (known == 0).float().mean() >= share:
            break
        px, py, dx, dy = noise.normal(i, torch.empty(1, 4))[0].tolist()
        across = (x - w / 2 - px * w / 3) * dy - (y - h / 2 - py * h / 3) * dx
        known[across.abs() / math.hypot(dx, dy) < max(1.0, min(h, w) / 32)] = 0
    return Mask(known[None], shape)


def crop(shape: Shape, h: int, w: int) -> Separable:
    """The h × w pixels at the top left: a picture smaller than the model, in one of the model's size."""

    def matrix(n: int, m: int) -> Tensor | None:
        return None if n == m else torch.eye(n, dtype=torch.float64)[:m]

    return Separable(shape, rows=matrix(shape[1], h), columns=matrix(shape[2], w))


def _checked_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise UsageError(f"{name}:{share:g}: the missing share must lie between 0 and 1")
