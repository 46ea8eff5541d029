"""A residual U-Net with self-attention: DDPM (Ho et al. 2020, B), ADM (Dhariwal and Nichol 2021, 3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.base import (
    MOST_RESOLUTIONS,
    Extent,
    HeadDim,
    Network,
    check_blocks,
    check_dropout,
    check_positive,
)
from alphabar.networks.layers import (
    Attention,
    ConditionEmbedding,
    Conditions,
    SelfAttention,
    Sinusoid,
    group_norm,
    zero,
)
from alphabar.networks.resample import Down, Up, Upsample


class ResidualBlock(nn.Module):
    """x + conv(silu((1 + scale) norm(h) + shift)), h = conv(silu(norm(x))), scale and shift of the embedding.

    The last convolution starts at zero, so the block starts as the identity (or as its 1x1 projection).
    With ``head_dim`` there is self-attention behind it.
    """

    def __init__(
        self, in_width: int, out_width: int, embedding_dim: int, dropout: float, head_dim: int | None = None
    ):
        super().__init__()
        self.norm1 = group_norm(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.modulation = nn.Linear(embedding_dim, 2 * out_width)
        self.norm2 = group_norm(out_width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(out_width, out_width, 3, padding=1))
        self.skip = nn.Identity() if in_width == out_width else nn.Conv2d(in_width, out_width, 1)
        self.attention = SelfAttention(out_width, head_dim) if head_dim else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (n, in_width, h, w), embedding (n, embedding_dim) → features (n, out_width, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        return self.attention(h)


def check_resolutions(widths: tuple[int, ...], attention: int) -> None:
    """Raises UsageError for impossible widths or too many, and for attention at more resolutions than there
    are.

    The first width is also that of the sinusoids, which come in pairs.
    """
    if not widths or min(widths) < 1:
        raise UsageError("networks.widths", widths=list(widths), least=1)
    if len(widths) > MOST_RESOLUTIONS:
        raise UsageError("networks.too_many_widths", n=len(widths), most=MOST_RESOLUTIONS)
    if widths[0] < 4 or widths[0] % 2:
        raise UsageError("networks.first_width", widths=list(widths))
    if not 0 <= attention <= len(widths):
        raise UsageError("networks.attention", attention=attention, most=len(widths))


class UNet(Network):
    """DDPM's U-Net with ADM's residual blocks; by default a small one: 7.5 M parameters, 4.2 GFLOP for an
    image of 64x64.

    Unlike theirs it has as many blocks going up as going down, each pair joined by one skip connection.

    conditions: the fields of its condition; none for an unconditional network.
    channels: of the signal.
    widths: channels at each resolution, highest first; each one after it halves the sides.
    blocks: residual blocks at each resolution, each way.
    patch: side of the patches of pixels that the image is cut into first, a position each.
    attention: at how many of the lowest resolutions there is self-attention.
    head_dim: channels of an attention head.
    dropout: in the residual blocks, in training.
    """

    enlarged = "nested_unet"

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[Extent, ...] = (48, 96, 192, 192),
        blocks: int = 1,
        patch: Extent = 1,
        attention: int = 2,
        head_dim: HeadDim = 64,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_resolutions(widths, attention)
        check_blocks(blocks)
        check_positive(patch=patch)
        check_dropout(dropout)
        self.channels = channels
        self.patch = patch
        self.reduction = patch * 2 ** (len(widths) - 1)
        self.embedding_dim = embedding_dim = 4 * widths[0]

        self.sinusoid = Sinusoid(widths[0])
        self.embed = nn.Sequential(
            nn.Linear(widths[0], embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        # Small, for it is added to the embedding of the noise level, which must not drown in it.
        self.embed_cond = ConditionEmbedding(conditions, embedding_dim, std=0.02) if conditions else None

        def block(in_width: int, out_width: int, attends: bool) -> ResidualBlock:
            return ResidualBlock(in_width, out_width, embedding_dim, dropout, head_dim if attends else None)

        pixels = channels * patch**2
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        downs, ups = [], []
        above = widths[0]
        for level, w in enumerate(widths):
            attends = level >= len(widths) - attention
            shrink: nn.Module = nn.Identity()
            grow: nn.Module = nn.Identity()
            if level:
                shrink = nn.Conv2d(above, above, 3, stride=2, padding=1)
                grow = nn.Sequential(Upsample(), nn.Conv2d(w, above, 3, padding=1))
            downs.append(Down(shrink, [block(w if i else above, w, attends) for i in range(blocks)]))
            ups.append(Up([block(2 * w, w, attends) for _ in range(blocks)], grow))
            above = w
        self.downs = nn.ModuleList(downs)
        self.middle = nn.ModuleList([block(w, w, attends), block(w, w, False)])
        self.ups = nn.ModuleList(reversed(ups))
        self.norm = group_norm(widths[0])
        self.output = zero(nn.Conv2d(widths[0], pixels, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F of shape (n, channels, h, w) for x of that shape, c_noise (n,) and cond (n, columns).

        NaN in cond is unknown; None is unknown throughout. Raises UsageError for a condition of another
        size, and for any where the network was made without.
        """
        return self.prediction(self.features(x, self.embedding(x, c_noise, cond)))

    def embedding(self, x: Tensor, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        """The embedding (n, embedding_dim) of noise level and condition, as `forward` takes them."""
        # DDPM embeds steps 1 ... 1000; times in [0, 1] would all look alike to the sinusoids.
        embedding = self.embed(self.sinusoid(1000 * c_noise).to(x.dtype))
        condition_embedding = self.embed_condition(self.embed_cond, cond, x.shape[0])
        if condition_embedding is not None:
            embedding = embedding + condition_embedding.to(x.dtype)
        return F.silu(embedding)

    def features(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The features (n, widths[0], h/patch, w/patch) of x (n, channels, h, w) that `prediction` takes."""
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips: list[Tensor] = []
        for down in self.downs:
            h = down(h, embedding, skips)
        for block in self.middle:
            h = block(h, embedding)
        for up in self.ups:
            h = up(h, embedding, skips)
        return F.silu(self.norm(h))

    def prediction(self, features: Tensor) -> Tensor:
        """F (n, channels, h, w) of `features`."""
        return F.pixel_shuffle(self.output(features), self.patch)

    def middle_attention(self) -> Attention | None:
        """The self-attention of the first block in the middle, where there is one."""
        attention = self.middle[0].attention
        return attention if isinstance(attention, Attention) else None
