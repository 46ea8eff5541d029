"""The optimizer and the learning rate that a recipe describes."""

import torch

from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime
from alphabar.training.muon import Muon


def make_optimizer(
    recipe: Recipe, parameters: list[torch.nn.Parameter], runtime: Runtime
) -> torch.optim.Optimizer:
    """The recipe's optimizer of these parameters. runtime: says whether a fused implementation works."""
    o = recipe.optimizer
    if o.name == "muon":
        return Muon(parameters, o.learning_rate, o.betas, o.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
    return kind(
        parameters,
        lr=o.learning_rate,
        betas=o.betas,
        weight_decay=o.weight_decay,
        fused=runtime.fused,
    )


def learning_rate_at(recipe: Recipe, images: int, share: float) -> float:
    """The learning rate after ``images`` images and a share of the training, in [0, 1]."""
    o = recipe.optimizer
    warm = min(1.0, (images + recipe.batch) / o.warm_up) if o.warm_up else 1.0
    fall = 1.0 if share <= o.decay_from else max(0.0, (1 - share) / (1 - o.decay_from))
    return o.learning_rate * warm * fall
