"""A magnitude-preserving U-Net on patches of pixels: EDM2's layers (Karras et al. 2024, B.2) in a small
network.

Every layer keeps the magnitude sqrt(mean x²) of what it is given at one, in expectation, so there is no
group normalisation and no bias, and the scale of a weight means nothing. The network is spare: the image
is cut into 2x2 patches first, every level has one skip connection a block, and costs the same where the
widths double; attention is at the lowest resolution only.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.base import Extent, HeadDim, Network, check_blocks, check_dropout
from alphabar.networks.layers import Attention, ConditionEmbedding, Conditions
from alphabar.networks.resample import Down, Up

PATCH = 2


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """x with its magnitude along ``dim`` set to one (EDM2 eq. 30, pixel normalisation); zero stays zero."""
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + 1e-8)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596, which keeps the magnitude of standard normal x (EDM2 eq. 81)."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)² + t²), for uncorrelated a and b (EDM2 eq. 88)."""
    scale = math.hypot(1 - t, t)
    return (1 - t) / scale * a + t / scale * b


def leading(size: int, narrower: int, parts: int) -> Tensor:
    """Where the channels of a narrower layer stand in one of ``size``: at the beginning of each part."""
    starts = torch.arange(parts)[:, None] * (size // parts)
    return (starts + torch.arange(narrower // parts)).flatten()


class MPConv(nn.Module):
    """A convolution without bias whose filters w have length one, whatever is stored (EDM2 eq. 47 and 66).

    kernel 0 makes it a matrix: (n, in_width) → (n, out_width).
    parts: of how many equal parts, one behind the other, what comes out and what goes in is made.
    """

    def __init__(self, in_width: int, out_width: int, kernel: int, parts: tuple[int, int] = (1, 1)):
        super().__init__()
        self.padding = kernel // 2
        self.parts = parts
        shape = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(out_width, in_width, *shape))

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """(n, in_width, h, w) → (n, out_width, h, w), or without h and w for kernel 0; gain multiplies it."""
        w = self.weight
        length = torch.linalg.vector_norm(w, dim=tuple(range(1, w.ndim)), keepdim=True)
        w = w * (gain / (length + 1e-4))
        return F.linear(x, w) if w.ndim == 2 else F.conv2d(x, w, padding=self.padding)


class MPFourier(nn.Module):
    """sqrt(2) cos(2 pi (f·t + phi)) of a number t, (n,) → (n, dim) (EDM2 eq. 75).

    f ~ N(0, 1) and phi ~ U(0, 1) are sampled once and kept.
    """

    f: Tensor
    phi: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("f", torch.randn(dim))
        self.register_buffer("phi", torch.rand(dim))

    def forward(self, t: Tensor) -> Tensor:
        """(n,) → (n, dim)."""
        turns = t[:, None].to(torch.promote_types(t.dtype, self.f.dtype)) * self.f + self.phi
        return math.sqrt(2) * torch.cos(2 * math.pi * turns)


class MPAttention(Attention):
    """Residual self-attention over the positions; queries, keys and values have magnitude one (EDM2 B.2)."""

    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.heads = width // head_dim
        self.qkv = MPConv(width, 3 * width, 1, (3, 1))
        self.out = MPConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, h, w) → the same shape."""
        n, c, h, w = x.shape
        qkv = unit(self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w), dim=3)
        return mp_sum(x, self.out(self.attend(qkv, (h, w))), 0.3)


class Block(nn.Module):
    """mp_sum(x, h, 0.3), h = conv(silu(c · conv(silu(x)))), c = 1 + gain · linear(embedding).

    The gain starts at zero, so the noise level has no influence at first. With ``head_dim`` there is
    attention behind it.
    """

    def __init__(
        self, in_width: int, out_width: int, embedding_dim: int, dropout: float, head_dim: int | None
    ):
        super().__init__()
        parts = (1, max(1, in_width // out_width))  # two on the way up: with a skip connection beside it
        self.conv1 = MPConv(in_width, out_width, 3, parts)
        self.modulation = MPConv(embedding_dim, out_width, 0)
        self.gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.conv2 = MPConv(out_width, out_width, 3)
        self.skip = nn.Identity() if in_width == out_width else MPConv(in_width, out_width, 1, parts)
        self.attention = MPAttention(out_width, head_dim) if head_dim else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (n, in_width, h, w), embedding (n, embedding_dim) → features (n, out_width, h, w)."""
        c = 1 + self.modulation(embedding, self.gain)[:, :, None, None]
        h = mp_silu(self.conv1(mp_silu(x)) * c)
        return self.attention(mp_sum(self.skip(x), self.conv2(self.dropout(h)), 0.3))


class MPUNet(Network):
    """By default 6.7 M parameters and 1.5 GFLOP for an image of 64x64.

    conditions: the fields of its condition; none for an unconditional network.
    channels: of the signal.
    widths: channels at each level, the first at half the image's size; each one after it halves it again.
    blocks: residual blocks at each level, each way; there is one more in the middle.
    head_dim: channels of an attention head at the last level; its width is a multiple of it.
    dropout: in the residual blocks, in training.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[Extent, ...] = (64, 128, 256),
        blocks: int = 1,
        head_dim: HeadDim = 64,
        dropout: float = 0.0,
    ):
        super().__init__()
        if not widths or min(widths) < 1:
            raise UsageError("networks.widths", widths=list(widths), least=1)
        check_blocks(blocks)
        check_dropout(dropout)
        if head_dim < 1 or widths[-1] % head_dim:
            raise UsageError("networks.head_dim", head_dim=head_dim, width=widths[-1])
        self.channels = channels
        self.reduction = PATCH * 2 ** (len(widths) - 1)
        embedding_dim = widths[-1]
        self.fourier = MPFourier(widths[0])
        self.embed = MPConv(widths[0], embedding_dim, 0)
        self.embed_cond = ConditionEmbedding(conditions, embedding_dim) if conditions else None

        def level(i: int, in_width: int) -> list[Block]:
            heads = head_dim if i == len(widths) - 1 else None
            return [Block(in_width, widths[i], embedding_dim, dropout, heads) for _ in range(blocks)]

        pixels = channels * PATCH**2
        # One channel of ones does what biases would (EDM2 B.2).
        downs = [Down(MPConv(pixels + 1, widths[0], 3), level(0, widths[0]), unit)]
        ups = [Up(level(0, 2 * widths[0]), nn.Identity())]
        for i, (a, b) in enumerate(pairwise(widths), start=1):
            downs.append(Down(nn.Sequential(nn.PixelUnshuffle(2), MPConv(4 * a, b, 1)), level(i, b), unit))
            ups.append(Up(level(i, 2 * b), nn.Sequential(MPConv(b, 4 * a, 1), nn.PixelShuffle(2))))
        self.downs = nn.ModuleList(downs)
        self.middle = Block(widths[-1], widths[-1], embedding_dim, dropout, head_dim)
        self.ups = nn.ModuleList(reversed(ups))
        self.output = MPConv(widths[0], pixels, 3)
        self.output_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F of shape (n, channels, h, w) for x of that shape, c_noise (n,) and cond (n, columns).

        NaN in cond is unknown; None is unknown throughout. Raises UsageError for a condition of another
        size, and for any where the network was made without.
        """
        embedding = self.embed(self.fourier(c_noise).to(x.dtype))
        condition_embedding = self.embed_condition(self.embed_cond, cond, x.shape[0])
        if condition_embedding is not None:
            embedding = mp_sum(embedding, unit(condition_embedding.to(x.dtype), dim=1), 0.5)
        embedding = mp_silu(embedding)
        h = F.pixel_unshuffle(x, PATCH)
        h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        skips: list[Tensor] = []
        for down in self.downs:
            h = down(h, embedding, skips)
        h = self.middle(h, embedding)
        for up in self.ups:
            h = up(h, embedding, skips)
        return F.pixel_shuffle(self.output(h, self.output_gain), PATCH)

    def load_weight(self, name: str, own: Tensor, trained: Tensor) -> bool:
        """Weights of a narrower network fit too: this one contains it and computes nearly the same at first.

        Its channels have zero weights for the new ones. The new filters are random and as long as the trained
        ones, so that all change direction equally fast. (Channels cannot be doubled instead: a filter of
        length one cannot divide a weight between two equal inputs and keep both its length and its output.)
        """
        layer = self.get_submodule(name.rpartition(".")[0])
        fits = own.ndim == trained.ndim and all(a >= b for a, b in zip(own.shape, trained.shape))
        if not fits or (isinstance(layer, nn.Embedding) and len(own) != len(trained)):
            return False
        if own.ndim < 2:
            own[(slice(trained.numel()),) * own.ndim] = trained
            return True
        out_parts, in_parts = layer.parts if isinstance(layer, MPConv) else (1, 1)
        rows = leading(len(own), len(trained), out_parts)
        columns = leading(own.shape[1], trained.shape[1], in_parts)
        own *= (trained.square().mean() / own.square().mean()).sqrt()
        filters = torch.zeros_like(own[rows]) if isinstance(layer, MPConv | nn.Linear) else own[rows]
        filters[:, columns] = trained.to(own)
        own[rows] = filters
        return True

    def middle_attention(self) -> Attention:
        """The self-attention of the block in the middle."""
        attention = self.middle.attention
        assert isinstance(attention, Attention)
        return attention
