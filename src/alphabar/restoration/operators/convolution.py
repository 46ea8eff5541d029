"""TODO-DOC from restoration.operators"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Shape, Spectral
from alphabar.restoration.operators.separable import Separable, _gaussian_matrix
from alphabar.restoration.operators.spectrum import _cut


class Convolution(Spectral):
    """A blur with any kernel, (k, l), centred, of sum 1; the picture continues at its opposite side.

    The modes are its Fourier coefficients, complex numbers. Raises UsageError for a kernel larger than
    the picture or one that sums to 0.
    """

    def __init__(self, kernel: Tensor, shape: Shape):
        k, l = kernel.shape
        _, h, w = shape
        if k > h or l > w:
            raise UsageError(f"a kernel of {l}×{k} is larger than the picture of {w}×{h}")
        if not abs(kernel.sum()) > 0:
            raise UsageError("a blur kernel must not sum to 0")
        self.shape = self.measured = shape
        padded = F.pad(kernel.double() / kernel.double().sum(), (0, w - l, 0, h - k))
        transfer = torch.fft.fft2(padded.roll((-(k // 2), -(l // 2)), (0, 1)))[None]
        self.s = _cut(transfer.abs())
        self.phase = torch.polar(torch.ones_like(self.s), transfer.angle())

    def analyse(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def synthesise(self, modes: Tensor) -> Tensor:
        return torch.fft.ifft2(modes, norm="ortho").real

    def measure(self, y: Tensor) -> Tensor:
        modes = torch.fft.fft2(y, norm="ortho")
        return self.phase.conj().to(modes) * modes

    def emit(self, modes: Tensor) -> Tensor:
        return torch.fft.ifft2(self.phase.to(modes) * modes, norm="ortho").real


def blur(shape: Shape, *, std: float = 1.5) -> Separable:
    """Gaussian blur, std in pixels, cut off at 4 std; the picture continues as its mirror image."""
    if not 0 < std <= min(shape[1:]):
        raise UsageError(f"blur:{std:g}: the standard deviation must be above 0 and within the picture")
    return Separable(shape, rows=_gaussian_matrix(shape[1], std), columns=_gaussian_matrix(shape[2], std))


def motion(shape: Shape, *, length: float = 9.0, angle: float = 45.0) -> Convolution:
    """Motion blur along a line: length in pixels, angle in degrees, counter-clockwise from the right."""
    if not 1 <= length <= min(shape[1:]) - 1:
        raise UsageError(f"motion:{length:g}: the length must be at least 1 and within the picture")
    return Convolution(motion_kernel(length, angle), shape)


def motion_kernel(length: float, angle: float) -> Tensor:
    """A thin line of this length through the middle of an odd square: what share of it lies in each cell."""
    half, points = math.ceil(length / 2), 64 * math.ceil(length)
    along = ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5) * length
    column = (half + along * math.cos(math.radians(angle))).round().long()
    row = (half - along * math.sin(math.radians(angle))).round().long()
    side = 2 * half + 1
    return torch.bincount(row * side + column, minlength=side**2).double().reshape(side, side) / points
