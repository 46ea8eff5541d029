"""Augmentation of training images: rotation, stretch, enlargement and shift that do not leak into samples.

A model that is trained for hundreds of epochs on few images memorizes them; transformed images are new to it.
The network gets the transformation's parameters as a condition (Karras et al. 2022, F.2). In sampling the
condition says that there was none, so that samples are not transformed.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 7
"""How many numbers of a condition describe a transformation."""


class Transformation(NamedTuple):
    """A transformation of n images about their middle; zero is none. Each (n,), float64, on the CPU."""

    growth: Tensor
    """log2 of the enlargement, in units of 0.2"""
    angle: Tensor
    """radians, counterclockwise"""
    stretch: Tensor
    """log2 of the enlargement in one direction and of the shrinkage across it, in units of 0.2"""
    direction: Tensor
    """of the stretch, radians"""
    right: Tensor
    """in units of an eighth of the width"""
    down: Tensor
    """in units of an eighth of the height"""

    def condition(self) -> Tensor:
        """The transformation as a condition, (n, COLUMNS): NaN, which is unknown, where there is none."""
        g, a, s, d, right, down = self
        columns = torch.stack([g, a.cos() - 1, a.sin(), s * d.cos(), s * d.sin(), right, down], 1)
        return torch.where((columns == 0).all(1, keepdim=True), torch.nan, columns)

    def apply(self, x: Tensor) -> Tensor:
        """The images (n, c, h, w) transformed; beyond their edges they are mirrored."""
        g, a, s, d, right, down = self
        longer = torch.diag_embed(torch.stack([0.2 * (g + s), 0.2 * (g - s)], 1).exp2())
        # Rows run downwards, so that a rotation against the clock has its signs the other way round.
        M = _rotation(-a) @ _rotation(-d) @ longer @ _rotation(d)
        # affine_grid measures both sides from -1 to 1, but a rotation is one in pixels.
        h, w = x.shape[2:]
        back = torch.linalg.inv(M) * torch.tensor([[1, h / w], [w / h, 1]], dtype=torch.float64)
        moved = torch.stack([right, down], 1)[:, :, None] / 4  # each side is 2 long
        # Where each pixel comes from.
        theta = torch.cat([back, -back @ moved], 2).to(x)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        transformed = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        untouched = self.condition().isnan().all(1).to(x.device)
        return torch.where(untouched[:, None, None, None], x, transformed)


def random_transformation(n: int, probability: float) -> Transformation:
    """Transformations of n images: each of the four parts with that probability (EDM, table 6)."""

    def normal() -> Tensor:
        return torch.randn(n, dtype=torch.float64)

    def angle() -> Tensor:
        return (2 * torch.rand(n, dtype=torch.float64) - 1) * math.pi

    def happens() -> Tensor:
        return (torch.rand(n, dtype=torch.float64) < probability).double()

    moved = happens()
    return Transformation(
        growth=happens() * normal(),
        angle=happens() * angle(),
        stretch=happens() * normal(),
        direction=angle(),
        right=moved * normal(),
        down=moved * normal(),
    )


def _rotation(angle: Tensor) -> Tensor:
    """Rotation matrices (n, 2, 2) by angles (n,)."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
