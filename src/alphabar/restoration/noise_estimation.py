"""How much noise an image has, estimated from the image itself."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import size_text


def estimate_noise(y: Tensor, side: int = 4) -> float:
    """sigma_y of white noise in a signal (c, h, w), from the weakest directions of its side × side patches.

    Patches of an image vary in few directions; in all others there is noise alone, of variance sigma_y². Of
    the variances, largest first, those are cut off until the mean of the rest is their median (Chen, Zhu &
    Heng 2015, algorithm 1). Raises UsageError for an image that is too small for that.
    """
    d, count = y.shape[0] * side**2, math.prod(max(n - side + 1, 0) for n in y.shape[1:])
    if count < 4 * d:
        raise UsageError("restoration.too_small_for_noise", image=size_text(y.shape[1:]))
    patches = F.unfold(y[None].double(), side)[0]
    variances = torch.linalg.eigvalsh(patches.cov()).clamp(min=0).flip(0)
    for i in range(d):
        rest = variances[i:]
        if rest.mean() <= rest.median():
            break
    return rest.mean().sqrt().item()
