"""JPEG compression of signals, differentiable: ITU-T T.81, baseline, with libjpeg's quality and 4:2:0.

The result is what Pillow writes at the same quality and reads again, to about one grey level. Rounding passes
gradients on as if it were the identity.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.codecs.color import LUMA

# T.81, tables K.1 and K.2: the quantization steps of the luminance and chrominance coefficients at quality
# 50.
LUMINANCE = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip

CHROMINANCE = torch.tensor([
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
])  # fmt: skip

# JFIF: YCbCr of BT.601, here without the offset of 128, which the discrete cosine transform takes off again.
TO_YCC = torch.stack(
    [
        LUMA.float(),
        torch.tensor([-0.168735892, -0.331264108, 0.5]),
        torch.tensor([0.5, -0.418687589, -0.081312411]),
    ]
)

TO_RGB = torch.tensor([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]])


def _dct_matrix() -> Tensor:
    """The 8 × 8 discrete cosine transform, orthonormal, float64."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


DCT = _dct_matrix()


def compress(x: Tensor, quality: int) -> Tensor:
    """Signals (n, 3 or 1, h, w) compressed and decompressed, in whole grey levels within [-1, 1]."""
    h, w = x.shape[-2:]
    # libjpeg repeats the last row and column to fill blocks of 16 × 16.
    levels = _round(x.clamp(-1, 1) * 127.5 + 127.5)
    levels = F.pad(levels, (0, -w % 16, 0, -h % 16), mode="replicate")
    if x.shape[1] == 1:
        levels = _blocks(levels - 128, quantization_steps(LUMINANCE, quality)) + 128
    else:
        levels = _color(levels, quality)
    return _round(levels.clamp(0, 255))[..., :h, :w] / 127.5 - 1


def quantization_steps(table: Tensor, quality: int) -> Tensor:
    """The quantization steps (8, 8) of a quality from 1 to 100, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((table * scale + 50) // 100).clamp(1, 255)


def _color(levels: Tensor, quality: int) -> Tensor:
    """RGB levels (n, 3, h, w) from 0 to 255, in blocks of 16 × 16, by way of YCbCr in 4:2:0."""
    ycc = _round(
        torch.einsum("ij,njhw->nihw", TO_YCC.to(levels), levels)
        - levels.new_tensor([128.0, 0, 0])[:, None, None]
    )
    y = _blocks(ycc[:, :1], quantization_steps(LUMINANCE, quality))
    cc = _blocks(_round(F.avg_pool2d(ycc[:, 1:], 2)), quantization_steps(CHROMINANCE, quality))
    # libjpeg enlarges by the triangle filter, 9 3 3 1 / 16.
    cc = F.interpolate(cc, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.einsum("ij,njhw->nihw", TO_RGB.to(levels), torch.cat([y + 128, cc], 1))


def _blocks(planes: Tensor, step: Tensor) -> Tensor:
    """Every 8 × 8 block to coefficients, these to whole multiples of their steps, and back to pixels."""
    n, c, h, w = planes.shape
    D, q = DCT.to(planes), step.to(planes)
    blocks = planes.reshape(n, c, h // 8, 8, w // 8, 8).movedim(3, 4)
    coefficients = D @ blocks @ D.T
    blocks = D.T @ (_round(coefficients / q) * q) @ D
    return _round(blocks.movedim(4, 3).reshape(n, c, h, w)).clamp(-128, 127)


def _round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()
