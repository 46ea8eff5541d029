"""From `classic` to `lean`, one change a rung, at equal time: what matters when compute is scarce.

    python benchmarks/ladder.py DATA --out runs/ladder --minutes 20 > docs/results/ladder.md

First every rung trains for some seconds in turns, so that a machine that slows down or is shared slows all
alike; the median rate says how many images a rung gets in the minutes. Then each trains that many, whatever
else the machine does meanwhile, and is judged: the same held-out pictures and noise, the same sampler,
steps and seed. Rungs that are done are kept in --out, and an interrupted ladder goes on where it was.
"""

import argparse
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import torch

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import Dataset
from alphabar.networks.base import flops
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.runtime import Runtime
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.probe import probe

# What is given up and taken on at each rung, over the one below. The settings are those of pictures of 32 px.
RUNGS: tuple[tuple[str, str], ...] = (
    ("`classic`", ""),
    ("a U-Net with GroupNorm and attention", "network=unet"),
    (
        "a smaller one, so that more pictures are seen",
        "network.widths=[32,64,64] network.attention=1",
    ),
    ("batches of 32 for 128", "batch=32"),
    ("the average of the weights is used", "ema.half_life=500000"),
    ("the learning rate warms up, and falls to zero", "optimizer.warm_up=1000 optimizer.decay_from=0.6"),
    (
        "a cosine schedule down to pure noise, v-prediction",
        "schedule=cosine parameterization=v noise_distribution=uniform",
    ),
    ("levels spread evenly over the batch", "stratified=true"),
    (
        "Muon for Adam, rate 3e-3",
        "optimizer.name=muon optimizer.learning_rate=0.003 optimizer.betas=[0.9,0.99] optimizer.warm_up=1000"
        " optimizer.decay_from=0.6",
    ),
    (
        "noise levels drawn where pictures form: `lean` for 32 px",
        "noise_distribution=log_normal noise_distribution.mean=-0.4 noise_distribution.std=0.9 noise_distribution.uniform_share=0.1",
    ),
)
# Steps aside from the last rung; none of them was taken.
EDM = "schedule=variance_exploding parameterization=edm noise_distribution=log_normal noise_distribution.mean=-0.8 noise_distribution.std=1.4"
MP = "network=mp_unet network.widths=[64,128] optimizer.learning_rate=0.15"
ASIDE: tuple[tuple[str, str], ...] = (
    ("blocks of 2×2 pixels and twice the channels", "network.patch=2 network.widths=[64,128]"),
    ("EDM for cosine and v: variance exploding, preconditioned, log-normal levels", EDM),
    ("a magnitude-preserving U-Net on blocks of 2×2 pixels, rate 0.15", MP),
    ("both: `edm`", f"{EDM} {MP}"),
)
SEEDED = (7, len(RUNGS) - 1)  # the rungs that are trained with several seeds, for the noise of it all
STEPS = 20


class Rung(NamedTuple):
    number: int
    seed: int
    recipe: Recipe


def rungs(size: int, seeds: int) -> list[Rung]:
    recipe = with_settings(alphabar.named_recipe("classic"), [f"data.size={size}", "monitor.share=0"])
    found, last = [], recipe
    for number, (_, settings) in enumerate([*RUNGS, *ASIDE]):
        recipe = with_settings(recipe if number < len(RUNGS) else last, settings.split())
        last = recipe if number < len(RUNGS) else last
        for seed in range(seeds if number in SEEDED else 1):
            found.append(Rung(number, seed, with_settings(recipe, [f"seed={seed}"])))
    return found


def rates(
    dataset: Dataset, ladder: Sequence[Rung], rounds: int, seconds: float, out: Path
) -> dict[int, float]:
    """Training pictures a second of each rung, the median over rounds in which all take turns."""
    kept = out / "rates.json"
    if kept.exists():
        return {int(k): v for k, v in json.loads(kept.read_text()).items()}
    first = [rung for rung in ladder if rung.seed == 0]
    measured: dict[int, list[float]] = {rung.number: [] for rung in first}
    for turn in range(rounds):
        for rung in first:
            folder = out / f".rate-{rung.number}"
            shutil.rmtree(folder, ignore_errors=True)
            records = alphabar.train(
                dataset, alphabar.begin(folder, rung.recipe), budget=seconds, runtime=runtime(rung.recipe)
            )
            progress = [record for record in records if record.loss is not None]
            measured[rung.number].append(progress[-1].rate)
            shutil.rmtree(folder)
            note(f"round {turn + 1}, rung {rung.number}: {progress[-1].rate:.1f} pictures/s")
    found = {number: median(values) for number, values in measured.items()}
    kept.write_text(json.dumps(found))
    return found


def runtime(recipe: Recipe) -> Runtime:
    """Probed without torch.compile: it takes minutes, and gains all rungs about the same."""
    network = build_denoiser(recipe).network
    return probe(network, (recipe.data.size, recipe.data.size), batch=recipe.batch, try_compile=False)


