"""Images larger than the model's: overlapping tiles, and the sizes at which the whole is restored first."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.restoration.operators.base import Operator

TILES_PER_CALL = 64
"""Tiles that the network sees in one call: they take some GiB where a solver differentiates through it."""


def tiled(
    denoiser: Denoiser,
    tile: tuple[int, ...],
    missing: Tensor | None = None,
    known: Tensor | None = None,
) -> Denoiser:
    """The denoiser for larger images: the mean of its answers in overlapping tiles (height, width).

    Tiles overlap by at least a quarter; each counts most in its middle and fades to its border, so that
    images have no seams. All of them take every step together (Bar-Tal et al. 2023, MultiDiffusion).
    missing: (h, w) bool, the pixels that matter: tiles without any are left out, and where there is no tile
        the answer is ``known``, an image (n, c, h, w).
    """
    ramps = [torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) for n in tile]
    weight = ramps[0][:, None] * ramps[1]
    rows, columns = tile

    def function(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        corners = tile_corners(torch.ones(x.shape[2:]) if missing is None else missing, tile)
        windows = [(..., slice(a, a + rows), slice(b, b + columns)) for a, b in corners]
        shares = weight.to(x)
        total, mass = torch.zeros_like(x), x.new_zeros(x.shape[2:])
        for window in windows:
            mass[window] += shares
        per_call = max(1, TILES_PER_CALL // len(x))
        # All that a backward pass needs of many tiles is more than memory holds: it evaluates them again.
        again = len(windows) > per_call and torch.is_grad_enabled()
        for i in range(0, len(windows), per_call):
            some = windows[i : i + per_call]
            conds = None if cond is None else cond.repeat(len(some), *[1] * (cond.ndim - 1))
            given = (torch.cat([x[window] for window in some]), t.repeat(len(some)), conds)
            answers = checkpoint(denoiser, *given, use_reentrant=False) if again else denoiser(*given)
            for window, D in zip(some, answers.split(len(x))):
                total[window] += shares * D
        return total / mass if known is None else torch.where(mass > 0, total / mass.clamp(min=0.25), known)

    return FunctionDenoiser(denoiser.schedule, function)


def tile_corners(missing: Tensor, tile: tuple[int, ...]) -> list[tuple[int, int]]:
    """The top left corners of tiles (height, width) that show all of ``missing`` (h, w); at least one."""
    spans = [torch.nonzero(missing.any(axis)).flatten().tolist() for axis in (1, 0)]
    if not spans[0]:
        return [(0, 0)]
    rows, columns = (
        _starts(n, size, span[0], span[-1] + 1) for n, size, span in zip(missing.shape, tile, spans)
    )
    return [(a, b) for a in rows for b in columns if missing[a : a + tile[0], b : b + tile[1]].any()]


def _starts(length: int, size: int, begin: int, end: int) -> list[int]:
    """Where tiles begin that cover [begin, end) and an eighth of their size around it, as far as there is.

    They are evenly spaced, at most three quarters of the size apart.
    """
    begin, end = max(0, begin - size // 8), min(length, end + size // 8)
    short = max(0, size - (end - begin))  # by how much one tile is wider
    begin = min(max(0, begin - short // 2), length - size)
    end = max(end, begin + size)
    count = 1 + math.ceil((end - begin - size) / (size * 3 // 4))
    return [round(i) for i in np.linspace(begin, end - size, count)]


def working_sizes(operator: Operator, tile: tuple[int, ...], squash: bool) -> list[tuple[int, ...]]:
    """The sizes at which an image is restored one after the other, the last its own.

    Where a region is missing, or all colour, the whole image tells what belongs there, and the tiles of a
    larger image do not. So it is restored at the model's size, or the first at which the region is more
    than a speck, then in steps of at most a factor of two. Everything else y tells in place.
    squash: whether the model knows images squashed to its size rather than cut to its aspect ratio.
    """
    own = operator.shape[1:]
    if len(own) != 2 or all(side <= n for side, n in zip(own, tile)):
        return [own]
    scale = min(1, max(n / side for n, side in zip(tile, own)))
    whole: Sequence[int] = tile if squash else [round(side * scale) for side in own]
    doublings = math.ceil(math.log2(max(1, *(side / small for side, small in zip(own, whole)))))
    shares = [i / doublings for i in range(doublings)]
    sizes = [tuple(round(a ** (1 - s) * b**s) for a, b in zip(whole, own)) for s in shares]
    least = max(8, min(tile) // 8)  # pixels of a region that what is around it does not fill
    return [
        *(size for size in sizes if operator.needs_whole_image([least * a // b for a, b in zip(own, size)])),
        own,
    ]
