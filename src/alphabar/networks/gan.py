"""TODO-DOC from networks.latent"""

from torch import Tensor

from alphabar.errors import UsageError
from alphabar.networks.base import Network
from alphabar.networks.encoder_decoder import HALVINGS, Decoder, latents
from alphabar.networks.layers import Conditions


class Generator(Network):
    """G(z): the noise's latents, made a picture. What is left of R3GAN's (Huang et al. 2024) at this size:
    residual blocks without normalisation, bilinear resampling.

    conditions: must be empty: it takes none.
    channels: of the picture. width: at its full size, doubling with each halving. blocks: a resolution.
    latent: numbers of z.
    """

    reduction = 2**HALVINGS

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        width: int = 16,
        blocks: int = 1,
        latent: int = 128,
    ):
        super().__init__()
        if conditions:
            raise UsageError("a GAN or a VAE takes no condition: only diffusion recipes do, for example lean")
        for what, value in (("width", width), ("blocks", blocks), ("latent", latent)):
            if value < 1:
                raise UsageError(f"{what} = {value}: choose at least 1")
        if latent > channels * 4**HALVINGS:
            raise UsageError(f"latent = {latent}: choose at most {channels * 4**HALVINGS}")
        self.channels, self.latent = channels, latent
        self.decoder = Decoder(channels, width, blocks, latent)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """A picture (n, channels, h, w) of the noise x of that shape; c_noise has no say."""
        self.embed_condition(None, cond, len(x))
        return self.decoder(latents(x, self.latent), x.shape[2:])
