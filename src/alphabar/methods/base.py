"""TODO-DOC from training.methods"""

from typing import TYPE_CHECKING

import torch

from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import flops
from alphabar.runtime import Runtime

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


def network_flops(recipe: "Recipe") -> int:
    with torch.device("meta"):
        network = NETWORKS.build(recipe.network, channels=3)
    return flops(network, recipe.data.size)


def require_single_process(name: str, runtime: Runtime) -> None:
    if runtime.world_size > 1:
        raise UsageError(f"method {name!r} trains on one process, not on {runtime.world_size}")
