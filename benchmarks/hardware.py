"""What the budget dial would pick on machines that we do not have: arithmetic, nothing measured but the data.

    python benchmarks/machines.py

A training picture costs the longer of two times: its FLOPs at a share of the peak of the tensor cores, and
its activations through the memory. The dial itself is the one of `alphabar plan`.
"""

import time
from typing import NamedTuple

import torch

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import Dataset
from alphabar.networks import NETWORKS
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.training.batches import MAX_THREADS, TrainingBatches
from alphabar.training.budget import BATCHES, MANY_EPOCHS, PASSES, Machine, Plan, plan
from alphabar.training.model_sizes import sizes

START = 0.01  # seconds that an update takes whatever the batch, kernels recorded: about that on an H200
# How often what is kept for the backward pass crosses the memory: written and read going forward, read
# going backward, and its gradient written and read.
CROSSINGS = 5
BYTES = 2 / 4  # of bfloat16 or float16, to those of float32
NETWORK = 50e9  # bytes a second between cards of different hosts: 400 Gbit/s for each
PICTURES = 8_144  # the training pictures of Stanford Cars
HOURS = 2


class Card(NamedTuple):
    """The makers' figures: dense FLOP/s in half precision, bytes/s and bytes of memory.

    utilisation: of the peak, which convolutions of some hundred channels reach in training.
    """

    name: str
    peak: float
    bandwidth: float
    memory: float
    utilisation: float
    count: int = 1


CARDS = (
    Card("T4", 65e12, 320e9, 15 * 2**30, 0.35),
    Card("L4", 121e12, 300e9, 22 * 2**30, 0.35),
    Card("H100", 989e12, 3.35e12, 79 * 2**30, 0.14),
    Card("64 × H100", 989e12, 3.35e12, 79 * 2**30, 0.14, 64),
)


def machine(card: Card, recipe: Recipe, loading: float) -> Machine:
    """loading: pictures a second that one process makes ready; every card has its own process."""
    speeds = []
    for size in sizes(recipe):
        computing = PASSES * size.flops / (card.utilisation * card.peak)
        moving = CROSSINGS * BYTES * size.activations / card.bandwidth
        rate = card.count / max(computing, moving)
        if card.count > 1:
            # A ring sends the gradients out and back, while the next ones are computed.
            rate = min(rate, BATCHES[1] * NETWORK / (2 * 4 * size.parameters))
        speeds.append((float(size.flops), rate))
    return Machine(card.name, tuple(speeds), loading * card.count, int(card.memory), START)


def loading() -> float:
    """Pictures of 64 px a second, mirrored and with their noise, that a thread makes ready here."""
    recipe = alphabar.named_recipe("lean")
    *_, prepared = alphabar.prepare(alphabar.open_source("toycars"), ImageCodec(64))
    dataset: Dataset = prepared.result
    index, _ = dataset.split(recipe.data.held_out)
    feed = TrainingBatches(dataset, index, recipe, build_denoiser(recipe).schedule)
    feed.batch(range(8))
    began = time.perf_counter()
    feed.batch(range(1024))
    return 1024 / (time.perf_counter() - began)


def row(card: Card, picture: int, planned: Plan) -> str:
    best = planned.chosen
    with torch.device("meta"):
        network = NETWORKS.build(best.size.network, channels=3)
    parameters = sum(p.numel() for p in network.parameters())
    at_limit = " (pictures made ready)" if best.rate == planned.machine.loading else ""
    return (
        f"| {card.name} | {picture}² | {best.size.shape} | {parameters / 1e6:.0f} M"
        f" | {best.size.flops / 1e9:.1f} | {best.rate:,.0f}{at_limit} | {best.images / 1e6:.1f} M"
        f" | {best.epochs:,.0f} | {best.batch} | {best.off:.2g}"
        f" | {MANY_EPOCHS * PICTURES / best.rate / 60:,.0f} min |"
    )


def main() -> None:
    recipe = alphabar.named_recipe("lean")
    print(
        f"What `alphabar plan --budget {HOURS}h` would pick for {PICTURES:,} pictures. Nothing in this table"
        f" ran on these cards: a picture costs the longer of {PASSES} × its FLOPs at"
        f" {CARDS[0].utilisation:.0%} (T4, L4: assumed) or {CARDS[-1].utilisation:.0%} (H100: seen on an"
        f" H200) of the dense peak in half precision, and {CROSSINGS} crossings of the memory by its"
        " activations; between hosts,"
        f" gradients in float32 go at {NETWORK / 1e9:.0f} GB/s a card. How many pictures of 64 px a thread"
        " makes ready a second is measured, on the machine that wrote this page; larger ones go by their"
        f" pixels, and every card has its process of {MAX_THREADS} threads. *To the rule* is the size picked to"
        " the size that the rule wants; the last column says after how long every picture has been seen"
        f" {MANY_EPOCHS} times. From there on more time or a larger machine asks for more pictures: that is"
        " where it stops making sense.\n"
    )
    print(
        "| card | pictures | widths | parameters | GFLOP | pictures/s | seen | epochs | batch | to the rule"
        f" | {MANY_EPOCHS} times |"
    )
    print("|---" * 11 + "|")
    ready = MAX_THREADS * loading()
    for card in CARDS:
        for picture in (64, 128, 256):
            sized = with_settings(recipe, [f"data.size={picture}"])
            there = machine(card, sized, ready * (64 / picture) ** 2)
            print(row(card, picture, plan(there, sized, PICTURES, HOURS * 3600.0)))


if __name__ == "__main__":
    main()
