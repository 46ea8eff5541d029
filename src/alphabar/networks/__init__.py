"""Architectures, one in each file: x (n, c, h, w), c_noise (n,) → F of x's shape, but for the classifier's.

``NETWORKS`` names them.
"""

from alphabar.networks.autoencoder import Autoencoder
from alphabar.networks.base import Network, flops
from alphabar.networks.classifier import Classifier
from alphabar.networks.gan import Generator
from alphabar.networks.mp_unet import MPUNet
from alphabar.networks.nested_unet import NestedUNet
from alphabar.networks.tutorial_unet import TutorialUNet
from alphabar.networks.unet import UNet
from alphabar.networks.vae import VariationalAutoencoder
from alphabar.registry import Registry

__all__ = [
    "NETWORKS",
    "Autoencoder",
    "Classifier",
    "Generator",
    "MPUNet",
    "NestedUNet",
    "Network",
    "TutorialUNet",
    "UNet",
    "VariationalAutoencoder",
    "flops",
]

NETWORKS = Registry(
    "network",
    {
        "tutorial_unet": TutorialUNet,
        "unet": UNet,
        "nested_unet": NestedUNet,
        "mp_unet": MPUNet,
        "generator": Generator,
        "vae": VariationalAutoencoder,
        "autoencoder": Autoencoder,
        "classifier": Classifier,
    },
)
