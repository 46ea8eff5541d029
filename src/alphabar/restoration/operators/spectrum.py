"""TODO-DOC from restoration.operators"""

import torch
from torch import Tensor

CUT = 1e-4
"""Singular values below this share of the largest are zero: a byte a pixel has nothing to say about them."""


def _cut(s: Tensor) -> Tensor:
    return torch.where(s < CUT * s.max(), torch.zeros_like(s), s)
