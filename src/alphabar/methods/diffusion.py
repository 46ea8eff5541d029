"""The denoising loss."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alphabar.data.augment import random_transformation
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.loss import loss
from alphabar.diffusion.noise_distributions import WEIGHTS
from alphabar.methods.base import Method
from alphabar.runtime import Runtime

if TYPE_CHECKING:
    pass


class Diffusion(Method):
    """The denoising loss with the recipe's parameterization, noise distribution and weight."""

    denoises = True

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        self.denoiser = denoiser
        self.weight = WEIGHTS.build(recipe.weight)
        self.augment = recipe.data.augment

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        """What the network is to make small, a picture (n,)."""
        if self.augment:
            done = random_transformation(len(x0), self.augment)
            x0, told = done.apply(x0), done.condition().to(x0)
            cond = told if cond is None else torch.cat([cond, told], 1)
        return loss(self.denoiser, x0, t, eps, cond=cond, weight=self.weight)
