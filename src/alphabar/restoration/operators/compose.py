"""Operators made of others: one after the other, or a different one for each sample of a batch."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Operator, size_text
from alphabar.restoration.operators.separable import Separable


class Product(Linear):
    """Two linear operators one after the other: A = second·first."""

    def __init__(self, first: Linear, second: Linear):
        self.first, self.second = first, second
        self.shape, self.measurement_shape = first.shape, second.measurement_shape
        self.removes_pixels = first.removes_pixels or second.removes_pixels

    def A(self, x: Tensor) -> Tensor:
        return self.second.A(self.first.A(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint(self.second.adjoint(y))


class Chain(Operator):
    """Two operators one after the other of which at least one is not linear."""

    def __init__(self, first: Operator, second: Operator):
        self.first, self.second = first, second
        self.shape, self.measurement_shape = first.shape, second.measurement_shape
        self.removes_pixels = first.removes_pixels or second.removes_pixels

    def A(self, x: Tensor) -> Tensor:
        return self.second.A(self.first.A(x))

    def pinv(self, y: Tensor) -> Tensor:
        return self.first.pinv(self.second.pinv(y))


class PerSampleOperator(Linear):
    """Another linear operator for each sample of a batch. y is flat, padded with zeros to the longest.

    Raises UsageError for operators that take samples of different shapes.
    """

    def __init__(self, operators: Sequence[Linear]):
        shapes = {operator.shape for operator in operators}
        if len(shapes) != 1:
            raise UsageError(
                "restoration.one_size", sizes=", ".join(size_text(s[1:]) for s in sorted(shapes))
            )
        self.operators = operators
        self.lengths = [math.prod(operator.measurement_shape) for operator in operators]
        (self.shape,), self.measurement_shape = shapes, (max(self.lengths),)
        self.removes_pixels = any(operator.removes_pixels for operator in operators)

    def pack(self, ys: Sequence[Tensor]) -> Tensor:
        """What each operator gave of its sample, (1, …) or (…), as one y (n, *measurement_shape)."""
        length = self.measurement_shape[0]
        return torch.stack([F.pad(y.flatten(), (0, length - y.numel())) for y in ys])

    def unpack(self, y: Tensor) -> list[Tensor]:
        """The inverse of `pack`: tensors (1, …).

        Raises UsageError where there is not one row for each operator.
        """
        if len(y) != len(self.operators):
            raise UsageError("restoration.one_operator_each", samples=len(y), operators=len(self.operators))
        return [
            row[:length].reshape(1, *operator.measurement_shape)
            for row, length, operator in zip(y, self.lengths, self.operators)
        ]

    def select(self, y: Tensor, rows: Sequence[int]) -> tuple[Linear, Tensor]:
        ys = self.unpack(y)
        if len(rows) == 1:
            return self.operators[rows[0]], ys[rows[0]]
        some = PerSampleOperator([self.operators[i] for i in rows])
        return some, some.pack([ys[i] for i in rows])

    def A(self, x: Tensor) -> Tensor:
        return self.pack([o.A(x[i : i + 1]) for i, o in enumerate(self.operators)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([o.adjoint(part) for o, part in zip(self.operators, self.unpack(y))])

    def regularized_pinv(self, e: Tensor, rho: float) -> Tensor:
        return torch.cat([o.regularized_pinv(part, rho) for o, part in zip(self.operators, self.unpack(e))])


def compose(first: Operator, second: Operator) -> Operator:
    """The operator that does one thing after the other: x → second(first(x)).

    Where second is a `PerSampleOperator`, so is the result. Raises UsageError where the shapes do not fit.
    """
    if second.shape != first.measurement_shape:
        raise UsageError("restoration.shapes_do_not_fit", first=first.measurement_shape, second=second.shape)
    if first.is_identity:
        return second
    if isinstance(second, PerSampleOperator):
        return PerSampleOperator([compose(first, one) for one in second.operators])  # type: ignore[misc]
    if isinstance(first, Separable) and isinstance(second, Separable):
        product = [
            b if a is None else a if b is None else b @ a for a, b in zip(first.matrices, second.matrices)
        ]
        return Separable(first.shape, product)
    if isinstance(first, Linear) and isinstance(second, Linear):
        return Product(first, second)
    return Chain(first, second)
