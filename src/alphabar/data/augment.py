"""Pictures turned, stretched, enlarged and moved in training, and the network told how: they do not leak.

A model that is trained for hundreds of epochs on few pictures learns them by heart. Transformed ones are new
to it. As it is told what was done (Karras et al. 2022, F.2), and in drawing that nothing was, its samples are
not transformed.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 7
"""How many numbers tell a transformation."""


class Transformation(NamedTuple):
    """What is done to pictures, about their middle; zero is nothing. Each (n,), float64, on the CPU."""

    growth: Tensor
    """log2 of how much larger, in units of 0.2"""
    angle: Tensor
    """radians, against the clock"""
    stretch: Tensor
    """log2 of how much longer in one direction and shorter across it, in units of 0.2"""
    direction: Tensor
    """of that, radians"""
    right: Tensor
    """of the side, in units of an eighth"""
    down: Tensor
    """likewise"""

    def told(self) -> Tensor:
        """What the network is told, (n, COLUMNS): NaN, which is unknown, where nothing is done."""
        g, a, s, d, right, down = self
        columns = torch.stack([g, a.cos() - 1, a.sin(), s * d.cos(), s * d.sin(), right, down], 1)
        return torch.where((columns == 0).all(1, keepdim=True), torch.nan, columns)

    def apply(self, x: Tensor) -> Tensor:
        """The pictures (n, c, side, side) transformed; beyond their edges they are mirrored."""
        g, a, s, d, right, down = self
        longer = torch.diag_embed(torch.stack([0.2 * (g + s), 0.2 * (g - s)], 1).exp2())
        # Rows run downwards, so that a rotation against the clock has its signs the other way round.
        M = _rotation(-a) @ _rotation(-d) @ longer @ _rotation(d)
        back = torch.linalg.inv(M)
        moved = torch.stack([right, down], 1)[:, :, None] / 4  # the side is 2 long
        # Where each pixel comes from.
        theta = torch.cat([back, -back @ moved], 2).to(x)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        transformed = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        untouched = self.told().isnan().all(1).to(x.device)
        return torch.where(untouched[:, None, None, None], x, transformed)


def random_transformation(n: int, probability: float) -> Transformation:
    """Transformations of n pictures, each of the four kinds with that probability (EDM, table 6)."""

    def normal() -> Tensor:
        return torch.randn(n, dtype=torch.float64)

    def turn() -> Tensor:
        return (2 * torch.rand(n, dtype=torch.float64) - 1) * math.pi

    def happens() -> Tensor:
        return (torch.rand(n, dtype=torch.float64) < probability).double()

    moved = happens()
    return Transformation(
        growth=happens() * normal(),
        angle=happens() * turn(),
        stretch=happens() * normal(),
        direction=turn(),
        right=moved * normal(),
        down=moved * normal(),
    )


def _rotation(angle: Tensor) -> Tensor:
    """(n, 2, 2)"""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
