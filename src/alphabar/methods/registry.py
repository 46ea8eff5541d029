"""The methods by name, and which networks belong to which."""

from typing import cast

from alphabar.errors import UsageError
from alphabar.methods.autoencoder import Autoencoding
from alphabar.methods.base import Choices, Method
from alphabar.methods.classifier import NoisyClassifier
from alphabar.methods.diffusion import Diffusion
from alphabar.methods.distillation import Distillation
from alphabar.methods.gan import Gan
from alphabar.methods.vae import Vae
from alphabar.networks import NETWORKS
from alphabar.registry import Registry

METHODS = Registry(
    "method",
    {method.name: method for method in (Diffusion, Distillation, NoisyClassifier, Gan, Vae, Autoencoding)},
)


def method_of(recipe: Choices) -> type[Method]:
    """The method of a recipe."""
    return cast(type[Method], METHODS[recipe.method["name"]])


def check_method(recipe: Choices) -> None:
    """Raises UsageError where method, network and augmentation do not belong together."""
    method, network = method_of(recipe), recipe.network["name"]
    special = {name for other in METHODS.values() for name in cast(type[Method], other).networks}
    fitting = method.networks or tuple(name for name in NETWORKS if name not in special)
    if network not in fitting:
        raise UsageError(
            "methods.other_network", network=network, method=method.name, fitting=", ".join(fitting)
        )
    if recipe.data.augment and not method.trains_denoiser:
        raise UsageError("methods.no_augmentation", method=method.name)
