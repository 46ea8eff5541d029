"""DINOv2's vision transformer (Oquab et al. 2023), in which Stein et al. (2023) measure distances.

The published weights decide names and shapes; the arithmetic is that of the authors' network at 224 px.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14


HEAD_DIM = 64  # of all sizes


SIDE = 224


# The authors add it to the side in patches where they stretch the position embedding, for an error of
# rounding in older versions of PyTorch; the features would be others without it.
OFFSET = 0.1


class SelfAttention(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim, eps=1e-6), SelfAttention(dim), LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(dim, eps=1e-6), MLP(dim), LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2(nn.Module):
    """Pictures (n, 3, 224, 224), normalised as ImageNet's → the class token (n, dim).

    grid: patches a side that the position embedding is of: 37 as published, of pictures of 518 px.
    """

    def __init__(self, dim: int, depth: int, grid: int):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, PATCH)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, dim))
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.grid = grid

    def positions(self) -> Tensor:
        """The position embedding of 16×16 patches and the class token before them, (1, 257, dim)."""
        side = SIDE // PATCH
        if self.grid == side:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        rest = rest.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        rest = F.interpolate(rest, scale_factor=(side + OFFSET) / self.grid, mode="bicubic")
        return torch.cat([first, rest.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.positions()
        return self.norm(self.blocks(tokens))[:, 0]


def from_weights(state: Mapping[str, Tensor]) -> DINOv2:
    """The network that published weights are of, in evaluation mode: any size but the giant, no registers.

    Raises KeyError or RuntimeError for weights of anything else.
    """
    positions, dim = state["pos_embed"].shape[1:]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    network = DINOv2(dim, depth, math.isqrt(positions - 1))
    # The mask token has a part in the training alone.
    network.load_state_dict({name: value for name, value in state.items() if name != "mask_token"})
    return network.eval().requires_grad_(False)
