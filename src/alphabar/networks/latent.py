"""Networks that draw a picture in one evaluation: a GAN's generator and a VAE, and what they are made of.

They stand where a denoiser's network stands, and get pure noise in place of a noisy picture. A latent z is
the first numbers of that noise: standard normal, and the whole picture's, wherever in it they stand.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.layers import Conditions
from alphabar.networks.network import Network

HALVINGS = 3
PLACES = 4  # a side, that a latent is spread over or drawn from


def latents(noise: Tensor, size: int) -> Tensor:
    """The latents (n, size) that ``noise`` (n, c, h, w) holds."""
    return noise.flatten(1)[:, :size]


class Residual(nn.Module):
    """x + conv(f(conv(f(x)))), f a leaky ReLU; no normalisation, the second convolution begins at zero
    (Zhang et al. 2019, Fixup; as in R3GAN)."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.skip = nn.Identity() if in_width == out_width else nn.Conv2d(in_width, out_width, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.leaky_relu(x, 0.2))
        return self.skip(x) + self.conv2(F.leaky_relu(h, 0.2))


class Encoder(nn.Module):
    """A picture (n, channels, h, w) → (n, out), by way of features at an eighth of its size.

    Widths double as the picture halves.
    """

    def __init__(self, channels: int, width: int, blocks: int, out: int):
        super().__init__()
        widths = [width << i for i in range(HALVINGS + 1)]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(Residual(here if i == 0 else then, then) for i in range(blocks)),
            )
            for here, then in zip([width, *widths[:-1]], widths, strict=True)
        )
        self.last = nn.Linear(widths[-1] * PLACES**2, out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for i, level in enumerate(self.levels):
            h = level(F.avg_pool2d(h, 2) if i else h)
        return self.last(F.adaptive_avg_pool2d(F.leaky_relu(h, 0.2), PLACES).flatten(1))


class Decoder(nn.Module):
    """Latents (n, latent) → a picture (n, channels, h, w): the way back."""

    def __init__(self, channels: int, width: int, blocks: int, latent: int):
        super().__init__()
        widths = [width << i for i in reversed(range(HALVINGS + 1))]
        self.first = nn.Linear(latent, widths[0] * PLACES**2)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(Residual(here if i == 0 else then, then) for i in range(blocks)),
            )
            for here, then in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """size: of the picture, (h, w)."""
        small = [side >> HALVINGS for side in size]
        h = self.first(z).unflatten(1, (-1, PLACES, PLACES))
        h = F.interpolate(h, small, mode="bilinear")
        for i, level in enumerate(self.levels):
            h = level(F.interpolate(h, scale_factor=2.0, mode="bilinear") if i else h)
        return self.last(F.leaky_relu(h, 0.2))


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


class Autoencoder(Generator):
    """A variational autoencoder (Kingma & Welling 2014) with a learned standard deviation of the pixels
    (Rybkin et al. 2021, sigma-VAE), which makes the weight of the KL term that of the likelihood.

    Settings as of `Generator`. As a network it is its decoder.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        width: int = 16,
        blocks: int = 1,
        latent: int = 128,
    ):
        super().__init__(conditions, channels=channels, width=width, blocks=blocks, latent=latent)
        self.encoder = Encoder(channels, width, blocks, 2 * latent)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def negative_elbo(self, x0: Tensor, eps: Tensor) -> Tensor:
        """-log p(x0 | z) + KL(q(z | x0) || N(0, 1)) a picture, (n,), in nats a number of x0.

        eps: standard normal noise like x0, whose latents draw z.
        """
        mean, log_std = self.encoder(x0).chunk(2, dim=1)
        z = mean + log_std.exp() * latents(eps, self.latent)
        error = (self.decoder(z, x0.shape[2:]) - x0).square().flatten(1).mean(1)
        surprise = 0.5 * error * (-2 * self.log_sigma).exp() + self.log_sigma + 0.5 * math.log(2 * math.pi)
        return surprise + kl_to_standard_normal(mean, log_std) / x0[0].numel()


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std²) || N(0, 1)) summed over all but the first dimension, (n,), in nats."""
    return (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).flatten(1).sum(1)
