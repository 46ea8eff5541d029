"""How fast is training, and where does its time go?

    python benchmarks/training_throughput.py --minutes 5
    python benchmarks/training_throughput.py --recipe lean --set network.widths=[32,64,128] \\
        --minutes 2 --no-compile

Prints a section of docs/results/training_throughput.md: alphabar's trainer beside the bare update step,
`classic` also beside the plain loop that the project began with, and the convolutions of the network by
themselves. All take turns: in every round each trains for some seconds, then the convolutions are timed, so
that a machine that becomes slower or is shared slows all alike. Numbers are medians over the rounds, ratios
medians of the ratios of each round.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import alphabar
from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec
from alphabar.data.dataset import Dataset
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network, flops
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime
from alphabar.training.probe import bf16_refused, probe
from common import argument_parser, load_dataset, note, print_command, print_section, print_table

Updates = Generator[float, None, None]
"""An update of the weights for each ``next``; yields the share of the time spent waiting for data."""

PLAIN, TRAINER, BARE = "plain", "trainer", "bare"
TITLES = {
    PLAIN: "the plain loop (fp32, NCHW, eager, Adam)",
    TRAINER: "`{}` in alphabar",
    BARE: "the bare update step in the same runtime",
}
PROFILED_UPDATES = 4


# What takes turns


def plain_loop(dataset: Dataset, codec: Codec, recipe: Recipe) -> Updates:
    """The loop that the project began with: fp32, NCHW, eager, Adam, linear betas, eps, MSE.

    Its pictures are decoded beforehand, as alphabar's are.
    """
    steps = recipe.schedule["steps"]
    betas = torch.linspace(recipe.schedule["beta_min"], recipe.schedule["beta_max"], steps)
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    pictures = codec.encode(torch.from_numpy(dataset.items[:])).contiguous()
    loader = DataLoader(TensorDataset(pictures), batch_size=recipe.batch, shuffle=True, drop_last=True)
    model = NETWORKS.build(recipe.network, channels=codec.channels)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.optimizer.learning_rate)
    while True:
        for (x,) in loader:
            optimizer.zero_grad()
            t = torch.randint(0, steps, (recipe.batch,)).long()
            noise = torch.randn_like(x)
            alpha_bar = alphas_cumprod[t][:, None, None, None]
            x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
            F.mse_loss(model(x_t, (t + 1) / steps), noise).backward()
            optimizer.step()
            yield 0.0


def trainer(dataset: Dataset, recipe: Recipe, runtime: Runtime, folder: Path) -> Updates:
    """alphabar's trainer, with the training monitor and the checkpoints put off."""
    run = alphabar.begin(folder, recipe)
    for record in alphabar.train(
        dataset, run, images=sys.maxsize, runtime=runtime, checkpoint_every=math.inf
    ):
        if record.loss is not None:
            yield record.wait


