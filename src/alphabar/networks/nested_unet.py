"""A U-Net of the coarse picture, and a small network of the detail (Gu et al. 2023, "Matryoshka")."""

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.diffusion.denoiser import means
from alphabar.networks.base import Extent, HeadDim, Network, check_blocks, check_positive
from alphabar.networks.layers import Attention, ConditionEmbedding, Conditions, group_norm, zero
from alphabar.networks.resample import Level, repeated
from alphabar.networks.unet import ResidualBlock, UNet

LARGEST_PATCH = 4  # pixels of a side that a position of the detail's network has
EVERY = 4  # in training the detail of one sample in so many is computed


class DetailNetwork(Level):
    """Residual blocks that see patches of noisy pixels and the features of a U-Net, which has seen the rest.

    patch: of pixels, a position each. given: channels of those features.
    """

    def __init__(self, channels: int, patch: int, given: int, width: int, blocks: int, embedding_dim: int):
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(channels * patch**2 + given, width, 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(width, width, embedding_dim, 0.0) for _ in range(blocks)])
        self.norm = group_norm(width)
        self.output = zero(nn.Conv2d(width, channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, features: Tensor, embedding: Tensor) -> Tensor:
        """Pixels x (n, c, h, w), features (n, given, h/patch, w/patch), embedding (n, dim) → like x."""
        h = self.stem(torch.cat([F.pixel_unshuffle(x, self.patch), features.to(x.dtype)], 1))
        for block in self.blocks:
            h = self.apply_block(block, h, embedding)
        return F.pixel_shuffle(self.output(F.silu(self.norm(h))), self.patch)


class NestedUNet(Network):
    """A U-Net of the coarse picture, and a small network of the detail, for a denoiser with ``coarse``.

    The U-Net is given the means over squares of times × times pixels, and does what it would with pictures of
    that size. The other network sees its last features and the noisy pixels, and predicts what the means
    leave out. In training it passes no gradient on, so the U-Net learns as if it were alone. Detail is
    learned from far fewer samples than shapes are, so it is computed there for one in four, and zero for the
    others.

    conditions, channels, widths, blocks, patch, attention, head_dim, dropout: of the `UNet`.
    times: pixels to a side of a square. detail_width, detail_blocks: channels and residual blocks of the
    network of the detail. only_detail: whether the U-Net stays as it is, one that was trained before.
    """

    nested = "nested_unet"

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[Extent, ...] = (64, 128, 256),
        blocks: int = 1,
        patch: Extent = 2,
        attention: int = 1,
        head_dim: HeadDim = 64,
        dropout: float = 0.0,
        times: Extent = 2,
        detail_width: Extent = 64,
        detail_blocks: int = 2,
        only_detail: bool = False,
    ):
        super().__init__()
        check_positive(times=times, detail_width=detail_width)
        check_blocks(detail_blocks)
        self.coarse = UNet(
            conditions,
            channels=channels,
            widths=widths,
            blocks=blocks,
            patch=patch,
            attention=attention,
            head_dim=head_dim,
            dropout=dropout,
        )
        self.coarse.requires_grad_(not only_detail)
        self.channels, self.times, self.only_detail = channels, times, only_detail
        self.reduction = times * self.coarse.reduction
        pixels = times * patch  # to a side of a position of the U-Net's features
        own = max(divisor for divisor in range(1, LARGEST_PATCH + 1) if pixels % divisor == 0)
        self.repeats = pixels // own
        self.detail = DetailNetwork(
            channels, own, widths[0], detail_width, detail_blocks, self.coarse.embedding_dim
        )

    def train(self, mode: bool = True) -> Self:
        """As of any module; a U-Net that stays as it is has no dropout."""
        super().train(mode)
        if self.only_detail:
            self.coarse.eval()
        return self

    @property
    def embed_cond(self) -> ConditionEmbedding | None:
        """The embedding of conditions."""
        return self.coarse.embed_cond

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F (n, channels, h, w), as `UNet` has it: its means over squares are that of the U-Net."""
        coarse = means(x, self.times)
        embedding = self.coarse.embedding(coarse, c_noise, cond)
        features = self.coarse.features(coarse, embedding)
        F_coarse = self.coarse.prediction(features)
        every = EVERY if self.training and not self.only_detail else 1
        if self.training:
            features, embedding = features.detach(), embedding.detach()
        detail = self.detail(x[::every], repeated(features[::every], self.repeats), embedding[::every])
        detail = detail - repeated(means(detail, self.times), self.times)
        if every > 1:
            others = detail.new_zeros(len(detail), every - 1, *detail.shape[1:])
            detail = torch.cat([detail[:, None], others], 1).flatten(0, 1)[: len(x)]
        return repeated(F_coarse, self.times) + detail

    @torch.no_grad()
    def load_compatible(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the random weights by those of a trained network of this class, or of a `UNet`.

        The detail is learned from the beginning where there was none, or none of this form. Otherwise as
        `Network.load_compatible`.
        """
        inside = {n.removeprefix("coarse."): w for n, w in weights.items() if n.startswith("coarse.")}
        self.coarse.load_compatible(inside or weights)
        own = {f"detail.{name}": weight for name, weight in self.detail.state_dict().items()}
        if all(name in weights and weights[name].shape == weight.shape for name, weight in own.items()):
            for name, weight in own.items():
                weight.copy_(weights[name])

    def middle_attention(self) -> Attention | None:
        """That of the U-Net."""
        return self.coarse.middle_attention()
