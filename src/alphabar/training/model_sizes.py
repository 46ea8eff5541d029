"""TODO-DOC from training.plan"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alphabar.codecs import build_codec
from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network, flops
from alphabar.recipes.schema import Recipe

# Weights, gradients, Adam's two moments and the average, in float32.
BYTES_A_PARAMETER = 20


WORTH_BLOCKS = 64  # px; of smaller pictures blocks of pixels lose too much (docs/results/ladder.md)


MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # of 64 channels at the lowest resolution


@dataclass(frozen=True)
class Size:
    """One setting of the dial: a network for pictures of some size, and what it costs."""

    network: Mapping[str, Any]  # resolved settings, of widths and blocks among others
    parameters: int
    flops: int  # one forward pass for one picture
    activations: int  # bytes kept for the backward pass of one picture, in float32

    @property
    def shape(self) -> str:
        """Widths and blocks, as one writes them."""
        blocks = self.network["blocks"]
        return "-".join(map(str, self.network["widths"])) + (f" ×{blocks}" if blocks > 1 else "")


def sizes(recipe: Recipe) -> list[Size]:
    """The recipe's network in all sizes, smallest first: multiples of 64 channels at about 8x8.

    Each resolution above has half the width, and so costs the same. Small pictures are not cut into blocks of
    pixels. Raises UsageError for a network that has no widths and blocks to choose, and for pictures that its
    blocks of pixels do not fit.
    """
    codec, network = build_codec(recipe.data), recipe.network
    side = min(codec.spatial)
    if not {"widths", "blocks"} <= set(network):
        raise UsageError(
            f"network = {network['name']!r} has no widths and blocks that a budget could choose:"
            " give its recipe, and --images"
        )
    if "patch" in network and side < WORTH_BLOCKS:
        network = {**network, "patch": 1}
    with torch.device("meta"):
        patch = NETWORKS.build(network, channels=codec.channels).reduction >> (len(network["widths"]) - 1)
    if any(size % patch for size in codec.spatial):
        raise UsageError(f"data.size = {recipe.data.size}: choose a multiple of {patch}")
    levels = max(1, round(math.log2(side / patch / 8)) + 1)
    while any(size % (patch * 2 ** (levels - 1)) for size in codec.spatial):
        levels -= 1
    found = []
    for multiple in MULTIPLES:
        width = 64 * multiple
        widths = tuple(width >> i for i in reversed(range(levels)))
        if widths[0] < 8:
            continue
        sized = {**network, "widths": widths, "blocks": 1 if width <= 512 else 2}
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            built = NETWORKS.build(sized, channels=codec.channels)
        parameters = sum(p.numel() for p in built.parameters())
        found.append(Size(sized, parameters, flops(built, codec.spatial), activations(built, codec.spatial)))
    return found


def _nearest(values: Sequence[float], wanted: float) -> int:
    """The place of the value that is nearest by ratio."""
    return min(range(len(values)), key=lambda i: abs(math.log(values[i] / wanted)))


def activations(network: Network, spatial: Sequence[int]) -> int:
    """Bytes kept for the backward pass of one picture, by a network of meta tensors: nothing is computed."""
    kept: dict[int, torch.UntypedStorage] = {}

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

    # Weights, as they are and normalised, are kept once whatever the batch.
    return total(2) - total(1)
