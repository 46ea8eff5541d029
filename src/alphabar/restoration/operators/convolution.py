"""Convolution with a kernel: motion blur, and any blur kernel from a file."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Shape, Spectral, image_size, size_text, without_tiny


class Convolution(Spectral):
    """A blur with any kernel (k, l), centred, scaled to sum 1; the image continues at its opposite side.

    The modes are its Fourier coefficients, complex numbers. Raises UsageError for a kernel larger than the
    image or one that sums to 0.
    """

    def __init__(self, kernel: Tensor, shape: Shape):
        k, l = kernel.shape
        h, w = image_size(shape)
        if k > h or l > w:
            raise UsageError(
                "restoration.kernel_too_large", kernel=size_text((k, l)), image=size_text((h, w))
            )
        if not abs(kernel.sum()) > 0:
            raise UsageError("restoration.kernel_sums_to_zero")
        self.shape = self.measurement_shape = shape
        padded = F.pad(kernel.double() / kernel.double().sum(), (0, w - l, 0, h - k))
        transfer = torch.fft.fft2(padded.roll((-(k // 2), -(l // 2)), (0, 1)))[None]
        self.s = without_tiny(transfer.abs())
        self._phase = torch.polar(torch.ones_like(self.s), transfer.angle())

    def Vt(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def V(self, modes: Tensor) -> Tensor:
        return torch.fft.ifft2(modes, norm="ortho").real

    def Ut(self, y: Tensor) -> Tensor:
        modes = torch.fft.fft2(y, norm="ortho")
        return self._phase.conj().to(modes) * modes

    def U(self, modes: Tensor) -> Tensor:
        return torch.fft.ifft2(self._phase.to(modes) * modes, norm="ortho").real


def motion(shape: Shape, *, length: float = 9.0, angle: float = 45.0) -> Convolution:
    """Motion blur along a line: length in pixels, angle in degrees, counter-clockwise from the right.

    Raises UsageError for a line that is shorter than a pixel or does not fit into the image, and for an angle
    that is no number.
    """
    if not (1 <= length <= min(image_size(shape)) - 1 and math.isfinite(angle)):
        raise UsageError("restoration.bad_motion", length=f"{length:g},{angle:g}", image=size_text(shape[1:]))
    return Convolution(motion_kernel(length, angle), shape)


def motion_kernel(length: float, angle: float) -> Tensor:
    """A thin line of this length through the middle of an odd square: what share of it lies in each cell."""
    half, points = math.ceil(length / 2), 64 * math.ceil(length)
    along = ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5) * length
    column = (half + along * math.cos(math.radians(angle))).round().long()
    row = (half - along * math.sin(math.radians(angle))).round().long()
    side = 2 * half + 1
    return torch.bincount(row * side + column, minlength=side**2).double().reshape(side, side) / points
