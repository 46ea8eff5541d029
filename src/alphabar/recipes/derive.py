"""TODO-DOC from training.recipes"""

import math
from typing import Any

from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.recipes.schema import Recipe, make_recipe

# Noise levels sigma/alpha between which pictures form, to be shared among few steps: above, a Gaussian with
# the pictures' mean and covariance is as good as they are; below, only the finest detail is missing.
FORMLESS, DETAIL = 15.0, 0.1


def finetuned(recipe: Recipe, model: str) -> Recipe:
    """The recipe that goes on from a model of another, on other pictures or in a wider network.

    It is the same but for its name, for what is asked of the model, which the new pictures decide, and for
    large batches (`_in_small_batches`). Raises UsageError for one that is not of diffusion.
    """
    if recipe.method["name"] != "diffusion":
        raise UsageError(f"a model of method {recipe.method['name']!r} cannot go on: give one of diffusion")
    values = _in_small_batches(recipe)
    return make_recipe(
        values | {"name": f"{recipe.name} from {model}", "condition": values["condition"] | {"on": None}}
    )


def distilled(recipe: Recipe, steps: int = 4) -> Recipe:
    """The recipe that tunes a model of another to draw in a few steps of one evaluation each, unguided.

    The steps are even in log SNR and begin in noise with the pictures' mean and covariance; the teacher takes
    twelve or more in all, with the guidance that it draws with (`methods.Distillation`).
    Raises UsageError for one that is not of diffusion, and for steps below 1.
    """
    if recipe.method["name"] != "diffusion":
        raise UsageError(
            f"a model of method {recipe.method['name']!r} cannot be shortened: give one of diffusion"
        )
    if steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    values, own = _in_small_batches(recipe), recipe.sampling
    schedule = SCHEDULES.build(recipe.schedule)
    sigma = (-schedule(TIMESTEPS.build(own.timesteps)(schedule, own.steps)[:-1]).log_snr / 2).exp()
    first, final = min(sigma[0].item(), FORMLESS), sigma[-1].item()
    last = first * (DETAIL / first) ** ((steps - 1) / steps)
    values["optimizer"] |= {
        "learning_rate": values["optimizer"]["learning_rate"] / 2,
        "warm_up": 1_000,
        "decay_from": 0.5,
    }
    values |= {
        "name": f"{recipe.name}, shortened",
        "method": {
            "name": "distillation",
            "small": math.ceil(12 / steps),
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
    return make_recipe(values)


def _in_small_batches(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values, in batches of 32 at most, the rate less by the root (Malladi et al. 2022).

    A model that was trained on a GPU may go on where an update of its batch would take a minute.
    """
    values = recipe.model_dump(mode="json")
    batch = min(recipe.batch, 32)
    values |= {"batch": batch, "accumulate": 1 if batch < recipe.batch else recipe.accumulate}
    values["optimizer"]["learning_rate"] *= (batch / recipe.batch) ** 0.5
    return values
