"""Operators that act along one axis at a time: resizing, Gaussian blur, grayscale, cropping."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.codecs.color import LUMA
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Shape, Spectral, size_text, without_tiny


class Separable(Spectral):
    """A matrix (m, n) with m ≤ n for each axis of a sample, channels first; None leaves the axis as it is.

    Axes that are not listed stay as they are. The decomposition is the product of those of the axes.
    """

    def __init__(self, shape: Shape, matrices: Sequence[Tensor | None] = ()):
        self.shape = shape
        self.matrices = (*matrices, *[None] * (len(shape) - len(matrices)))
        self.measurement_shape = tuple(n if m is None else len(m) for n, m in zip(shape, self.matrices))
        self._bases: list[tuple[Tensor, Tensor] | None] = []
        s = torch.ones([1] * len(shape), dtype=torch.float64)
        for axis, matrix in enumerate(self.matrices):
            if matrix is None:
                self._bases.append(None)
                continue
            U, values, Vh = torch.linalg.svd(matrix.double(), full_matrices=True)
            self._bases.append((U, Vh))
            values = F.pad(values, (0, shape[axis] - len(values)))
            s = s * values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        self.s = without_tiny(s)

    @property
    def is_identity(self) -> bool:
        return all(matrix is None for matrix in self.matrices)

    @property
    def enlarges(self) -> bool:
        return math.prod(self.measurement_shape[1:]) < math.prod(self.shape[1:])

    def Vt(self, x: Tensor) -> Tensor:
        return self._transform(x, lambda U, Vh: Vh)

    def V(self, modes: Tensor) -> Tensor:
        return self._transform(modes, lambda U, Vh: Vh.T)

    def Ut(self, y: Tensor) -> Tensor:
        modes = self._transform(y, lambda U, Vh: U.T)
        missing = [(0, n - m) for n, m in zip(self.shape, modes.shape[1:])]
        return F.pad(modes, [side for pair in reversed(missing) for side in pair])

    def U(self, modes: Tensor) -> Tensor:
        kept = (slice(None), *(slice(m) for m in self.measurement_shape))
        return self._transform(modes[kept], lambda U, Vh: U)

    def needs_whole_image(self, extent: Sequence[int]) -> bool:
        channels, *spatial = self.matrices
        return channels is not None and all(matrix is None for matrix in spatial)

    def shrink(self, y: Tensor, spatial: tuple[int, ...]) -> tuple["Separable", Tensor]:
        smaller = Separable((self.shape[0], *spatial), self.matrices[:1])
        return smaller, F.interpolate(y, spatial, mode="area")

    def _transform(self, x: Tensor, which: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        for axis, basis in enumerate(self._bases, start=1):
            if basis is not None:
                x = torch.tensordot(x, which(*basis).to(x), ([axis], [1])).movedim(-1, axis)
        return x


def denoise(shape: Shape) -> Separable:
    """The image itself; with noise, plain denoising."""
    return Separable(shape)


def grayscale(shape: Shape) -> Separable:
    """Colour → grey by the weights of BT.601. RGBA becomes grey and alpha; grey stays as it is."""
    if shape[0] < 3:
        return Separable(shape)
    to_grey = LUMA[None]
    if shape[0] == 4:
        to_grey = torch.block_diag(to_grey, torch.ones(1, 1, dtype=torch.float64))
    return Separable(shape, [to_grey])


def downsample(shape: Shape, *, factor: int = 4) -> Separable:
    """Smaller by an integer factor as image programs do it: bicubic (a = -0.5) with antialiasing.

    Raises UsageError for a factor that does not divide the size.
    """
    sizes = _divided(shape, factor)
    return Separable(shape, [None, *(bicubic_matrix(n, m) for n, m in zip(shape[1:], sizes))])


def area_downsample(shape: Shape, *, factor: int = 4) -> Separable:
    """Smaller by an integer factor: each pixel is the mean of a block of factor pixels along every axis.

    Raises UsageError for a factor that does not divide the size.
    """
    means = [
        torch.eye(m, dtype=torch.float64).repeat_interleave(factor, 1) / factor
        for m in _divided(shape, factor)
    ]
    return Separable(shape, [None, *means])


def blur(shape: Shape, *, std: float = 1.5) -> Separable:
    """Gaussian blur, std in pixels, cut off at 4 std; the image continues as its mirror image.

    Raises UsageError for a standard deviation that is not above 0 or is larger than the image.
    """
    if not 0 < std <= min(shape[1:]):
        raise UsageError("restoration.bad_blur", std=f"{std:g}", image=size_text(shape[1:]))
    return Separable(shape, [None, *(gaussian_matrix(n, std) for n in shape[1:])])


def crop(shape: Shape, spatial: Sequence[int]) -> Separable:
    """The first so many pixels along every axis: a smaller image in one of the model's size."""
    matrices = [None if n == m else torch.eye(n, dtype=torch.float64)[:m] for n, m in zip(shape[1:], spatial)]
    return Separable(shape, [None, *matrices])


def bicubic_matrix(n: int, m: int) -> Tensor:
    """Resizing n pixels to m (m ≤ n) by Keys's cubic, a = -0.5, stretched by n / m; (m, n), rows sum to 1."""
    scale = n / m
    centres = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) * scale
    d = ((torch.arange(n, dtype=torch.float64) + 0.5 - centres) / scale).abs()
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
    return weights / weights.sum(1, keepdim=True)


def gaussian_matrix(n: int, std: float) -> Tensor:
    """Blurring a row of n pixels by a Gaussian of this standard deviation, mirrored at its ends; (n, n)."""
    radius = int(4 * std + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / std) ** 2)
    # … c b a | a b c … c b a | a b c …: the mirror repeats the pixel at the border.
    source = (torch.arange(n)[:, None] + offsets) % (2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (weights / weights.sum()).expand(n, -1).contiguous())


def _divided(shape: Shape, factor: int) -> list[int]:
    if factor < 1:
        raise UsageError("restoration.bad_factor", factor=factor)
    if any(side % factor for side in shape[1:]):
        raise UsageError("restoration.factor_does_not_divide", factor=factor, image=size_text(shape[1:]))
    return [side // factor for side in shape[1:]]
