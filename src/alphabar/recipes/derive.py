"""Recipes that start from a trained model: finetuning and distillation."""

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from alphabar.codecs import build_codec
from alphabar.codecs.base import LearnedCodec
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.methods.registry import method_of
from alphabar.recipes.overrides import changed, nested, with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe, make_recipe

# Noise levels sigma/alpha between which few steps are shared. Above the first a Gaussian with the mean and
# the covariance of the data is as good as the data; below the second only the finest detail is missing. They
# are those of the parameterization, of the coarse picture where there is one.
SIGMA_FIRST, SIGMA_LAST = 15.0, 0.1
TEACHER_STEPS = 12  # of the teacher in all, at least
LARGEST_BATCH = 32


def finetuned(recipe: Recipe, model: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe that continues a trained model on other data or in a wider network.

    recipe, model: of the trained model, and its name. settings: changes to the result, as of `with_settings`.
    It is the same recipe but for its name, for the condition, which the new data decides, and for large
    batches (`_in_small_batches`). For pictures of a multiple of the size it is `nested`.
    Raises UsageError for a model that is no denoiser, for settings that its autoencoder does not have, and as
    `with_settings` does.
    """
    if not method_of(recipe).denoises:
        raise UsageError("recipes.cannot_finetune", model=model, method=recipe.method["name"])
    values = _in_small_batches(recipe)
    values |= {
        "name": f"{recipe.name}, finetuned from {model}",
        "condition": values["condition"] | {"on": None},
    }
    settings, base = [*settings], make_recipe(values)
    with suppress(UsageError):  # for a size that the network takes only with other settings
        sized = with_settings(base, [each for each in settings if each.strip().startswith("data")])
        if (times := _times_larger(recipe, sized)) > 1:
            base = nested(sized, times, settings)
    made = with_settings(base, settings)
    _check_latents(recipe, made, model)
    return made


def _times_larger(before: Recipe, after: Recipe) -> int:
    """How many times as large the sides of signals are, where that is a whole number; else 1."""
    pairs = zip(build_codec(before.data).spatial, build_codec(after.data).spatial, strict=True)
    ratios = {divmod(new, old) for old, new in pairs}
    (times, rest), *others = ratios
    return times if not rest and not others else 1


def distilled(recipe: Recipe, steps: int = 4, settings: Iterable[str] = ()) -> Recipe:
    """The recipe that distills a model to sample in a few steps of one evaluation each, without guidance.

    steps: of the result, at least 1. settings: changes to the result, as of `with_settings`.
    The steps are even in log SNR and begin in noise with the mean and the covariance of the data; the teacher
    takes twelve or more in all, with the guidance of its recipe (`Distillation`).
    Raises UsageError for a model that is no denoiser, for settings that its autoencoder does not have, for
    steps below 1, and as `with_settings` does.
    """
    if not method_of(recipe).denoises:
        raise UsageError("recipes.cannot_distill", method=recipe.method["name"])
    if steps < 1:
        raise UsageError("recipes.too_few_steps", steps=steps)
    values, own = _in_small_batches(recipe), recipe.sampling
    schedule = SCHEDULES.build(recipe.schedule)
    sigma = (-schedule(TIMESTEPS.build(own.timesteps)(schedule, own.steps)[:-1]).log_snr / 2).exp()
    first, final = min(sigma[0].item(), recipe.coarse * SIGMA_FIRST), sigma[-1].item()
    last = first * (recipe.coarse * SIGMA_LAST / first) ** ((steps - 1) / steps)
    values["optimizer"] |= {
        "learning_rate": values["optimizer"]["learning_rate"] / 2,
        "warm_up": 1_000,
        "decay_from": 0.5,
    }
    values |= {
        "name": f"{recipe.name}, distilled",
        "method": {
            "name": "distillation",
            "teacher_steps": math.ceil(TEACHER_STEPS / steps),
            "sigma_min": final,
            "guidance": values["sampling"]["guidance"],
        },
        "sampling": {
            "sampler": "ddim",
            "timesteps": {"name": "log_snr", "sigma_min": min(last, first / 2), "sigma_max": first},
            "steps": steps,
            "initial_noise": "gaussian",
        },
        "images": 20_000,
    }
    made = with_settings(make_recipe(values), settings)
    _check_latents(recipe, made, recipe.name)
    return made


def _check_latents(before: Recipe, after: Recipe, model: str) -> None:
    """Raises UsageError where a model of latents is continued with what its autoencoder does not have."""
    if not isinstance(build_codec(before.data), LearnedCodec):
        return
    for key, (theirs, own) in changed(before, after).items():
        if key.startswith(("data.channels", "data.codec")) and theirs is not None:
            raise UsageError("recipes.kept_autoencoder", model=model, key=key, theirs=theirs, own=own)


def first_stage(recipe: Recipe) -> Recipe:
    """The recipe of the autoencoder that a recipe of latent diffusion needs, for the same pictures.

    It is measured as often, and with as many samples.
    """
    values = named_recipe("autoencoder").model_dump(mode="json")
    data = recipe.data.model_dump(mode="json")
    values |= {
        "name": f"autoencoder of {recipe.name}",
        "data": data | {"codec": {"name": "image"}, "augment": 0.0},  # which is for diffusion models
        "network": data["codec"] | {"name": values["network"]["name"]},
        "monitor": values["monitor"] | recipe.monitor.model_dump(include={"share", "distance"}),
        "seed": recipe.seed,
    }
    return make_recipe(values)


def with_autoencoder(
    recipe: Recipe, autoencoder: Recipe, path: Path, settings: Iterable[str] = (), *, open_size: bool = False
) -> Recipe:
    """A recipe of latent diffusion with the latents of an autoencoder, which lies at ``path``.

    settings: "key=value", which the recipe has taken on. open_size: whether the autoencoder decides the size
    of the pictures. It decides their channels where the recipe has none.
    Raises UsageError for a recipe without latents, a model that is no autoencoder, one that was trained with
    pictures of another size or number of channels, and settings of data.codec that it does not have.
    """
    if not method_of(autoencoder).reconstructs:
        raise UsageError("recipes.no_autoencoder", path=path, method=autoencoder.method["name"])
    if not isinstance(build_codec(recipe.data), LearnedCodec):
        raise UsageError("recipes.no_latents", path=path, codec=recipe.data.codec["name"])
    theirs = build_codec(autoencoder.data).item_shape
    values = recipe.model_dump(mode="json")
    data = values["data"]
    data["channels"] = data["channels"] or theirs[2]
    if open_size:
        data["size"] = autoencoder.data.size
    own = ImageCodec(data["size"], data["channels"]).item_shape
    if theirs != own:
        raise UsageError("recipes.other_autoencoder", path=path, theirs=_size(theirs), own=_size(own))
    data["codec"] = autoencoder.network | {"name": recipe.data.codec["name"]}
    made = make_recipe(values)
    named = [setting for setting in settings if setting.strip().startswith("data.codec.")]
    for key, (has, wished) in changed(made, with_settings(made, named)).items():
        raise UsageError("recipes.other_latents", path=path, key=key, theirs=has, own=wished)
    return made


def _size(item_shape: tuple[int, ...]) -> str:
    height, width, channels = item_shape
    return f"{width}×{height}×{channels}"


def _in_small_batches(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values with batches of 32 at most; the learning rate falls by the root of the factor.

    A model that was trained on a GPU may be finetuned where an update with its batch would take a minute. For
    the root see Malladi et al. 2022. All of the network is learned, whatever was learned before.
    """
    values = recipe.model_dump(mode="json")
    if "only_detail" in values["network"]:
        values["network"]["only_detail"] = False
    batch = min(recipe.batch, LARGEST_BATCH)
    values |= {"batch": batch, "accumulate": 1 if batch < recipe.batch else recipe.accumulate}
    values["optimizer"]["learning_rate"] *= (batch / recipe.batch) ** 0.5
    return values
