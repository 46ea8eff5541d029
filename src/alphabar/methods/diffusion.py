"""TODO-DOC from training.methods"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alphabar.data.augment import random_transformation
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.loss import loss
from alphabar.diffusion.noise_distributions import WEIGHTS
from alphabar.methods.base import network_flops
from alphabar.runtime import Runtime

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


class Diffusion:
    """The denoising loss, as the recipe's parameterization, density and weight have it."""

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        self.denoiser = denoiser
        self.weight = WEIGHTS.build(recipe.weight)
        self.augment = recipe.data.augment

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        """Whatever has to happen before an update of the network.

        images: seen so far; share: of the training that is done.
        """

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        """What the network is to make small, a picture (n,)."""
        if self.augment:
            done = random_transformation(len(x0), self.augment)
            x0, told = done.apply(x0), done.told().to(x0)
            cond = told if cond is None else torch.cat([cond, told], 1)
        return loss(self.denoiser, x0, t, eps, cond=cond, weight=self.weight)

    def files(self) -> dict[str, bytes]:
        """What a checkpoint must hold beside the network and its optimizer."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Put back what `files` took."""

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        """FLOPs of training, a picture: the backward pass takes two forward ones."""
        return 3.0 * network_flops(recipe)
