"""Methods: what a training minimises, and what its result can do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from alphabar.codecs import build_codec
from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import flops
from alphabar.runtime import Runtime

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


class Method(ABC):
    """What a training minimises. The attributes of the class say what the trained model can do.

    denoises: its network is a denoiser at every noise level, so that it can be guided, edit and restore.
    samples: it generates samples. one_step: in one evaluation of the network.
    fixed_sampling: only with its recipe's own sampler, timesteps and number of steps.
    classifies: it predicts labels of noisy samples. needs_condition: it cannot be trained without labels.
    networks: the names of the networks made for it; empty for those of denoisers.
    """

    denoises: ClassVar[bool] = False
    samples: ClassVar[bool] = True
    one_step: ClassVar[bool] = False
    fixed_sampling: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    needs_condition: ClassVar[bool] = False
    networks: ClassVar[tuple[str, ...]] = ()

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        """Whatever has to happen before an update of the network.

        images: seen so far; share: of the training that is done, in [0, 1].
        """

    @abstractmethod
    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        """The losses (n,) of the signals x0 (n, ...) at times t (n,) with noise eps (n, ...)."""

    def files(self) -> dict[str, bytes]:
        """What a checkpoint must hold beside the network and its optimizer."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Put back what `files` took."""

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        """Training FLOPs for one sample: the backward pass takes twice a forward pass."""
        return 3.0 * network_flops(recipe)


def network_flops(recipe: "Recipe") -> int:
    codec = build_codec(recipe.data)
    with torch.device("meta"):
        network = NETWORKS.build(recipe.network, channels=codec.channels)
    return flops(network, codec.spatial)


def require_single_process(name: str, runtime: Runtime) -> None:
    if runtime.world_size > 1:
        raise UsageError(f"method {name!r} trains on one process, not on {runtime.world_size}")
