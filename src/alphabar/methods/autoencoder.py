"""The autoencoder of latent diffusion: what its reconstructions are compared with."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.methods.base import Choices, Method, require_single_process
from alphabar.networks.autoencoder import Autoencoder
from alphabar.runtime import Runtime


class Autoencoding(Method):
    """The mean absolute error of reconstructed pictures, and of those from smaller latents.

    noise: standard deviation of the noise on the standardised latents from which the decoder learns; no finer
        detail of the latents than that carries anything, and a diffusion model may leave that much undone.
    scales: sizes at which pictures are compared: the full one, half of it, and so on. More than one cost a
        decibel and brought nothing (docs/results/larger_images.md).
    equivariance: weight of the error of a picture of half the size that is decoded from latents of half the
        size, mirrored in every other sample (Kouzelis et al. 2025); 0 leaves it out. It makes the latents
        smooth, and mirrored latents those of mirrored pictures.
    """

    name = "autoencoder"
    samples = False
    reconstructs = True
    networks = ("autoencoder",)

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Choices,
        runtime: Runtime,
        noise: Annotated[float, Field(ge=0, le=100)] = 0.08,
        scales: Annotated[int, Field(ge=1, le=16)] = 1,
        equivariance: Annotated[float, Field(ge=0, le=1000)] = 0.25,
    ):
        require_single_process(Autoencoding, runtime)
        assert isinstance(denoiser.network, Autoencoder)
        self.autoencoder = denoiser.network
        self.noise, self.scales, self.equivariance = noise, scales, equivariance

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        z = self.autoencoder.encode(x0)
        z = z + self.noise * eps.flatten(1)[:, : z[0].numel()].reshape(z.shape)
        total = self.error(self.autoencoder.decode(z), x0)
        if self.equivariance:
            total = total + self.equivariance * self.error_of_smaller(z, x0)
        return total

    def error_of_smaller(self, z: Tensor, x0: Tensor) -> Tensor:
        """The error (n,) of what latents of half the size, every other mirrored, are decoded to."""
        x = self.autoencoder.decode(_every_other_mirrored(F.avg_pool2d(z, 2)))
        # Of an odd number of positions the last is left out, and with it its pixels.
        whole = x0[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]
        return self.error(x, _every_other_mirrored(F.avg_pool2d(whole, 2)))

    def error(self, x: Tensor, x0: Tensor) -> Tensor:
        """The mean absolute error (n,) of pictures x against x0 (n, ...), summed over the scales."""
        total = torch.zeros(len(x0), device=x0.device)
        for scale in range(self.scales):
            if scale and min(x.shape[2:]) > 1:
                x, x0 = F.avg_pool2d(x, 2), F.avg_pool2d(x0, 2)
            total = total + (x - x0).abs().flatten(1).mean(1)
        return total


def _every_other_mirrored(x: Tensor) -> Tensor:
    mirrored = torch.arange(len(x), device=x.device) % 2 == 1
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)
