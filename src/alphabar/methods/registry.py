"""What a training minimises: diffusion, what makes it quick or guides it, and its opponents, a GAN and a VAE.

The loop, its records and what it survives are the same for all. A method says what the loss of a batch is,
what else it updates, and what of itself a checkpoint must hold.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from alphabar.errors import UsageError
from alphabar.methods.autoencoder import Vae
from alphabar.methods.base import Method
from alphabar.methods.classifier import NoisyClassifier
from alphabar.methods.diffusion import Diffusion
from alphabar.methods.distillation import Distillation
from alphabar.methods.gan import Gan
from alphabar.networks import NETWORKS
from alphabar.registry import Registry

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe

METHODS = Registry(
    "method",
    {
        "diffusion": Diffusion,
        "distillation": Distillation,
        "classifier": NoisyClassifier,
        "gan": Gan,
        "vae": Vae,
    },
)


def method_of(recipe: "Recipe") -> type[Method]:
    """The method of a recipe."""
    return METHODS[recipe.method["name"]]  # type: ignore[return-value]


def training_flops(recipe: "Recipe") -> float:
    """FLOPs of training, a picture."""
    return method_of(recipe).cost(recipe)


def is_diffusion(recipe: "Recipe") -> bool:
    """Whether a recipe trains a denoiser: a GAN or a VAE draws in one evaluation, a classifier not at all."""
    method = method_of(recipe)
    return method.samples and not method.one_step


def check_denoises(path: Path, recipe: "Recipe", task: str) -> None:
    """Raises UsageError where the model is no denoiser at every noise level. task: what it is wanted for."""
    name = recipe.method["name"]
    if name == "distillation":
        raise UsageError(
            f"{path} was shortened and knows few noise levels: {task} with the model that it was made from"
        )
    if name != "diffusion":
        raise UsageError(f"{path} is a {name}: only diffusion models {task}, for example one of recipe lean")


def check_method(recipe: "Recipe") -> None:
    """Raises UsageError where method and network do not belong together."""
    method, network = recipe.method["name"], recipe.network["name"]
    special = {name for each in METHODS.values() for name in each.networks}  # type: ignore[attr-defined]
    fitting = method_of(recipe).networks or [name for name in NETWORKS if name not in special]
    if network not in fitting:
        raise UsageError(f"network = {network!r}: for the method {method!r} choose {' or '.join(fitting)}")
    if recipe.data.augment and not method_of(recipe).denoises and not method_of(recipe).fixed_sampling:
        raise UsageError(f"data.augment is for diffusion, not for the method {method!r}: leave it at 0")
