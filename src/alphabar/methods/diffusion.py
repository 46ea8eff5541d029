"""The denoising loss, which trains a diffusion model."""

import torch
from torch import Tensor

from alphabar.data.augment import random_transformation
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser, detail
from alphabar.diffusion.loss import loss
from alphabar.diffusion.noise_distributions import WEIGHTS
from alphabar.errors import UsageError
from alphabar.methods.base import Choices, Method
from alphabar.runtime import Runtime


class Diffusion(Method):
    """The denoising loss with the recipe's parameterization, noise distribution and weight.

    coarse_first: share of the training, from its beginning, in which pictures and noise are without detail:
        the network learns first what it could learn from pictures of a fraction of the side. Without an
        effect where the recipe's ``coarse`` is 1. Raises UsageError for a share outside [0, 1].
    """

    name = "diffusion"
    denoises = True
    trains_denoiser = True

    def __init__(
        self, *, denoiser: NetworkDenoiser, recipe: Choices, runtime: Runtime, coarse_first: float = 0.0
    ):
        if not 0 <= coarse_first <= 1:
            raise UsageError("methods.coarse_first", share=coarse_first)
        self.denoiser, self.coarse_first, self.is_coarse = denoiser, coarse_first, False
        self.weight = WEIGHTS.build(recipe.weight)
        self.augment = recipe.data.augment

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        """Before an update, looks whether it is one of those without detail."""
        self.is_coarse = self.denoiser.coarse > 1 and share < self.coarse_first

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        if self.augment:
            transformation = random_transformation(len(x0), self.augment)
            x0, columns = transformation.apply(x0), transformation.condition().to(x0)
            cond = columns if cond is None else torch.cat([cond, columns], 1)
        if self.is_coarse:
            x0, eps = (signal - detail(signal, self.denoiser.coarse) for signal in (x0, eps))
        return loss(self.denoiser, x0, t, eps, cond=cond, weight=self.weight, coarse_only=self.is_coarse)
