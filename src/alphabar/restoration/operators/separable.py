"""TODO-DOC from restoration.operators"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Shape, Spectral
from alphabar.restoration.operators.spectrum import _cut

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
"""BT.601: how much red, green and blue count in grey."""


class Separable(Spectral):
    """A matrix for each axis: colours (c', c), rows (h', h), columns (w', w); None leaves the axis as it is.

    No axis grows. The decomposition is the product of those of the axes.
    """

    def __init__(self, shape: Shape, *, colours=None, rows=None, columns=None):
        self.shape = shape
        self.matrices: tuple[Tensor | None, ...] = (colours, rows, columns)
        self.measured = tuple(n if m is None else len(m) for n, m in zip(shape, self.matrices))
        self.bases: list[tuple[Tensor, Tensor] | None] = []
        self.s = torch.ones(1, 1, 1, dtype=torch.float64)
        for axis, matrix in enumerate(self.matrices):
            if matrix is None:
                self.bases.append(None)
                continue
            U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=True)
            self.bases.append((U, Vh))
            s = F.pad(s, (0, shape[axis] - len(s)))
            self.s = self.s * s.reshape([-1 if a == axis else 1 for a in range(3)])
        self.s = _cut(self.s)

    def analyse(self, x: Tensor) -> Tensor:
        return self._transform(x, lambda U, Vh: Vh)

    def synthesise(self, modes: Tensor) -> Tensor:
        return self._transform(modes, lambda U, Vh: Vh.T)

    def measure(self, y: Tensor) -> Tensor:
        modes = self._transform(y, lambda U, Vh: U.T)
        missing = [(0, n - m) for n, m in zip(self.shape, modes.shape[1:])]
        return F.pad(modes, [side for pair in reversed(missing) for side in pair])

    def emit(self, modes: Tensor) -> Tensor:
        c, h, w = self.measured
        return self._transform(modes[:, :c, :h, :w], lambda U, Vh: U)

    def _transform(self, x: Tensor, which) -> Tensor:
        for axis, basis in enumerate(self.bases, start=1):
            if basis is not None:
                x = torch.tensordot(x, which(*basis).to(x), ([axis], [1])).movedim(-1, axis)
        return x


def grey(shape: Shape) -> Separable:
    """Colour → grey by the weights of BT.601, (1, h, w)."""
    if shape[0] != 3:
        raise UsageError("grey: the picture is grey already")
    return Separable(shape, colours=LUMA[None])


def down(shape: Shape, *, factor: int = 4) -> Separable:
    """Smaller by an integer factor as image programs do it: bicubic (a = -0.5) with antialiasing."""
    h, w = _divided(shape, factor)
    rows, columns = bicubic_matrix(shape[1], h), bicubic_matrix(shape[2], w)
    return Separable(shape, rows=rows, columns=columns)


def average(shape: Shape, *, factor: int = 4) -> Separable:
    """Smaller by an integer factor: each pixel the mean of factor × factor."""
    h, w = _divided(shape, factor)
    rows, columns = (torch.eye(n, dtype=torch.float64).repeat_interleave(factor, 1) / factor for n in (h, w))
    return Separable(shape, rows=rows, columns=columns)


def bicubic_matrix(n: int, m: int) -> Tensor:
    """Resizing n pixels to m (m ≤ n) by Keys's cubic, a = -0.5, stretched by n / m; (m, n), rows sum to 1."""
    scale = n / m
    centres = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) * scale
    d = ((torch.arange(n, dtype=torch.float64) + 0.5 - centres) / scale).abs()
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
    return weights / weights.sum(1, keepdim=True)


def _gaussian_matrix(n: int, std: float) -> Tensor:
    radius = int(4 * std + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / std) ** 2)
    # … c b a | a b c … c b a | a b c …: the mirror repeats the pixel at the border.
    source = (torch.arange(n)[:, None] + offsets) % (2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (weights / weights.sum()).expand(n, -1).contiguous())


def _divided(shape: Shape, factor: int) -> tuple[int, int]:
    _, h, w = shape
    if factor < 1:
        raise UsageError(f"a factor of {factor} makes no sense: give a whole number from 1")
    if h % factor or w % factor:
        raise UsageError(f"a factor of {factor} does not divide a picture of {w}×{h}")
    return h // factor, w // factor
