"""Operators: the A in y = A(x) + sigma_y·n, what was done to a picture before we saw it.

Everything is in the units of signals, [-1, 1]: sigma_y = 0.05 is 6.4 of 255 grey levels. (DPS and DAPS count
so too; DiffPIR, DDRM and DDNM publish the same number for pictures in [0, 1], where it is twice as much.)

Most operators are known by their singular value decomposition A = U·S·V*, from which everything else
follows (`Spectral`); any other linear one gets the same by conjugate gradients (`Linear`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.diffusion import Noise
from alphabar.errors import UsageError
from alphabar.registry import Registry
from alphabar.restoration.jpeg import compress

Shape = tuple[int, int, int]

CUT = 1e-4
"""Singular values below this share of the largest are zero: a byte a pixel has nothing to say about them."""


LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
"""BT.601: how much red, green and blue count in grey."""


class Operator(ABC):
    """What was done to pictures. Linear or not.

    shape: of one picture, (c, h, w). measured: of what is left of it, without the batch.
    """

    shape: Shape
    measured: tuple[int, ...]

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Pictures (n, c, h, w) → what is seen of them, (n, *measured)."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """A picture that A takes to y, as far as there is one; of a linear A, the pseudo-inverse A⁺y."""


class Linear(Operator):
    """A linear operator that is known by A and its adjoint alone."""

    iterations = 300

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀy: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""

    def lift(self, e: Tensor, rho: float) -> Tensor:
        """Aᵀ(A Aᵀ + rho)⁺ e, the smallest minimum of ‖A u − e‖² + rho‖u‖². rho at least 0.

        By CGLS (Hestenes & Stiefel 1952), each picture with its own step lengths, to the precision of e.
        """
        tolerance = (100 * torch.finfo(e.dtype).eps) ** 2
        u, r, g = torch.zeros_like(p := self.adjoint(e)), e, p
        first = last = _dot(g, g)
        for _ in range(self.iterations):
            if not (last > tolerance * first).any():
                break
            q = self.A(p)
            step = _ratio(last, _dot(q, q, like=g) + rho * _dot(p, p))
            u, r = u + step * p, r - step.reshape(-1, *[1] * (r.ndim - 1)) * q
            g = self.adjoint(r) - rho * u
            last, before = _dot(g, g), last
            p = g + _ratio(last, before) * p
        return u

    def pinv(self, y: Tensor) -> Tensor:
        return self.lift(y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        """The u that minimizes ‖A u − y‖² + rho‖u − x‖²; for rho = 0 the nearest to x that fits y best."""
        return x + self.lift(y - self.A(x), rho)


class Spectral(Linear):
    """A linear operator with its decomposition A = U·S·V*.

    s: the singular values, of a shape that multiplies modes; a mode that A does not see has s = 0.
    Modes, V*x and U*y, have one shape (n, …), the second padded with zeros where y has fewer.
    """

    s: Tensor

    @abstractmethod
    def analyse(self, x: Tensor) -> Tensor:
        """V*x."""

    @abstractmethod
    def synthesise(self, modes: Tensor) -> Tensor:
        """V·modes."""

    @abstractmethod
    def measure(self, y: Tensor) -> Tensor:
        """U*y."""

    @abstractmethod
    def emit(self, modes: Tensor) -> Tensor:
        """U·modes."""

    def A(self, x: Tensor) -> Tensor:
        return self.emit(self._s(x) * self.analyse(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.synthesise(self._s(y) * self.measure(y))

    def lift(self, e: Tensor, rho: float) -> Tensor:
        s = self._s(e)
        return self.synthesise(_ratio(s, s**2 + rho) * self.measure(e))

    def _s(self, like: Tensor) -> Tensor:
        return self.s.to(like)


class Mask(Spectral):
    """Inpainting: pixels that are known, and pixels that are not.

    known: 1 where a pixel is known and 0 where not, (1 or c, h, w), or (n, 1 or c, h, w) with one a picture.
    y has the shape of the picture; what it holds at unknown pixels does not matter.
    """

    def __init__(self, known: Tensor, shape: Shape):
        if tuple(known.shape[-2:]) != shape[1:]:
            raise UsageError(
                f"a mask of {known.shape[-1]}×{known.shape[-2]} does not fit"
                f" a picture of {shape[2]}×{shape[1]}"
            )
        self.shape, self.measured = shape, shape
        self.s = (known > 0).double()

    def analyse(self, x: Tensor) -> Tensor:
        return x

    def synthesise(self, modes: Tensor) -> Tensor:
        return modes

    def measure(self, y: Tensor) -> Tensor:
        return y

    def emit(self, modes: Tensor) -> Tensor:
        return modes


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


class Jpeg(Operator):
    """JPEG at a quality of 1 to 100: y = decompressed(compressed(x)). Neither linear nor invertible.

    pinv is y itself: a decompressed picture compresses, all but exactly, to itself (Kawar et al. 2022b).
    """

    def __init__(self, shape: Shape, quality: int):
        if shape[0] != 3:
            raise UsageError("jpeg works on colour pictures: put grey after it")
        if not 1 <= quality <= 100:
            raise UsageError(f"jpeg:{quality}: the quality goes from 1 to 100")
        self.shape = self.measured = shape
        self.quality = quality

    def A(self, x: Tensor) -> Tensor:
        return compress(x, self.quality)

    def pinv(self, y: Tensor) -> Tensor:
        return y


class Product(Linear):
    """Two linear operators one after the other: A = second·first."""

    def __init__(self, first: Linear, second: Linear):
        self.first, self.second = first, second
        self.shape, self.measured = first.shape, second.measured

    def A(self, x: Tensor) -> Tensor:
        return self.second.A(self.first.A(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint(self.second.adjoint(y))


class Chain(Operator):
    """Two operators one after the other of which one is not linear."""

    def __init__(self, first: Operator, second: Operator):
        self.first, self.second = first, second
        self.shape, self.measured = first.shape, second.measured

    def A(self, x: Tensor) -> Tensor:
        return self.second.A(self.first.A(x))

    def pinv(self, y: Tensor) -> Tensor:
        return self.first.pinv(self.second.pinv(y))


class Each(Linear):
    """Another linear operator for each picture of a batch. y is flat, padded with zeros to the longest."""

    def __init__(self, operators: Sequence[Linear]):
        shapes = {operator.shape for operator in operators}
        if len(shapes) != 1:
            raise UsageError(f"the operators of one batch must be for pictures of one size, not {shapes}")
        self.operators = operators
        self.lengths = [math.prod(operator.measured) for operator in operators]
        (self.shape,), self.measured = shapes, (max(self.lengths),)

    def pack(self, ys: Sequence[Tensor]) -> Tensor:
        """What each operator gave of its picture, (1, …) or (…), as one y."""
        return torch.stack([F.pad(y.flatten(), (0, self.measured[0] - y.numel())) for y in ys])

    def unpack(self, y: Tensor) -> list[Tensor]:
        """The inverse of `pack`: tensors (1, …)."""
        return [
            row[:length].reshape(1, *operator.measured)
            for row, length, operator in zip(y, self.lengths, self.operators, strict=True)
        ]

    def A(self, x: Tensor) -> Tensor:
        return self.pack([o.A(x[i : i + 1]) for i, o in enumerate(self.operators)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([o.adjoint(part) for o, part in zip(self.operators, self.unpack(y))])

    def lift(self, e: Tensor, rho: float) -> Tensor:
        return torch.cat([o.lift(part, rho) for o, part in zip(self.operators, self.unpack(e))])


def then(first: Operator, second: Operator) -> Operator:
    """The operator that does one thing after the other. Raises UsageError where the shapes do not fit."""
    if second.shape != first.measured:
        raise UsageError(f"an operator for {second.shape} cannot follow one that gives {first.measured}")
    if isinstance(first, Separable) and isinstance(second, Separable):
        product = [
            b if a is None else a if b is None else b @ a for a, b in zip(first.matrices, second.matrices)
        ]
        return Separable(first.shape, **dict(zip(("colours", "rows", "columns"), product)))
    if isinstance(first, Linear) and isinstance(second, Linear):
        return Product(first, second)
    return Chain(first, second)


# The choices. All take the shape of the picture as context.


def denoise(shape: Shape) -> Separable:
    """The picture itself; with noise, plain denoising."""
    return Separable(shape)


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


def box(
    shape: Shape,
    *,
    x0: int | None = None,
    y0: int | None = None,
    x1: int | None = None,
    y1: int | None = None,
) -> Mask:
    """A box is missing: columns x0 to x1 - 1 and rows y0 to y1 - 1. Without numbers, the middle half."""
    _, h, w = shape
    x0, x1 = w // 4 if x0 is None else x0, w - w // 4 if x1 is None else x1
    y0, y1 = h // 4 if y0 is None else y0, h - h // 4 if y1 is None else y1
    if not (0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h):
        raise UsageError(f"box:{x0},{y0},{x1},{y1} is not a box inside a picture of {w}×{h}")
    known = torch.ones(1, h, w)
    known[:, y0:y1, x0:x1] = 0
    return Mask(known, shape)


def random(shape: Shape, *, share: float = 0.7, seed: int = 0) -> Mask:
    """A share of the pixels is missing, here and there."""
    _checked_share("random", share)
    _, h, w = shape
    order = Noise(seed, [0], "mask").normal(0, torch.empty(1, h * w))[0].argsort()
    known = torch.ones(h * w)
    known[order[: round(share * h * w)]] = 0
    return Mask(known.reshape(1, h, w), shape)


def strokes(shape: Shape, *, share: float = 0.2, seed: int = 0) -> Mask:
    """Thick straight strokes across the picture are missing, as many as cover the share."""
    _checked_share("strokes", share)
    _, h, w = shape
    noise, known = Noise(seed, [0], "mask"), torch.ones(h, w)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    for i in range(10_000):
        if (known == 0).float().mean() >= share:
            break
        px, py, dx, dy = noise.normal(i, torch.empty(1, 4))[0].tolist()
        across = (x - w / 2 - px * w / 3) * dy - (y - h / 2 - py * h / 3) * dx
        known[across.abs() / math.hypot(dx, dy) < max(1.0, min(h, w) / 32)] = 0
    return Mask(known[None], shape)


def jpeg(shape: Shape, *, quality: int = 10) -> Jpeg:
    """JPEG compression, colours at half the resolution (4:2:0)."""
    return Jpeg(shape, quality)


OPERATORS = Registry(
    "degradation",
    {
        "denoise": denoise,
        "box": box,
        "random": random,
        "strokes": strokes,
        "down": down,
        "average": average,
        "blur": blur,
        "motion": motion,
        "grey": grey,
        "jpeg": jpeg,
    },
)


def crop(shape: Shape, h: int, w: int) -> Separable:
    """The h × w pixels at the top left: a picture smaller than the model, in one of the model's size."""

    def matrix(n: int, m: int) -> Tensor | None:
        return None if n == m else torch.eye(n, dtype=torch.float64)[:m]

    return Separable(shape, rows=matrix(shape[1], h), columns=matrix(shape[2], w))


