"""Speed of the ways to compute after training, side by side in one run: prints a table for runtime.md.

    python benchmarks/runtime.py [--model cars64] [--n 1 64] [--turns 5]

All ways take turns; the median of each counts. "calls alone": the network's own evaluations of the same
sampling, without sampler, guidance and files.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from alphabar.inference.agreement import reference
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of, with_runtime
from alphabar.inference.runtime import InferenceRuntime, candidates
from alphabar.progress import last
from alphabar.runs.model import Model, load_model
from alphabar.runtime import machine_state, synchronize
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import nfe_per_sample, sampling_settings


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        synchronize("cuda")
    return time.perf_counter() - began


def sampling_rates(models: dict[str, Model], n: int, turns: int) -> dict[str, float]:
    """Samples a second of each way, the median of turns."""
    settings = sampling_settings(next(iter(models.values())))
    took: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(turns + 1):
        for name, model in models.items():
            one = seconds(lambda model=model: last(sample(model, n, settings, batch=min(n, 64))))
            if turn:  # the first turn sets up
                took[name].append(one)
    return {name: n / statistics.median(values) for name, values in took.items()}


def calls_alone(model: Model, plain: Model, turns: int) -> float:
    """Seconds of network evaluations of one sample, as its own sampling makes them."""
    seen = reference(plain).evaluations
    rows = len(seen[0].x)

    @torch.no_grad()
    def calls() -> None:
        for one in seen:
            model.denoiser.predict(one.x, one.coeffs, one.cond)

    calls()
    return statistics.median(seconds(calls) for _ in range(turns)) / rows


def start_up(turns: int, model: str) -> tuple[float, float]:
    """Seconds of ``alphabar sample MODEL -n 1`` and of ``import torch``, alternating, medians."""
    commands, imports = [], []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder) / "out")
            generating = [sys.executable, "-m", "alphabar.cli", "sample", model, "-n", "1", "--out", out]
            importing = [sys.executable, "-c", "import torch"]
            for command, found in ((generating, commands), (importing, imports)):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                found.append(time.perf_counter() - began)
    return statistics.median(commands), statistics.median(imports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cars64")
    parser.add_argument("--n", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    plain = load_model(options.model)
    print(machine_state())
    evaluations = 1000 * nfe_per_sample(plain, sampling_settings(plain))
    chosen = None
    for record in choose_runtime(plain, evaluations=evaluations, batch=64):
        if record.message:
            print(record.message)
        chosen = record.result
    assert chosen is not None
    runtime: InferenceRuntime | None = runtime_of(chosen)
    print(f"chosen for 1,000 samples: {runtime and runtime.name}")
    ways = candidates(plain.device, "auto", False, False)
    models = {way.name: with_runtime(plain, way) for way in ways}
    print("| samples | " + " | ".join(models) + " |")
    print("|---" * (len(models) + 1) + "|")
    for n in options.n:
        rates = sampling_rates(models, n, options.turns)
        print(f"| {n} | " + " | ".join(f"{rate:.2f}" for rate in rates.values()) + " |")
    alone = {name: 1 / calls_alone(model, plain, options.turns) for name, model in models.items()}
    print("| calls alone | " + " | ".join(f"{rate:.2f}" for rate in alone.values()) + " |")
    command, imported = start_up(options.turns, options.model)
    ratio = command / imported
    print(f"start-up: sample -n 1 {command:.2f} s, import torch {imported:.2f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
