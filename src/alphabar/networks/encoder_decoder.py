"""An image as one vector and back: the encoder and decoder that the GAN, its critic and the VAE are made of.

The generator and the VAE are used like a denoiser's network and get pure noise in place of a noisy image. The
latent z is the first numbers of that noise, which are standard normal.
"""

import torch.nn.functional as F
from torch import Tensor, nn

HALVINGS = 3  # of the image's sides, between its pixels and the smallest features
GRID = 4  # a side, of the features between which and the latent there is a matrix


def latents(noise: Tensor, size: int) -> Tensor:
    """The latents (n, size) that ``noise`` (n, c, h, w) holds."""
    return noise.flatten(1)[:, :size]


class Residual(nn.Module):
    """x + conv(f(conv(f(x)))), f a leaky ReLU; no normalisation, the second convolution starts at zero
    (Zhang et al. 2019, Fixup; as in R3GAN)."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.skip = nn.Identity() if in_width == out_width else nn.Conv2d(in_width, out_width, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, in_width, h, w) → (n, out_width, h, w)."""
        h = self.conv1(F.leaky_relu(x, 0.2))
        return self.skip(x) + self.conv2(F.leaky_relu(h, 0.2))


class Encoder(nn.Module):
    """An image (n, channels, h, w) → (n, out), by way of features at an eighth of its size.

    Widths double where the sides halve.
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
        self.last = nn.Linear(widths[-1] * GRID**2, out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → (n, out)."""
        h = self.first(x)
        for i, level in enumerate(self.levels):
            h = level(F.avg_pool2d(h, 2) if i else h)
        return self.last(F.adaptive_avg_pool2d(F.leaky_relu(h, 0.2), GRID).flatten(1))


class Decoder(nn.Module):
    """Latents (n, latent) → an image (n, channels, h, w): the encoder backwards."""

    def __init__(self, channels: int, width: int, blocks: int, latent: int):
        super().__init__()
        widths = [width << i for i in reversed(range(HALVINGS + 1))]
        self.first = nn.Linear(latent, widths[0] * GRID**2)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(Residual(here if i == 0 else then, then) for i in range(blocks)),
            )
            for here, then in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """size: of the image, (h, w)."""
        small = [side >> HALVINGS for side in size]
        h = self.first(z).unflatten(1, (-1, GRID, GRID))
        # Its methods are never compiled; see `Upsample` for what F.interpolate does where it is.
        h = F.interpolate(h, small, mode="bilinear")
        for i, level in enumerate(self.levels):
            h = level(F.interpolate(h, scale_factor=2.0, mode="bilinear") if i else h)
        return self.last(F.leaky_relu(h, 0.2))
