"""The sizes in which the budget planner offers a network, and what each costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec
from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network, flops
from alphabar.networks.resample import Level, recompute_blocks
from alphabar.recipes.schema import Recipe

BYTES_PER_PARAMETER = 20  # weight, gradient, Adam's two moments and the EMA, in float32
MEMORY_SHARE = 0.5  # of the free memory; the rest is working space of the convolutions
MIN_SIZE_FOR_PATCHES = (
    64  # px; on smaller images blocks of pixels cost too much quality (docs/results/ablations.md)
)
MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # of 64 channels at the lowest resolution


@dataclass(frozen=True)
class Size:
    """A network of one size, and what it costs.

    network: resolved settings, widths and blocks among them. flops: floating-point operations of one forward
    pass for one sample. activations: bytes kept for the backward pass of one sample, in float32; recomputed:
    where blocks are computed again in that pass.
    """

    network: Mapping[str, Any]
    parameters: int
    flops: int
    activations: int
    recomputed: int

    @property
    def shape(self) -> str:
        """Widths and blocks, for example "64-128-256 ×2"."""
        blocks = self.network.get("blocks", 1)
        return "-".join(map(str, self.network["widths"])) + (f" ×{blocks}" if blocks > 1 else "")

    def memory(self, at_once: float, recompute: bool = False) -> int:
        """Bytes that training on so many samples at once takes, without working space."""
        kept = self.recomputed if recompute else self.activations
        return BYTES_PER_PARAMETER * self.parameters + round(kept * at_once)


def sizes(recipe: Recipe) -> list[Size]:
    """The recipe's network in all sizes, smallest first: multiples of 64 channels at about 8×8.

    Each resolution above has half the width, and so costs the same. Small images are not divided into blocks
    of pixels. Raises UsageError for a network without widths and blocks to choose, and for a size of the
    samples that is no multiple of the blocks of pixels.
    """
    codec, network = build_codec(recipe.data), recipe.network
    side = min(codec.spatial)
    if not {"widths", "blocks"} <= set(network):
        raise UsageError("training.no_sizes", network=network["name"])
    if "patch" in network and side < MIN_SIZE_FOR_PATCHES:
        network = {**network, "patch": 1}
    with torch.device("meta"):
        patch = NETWORKS.build(network, channels=codec.channels).reduction >> (len(network["widths"]) - 1)
    if any(size % patch for size in codec.spatial):
        raise UsageError("training.size_of_blocks", size=recipe.data.size, multiple=patch)
    levels = max(1, round(math.log2(side / patch / 8)) + 1)
    while any(size % (patch * 2 ** (levels - 1)) for size in codec.spatial):
        levels -= 1
    found = []
    for multiple in MULTIPLES:
        width = 64 * multiple
        widths = tuple(width >> i for i in reversed(range(levels)))
        if widths[0] < 8:
            continue
        found.append(_size({**network, "widths": widths, "blocks": 1 if width <= 512 else 2}, codec))
    return found


def size_of(recipe: Recipe) -> Size:
    """The recipe's network as it is."""
    return _size(recipe.network, build_codec(recipe.data))


def parameters_of(recipe: Recipe) -> int:
    """The number of parameters of the recipe's network; nothing is computed."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = NETWORKS.build(recipe.network, channels=build_codec(recipe.data).channels)
    return sum(p.numel() for p in built.parameters())


def _size(network: Mapping[str, Any], codec: Codec) -> Size:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = NETWORKS.build(network, channels=codec.channels)
    parameters = sum(p.numel() for p in built.parameters())
    cost, kept = flops(built, codec.spatial), activations(built, codec.spatial)
    recompute_blocks(built)
    return Size(network, parameters, cost, kept, activations(built, codec.spatial))


def nearest(values: Sequence[float], wanted: float) -> int:
    """The index of the value that is nearest by ratio."""
    return min(range(len(values)), key=lambda i: abs(math.log(values[i] / wanted)))


def activations(network: Network, spatial: Sequence[int]) -> int:
    """Bytes that a network of meta tensors keeps for the backward pass of one sample; nothing is computed."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep_inputs(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        keep(inputs[0])  # of a block that is computed again: autograd does not say that it keeps them

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no later one takes its address
        return tensor

    def total(n: int) -> int:
        kept.clear()
        x = torch.empty(n, network.channels, *spatial, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(x, torch.empty(n, device="meta"))
        return sum(storage.nbytes() for storage in kept.values())

    levels = [module for module in network.modules() if isinstance(module, Level) and module.recompute]
    hooks = [b.register_forward_pre_hook(keep_inputs) for level in levels for b in level.blocks]
    try:
        # Weights, raw and normalised, are kept once whatever the batch.
        return total(2) - total(1)
    finally:
        for hook in hooks:
            hook.remove()
