"""DINOv2's vision transformer (Oquab et al. 2023), in which Stein et al. (2023) measure distances.

The published weights decide names and shapes; the arithmetic is that of the authors' network at 224 px.
"""

import io
import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from alphabar.errors import AlphabarError
from alphabar.messages import message
from alphabar.metrics.features.base import Features
from alphabar.metrics.features.weights import PublishedWeights, load_weights
from alphabar.metrics.pictures import channels_first

DINOV2 = PublishedWeights(
    "DINOv2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "ALPHABAR_DINOV2_WEIGHTS",
)

PATCH = 14  # pixels

HEAD_DIM = 64  # of all sizes

SIDE = 224  # pixels of the pictures that the network takes

# The authors add it to the side in patches where they resize the position embedding, against a rounding error
# in older versions of PyTorch; without it the features would differ.
OFFSET = 0.1


class SelfAttention(nn.Module):
    """Multi-head self-attention of tokens (n, tokens, dim)."""

    def __init__(self, dim: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) → the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """The feed-forward layer of a block, with GELU."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) → the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) → the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """A transformer block: attention and MLP, each after a layer norm and with a skip."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim, eps=1e-6), SelfAttention(dim), LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(dim, eps=1e-6), MLP(dim), LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) → the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2(nn.Module):
    """The vision transformer.

    grid: patches to a side that the position embedding covers: 37 as published, for pictures of 518 px.
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
        """Pictures (n, 3, 224, 224), normalized as ImageNet's → the class token (n, dim)."""
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.positions()
        return self.norm(self.blocks(tokens))[:, 0]


def from_weights(state: Mapping[str, Tensor]) -> DINOv2:
    """The network of published weights, in evaluation mode: of any size but the giant, without registers.

    Raises KeyError or RuntimeError for weights of anything else.
    """
    positions, dim = state["pos_embed"].shape[1:]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    network = DINOv2(dim, depth, math.isqrt(positions - 1))
    # The mask token is for training only.
    network.load_state_dict({name: value for name, value in state.items() if name != "mask_token"})
    return network.eval().requires_grad_(False)


class Dinov2:
    """DINOv2 ViT-L/14, whose distances agree with people more than Inception's do (Stein et al. 2023).

    Pictures are resized and normalised as in their dgm-eval. Nothing but the weights is needed, 1.2 GB.
    device: where the network runs.
    weights: a file with its weights, of any size but the giant; else the environment variable
        ALPHABAR_DINOV2_WEIGHTS; else the standard file, fetched at first use. The name is "dinov2" only with
        the standard weights.
    Raises AlphabarError where the file is missing or holds no such weights.
    """

    def __init__(self, device: torch.device | str = "cpu", *, weights: str = ""):
        data, sha256, path = load_weights(DINOV2, weights)
        self.name = "dinov2" if sha256 == DINOV2.sha256 else f"dinov2_{sha256[:8]}"
        self.device = torch.device(device)
        try:
            state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            self.network = from_weights(state).to(self.device)
        except Exception as error:  # a damaged file fails in more ways than can be named
            reason = str(error).partition("\n")[0]
            raise AlphabarError(
                "metrics.wrong_weights", path=path, network="DINOv2", problem=reason
            ) from None
        self.dim = self.network.cls_token.shape[-1]
        self.protocol = message("metrics.dinov2_protocol", sha256=sha256[:16], dim=self.dim)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=self.device)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=self.device)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        side = (SIDE, SIDE)
        resized = [Image.fromarray(p).resize(side, Image.Resampling.BICUBIC) for p in pictures.numpy()]
        x = torch.from_numpy(np.stack([np.asarray(p) for p in resized])).to(self.device) / 255
        x = channels_first((x - self.mean) / self.std)
        with torch.autocast(self.device.type, enabled=False):
            features = self.network(x)
        return Features(features.cpu(), None)