def bicubic_matrix(n: int, m: int) -> Tensor:
    """Resizing n pixels to m (m ≤ n) by Keys's cubic, a = -0.5, stretched by n / m; (m, n), rows sum to 1."""
    scale = n / m
    centres = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) * scale
    d = ((torch.arange(n, dtype=torch.float64) + 0.5 - centres) / scale).abs()
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
    return weights / weights.sum(1, keepdim=True)


def motion_kernel(length: float, angle: float) -> Tensor:
    """A thin line of this length through the middle of an odd square: what share of it lies in each cell."""
    half, points = math.ceil(length / 2), 64 * math.ceil(length)
    along = ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5) * length
    column = (half + along * math.cos(math.radians(angle))).round().long()
    row = (half - along * math.sin(math.radians(angle))).round().long()
    side = 2 * half + 1
    return torch.bincount(row * side + column, minlength=side**2).double().reshape(side, side) / points


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


def _checked_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise UsageError(f"{name}:{share:g}: the missing share must lie between 0 and 1")


def _cut(s: Tensor) -> Tensor:
    return torch.where(s < CUT * s.max(), torch.zeros_like(s), s)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b, torch.zeros_like(b))


def _dot(a: Tensor, b: Tensor, like: Tensor | None = None) -> Tensor:
    """One inner product a picture, (n, 1, …), shaped to multiply ``like``, or a."""
    ndim = (a if like is None else like).ndim
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (ndim - 1))
