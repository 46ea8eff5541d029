"""Small models of every kind that an export must reproduce, with random weights."""

from pathlib import Path

import torch

from alphabar.codecs import build_codec
from alphabar.codecs.image import ImageCodec
from alphabar.conditioning.fields import Categorical, Numeric
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.initial_noise import DataStatistics, fit_gaussian
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import Model, build_denoiser

LABELS = Vocabulary((Categorical("body", ("coupe", "large van")), Numeric("year", 2000.0, 5.0)))
FREQUENCIES = ({"body": "coupe", "year": "1999"}, {"body": "large van"}, {})
SMALL = ["data.size=16", "network.widths=[8,16]", "network.head_dim=8"]
CONDITIONED = [
    "condition.on=attributes",
    "sampling.steps=4",
    "sampling.initial_noise=gaussian",
    'sampling.guidance=[{"name":"pag","scale":3,"interval":[0.2,2.5]}]',
]


def made(name: str, *settings: str, path: Path | None = None, early: bool = False) -> Model:
    """A model of a recipe with random weights, conditioned on `LABELS` where the settings say so."""
    recipe = with_settings(named_recipe(name), settings)
    labels = LABELS if recipe.condition.on else None
    denoisers = [build_denoiser(recipe, labels) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for denoiser in denoisers:
        denoiser.eval().requires_grad_(False)
        for weights in denoiser.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=generator)
    codec = build_codec(recipe.data)
    assert isinstance(codec, ImageCodec)
    signals = torch.rand(40, *codec.shape, generator=generator) - 0.7
    # As a file holds them: a product with a transposed matrix rounds differently.
    statistics = DataStatistics(*(each.contiguous() for each in fit_gaussian([signals], codec)))
    return Model(
        denoisers[0],
        recipe,
        statistics,
        96,
        path or Path(name),
        labels,
        FREQUENCIES if labels else (),
        denoisers[1] if early else None,
    )


def conditioned(**more) -> Model:
    """A model with what the shipped one has: conditions, PAG and Gaussian initial noise."""
    return made("lean", *SMALL, *CONDITIONED, **more)


def uniform_widths() -> Model:
    """One whose network a UNet2DModel of diffusers computes too."""
    wide = ["data.size=16", "network.widths=[128,128]", "network.head_dim=64", "network.patch=2"]
    return made("lean", *wide, *CONDITIONED)
