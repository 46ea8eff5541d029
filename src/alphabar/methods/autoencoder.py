"""TODO-DOC from training.methods"""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.methods.base import network_flops, require_single_process
from alphabar.methods.diffusion import Diffusion
from alphabar.methods.gan import critic_flops
from alphabar.networks.autoencoder import Autoencoder
from alphabar.runtime import Runtime

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


class Vae(Diffusion):
    """The negative evidence lower bound (Kingma & Welling 2014, eq. 3)."""

    denoises = False
    one_step = True
    networks = ("autoencoder",)

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        require_single_process("vae", runtime)
        assert isinstance(denoiser.network, Autoencoder)
        self.autoencoder = denoiser.network

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        return self.autoencoder.negative_elbo(x0, eps)

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        return 3.0 * (network_flops(recipe) + critic_flops(recipe))
