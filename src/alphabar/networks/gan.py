"""The generator of a generative adversarial network; its critic is ``encoder_decoder.Encoder``."""

from torch import Tensor

from alphabar.errors import UsageError
from alphabar.networks.base import Extent, Network, check_blocks, check_positive
from alphabar.networks.encoder_decoder import HALVINGS, Decoder, latents
from alphabar.networks.layers import Conditions


class Generator(Network):
    """G(z): an image from the latents of pure noise. What is left of R3GAN's (Huang et al. 2024) at this
    size: residual blocks without normalisation, bilinear resampling.

    conditions: must be empty: it takes none.
    channels: of the image. width: channels at its full size, which double with each halving. blocks: residual
        blocks at each resolution. latent: numbers of z.
    """

    reduction = 2**HALVINGS

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        width: Extent = 16,
        blocks: int = 1,
        latent: Extent = 128,
    ):
        super().__init__()
        if conditions:
            raise UsageError("networks.latent_takes_no_condition")
        check_blocks(blocks)
        check_positive(width=width, latent=latent)
        if latent > channels * 4**HALVINGS:
            raise UsageError("networks.latent", latent=latent, most=channels * 4**HALVINGS)
        self.channels, self.latent = channels, latent
        self.decoder = Decoder(channels, width, blocks, latent)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """An image (n, channels, h, w) from noise x of that shape; c_noise is ignored."""
        self.embed_condition(None, cond, len(x))
        return self.decoder(latents(x, self.latent), x.shape[2:])
