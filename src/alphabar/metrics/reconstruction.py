"""How near reconstructed pictures are to their originals: PSNR and SSIM."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window of SSIM, in pixels
K1, K2 = 0.01, 0.03


def psnr(x: Tensor, x0: Tensor) -> Tensor:
    """The peak signal-to-noise ratio (n,) in dB of pictures x against x0, (n, c, h, w) in [-1, 1]."""
    return -10 * ((x - x0) / 2).square().flatten(1).mean(1).log10()


def ssim(x: Tensor, x0: Tensor) -> Tensor:
    """The structural similarity (n,) of pictures x and x0, (n, c, h, w) in [-1, 1] (Wang et al. 2004).

    The mean over channels and all places where the window of 11×11 pixels fits; sides of at least 11 pixels.
    """
    n, c = x.shape[:2]
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = (-at.square() / (2 * SIGMA**2)).exp()
    line = line / line.sum()

    def blurred(y: Tensor) -> Tensor:
        y = y.flatten(0, 1)[:, None]
        y = F.conv2d(y, line[None, None, :, None])
        return F.conv2d(y, line[None, None, None, :]).unflatten(0, (n, c))

    a, b = (x.double() + 1) / 2, (x0.double() + 1) / 2
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + K1**2) * (2 * covariance + K2**2)
    return (likeness / ((mean_a**2 + mean_b**2 + K1**2) * (var_a + var_b + K2**2))).flatten(1).mean(1)
