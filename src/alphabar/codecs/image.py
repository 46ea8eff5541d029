"""Between pictures, uint8 (n, h, w, 3), and signals, float (n, 3, h, w) in [-1, 1]: only here."""

import torch
from torch import Tensor


def to_signal(pictures: Tensor) -> Tensor:
    """Pictures (n, h, w, 3) uint8 as float32 (n, 3, h, w), channels last in memory: 0 → -1, 255 → 1."""
    return pictures.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def to_pictures(signal: Tensor) -> Tensor:
    """Signals (n, 3, h, w) as the nearest pictures (n, h, w, 3) uint8; values outside [-1, 1] are clamped."""
    levels = signal.to(torch.float32).clamp(-1, 1).add(1).mul(127.5).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def levels_to_signal(levels: Tensor, white: int) -> Tensor:
    """One picture (h, w, c) of whole numbers 0..white, however deep, as a float32 signal (1, c, h, w)."""
    return (levels.permute(2, 0, 1)[None].double() * (2 / white) - 1).float()


def signal_to_levels(signal: Tensor, white: int) -> Tensor:
    """The inverse: (c, h, w) as the nearest whole numbers (h, w, c), int32; values outside are clamped."""
    return ((signal.double().clamp(-1, 1) + 1) * (white / 2)).round().int().permute(1, 2, 0)


def flip(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures or signals whose left and right are exchanged where the mask, (n,) bool, says so.

    The width is the third of the four dimensions of pictures (uint8), the last of signals.
    """
    width = 2 if pictures.dtype is torch.uint8 else 3
    return torch.where(mask[:, None, None, None], pictures.flip(width), pictures)
