"""TODO-DOC from restoring"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError


def estimate_noise(y: Tensor, side: int = 4) -> float:
    """sigma_y of white noise in a signal (c, h, w), from the weakest directions of its side × side patches.

    Patches of a picture vary in few directions; in all others there is noise alone, of variance sigma_y².
    Of the variances, largest first, those are cut off until the mean of the rest is their median (Chen, Zhu
    & Heng 2015, algorithm 1). Raises UsageError for pictures too small to tell.
    """
    patches = F.unfold(y[None].double(), side)[0]
    d, count = patches.shape
    if count < 4 * d:
        raise UsageError(
            f"a picture of {y.shape[2]}×{y.shape[1]} is too small to estimate its noise: give --noise"
        )
    variances = torch.linalg.eigvalsh(patches.cov()).clamp(min=0).flip(0)
    for i in range(d):
        rest = variances[i:]
        if rest.mean() <= rest.median():
            break
    return rest.mean().sqrt().item()
