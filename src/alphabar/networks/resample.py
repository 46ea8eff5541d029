"""The levels of a U-Net: what happens at one resolution on the way down and on the way up, and in between."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def repeated(x: Tensor, times: int) -> Tensor:
    """Each position becomes a square of times × times: (n, c, h, w) → (n, c, times·h, times·w).

    It computes what ``nn.Upsample(scale_factor=times)`` does. That one (as F.interpolate in every mode) must
    not be used between convolutions: with torch 2.13 on a CPU, compiled by torch.compile under bf16 autocast,
    it passes a gradient of exactly zero to everything below. Eager, or in float32, its gradient is right.
    """
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


class Upsample(nn.Module):
    """Each position becomes a square of four: nearest neighbours, twice as many rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, h, w) → (n, width, 2h, 2w)."""
        return repeated(x, 2)


class Level(nn.Module):
    """One resolution of a U-Net. Its blocks are functions of features and the embedding.

    recompute: keep only the features that enter a block, and compute what is inside again in the backward
    pass (Chen et al. 2016): less memory, and a third more to compute.
    """

    blocks: nn.ModuleList
    recompute = False

    def apply_block(self, block: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        """What a block makes of features (n, width, h, w)."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, h, embedding, use_reentrant=False)
        return block(h, embedding)


def recompute_blocks(network: nn.Module) -> None:
    """Lets the levels of a network compute what is inside their blocks again, rather than keep it."""
    for module in network.modules():
        if isinstance(module, Level):
            module.recompute = True


class Down(Level):
    """One resolution on the way down: comes from the one above, leaves a skip connection after each block.

    shrink: from the resolution above to this one. blocks: functions of features and embedding.
    normalize: of what shrink makes.
    """

    def __init__(
        self,
        shrink: nn.Module,
        blocks: Sequence[nn.Module],
        normalize: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.shrink = shrink
        self.blocks = nn.ModuleList(blocks)
        self.normalize = normalize

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Features (n, width, h, w) → those of this resolution; appends one tensor a block to ``skips``."""
        h = self.shrink(h)
        if self.normalize is not None:
            h = self.normalize(h)
        for block in self.blocks:
            h = self.apply_block(block, h, embedding)
            skips.append(h)
        return h


class Up(Level):
    """One resolution on the way up: takes a skip connection before each block, goes to the one above.

    The two are put side by side. grow: from this resolution to the one above.
    """

    def __init__(self, blocks: Sequence[nn.Module], grow: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.grow = grow

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Features (n, width, h, w) → those of the one above; takes one tensor a block from ``skips``."""
        for block in self.blocks:
            h = self.apply_block(block, torch.cat([h, skips.pop()], dim=1), embedding)
        return self.grow(h)
