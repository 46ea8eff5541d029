"""The variational autoencoder: the bound that it maximises."""

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.methods.base import Choices, Method, encoder_flops, network_flops, require_single_process
from alphabar.networks.vae import VariationalAutoencoder
from alphabar.runtime import Runtime


class Vae(Method):
    """The negative evidence lower bound (Kingma & Welling 2014, eq. 3)."""

    name = "vae"
    one_step = True
    networks = ("vae",)

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Choices, runtime: Runtime):
        require_single_process(Vae, runtime)
        assert isinstance(denoiser.network, VariationalAutoencoder)
        self.autoencoder = denoiser.network

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        return self.autoencoder.negative_elbo(x0, eps)

    @classmethod
    def training_flops(cls, recipe: Choices) -> float:
        return 3.0 * (network_flops(recipe) + encoder_flops(recipe))
