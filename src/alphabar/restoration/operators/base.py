"""What every operator offers: itself, its inverse as far as there is one, what a restoration must know."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.registry import Spec

Shape = tuple[int, ...]
"""(channels, *spatial)"""

CUTOFF = 1e-4
"""Singular values below this share of the largest count as 0: 8 bits a pixel do not resolve them."""

ROUNDING_STD = 2 / 255 / math.sqrt(12)
"""The standard deviation of the error that rounding to 8 bits makes, in the units of [-1, 1]: 0.0023."""


class Operator(ABC):
    """A known degradation y = A(x), linear or not.

    shape: of a sample x, (channels, *spatial). measurement_shape: of A(x). Both are without the batch.
    linear: whether A is linear. is_mask: whether A only hides values.
    has_prox: whether `prox` weighs x against y, which takes more than an inverse.
    removes_pixels: whether some pixels of x leave no trace in y, so that a place in y without variation says
        nothing about the noise.
    """

    shape: Shape
    measurement_shape: Shape
    linear: ClassVar[bool] = False
    is_mask: ClassVar[bool] = False
    has_prox: bool = False
    removes_pixels: bool = False

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Samples (n, *shape) → measurements without noise (n, *measurement_shape)."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """Samples that A takes to y, as far as there are any; of a linear A, the pseudo-inverse A⁺y."""

    def prox(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        """A compromise between a guess x and the measurement y; where A is not linear, `pinv` of y.

        rho: how much x counts, at least 0.
        """
        return self.pinv(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x with the part that y determines replaced by what y says: x + A⁺(y - A(x))."""
        return x + self.pinv(y - self.A(x))

    @property
    def is_identity(self) -> bool:
        """Whether A leaves samples as they are."""
        return False

    @property
    def enlarges(self) -> bool:
        """Whether a restoration has more pixels than y, each of which is a mean of pixels of x."""
        return False

    def missing(self, sigma_y: float) -> Tensor:
        """The places (*spatial), bool, whose values y does not tell exactly, given its noise."""
        return torch.ones(self.shape[1:], dtype=torch.bool)

    def needs_whole_image(self, extent: Sequence[int]) -> bool:
        """Whether only the whole image tells what is lost: a region of this extent, or all colour."""
        return False

    def shrink(self, y: Tensor, spatial: tuple[int, ...]) -> tuple["Operator", Tensor]:
        """The problem at a smaller size, where `needs_whole_image`: pixels become means of pixels."""
        raise NotImplementedError

    def select(self, y: Tensor, rows: Sequence[int]) -> tuple["Operator", Tensor]:
        """The operator and the measurements of some samples of a batch, which may occur more than once."""
        return self, y[list(rows)]

    def default_solver(self, sigma_y: float, *, guided: bool, smaller: bool) -> Spec:
        """The solver that restores best, as measured in docs/results/restoration.md.

        guided: whether the denoiser is guided. smaller: whether images are smaller than the model's, so
        that it sees them inside a larger one and their singular values are of no use.
        """
        return "ddnm"

    def guidance_share(self, sigma_y: float) -> float:
        """The share of the guidance that generating uses that helps to restore, from 0 to 1."""
        return 0.5


