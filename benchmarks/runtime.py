"""How fast does a trained network compute after training, and with what pictures?

    python benchmarks/runtime.py [--model cars64] [--against DATA] [--n 1 64] [--turns 3] [--pictures 4]

Prints the tables of docs/results/runtime.md. All ways take turns and medians count; every turn generates
other samples, which the kernel distances use. "Network alone" is the part of the same time that passes inside
the network. It takes about ten minutes with two cores and the defaults, ``--n 1 64 1000`` and
``--pictures 32`` longer. The int8 export is in benchmarks/export.py, evaluation in feature_speed.py.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alphabar.codecs.image import ImageCodec
from alphabar.inference.agreement import MOST_APART, Reference, reference, relative_error
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of, with_runtime
from alphabar.inference.runtime import DTYPES, PLAIN, InferenceRuntime, candidates, precisions
from alphabar.metrics.distances import KID_NEEDS, kid
from alphabar.metrics.features import EXTRACTORS
from alphabar.metrics.intervals import Z95
from alphabar.metrics.pictures import metric_pictures
from alphabar.networks.base import flops
from alphabar.progress import last
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import restoration_settings
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.runs.model import Model, load_model
from alphabar.runtime import has_compiler, machine_state, synchronize
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import nfe_per_sample, sampling_settings
from common import (
    argument_parser,
    compute_features,
    dataset_of,
    note,
    print_command,
    print_paragraph,
    print_section,
    print_table,
)

TASKS = ("noise:0.2", "blur:1.5", "downsample:4", "box")
AT_ONCE = 16  # samples that are generated at a time, as the command line does
LONG = 1000  # samples of the job for which the runtime is chosen
REFERENCE = 2000  # real pictures of the kernel distances, at most


class Inside:
    """Seconds that pass inside a model's network."""

    def __init__(self, model: Model):
        self.seconds = 0.0
        predict, device = model.denoiser.predict, str(model.device)

        def timed(*arguments: Any) -> Tensor:
            synchronize(device)
            began = time.perf_counter()
            found = predict(*arguments)
            synchronize(device)
            self.seconds += time.perf_counter() - began
            return found

        model.denoiser.predict = timed


class Way(NamedTuple):
    """A way to compute. title: its name, and whether it is the chosen one."""

    title: str
    runtime: InferenceRuntime
    model: Model
    inside: Inside


class Sampled(NamedTuple):
    """What was measured of a way for one number of samples: seconds in all and inside the network, a turn."""

    seconds: list[float]
    inside: list[float]
    items: list[Tensor]


def choose(model: Model, gradients: bool = False) -> Model:
    """The model as it is chosen to compute for a long job, saying what was refused."""
    evaluations = LONG * nfe_per_sample(model, sampling_settings(model))
    for record in choose_runtime(model, evaluations=evaluations, batch=AT_ONCE, gradients=gradients):
        if record.message:
            note(str(record.message))
    return record.result


def ways_of(plain: Model, right: Reference, chosen: InferenceRuntime) -> list[Way]:
    """float32 eager, the chosen way, the same compiled, and OpenVINO, where their numbers are finite."""
    others = [r for r in candidates(plain.device, gradients=False) if r.engine == "openvino"]
    if has_compiler(plain.device.type):
        others.insert(0, InferenceRuntime("torch", chosen.precision, channels_last=True, compile=True))
    found = []
    for runtime in dict.fromkeys([PLAIN, chosen, *others]):
        model = with_runtime(plain, runtime)
        name = "float32 eager" if runtime == PLAIN else runtime.name
        title = f"{name} (chosen)" if runtime == chosen else name
        way = Way(title, runtime, model, Inside(model))
        if math.isfinite(largest_error(way, right)):
            found.append(way)
        else:
            print_paragraph(f"{title}: its numbers are not finite, and it is left out.")
    return found


