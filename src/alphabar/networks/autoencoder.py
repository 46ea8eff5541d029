"""A convolutional autoencoder: pictures as small latents and back, for latent diffusion."""

from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.base import MOST_RESOLUTIONS, Extent, Network, check_blocks, check_positive
from alphabar.networks.encoder_decoder import Residual
from alphabar.networks.layers import Conditions
from alphabar.networks.resample import Upsample


class Autoencoder(Network):
    """An encoder to latents of fewer positions, and a decoder back (Rombach et al. 2022, 3.1).

    Both are made of residual blocks without normalisation. The latents have neither a prior nor a learned
    variance: in training each channel is standardised over the batch, and what the decoder learns from has
    fixed noise on it (`alphabar.methods.autoencoder`).

    conditions: must be empty: it takes none.
    channels: of the pictures. latent: channels of the latents.
    widths: channels at each resolution, highest first; each one after it halves the sides.
    blocks: residual blocks of the encoder at each resolution; the decoder has one more.
    patch: side of the patches of pixels that the picture is cut into first, a position each.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        latent: Extent = 4,
        widths: tuple[Extent, ...] = (32, 96),
        blocks: int = 1,
        patch: Extent = 2,
    ):
        super().__init__()
        if conditions:
            raise UsageError("networks.latent_takes_no_condition")
        check_blocks(blocks)
        check_positive(patch=patch, latent=latent)
        if not widths or min(widths) < 1:
            raise UsageError("networks.widths", widths=list(widths), least=1)
        if len(widths) > MOST_RESOLUTIONS:
            raise UsageError("networks.too_many_widths", n=len(widths), most=MOST_RESOLUTIONS)
        self.channels, self.latent, self.patch = channels, latent, patch
        self.reduction = patch * 2 ** (len(widths) - 1)
        if latent > channels * self.reduction**2:
            raise UsageError("networks.latent", latent=latent, most=channels * self.reduction**2)
        pixels = channels * patch**2
        down: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(pixels, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                down.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            down += [Residual(width, width) for _ in range(blocks)]
        up: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 3, padding=1)]
        for level, width in reversed(list(enumerate(widths))):
            up += [Residual(width, width) for _ in range(blocks + 1)]
            if level:
                up += [Upsample(), nn.Conv2d(width, widths[level - 1], 3, padding=1)]
        last = nn.Conv2d(widths[-1], latent, 3, padding=1, bias=False)  # means are taken away
        self.encoder = nn.Sequential(*down, nn.LeakyReLU(0.2), last)
        self.decoder = nn.Sequential(
            *up, nn.LeakyReLU(0.2), nn.Conv2d(widths[0], pixels, 3, padding=1), nn.PixelShuffle(patch)
        )
        self.standardise = nn.BatchNorm2d(latent, affine=False, momentum=0.01)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, h, w) in [-1, 1] → latents (n, latent, h / reduction, w / reduction).

        Each channel has mean 0 and variance 1: over the batch in training, over past batches otherwise.
        """
        return self.standardise(self.encoder(x).float())

    def decode(self, z: Tensor) -> Tensor:
        """Latents (n, latent, h, w) of any size → pictures (n, channels, reduction·h, reduction·w)."""
        return self.decoder(z)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """The pictures x as they come back from their latents; c_noise is ignored."""
        self.embed_condition(None, cond, len(x))
        return self.decode(self.encode(x)).to(x.dtype)