def bare_update(codec: Codec, recipe: Recipe, runtime: Runtime) -> Updates:
    """What no update can do without, in the same runtime: forward, backward, optimizer; no data, no noise."""
    network = NETWORKS.build(recipe.network, channels=codec.channels).train()
    runtime.place(network)
    forward = runtime.parallel(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.optimizer.learning_rate, fused=runtime.fused)
    x = runtime.put(torch.randn(recipe.batch, *codec.shape))
    t = torch.rand(recipe.batch).to(runtime.device)
    while True:
        with runtime.autocast():
            loss = F.mse_loss(forward(x, t).float(), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        yield 0.0


# Measurements


def synchronize(runtime: Runtime) -> None:
    if runtime.device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(updates: Updates, batch: int, seconds: float, runtime: Runtime) -> tuple[float, float]:
    """(images a second, share of waiting) of whole updates over at least so many seconds."""
    synchronize(runtime)
    began, done = time.perf_counter(), 0
    while True:
        wait = next(updates)
        done += 1
        if time.perf_counter() - began >= seconds:
            synchronize(runtime)
            return done * batch / (time.perf_counter() - began), wait


PARTS = {  # of an update, by what the names of operations contain; the first that fits
    "convolutions": ("conv",),
    "attention": ("attention", "softmax"),
    "other matrix products": ("mm", "linear", "matmul"),
    "normalisation": ("norm",),
    "activations": ("silu", "relu", "gelu"),
    "copies and changes of layout": ("copy", "clone", "cat", "pixel_", "upsample", "avg_pool", "contiguous"),
}


def profiled(updates: Updates, number: int) -> dict[str, float]:
    """The share of the processor's time that each part takes in so many updates."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(number):
            next(updates)
    spent: Counter[str] = Counter()
    for event in profile.events() or ():
        above = event
        while above and not above.name.startswith("Optimizer.step"):
            above = above.cpu_parent
        fitting = (part for part, names in PARTS.items() if any(name in event.name for name in names))
        part = "the update of the weights" if above else next(fitting, "everything else")
        spent[part] += event.self_cpu_time_total
    return {part: time / spent.total() for part, time in spent.most_common()}


class Convolution(NamedTuple):
    """The shape of a 3×3 convolution. side: of the picture, in pixels."""

    channels_in: int
    channels_out: int
    side: int


def convolutions(network: Network, codec: Codec) -> Counter[Convolution]:
    """The network's 3×3 convolutions, except that of the picture itself, and how often each occurs."""
    found: Counter[Convolution] = Counter()

    def count(layer: nn.Conv2d, _inputs: object, y: Tensor) -> None:
        if layer.in_channels > network.channels:
            found[Convolution(layer.in_channels, layer.out_channels, y.shape[-1])] += 1

    observed = deepcopy(network).eval()
    for layer in observed.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(count)
    with torch.no_grad():
        observed(torch.zeros(1, *codec.shape), torch.ones(1))
    return found


Times = dict[Convolution, tuple[float, float]]
"""FLOP and seconds of each convolution."""


def time_convolutions(shapes: Counter[Convolution], n: int, dtype: torch.dtype, runtime: Runtime) -> Times:
    """Forward and backward passes of each convolution for n pictures, channels_last."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape).to(runtime.device, dtype, memory_format=torch.channels_last)

    found = {}
    for shape in shapes:
        x = normal(n, shape.channels_in, shape.side, shape.side).requires_grad_()
        weight = normal(shape.channels_out, shape.channels_in, 3, 3).requires_grad_()
        gradient = normal(n, shape.channels_out, shape.side, shape.side)
        times = []
        for _ in range(2):
            synchronize(runtime)
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1).backward(gradient)
            synchronize(runtime)
            times.append(time.perf_counter() - began)
        work = 3.0 * 2 * 9 * shape.channels_in * shape.channels_out * shape.side**2 * n
        found[shape] = (work, min(times))
    return found


def rate_of_all(shapes: Counter[Convolution], times: Times) -> float:
    """FLOP/s over all the convolutions of the network."""
    work = sum(shapes[shape] * flop for shape, (flop, _) in times.items())
    return work / sum(shapes[shape] * seconds for shape, (_, seconds) in times.items())


@dataclass(frozen=True)
class Round:
    """One turn of each.

    rates: images a second. waits: shares of waiting for data. times: of the convolutions, by type.
    convolution_rates: FLOP/s over all of them, by type.
    """

    rates: dict[str, float]
    waits: dict[str, float]
    times: dict[str, Times]
    convolution_rates: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """All rounds, and what they measured. flop: of one image in an update. shares: of the profiler."""

    recipe: Recipe
    runtime: Runtime
    shapes: Counter[Convolution]
    flop: float
    rounds: list[Round]
    shares: dict[str, float]

    @property
    def dtypes(self) -> list[str]:
        """The types in which convolutions were timed."""
        return list(self.rounds[0].times)

    @property
    def contenders(self) -> list[str]:
        """Who took turns."""
        return list(self.rounds[0].rates)

    def middle(self, of: Callable[[Round], float]) -> float:
        """The median over the rounds."""
        return median(map(of, self.rounds))

    def share_of_convolutions(self, name: str, dtype: str) -> str:
        """How much of the rate of its own convolutions a contender reaches."""
        share = self.middle(lambda r: r.rates[name] * self.flop / r.convolution_rates[dtype])
        return f"{100 * share:.0f} %"


def measure(recipe: Recipe, args: Any) -> Measurement:
    """Rounds of turns until the time is over, then the profile of some updates."""
    codec = build_codec(recipe.data)
    dataset = load_dataset(args.data, codec, recipe.data.fit)
    if len(dataset.items) < recipe.batch:
        sys.exit(f"{args.data} has {len(dataset.items)} pictures, too few for a batch of {recipe.batch}")
    network = NETWORKS.build(recipe.network, channels=codec.channels)
    shapes = convolutions(network, codec)
    note("probing the machine …")
    runtime = probe(recipe, try_compile=not args.no_compile)
    note("\n".join(runtime.notes))
    dtypes = {"fp32": torch.float32}
    if not bf16_refused(runtime.device):  # emulated, its convolutions take minutes
        dtypes["bf16"] = torch.bfloat16
    rounds: list[Round] = []
    with TemporaryDirectory() as folder:
        contenders = {
            TRAINER: trainer(dataset, recipe, runtime, Path(folder) / "run"),
            BARE: bare_update(codec, recipe, runtime),
        }
        if args.recipe == "classic":
            contenders = {PLAIN: plain_loop(dataset, codec, recipe)} | contenders
        for name, updates in contenders.items():
            note(f"warming up: {name} …")
            next(updates)
        deadline = time.monotonic() + 60 * args.minutes
        while not rounds or time.monotonic() < deadline:
            turns = {
                name: timed(updates, recipe.batch, args.window, runtime)
                for name, updates in contenders.items()
            }
            times = {
                name: time_convolutions(shapes, args.convolution_batch, dtype, runtime)
                for name, dtype in dtypes.items()
            }
            rounds.append(
                Round(
                    {name: rate for name, (rate, _) in turns.items()},
                    {name: wait for name, (_, wait) in turns.items()},
                    times,
                    {name: rate_of_all(shapes, of) for name, of in times.items()},
                )
            )
            note(f"round {len(rounds)}: {rounds[-1].rates} images/s, {rounds[-1].convolution_rates} FLOP/s")
        shares = profiled(contenders[TRAINER], PROFILED_UPDATES)
        for updates in contenders.values():
            updates.close()  # the trainer writes a last checkpoint, while there is a folder
    # A backward pass takes two forward passes.
    return Measurement(recipe, runtime, shapes, 3 * flops(network, codec.spatial), rounds, shares)


# The section


def print_contenders(found: Measurement) -> None:
    """How fast each trains."""
    beside_plain = PLAIN in found.contenders

    def row(name: str) -> list[str]:
        rate = found.middle(lambda r: r.rates[name])
        ratio = [f"{found.middle(lambda r: r.rates[name] / r.rates[PLAIN]):.2f}×"] if beside_plain else []
        shares = (found.share_of_convolutions(name, dtype) for dtype in found.dtypes)
        title = TITLES[name].format(found.recipe.name)
        return [title, f"{rate:.2f}", f"{rate * found.flop / 1e9:.0f}", *ratio, *shares]

    head = ["", "images/s", "GFLOP/s", *(["relative"] if beside_plain else [])]
    head += [f"of the {dtype} convolution rate" for dtype in found.dtypes]
    print_table(head, map(row, found.contenders))


def print_goals(found: Measurement) -> None:
    """What was measured beside what it should be."""
    rows = []
    if PLAIN in found.contenders:
        ratio = found.middle(lambda r: r.rates[TRAINER] / r.rates[PLAIN])
        rows.append(["alphabar relative to the plain loop", f"{ratio:.2f}×", "≥ 5.5× with AMX"])
    bf16 = "no fast bf16 on this machine"
    if "bf16" in found.dtypes:
        bf16 = found.share_of_convolutions(TRAINER, "bf16")
    cost = found.middle(lambda r: r.rates[BARE] / r.rates[TRAINER] - 1)
    wait = found.middle(lambda r: r.waits[TRAINER])
    rows += [
        ["share of the bf16 convolution rate", bf16, "≥ 40 % with AMX"],
        ["cost of the trainer over its bare step", f"{100 * cost:.1f} %", "≤ 5 %"],
        ["waiting for data", f"{100 * wait:.2f} %", "≤ 3 %"],
    ]
    print_table(["", "measured", "goal"], rows)


def print_convolutions(found: Measurement, batch: int) -> None:
    """The rate of each of the network's convolutions."""

    def row(shape: Convolution) -> list[str]:
        rates = (
            median(flop / seconds for flop, seconds in (r.times[dtype][shape] for r in found.rounds))
            for dtype in found.dtypes
        )
        return [
            f"{shape.channels_in} → {shape.channels_out}",
            f"{shape.side}×{shape.side}",
            str(found.shapes[shape]),
            *(f"{rate / 1e9:.0f}" for rate in rates),
        ]

    print("## Appendix: the convolutions by themselves\n")
    print(
        "The network's 3×3 convolutions, forward and backward, channels_last, batches of"
        f" {batch}, in GFLOP/s. `{found.recipe.name}`:\n"
    )
    every = (median(r.convolution_rates[dtype] for r in found.rounds) / 1e9 for dtype in found.dtypes)
    print_table(
        ["channels", "at", "times", *found.dtypes],
        [*map(row, found.shapes), ["all", "", "", *(f"{rate:.0f}" for rate in every)]],
    )


def print_measurement(found: Measurement, convolution_batch: int) -> None:
    size = "×".join(map(str, build_codec(found.recipe.data).spatial))
    print_section(
        f"## `{found.recipe.name}`" + " beside a plain training loop" * (PLAIN in found.contenders),
        f"How fast does alphabar train the network of `{found.recipe.name}`, and how much of the machine's"
        " convolution speed does it use?",
        f"{size}, batches of {found.recipe.batch}, {found.flop / 3e9:.2f} GFLOP forward per picture and"
        f" three times that per update; {torch.get_num_threads()} threads, torch {torch.__version__}."
        f" Numbers are medians of {len(found.rounds)} rounds in which all take turns, and ratios are medians"
        " of the ratios of each round. The training monitor and the checkpoints are put off, and the plain"
        " loop, where it takes part, has its pictures decoded beforehand, as alphabar has. The runtime that"
        f" alphabar's probe chose: {' '.join(found.runtime.notes)}",
    )
    print_contenders(found)
    print_goals(found)
    shares = ([part, f"{share:.1%}"] for part, share in found.shares.items())
    print_table(["part of an update", "share of the processor's time"], shares)
    print_command()
    print_convolutions(found, convolution_batch)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--recipe", default="classic", help="classic takes turns with the plain loop too")
    parser.add_argument("--data", default="toycars", help="a folder or a built-in name")
    parser.add_argument("--minutes", type=float, default=6.0, help="of measuring")
    parser.add_argument("--window", type=float, default=8.0, help="seconds at least of each one's turn")
    parser.add_argument("--convolution-batch", type=int, default=32, help="pictures in a timed convolution")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe, for all loops")
    args = parser.parse_args()
    recipe = alphabar.with_settings(alphabar.named_recipe(args.recipe), ["monitor.share=0", *args.set])
    print_measurement(measure(recipe, args), args.convolution_batch)


if __name__ == "__main__":
    main()