class Linear(Operator):
    """A linear operator that is known by A and its adjoint alone."""

    linear = True
    has_prox = True
    iterations: ClassVar[int] = 300  # of the conjugate gradients, at most

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀy: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""

    def regularized_pinv(self, e: Tensor, rho: float) -> Tensor:
        """Aᵀ(A Aᵀ + rho)⁺ e, the smallest minimum of ‖A u − e‖² + rho‖u‖². rho at least 0.

        By CGLS (Hestenes & Stiefel 1952), each sample with its own step lengths, to the precision of e.
        """
        tolerance = (100 * torch.finfo(e.dtype).eps) ** 2
        u, r, g = torch.zeros_like(p := self.adjoint(e)), e, p
        first = last = dot(g, g)
        for _ in range(self.iterations):
            if not (last > tolerance * first).any():
                break
            q = self.A(p)
            step = _ratio(last, dot(q, q, like=g) + rho * dot(p, p))
            u, r = u + step * p, r - step.reshape(-1, *[1] * (r.ndim - 1)) * q
            g = self.adjoint(r) - rho * u
            last, before = dot(g, g), last
            p = g + _ratio(last, before) * p
        return u

    def pinv(self, y: Tensor) -> Tensor:
        return self.regularized_pinv(y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        """The u that minimizes ‖A u − y‖² + rho‖u − x‖²; for rho = 0 the nearest to x that fits y best."""
        return x + self.regularized_pinv(y - self.A(x), rho)

    def default_solver(self, sigma_y: float, *, guided: bool, smaller: bool) -> Spec:
        return "pigdm"

    def guidance_share(self, sigma_y: float) -> float:
        if self.enlarges:
            return 1.0
        whole = self.measurement_shape == self.shape
        return 0.5 if whole and sigma_y > ROUNDING_STD and not self.is_identity else 0.0


class Spectral(Linear):
    """A linear operator with its singular value decomposition A = U·S·V*.

    s: the singular values, of a shape that multiplies modes; a mode that A does not see has s = 0.
    Modes, V*x and U*y, have one shape (n, …), the second padded with zeros where y has fewer.
    """

    s: Tensor

    @abstractmethod
    def Vt(self, x: Tensor) -> Tensor:
        """V*x: the modes of samples (n, *shape)."""

    @abstractmethod
    def V(self, modes: Tensor) -> Tensor:
        """V·modes: the samples (n, *shape) with these modes."""

    @abstractmethod
    def Ut(self, y: Tensor) -> Tensor:
        """U*y: the modes of measurements (n, *measurement_shape)."""

    @abstractmethod
    def U(self, modes: Tensor) -> Tensor:
        """U·modes: the measurements (n, *measurement_shape) with these modes."""

    def A(self, x: Tensor) -> Tensor:
        return self.U(self._s(x) * self.Vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.V(self._s(y) * self.Ut(y))

    def regularized_pinv(self, e: Tensor, rho: float) -> Tensor:
        s = self._s(e)
        return self.V(_ratio(s, s**2 + rho) * self.Ut(e))

    def default_solver(self, sigma_y: float, *, guided: bool, smaller: bool) -> Spec:
        if not smaller:
            if self.is_identity and sigma_y > ROUNDING_STD:
                # With less fresh noise than in the paper the result is nearer; with less than this it is
                # too smooth.
                return {"name": "ddrm", "eta": 0.8}
            if self.measurement_shape == self.shape:
                # All of the image is in y: DDRM finds what noise hides mode by mode.
                return "ddrm" if sigma_y > ROUNDING_STD else "diffpir"
            if self.enlarges and guided:
                return "ddrm"
        return "pigdm"

    def _s(self, like: Tensor) -> Tensor:
        return self.s.to(like)


def without_tiny(s: Tensor) -> Tensor:
    """Singular values, those below `CUTOFF` times the largest set to 0."""
    return torch.where(s < CUTOFF * s.max(), torch.zeros_like(s), s)


def image_size(shape: Shape) -> tuple[int, int]:
    """(height, width) of a shape (channels, height, width).

    Raises UsageError for other than two dimensions.
    """
    if len(shape) != 3:
        raise UsageError("restoration.only_images", dimensions=len(shape) - 1)
    return shape[1], shape[2]


def size_text(spatial: Sequence[int]) -> str:
    """A size as people write it: width×height for an image, all dimensions in reverse for others."""
    return "×".join(str(side) for side in reversed(spatial))


def dot(a: Tensor, b: Tensor, like: Tensor | None = None) -> Tensor:
    """One inner product for each sample, (n, 1, …), shaped to multiply ``like``, or a."""
    ndim = (a if like is None else like).ndim
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (ndim - 1))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b, torch.zeros_like(b))
