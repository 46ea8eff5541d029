"""The denoising loss, which trains a diffusion model."""

import torch
from torch import Tensor

from alphabar.data.augment import random_transformation
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.loss import loss
from alphabar.diffusion.noise_distributions import WEIGHTS
from alphabar.methods.base import Choices, Method
from alphabar.runtime import Runtime


class Diffusion(Method):
    """The denoising loss with the recipe's parameterization, noise distribution and weight."""

    name = "diffusion"
    denoises = True
    trains_denoiser = True

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Choices, runtime: Runtime):
        self.denoiser = denoiser
        self.weight = WEIGHTS.build(recipe.weight)
        self.augment = recipe.data.augment

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        if self.augment:
            transformation = random_transformation(len(x0), self.augment)
            x0, columns = transformation.apply(x0), transformation.condition().to(x0)
            cond = columns if cond is None else torch.cat([cond, columns], 1)
        return loss(self.denoiser, x0, t, eps, cond=cond, weight=self.weight)
