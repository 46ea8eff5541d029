"""What would the budget planner choose on hardware that was not available?

    python benchmarks/hardware.py

Prints section 3 of docs/results/hardware.md: for some GPUs and image sizes the model that `alphabar plan`
would choose. This is arithmetic; only the rate at which pictures are prepared is measured. A training picture
costs the longer of two times: its FLOPs at a share of the peak of the tensor cores, and its activations
through the memory.
"""

import time
from typing import NamedTuple

import torch

import alphabar
from alphabar.codecs import build_codec
from alphabar.networks import NETWORKS
from alphabar.recipes.overrides import enlarged
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.training.batches import MAX_THREADS, TrainingBatches
from alphabar.training.budget import BATCHES, MANY_EPOCHS, PASSES, Machine, Plan, plan
from alphabar.training.model_sizes import sizes
from common import argument_parser, load_dataset, print_command, print_section, print_table

UPDATE_START = (
    0.01  # seconds that an update takes whatever its batch, with CUDA graphs: about that of an H200
)
# How often what is kept for the backward pass goes through the memory: written and read in the forward
# pass, read in the backward pass, and its gradient written and read.
MEMORY_PASSES = 5
HALF_PRECISION = 2 / 4  # bytes of bfloat16 or float16 over those of float32
NETWORK_BANDWIDTH = 50e9  # bytes a second between the GPUs of different hosts: 400 Gbit/s for each
SIZE = 64  # px, that `lean` is for
PICTURES = 8_144  # the training pictures of Stanford Cars


class Card(NamedTuple):
    """The makers' figures: dense FLOP/s in half precision, bytes/s and bytes of memory.

    utilisation: the share of the peak that convolutions of some hundred channels reach in training.
    """

    name: str
    peak: float
    bandwidth: float
    memory: float
    utilisation: float
    number: int = 1


CARDS = (
    Card("T4", 65e12, 320e9, 15 * 2**30, 0.35),
    Card("L4", 121e12, 300e9, 22 * 2**30, 0.35),
    Card("H100", 989e12, 3.35e12, 79 * 2**30, 0.14),
    Card("64 × H100", 989e12, 3.35e12, 79 * 2**30, 0.14, 64),
)


def machine(card: Card, recipe: Recipe, loading: float) -> Machine:
    """The machine as the planner would have measured it.

    loading: pictures a second that one process prepares; every card has a process of its own.
    """
    speeds = []
    for size in sizes(recipe):
        computing = PASSES * size.flops / (card.utilisation * card.peak)
        moving = MEMORY_PASSES * HALF_PRECISION * size.activations / card.bandwidth
        rate = card.number / max(computing, moving)
        if card.number > 1:
            # A ring sends the gradients out and back, while the next ones are computed.
            rate = min(rate, BATCHES[1] * NETWORK_BANDWIDTH / (2 * 4 * size.parameters))
        speeds.append((float(size.flops), rate))
    return Machine(card.name, tuple(speeds), loading * card.number, int(card.memory), UPDATE_START)


def measure_loading(pictures: int) -> float:
    """Pictures of 64 px a second, mirrored and with their noise, that a thread prepares here."""
    recipe = alphabar.with_settings(alphabar.named_recipe("lean"), ["data.size=64"])
    dataset = load_dataset("toycars", build_codec(recipe.data))
    index, _ = dataset.split(recipe.data.held_out)
    batches = TrainingBatches(dataset, index, recipe, build_denoiser(recipe).schedule)
    batches.batch(range(8))
    began = time.perf_counter()
    batches.batch(range(pictures))
    return pictures / (time.perf_counter() - began)


def row(card: Card, size: int, planned: Plan) -> list[str]:
    """What the planner chooses for pictures of one size on a card."""
    best = planned.chosen
    with torch.device("meta"):
        network = NETWORKS.build(best.size.network, channels=3)
    parameters = sum(p.numel() for p in network.parameters())
    limit = " (limited by preparing pictures)" if best.rate == planned.machine.loading else ""
    return [
        card.name,
        f"{size}²",
        best.size.shape,
        f"{parameters / 1e6:.0f} M",
        f"{best.size.flops / 1e9:.1f}",
        f"{best.rate:,.0f}{limit}",
        f"{best.images / 1e6:.1f} M",
        f"{best.epochs:,.0f}",
        str(best.batch),
        f"{best.off:.2g}",
        f"{MANY_EPOCHS * PICTURES / best.rate / 60:,.0f} min",
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="of training")
    parser.add_argument("--measured", type=int, default=1024, help="pictures whose preparation is timed")
    args = parser.parse_args()
    recipe = alphabar.named_recipe("lean")
    print_section(
        "## 3. Estimates for hardware that was not available",
        f"What would `alphabar plan --budget {args.hours:g}h` choose for {PICTURES:,} pictures on other"
        " GPUs?",
        f"Nothing in this table ran on these cards. A picture costs the longer of two times: {PASSES} × its"
        f" FLOPs at {CARDS[0].utilisation:.0%} (T4, L4: assumed) or {CARDS[-1].utilisation:.0%} (H100:"
        f" measured on an H200) of the dense peak in half precision, and {MEMORY_PASSES} passes of its"
        " activations through the memory. Between hosts, float32 gradients travel at"
        f" {NETWORK_BANDWIDTH / 1e9:.0f} GB/s per card. How many pictures of 64 px a thread prepares per"
        " second is measured on the machine that wrote this page; larger ones are scaled by their pixels,"
        f' and every card has a process with {MAX_THREADS} threads. "To the rule" is the chosen size'
        " divided by the size that the planner's rule recommends. The last column is the time after which"
        f" every picture has been seen {MANY_EPOCHS} times; from there on more time or a larger machine needs"
        " more pictures.",
    )
    head = ["card", "size", "widths", "parameters", "GFLOP", "pictures/s", "pictures seen", "epochs", "batch"]
    loading = MAX_THREADS * measure_loading(args.measured)

    def planned(card: Card, size: int) -> Plan:
        sized = alphabar.with_settings(recipe, [f"data.size={size}"])
        if size > SIZE:  # as `train` does it
            sized = enlarged(sized, size // SIZE)
        there = machine(card, sized, loading * (SIZE / size) ** 2)
        return plan(there, sized, PICTURES, args.hours * 3600)

    rows = (row(card, size, planned(card, size)) for card in CARDS for size in (SIZE, 2 * SIZE, 4 * SIZE))
    print_table([*head, "to the rule", f"seen {MANY_EPOCHS} times after"], rows)
    print_command()


if __name__ == "__main__":
    main()
