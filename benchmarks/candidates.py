"""Ways to larger pictures beside a nested network: a transformer, coefficients of blocks, an upscaler.

They are extensions as docs/extend.md has them; larger_images.py and cascade.py compare them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.codecs import CODECS
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser, enlarged, means
from alphabar.methods.base import Choices
from alphabar.methods.diffusion import Diffusion
from alphabar.methods.registry import METHODS
from alphabar.networks import NETWORKS, Network
from alphabar.networks.layers import Attention, ConditionEmbedding, Conditions, SelfAttention, Sinusoid, zero
from alphabar.networks.unet import UNet
from alphabar.runtime import Runtime


class Block(nn.Module):
    """Self-attention, then layers of each position alone, modulated by the noise level (Peebles and Xie)."""

    def __init__(self, width: int, head_dim: int, embedding_dim: int):
        super().__init__()
        self.attention = SelfAttention(width, head_dim)
        self.norm = nn.GroupNorm(1, width)
        self.modulation = nn.Linear(embedding_dim, 2 * width)
        self.wide = nn.Conv2d(width, 4 * width, 1)
        self.narrow = zero(nn.Conv2d(4 * width, width, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (n, width, h, w) -> the same shape."""
        x = self.attention(x)
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        return x + self.narrow(F.gelu(self.wide(h)))


class Transformer(Network):
    """A transformer whose positions are patches of pixels.

    side: of the pictures; positions have embeddings that are learned.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        side: int = 128,
        patch: int = 8,
        width: int = 128,
        layers: int = 4,
        head_dim: int = 64,
    ):
        super().__init__()
        self.channels, self.patch, self.reduction = channels, patch, patch
        self.sinusoid = Sinusoid(width)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_cond = ConditionEmbedding(conditions, width, std=0.02) if conditions else None
        self.stem = nn.Conv2d(channels * patch**2, width, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, side // patch, side // patch))
        self.layers = nn.ModuleList([Block(width, head_dim, width) for _ in range(layers)])
        self.norm = nn.GroupNorm(1, width)
        self.output = zero(nn.Conv2d(width, channels * patch**2, 1))

    def middle_attention(self) -> Attention:
        """That of the layer in the middle."""
        return self.layers[len(self.layers) // 2].attention  # type: ignore[return-value, union-attr]

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F (n, channels, h, w), as `Network` has it."""
        embedding = self.embed(self.sinusoid(1000 * c_noise).to(x.dtype))
        condition_embedding = self.embed_condition(self.embed_cond, cond, x.shape[0])
        if condition_embedding is not None:
            embedding = embedding + condition_embedding.to(x.dtype)
        embedding = F.silu(embedding)
        h = self.stem(F.pixel_unshuffle(x, self.patch)) + self.positions
        for layer in self.layers:
            h = layer(h, embedding)
        return F.pixel_shuffle(self.output(self.norm(h)), self.patch)


class BlockCosines(ImageCodec):
    """Pictures as the cosine coefficients of blocks of pixels, a channel each, all about equally strong.

    block: side of the blocks. A coefficient whose frequencies are u and v is divided by its standard
    deviation in photographs, for blocks of 4×4 pixels of Stanford Cars 2.09 / (1 + 3.6 (u + v)^1.3) within a
    fifth for all but the highest, and halved.
    """

    name = "block_cosines"
    bounds = None  # type: ignore[assignment]
    tolerance = 1.0

    def __init__(self, size: int | tuple[int, int], channels: int = 3, *, block: int = 4):
        super().__init__(size, channels)
        self.block = block
        self.picture = self.shape
        _, height, width = self.shape
        self.shape = (channels * block**2, height // block, width // block)
        n = torch.arange(block, dtype=torch.float64)
        cosines = math.sqrt(2 / block) * torch.cos(math.pi * (2 * n + 1) * n[:, None] / (2 * block))
        cosines[0] /= math.sqrt(2)
        frequency = n[:, None] + n
        scale = 2 * (2.09 / (1 + 3.6 * frequency**1.3)).flatten()
        self.matrix = (torch.kron(cosines, cosines) / scale[:, None]).float()
        self.inverse = (torch.kron(cosines, cosines).mT * scale).float()

    def encode(self, items: Tensor) -> Tensor:
        """Pictures (n, h, w, c) uint8 -> coefficients (n, c·block², h/block, w/block)."""
        blocks = F.pixel_unshuffle(super().encode(items), self.block).unflatten(1, (-1, self.block**2))
        return torch.einsum("fp,ncphw->ncfhw", self.matrix, blocks).flatten(1, 2)

    def decode(self, signals: Tensor) -> Tensor:
        """The nearest pictures, uint8."""
        blocks = signals.float().unflatten(1, (-1, self.block**2))
        pixels = torch.einsum("pf,ncfhw->ncphw", self.inverse, blocks).flatten(1, 2)
        return super().decode(F.pixel_shuffle(pixels, self.block))


class Beside(nn.Module):
    """A first layer that sees a second picture beside the noisy one: ``low`` (n, c, h, w), zero if unset."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.patch, self.low = patch, torch.empty(0)
        self.layer = nn.Conv2d(2 * channels * patch**2, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Patches of the noisy picture (n, c·patch², h, w) -> features (n, width, h, w)."""
        low = F.pixel_unshuffle(self.low.to(h), self.patch) if len(self.low) else torch.zeros_like(h)
        return self.layer(torch.cat([h, low], 1))


class Upscaler(UNet):
    """A U-Net that is given a smaller picture, enlarged; the second model of a cascade (Ho et al. 2022)."""

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[int, ...] = (32, 64, 128),
        patch: int = 4,
    ):
        super().__init__(conditions, channels=channels, widths=widths, patch=patch, attention=1)
        self.stem: nn.Module = Beside(channels, widths[0], patch)


class Upscaling(Diffusion):
    """The denoising loss of an `Upscaler`, whose smaller pictures have some noise (section 4.1).

    noise: its standard deviation, at most; each picture has another.
    """

    name = "upscaling"

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Choices, runtime: Runtime, noise: float = 0.2):
        super().__init__(denoiser=denoiser, recipe=recipe, runtime=runtime)
        self.noise = noise

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        low = means(x0, 2)
        low = low + self.noise * torch.rand(len(low), 1, 1, 1) * torch.randn_like(low)
        self.denoiser.network.stem.low = enlarged(low, 2)
        return super().losses(x0, t, eps, cond)


NETWORKS.register("transformer", Transformer)
NETWORKS.register("upscaler", Upscaler)
CODECS.register("block_cosines", BlockCosines)
METHODS.register("upscaling", Upscaling)
