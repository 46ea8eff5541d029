"""TODO-DOC from restoration.operators"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Operator
from alphabar.restoration.operators.separable import Separable


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


class PerSampleOperator(Linear):
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


def compose(first: Operator, second: Operator) -> Operator:
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
