"""How fast training is, and where its time goes: `classic` beside the mission's loop, or another recipe.

    python benchmarks/training_throughput.py > docs/results/training_throughput.md
    python benchmarks/training_throughput.py --recipe lean --set network.widths=[32,64,128]

Takes turns: in every round each contender trains for some seconds, then the convolutions are timed, so
that a machine that slows down or is shared slows all alike. Figures are medians over the rounds, ratios
medians of the rounds' ratios. Six minutes, and the compilation where it is tried.
"""

import argparse
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from alphabar.codecs.image import ImageCodec, to_signal
from alphabar.data.dataset import Dataset, prepare
from alphabar.data.sources import open_source
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network, flops
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.loop import train
from alphabar.training.probe import bf16_refused, probe

Steps = Generator[float, None, None]
"""An update of the weights for each ``next``; yields the share of the time spent waiting for data."""


def mission(dataset: Dataset, recipe: Recipe) -> Steps:
    """The loop that the mission's notebook has: fp32, NCHW, eager, Adam, linear betas, eps, MSE.

    Its pictures are decoded beforehand, which the notebook does anew for every batch.
    """
    steps = recipe.schedule["steps"]
    betas = torch.linspace(recipe.schedule["beta_min"], recipe.schedule["beta_max"], steps)
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    pictures = to_signal(torch.from_numpy(dataset.items[:])).contiguous()
    loader = DataLoader(TensorDataset(pictures), batch_size=recipe.batch, shuffle=True, drop_last=True)
    model = NETWORKS.build(recipe.network, channels=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.optimizer.learning_rate)
    while True:
        for (x,) in loader:
            optimizer.zero_grad()
            t = torch.randint(0, steps, (recipe.batch,)).long()
            noise = torch.randn_like(x)
            abar = alphas_cumprod[t][:, None, None, None]
            x_noisy = abar.sqrt() * x + (1 - abar).sqrt() * noise
            F.mse_loss(model(x_noisy, (t + 1) / steps), noise).backward()
            optimizer.step()
            yield 0.0


def trainer(dataset: Dataset, recipe: Recipe, runtime: Runtime, folder: Path) -> Steps:
    """Our trainer at work, its looks at the model and its checkpoints put off."""
    run = Run(folder)
    run.create(recipe)
    for record in train(dataset, run, images=sys.maxsize, runtime=runtime, checkpoint_every=math.inf):
        if record.loss is not None:
            yield record.wait


