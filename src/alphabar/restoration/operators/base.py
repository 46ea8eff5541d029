"""TODO-DOC from restoration.operators"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

Shape = tuple[int, int, int]


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


def _dot(a: Tensor, b: Tensor, like: Tensor | None = None) -> Tensor:
    """One inner product a picture, (n, 1, …), shaped to multiply ``like``, or a."""
    ndim = (a if like is None else like).ndim
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (ndim - 1))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b, torch.zeros_like(b))