def timed_sampling(ways: Sequence[Way], n: int, turns: int) -> dict[str, Sampled]:
    """n samples by every way in turns, each turn with other positions."""
    settings = sampling_settings(ways[0].model)
    found = {way.title: Sampled([], [], []) for way in ways}
    for way in ways:  # sets up
        last(sample(way.model, min(n, AT_ONCE) if way.runtime.compile else min(n, 2), settings))
    for turn in range(turns):
        for way in ways:
            way.inside.seconds = 0.0
            began = time.perf_counter()
            items = last(sample(way.model, n, settings, first=turn * n, batch=AT_ONCE))
            found[way.title].seconds.append(time.perf_counter() - began)
            found[way.title].inside.append(way.inside.seconds)
            found[way.title].items.append(items)
            note(f"n {n}, turn {turn}, {way.title}: {found[way.title].seconds[-1]:.1f} s")
    return found


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that run while it is open, by shapes and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation, and counts it where it is a convolution."""
        if func is torch.ops.aten.convolution.default:
            x, weight, _, stride, padding, _, _, _, groups = args
            self.seen[tuple(x.shape), tuple(weight.shape), tuple(stride), tuple(padding), groups] += 1
        return func(*args, **kwargs or {})


@torch.no_grad()
def convolution_rates(plain: Model, right: Reference, rows: int, turns: int) -> dict[str, float]:
    """FLOP/s of the network's convolutions alone, forward, by precision, in the faster memory format."""
    one = right.evaluations[0]
    with Convolutions() as counted:
        plain.denoiser.predict(one.x, one.coeffs, one.cond)
    names = [name for name in precisions(plain.device) if name != "fp16" or plain.device.type == "cuda"]
    total, took = 0.0, dict.fromkeys(names, 0.0)
    for (shape, weight_shape, stride, padding, groups), times in counted.seen.items():
        for name in names:
            dtype = DTYPES[name] or torch.float32
            fastest = float("inf")
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(rows, *shape[1:], device=plain.device, dtype=dtype).to(memory_format=layout)
                weight = torch.randn(*weight_shape, device=plain.device, dtype=dtype).to(memory_format=layout)
                y = F.conv2d(x, weight, None, stride, padding, groups=groups)
                for _ in range(turns):
                    synchronize(str(plain.device))
                    began = time.perf_counter()
                    F.conv2d(x, weight, None, stride, padding, groups=groups)
                    synchronize(str(plain.device))
                    fastest = min(fastest, time.perf_counter() - began)
            took[name] += times * fastest
        total += times * 2 * y.numel() * weight[0].numel()
    return {name: total / seconds for name, seconds in took.items()}


def largest_error(way: Way, right: Reference) -> float:
    """The largest relative error of the network's output over the noise levels."""
    found = []
    attention = way.model.attention
    for one in right.evaluations:
        perturbed = attention is not None and one.identity is not None
        with torch.no_grad(), attention.identity_attention(one.identity) if perturbed else nullcontext():
            F = way.model.denoiser.predict(one.x, one.coeffs, one.cond)
        found.append(relative_error(F, one.F))
    return max(found)


def sampling_rows(
    ways: Sequence[Way], n: int, sampled: dict[str, Sampled], rates: dict[str, float]
) -> Iterator[list[str]]:
    """A row for each way: rate, ratio, what passes outside the network, share of the convolutions' rate."""
    plain, model = sampled[ways[0].title], ways[0].model
    work = n * nfe_per_sample(model, sampling_settings(model))
    work *= flops(model.denoiser.network, model.codec.spatial)
    for way in ways:
        mine = sampled[way.title]
        seconds, inside = statistics.median(mine.seconds), statistics.median(mine.inside)
        ratio = statistics.median(a / b for a, b in zip(plain.seconds, mine.seconds, strict=True))
        alone = rates.get(way.runtime.precision)
        yield [
            way.title,
            str(n),
            f"{n / seconds:.2f}",
            f"{ratio:.2f}",
            f"{seconds / inside:.2f}",
            f"{work / inside / 1e12:.3f}",
            f"{work / inside / alone:.0%}" if alone else "–",
        ]


def distance_rows(
    ways: Sequence[Way], sampled: dict[str, Sampled], real: Tensor, right: Reference
) -> Iterator[list[str]]:
    """A row for each way: how far its network and its pictures are from float32's, and kernel distances."""
    extractor = EXTRACTORS.build("lite0", device="cpu")
    codec = ways[0].model.codec
    own = torch.cat(sampled[ways[0].title].items)
    for way in ways:
        items = torch.cat(sampled[way.title].items)
        found = kid(compute_features(extractor, metric_pictures(codec, items)), real)
        low, high = (found.value + sign * Z95 * found.standard_error for sign in (-1, 1))
        error = largest_error(way, right)
        yield [
            way.title,
            f"{error:.2%}" + (" (refused)" if error > MOST_APART else ""),
            f"{(items.float() - own.float()).abs().mean():.3f}",
            f"{found.value:.4f} [{low:.4f}, {high:.4f}]",
        ]