def climb(dataset: Dataset, rung: Rung, images: int, n: int, data: str, out: Path) -> dict[str, Any]:
    """Train and judge a rung, or read what came of it before."""
    folder = out / f"{rung.number:02d}-{rung.seed}"
    kept = folder / "rung.json"
    if kept.exists():
        return json.loads(kept.read_text())
    note(f"rung {rung.number}, seed {rung.seed}: {images:,} images")
    run, settings = alphabar.begin(folder, rung.recipe), runtime(rung.recipe)
    began = time.monotonic()
    for record in alphabar.train(dataset, run, images=images, runtime=settings):
        if record.loss is not None and time.monotonic() - began > 60:
            began = time.monotonic()
            note(f"  {record.images:,} images, {record.eta / 60:.0f} minutes left")
    model = alphabar.load_model(folder)
    watched = with_settings(rung.recipe, ["monitor.levels=256"])
    error = TrainingMonitor(dataset, watched, run, settings, model.statistics).error_by_level(model.denoiser)
    drawn = alphabar.sampling_settings(model, sampler="dpmpp_2m", timesteps="log_snr", steps=STEPS, seed=0)
    *_, sampled = alphabar.sample(model, 64, drawn)
    image_grid(sampled.result).save(out / f"{rung.number:02d}-{rung.seed}.png")
    *_, judged = alphabar.evaluate(model, data, n=n, settings=drawn)
    measured = {m.key: m for m in judged.result.report.metrics}
    network = build_denoiser(rung.recipe).network
    found = {
        "number": rung.number,
        "seed": rung.seed,
        "images": model.images,
        "gflop": flops(network, (rung.recipe.data.size, rung.recipe.data.size)) / 1e9,
        "parameters": sum(p.numel() for p in network.parameters()),
        "error": error["error"],
        "sigma": [math.exp(-level / 2) for level in error["levels"]],
        "frechet": measured["frechet"].value,
        "kid": measured["kid"].value,
        "kid_error": measured["kid"].error,
    }
    kept.write_text(json.dumps(found))
    return found


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(mean(math.log(value) for value in values))


def tables(found: list[dict[str, Any]], speeds: dict[int, float], levels: int) -> None:
    """levels: noise levels that every rung's schedule reaches, over which errors are averaged."""
    first = {f["number"]: f for f in found if f["seed"] == 0}
    means = {number: geometric_mean(f["error"][:levels]) for number, f in first.items()}
    names = [what for what, _ in [*RUNGS, *ASIDE]]
    sigma = first[0]["sigma"][:levels]
    print("| | what changed | pictures/s | pictures | GFLOP | held-out error | over it | Fréchet | KID |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, f in first.items():
        below = min(number, len(RUNGS)) - 1
        step = f"× {means[number] / means[below]:.3f}" if number else ""
        if number == len(RUNGS):
            print("| | *aside from the last* | | | | | | | |")
        print(
            f"| {number} | {names[number]} | {speeds[number]:.1f} | {f['images']:,} | {f['gflop']:.2f}"
            f" | {means[number]:.5f} | {step} | {f['frechet']:.0f} | {f['kid']:.3f} ± {f['kid_error']:.3f} |"
        )
    print("\nThe held-out error of x0 by noise level sigma/alpha:\n")
    print("| | " + " | ".join(f"{s:g}" for s in (round(s, 2) for s in sigma)) + " |")
    print("|---" * (levels + 1) + "|")
    for number, f in first.items():
        print(f"| {number} | " + " | ".join(f"{value:.4f}" for value in f["error"][:levels]) + " |")
    seeded = [[f for f in found if f["number"] == number] for number in SEEDED]
    if not any(len(same) > 1 for same in seeded):
        return
    print("\nThe noise of the measurement: the same rung with other seeds.\n")
    print("| | seeds | held-out error | its spread | Fréchet | KID |")
    print("|---|---|---|---|---|---|")
    for same in (same for same in seeded if len(same) > 1):
        errors = [geometric_mean(f["error"][:levels]) for f in same]
        print(
            f"| {same[0]['number']} | {len(same)} | {mean(errors):.5f} | {stdev(errors) / mean(errors):.2%}"
            f" | {mean(f['frechet'] for f in same):.0f} ± {stdev(f['frechet'] for f in same):.0f}"
            f" | {mean(f['kid'] for f in same):.3f} ± {stdev(f['kid'] for f in same):.3f} |"
        )


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="a folder that keeps the rungs")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures in pixels")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, for each rung")
    parser.add_argument("--seeds", type=int, default=3, help="of the rungs that measure the noise")
    parser.add_argument("-n", type=int, default=500, help="samples judged")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    *_, prepared = alphabar.prepare(alphabar.open_source(args.data), ImageCodec(args.size))
    ladder = rungs(args.size, args.seeds)
    speeds = rates(prepared.result, ladder, 3, args.minutes * 60 / 80, args.out)
    found = [
        climb(
            prepared.result, rung, int(speeds[rung.number] * 60 * args.minutes), args.n, args.data, args.out
        )
        for rung in ladder
    ]
    print(f"# From `classic` to `lean`\n\n```\npython benchmarks/ladder.py {shlex.join(sys.argv[1:])}\n```\n")
    print(
        f"{args.size}×{args.size} pictures, {args.minutes:g} minutes of training a rung at the rate measured"
        f" on {torch.get_num_threads()} threads, one change a rung. The held-out error is that of x0, the"
        " geometric mean over the noise levels, on 256 pictures that no rung trained on, with the same noise;"
        f" distances are those of {args.n} samples (DPM-Solver++(2M), {STEPS} steps, the same seed) in"
        " `lite0`.\n"
    )
    tables(found, speeds, min(len(f["error"]) for f in found))


if __name__ == "__main__":
    main()
