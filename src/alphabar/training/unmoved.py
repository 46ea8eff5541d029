"""Parameters that no gradient reaches, though the loss falls all the same: a network that is dead in part."""

import math
from collections.abc import Mapping

import torch
from torch import nn

UPDATES = 50  # in a row, without a gradient, after which a parameter counts as unmoved


class UnmovedParameters:
    """Finds the parameters that had no gradient, or exactly zero, in `UPDATES` updates in a row.

    parameters: by name; those that are not trained are left out.
    Costs next to nothing while all are well: all are looked at once in so many updates, and afterwards only
    those that had no gradient then.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        self._parameters = {name: p for name, p in parameters.items() if p.requires_grad}
        self._suspects = self._parameters
        self._updates, self._told = 0, False

    def after_backward(self) -> list[str]:
        """To be called once an update, while there are gradients. Returns names once, else an empty list."""
        if self._updates % UPDATES == 0:
            self._suspects = self._parameters
        self._updates += 1
        graded = {name: p.grad for name, p in self._suspects.items() if p.grad is not None}
        if graded:
            largest = torch.stack(torch._foreach_norm(list(graded.values()), math.inf)).tolist()
            moved = {name for name, value in zip(graded, largest, strict=True) if value != 0}
            self._suspects = {name: p for name, p in self._suspects.items() if name not in moved}
        if self._told or not self._suspects or self._updates % UPDATES:
            return []
        self._told = True
        return list(self._suspects)