def restoration_rows(
    plain: Model, pictures: Tensor, chosen: dict[bool, Model], turns: int
) -> Iterator[list[str]]:
    """A row for each task: seconds of the default solver in float32 and in the chosen runtime."""
    x = plain.codec.encode(pictures)
    for task in TASKS:
        degradation = parse_degradation(task)
        operator, sigma = degradation.operator(tuple(x.shape[1:])), degradation.sigma or 0.0
        y = operator.A(x)
        y = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        settings = restoration_settings(plain, operator, sigma)
        solver = SOLVERS.build(settings.solver)
        fast = chosen[solver.differentiates]
        models: dict[str, Model] = {"plain": with_runtime(plain, PLAIN), "fast": fast}
        took: dict[str, list[float]] = {name: [] for name in models}
        found: dict[str, Tensor] = {}
        for _ in range(turns):
            for name, model in models.items():
                began = time.perf_counter()
                found[name] = last(restore(model, y, operator, sigma, settings=settings))
                took[name].append(time.perf_counter() - began)
                note(f"{task}, {name}: {took[name][-1]:.1f} s")
        levels = (found["fast"] - found["plain"]).abs().mean().item() * 127.5
        runtime = runtime_of(fast) or PLAIN
        seconds = [f"{statistics.median(values) / len(x):.2f}" for values in took.values()]
        ratio = statistics.median(a / b for a, b in zip(took["plain"], took["fast"], strict=True))
        yield [f"`{task}`", settings.solver["name"], runtime.name, *seconds, f"{ratio:.2f}", f"{levels:.2f}"]


def start_up(turns: int, model: str) -> list[str]:
    """Seconds of ``alphabar sample MODEL -n 1``, with its reading and writing, and of ``import torch``."""
    took: dict[str, list[float]] = {"sample": [], "import": []}
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder) / "out")
            commands = {
                "sample": [sys.executable, "-m", "alphabar.cli", "sample", model, "-n", "1", "--out", out],
                "import": [sys.executable, "-c", "import torch"],
            }
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                took[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(values) for name, values in took.items()}
    return [
        f"{seconds['sample']:.2f}",
        f"{seconds['import']:.2f}",
        f"{seconds['sample'] / seconds['import']:.2f}",
    ]


def print_sampling(
    plain: Model, chosen: InferenceRuntime, real: Tensor, numbers: Sequence[int], turns: int
) -> None:
    """The sections on sampling: speed, then agreement."""
    right = reference(plain)
    ways = ways_of(plain, right, chosen)
    note("convolutions alone")
    rates = convolution_rates(plain, right, AT_ONCE, turns)
    alone = ", ".join(f"{name} {rate / 1e12:.3f}" for name, rate in rates.items())
    print_paragraph(f"The network's convolutions alone, forward, {AT_ONCE} signals, TFLOP/s: {alone}.")
    sampled = {n: timed_sampling(ways, n, turns) for n in numbers}
    head = ["runtime", "n", "samples/s", "× float32", "time / network alone", "TFLOP/s", "of convolutions"]
    print_table(head, (r for n, s in sampled.items() for r in sampling_rows(ways, n, s, rates)))
    many = max(numbers)
    if many * turns < KID_NEEDS:
        return
    print_paragraph(
        "Agreement with float32: the network's output at the worst noise level, and"
        f" {many * turns} pictures (of 255, on average); their kernel distance (lite0) from {len(real)} real"
        " ones, with its 95 % interval."
    )
    head = ["runtime", "output", "pictures", "kernel distance"]
    print_table(head, distance_rows(ways, sampled[many], real, right))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="cars64")
    parser.add_argument("--against", default="toycars:500", help="real pictures")
    parser.add_argument("--n", type=int, nargs="+", default=[1, 64], help="samples of a job")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=4, help="to restore")
    args = parser.parse_args()
    plain = load_model(args.model)
    assert isinstance(plain.codec, ImageCodec)
    state = ", ".join(f"{key} {value}" for key, value in machine_state().items())
    print_section(
        "# Speed after training",
        f"How fast does `{args.model}` sample and restore in the runtime that is chosen here, and with what"
        " pictures?",
        f"{state}. Its own sampling, {nfe_per_sample(plain, sampling_settings(plain))} network evaluations a"
        f" sample, {AT_ONCE} samples at a time; {args.turns} turns, medians; the runtime chosen for {LONG:,}"
        f" samples. Real pictures: {args.against}.",
    )
    dataset = dataset_of(plain, args.against)
    items = torch.as_tensor(dataset.items[:REFERENCE])
    real = compute_features(EXTRACTORS.build("lite0", device="cpu"), metric_pictures(plain.codec, items))
    chosen = {gradients: choose(plain, gradients) for gradients in (False, True)}
    runtime = runtime_of(chosen[False])
    assert runtime is not None
    print_sampling(plain, runtime, real, args.n, args.turns)
    print_paragraph(f"Restoration of {args.pictures} pictures together, seconds for each, in 2 turns.")
    head = ["task", "solver", "runtime", "float32 eager", "chosen", "ratio", "difference of 255"]
    print_table(head, restoration_rows(plain, items[: args.pictures], chosen, 2))
    print_paragraph("From the command to the first picture, seconds.")
    print_table(["sample -n 1", "import torch", "ratio"], [start_up(args.turns, args.model)])
    print_command()


if __name__ == "__main__":
    main()