def bare(recipe: Recipe, runtime: Runtime) -> Steps:
    """What cannot be left out of a step in the same runtime: forward, backward, update; no data, no noise."""
    network = NETWORKS.build(recipe.network, channels=3).train()
    runtime.place(network)
    step = runtime.parallel(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.optimizer.learning_rate, fused=runtime.fused)
    size = recipe.data.size
    x = runtime.put(torch.randn(recipe.batch, 3, size, size))
    t = torch.rand(recipe.batch).to(runtime.device)
    while True:
        with runtime.autocast():
            loss = F.mse_loss(step(x, t).float(), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        yield 0.0


PARTS = {  # of a step, by what the names of operations contain, the first that fits
    "convolutions": ("conv",),
    "attention": ("attention", "softmax"),
    "other matrix products": ("mm", "linear", "matmul"),
    "normalisation": ("norm",),
    "activations": ("silu", "relu", "gelu"),
    "copies and changes of layout": ("copy", "clone", "cat", "pixel_", "upsample", "avg_pool", "contiguous"),
}


def profiled(steps: Steps, number: int) -> dict[str, float]:
    """Share of the processor's time in so many steps, by part; what the optimizer does is one of them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(number):
            next(steps)
    spent: Counter[str] = Counter()
    for event in profile.events() or ():
        above = event
        while above and not above.name.startswith("Optimizer.step"):
            above = above.cpu_parent
        fits = (part for part, names in PARTS.items() if any(name in event.name for name in names))
        spent["the update of the weights" if above else next(fits, "all else")] += event.self_cpu_time_total
    return {part: time / spent.total() for part, time in spent.most_common()}


Shape = tuple[int, int, int]  # of a 3x3 convolution: channels in, channels out, pixels a side


def convolutions(network: Network, size: int) -> Counter[Shape]:
    """The network's 3x3 convolutions and how often each shape occurs; that of the picture itself left out."""
    shapes: Counter[Shape] = Counter()

    def count(layer: nn.Conv2d, _inputs: object, y: Tensor) -> None:
        if layer.in_channels > network.channels:
            shapes[layer.in_channels, layer.out_channels, y.shape[-1]] += 1

    watched = deepcopy(network).eval()
    for layer in watched.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(count)
    with torch.no_grad():
        watched(torch.zeros(1, network.channels, size, size), torch.ones(1))
    return shapes


Rates = dict[Shape, tuple[float, float]]  # FLOP and seconds of each


def time_convolutions(shapes: Counter[Shape], n: int, dtype: torch.dtype, runtime: Runtime) -> Rates:
    """Forward and backward passes of each convolution for n pictures, channels_last."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape).to(runtime.device, dtype, memory_format=torch.channels_last)

    rates = {}
    for c_in, c_out, side in shapes:
        x = normal(n, c_in, side, side).requires_grad_()
        weight = normal(c_out, c_in, 3, 3).requires_grad_()
        grad = normal(n, c_out, side, side)
        times = []
        for _ in range(2):
            synchronize(runtime)
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1).backward(grad)
            synchronize(runtime)
            times.append(time.perf_counter() - began)
        rates[c_in, c_out, side] = (3.0 * 2 * 9 * c_in * c_out * side**2 * n, min(times))
    return rates


def rate_of_all(shapes: Counter[Shape], rates: Rates) -> float:
    """FLOP/s over all the convolutions of the network."""
    work = sum(shapes[shape] * flop for shape, (flop, _) in rates.items())
    return work / sum(shapes[shape] * seconds for shape, (_, seconds) in rates.items())


def synchronize(runtime: Runtime) -> None:
    if runtime.device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(steps: Steps, batch: int, seconds: float, runtime: Runtime) -> tuple[float, float]:
    """(images a second, share of waiting) of whole steps over at least so many seconds."""
    synchronize(runtime)
    began, done = time.perf_counter(), 0
    while True:
        wait = next(steps)
        done += 1
        if time.perf_counter() - began >= seconds:
            synchronize(runtime)
            return done * batch / (time.perf_counter() - began), wait


TITLES = {
    "mission": "the mission's loop (fp32, NCHW, eager, Adam)",
    "trainer": "`{}` in our trainer",
    "bare": "the bare step in the same runtime",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default="classic", help="only classic runs beside the mission's loop")
    parser.add_argument("--data", default="toycars", help="a folder or a built-in name")
    parser.add_argument("--minutes", type=float, default=6.0, help="of measuring")
    parser.add_argument("--window", type=float, default=8.0, help="seconds at least of a contender's turn")
    parser.add_argument("--convolution-batch", type=int, default=32, help="pictures in a timed convolution")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe, for all loops")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    recipe = with_settings(named_recipe(args.recipe), ["monitor.share=0", *args.set])
    *_, prepared = prepare(open_source(args.data), ImageCodec(recipe.data.size), recipe.data.fit)
    dataset = prepared.result
    assert dataset is not None
    if len(dataset.items) < recipe.batch:
        sys.exit(f"{args.data} has {len(dataset.items)} pictures, too few for a batch of {recipe.batch}")
    size, batch = recipe.data.size, recipe.batch
    network = NETWORKS.build(recipe.network, channels=3)
    shapes = convolutions(network, size)
    say("probing the machine …")
    runtime = probe(network, (size, size), batch=batch, try_compile=not args.no_compile)
    say("\n".join(runtime.notes))
    dtypes = {"fp32": torch.float32}
    if not bf16_refused(runtime.device):  # emulated, its convolutions take minutes
        dtypes["bf16"] = torch.bfloat16

    rounds: list[dict[str, float]] = []
    rates: list[dict[str, Rates]] = []
    with TemporaryDirectory() as folder:
        contenders: dict[str, Steps] = {}
        if args.recipe == "classic":
            contenders["mission"] = mission(dataset, recipe)
        contenders |= {
            "trainer": trainer(dataset, recipe, runtime, Path(folder) / "run"),
            "bare": bare(recipe, runtime),
        }
        for name, steps in contenders.items():
            say(f"warming up: {name} …")
            next(steps)
        deadline = time.monotonic() + 60 * args.minutes
        while not rounds or time.monotonic() < deadline:
            figures: dict[str, float] = {}
            for name, steps in contenders.items():
                figures[name], figures[f"{name} waits"] = timed(steps, batch, args.window, runtime)
            rates.append(
                {d: time_convolutions(shapes, args.convolution_batch, dtypes[d], runtime) for d in dtypes}
            )
            rounds.append(figures | {d: rate_of_all(shapes, rates[-1][d]) for d in dtypes})
            say(
                f"round {len(rounds)}: "
                + ", ".join(f"{name} {value:.3g}" for name, value in rounds[-1].items())
            )
        shares = profiled(contenders["trainer"], 4)
        for steps in contenders.values():
            steps.close()  # the trainer writes a last checkpoint, while there is a folder

    work = 3 * flops(network, (size, size))  # a backward pass takes two forward passes

    def middle(of: Callable[[dict[str, float]], float]) -> float:
        return median(map(of, rounds))

    def reached(contender: str, dtype: str) -> str:
        return f"{100 * middle(lambda r: r[contender] * work / r[dtype]):.0f} %"

    def contender_row(title: str, name: str) -> list[str]:
        speed = middle(lambda r: r[name])
        ratio = [f"{middle(lambda r: r[name] / r['mission']):.2f}×"] if "mission" in contenders else []
        reach = [reached(name, dtype) for dtype in dtypes]
        return [title, f"{speed:.2f}", f"{speed * work / 1e9:.0f}", *reach, *ratio]

    def convolution_row(shape: Shape) -> list[str]:
        c_in, c_out, side = shape
        speeds = [median(flop / seconds for flop, seconds in (r[d][shape] for r in rates)) for d in dtypes]
        told = [f"{speed / 1e9:.0f}" for speed in speeds]
        return [f"{c_in} → {c_out}", f"{side}×{side}", str(shapes[shape]), *told]

    contender_table = table(
        [
            *("", "images/s", "GFLOP/s", *(f"of {dtype} convolution" for dtype in dtypes)),
            *(["to the mission"] if "mission" in contenders else []),
        ],
        [contender_row(TITLES[name].format(args.recipe), name) for name in contenders],
    )
    cost = middle(lambda r: r["bare"] / r["trainer"] - 1)
    wait = middle(lambda r: r["trainer waits"])
    beside = []
    if "mission" in contenders:
        ratio = middle(lambda r: r["trainer"] / r["mission"])
        beside = [["our trainer to the mission's loop", f"{ratio:.2f}×", "≥ 5.5× with AMX"]]
    wanted_table = table(
        ["", "measured", "wanted"],
        [
            *beside,
            [
                "of the bf16 convolution rate",
                reached("trainer", "bf16") if "bf16" in dtypes else "no fast bf16 on this machine",
                "≥ 40 % with AMX",
            ],
            ["the trainer costs over its bare step", f"{100 * cost:.1f} %", "≤ 5 %"],
            ["waiting for data", f"{100 * wait:.2f} %", "≤ 3 %"],
        ],
    )
    convolution_table = table(
        ["channels", "at", "times", *dtypes],
        [
            *map(convolution_row, shapes),
            ["all", "", "", *(f"{median(r[d] for r in rounds) / 1e9:.0f}" for d in dtypes)],
        ],
    )
    share_table = table(["of a step of our trainer", ""], [[k, f"{v:.1%}"] for k, v in shares.items()])
    notes = "\n".join(f"- {note}" for note in runtime.notes)
    print(f"""# Training throughput

```
{shlex.join(["python", "benchmarks/training_throughput.py", *sys.argv[1:]])}
```

{size}×{size}, batches of {batch}, {work / 3e9:.2f} GFLOP forward a picture and three times that a step.
Medians of {len(rounds)} rounds in which all take turns. The trainer's looks at the model and its checkpoints
are put off, and the mission's loop, where it takes part, has its pictures decoded beforehand, as ours has.

The runtime that the probe chose:

{notes}

{contender_table}

{wanted_table}

Where the processor's time goes, by the profiler:

{share_table}

The network's 3×3 convolutions by themselves, forward and backward, channels_last, batches of
{args.convolution_batch}, in GFLOP/s:

{convolution_table}""")


if __name__ == "__main__":
    main()
