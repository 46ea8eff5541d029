"""A variational autoencoder: a baseline that samples in one evaluation."""

import math

import torch
from torch import Tensor, nn

from alphabar.networks.base import Extent
from alphabar.networks.encoder_decoder import Encoder, latents
from alphabar.networks.gan import Generator
from alphabar.networks.layers import Conditions


class VariationalAutoencoder(Generator):
    """A variational autoencoder (Kingma & Welling 2014) with a learned standard deviation of the pixels
    (Rybkin et al. 2021, sigma-VAE), which makes the weight of the KL term that of the likelihood.

    Settings as of `Generator`. As a network it is its decoder.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        width: Extent = 16,
        blocks: int = 1,
        latent: Extent = 128,
    ):
        super().__init__(conditions, channels=channels, width=width, blocks=blocks, latent=latent)
        self.encoder = Encoder(channels, width, blocks, 2 * latent)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def negative_elbo(self, x0: Tensor, eps: Tensor) -> Tensor:
        """-log p(x0 | z) + KL(q(z | x0) || N(0, 1)) for each x0, (n,), in nats per number of x0.

        eps: standard normal noise like x0, whose latents sample z (reparameterization).
        """
        mean, log_std = self.encoder(x0).chunk(2, dim=1)
        z = mean + log_std.exp() * latents(eps, self.latent)
        error = (self.decoder(z, x0.shape[2:]) - x0).square().flatten(1).mean(1)
        surprise = 0.5 * error * (-2 * self.log_sigma).exp() + self.log_sigma + 0.5 * math.log(2 * math.pi)
        return surprise + kl_to_standard_normal(mean, log_std) / x0[0].numel()


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std²) || N(0, 1)) summed over all but the first dimension, (n,), in nats."""
    return (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).flatten(1).sum(1)
