"""What is the best way to 128 px for little compute? Candidates of equal time on one thread each.

    python benchmarks/larger_images.py stanford_cars --out runs/larger --minutes 10 -n 1000

Prints the table of docs/results/larger_images.md. First a training step of every candidate is timed, by
turns, in seconds at work of one thread, which other programs hardly change. The times say how many images
each one sees in its minutes; of those with latents a share goes to the autoencoder, and encoding the data
counts. Then every candidate trains that many, however busy the machine is, two at a time, and is evaluated
with the same noise. Results are kept in ``--out``: an interrupted benchmark continues where it was.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

import candidates
from alphabar.codecs import build_codec
from alphabar.codecs.base import LearnedCodec
from alphabar.codecs.latent import decoding_flops
from alphabar.networks.base import Network, flops
from alphabar.progress import last
from alphabar.recipes.derive import first_stage
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.first_stage import SHARE
from alphabar.training.launch import launch
from alphabar.training.trial import Trial
from common import argument_parser, note, print_command, print_section, print_table

# The pixel candidates' noise is that of 64 px, seen on pictures of twice the size: sigma doubles.
SHIFTED = "noise_distribution.mean=0.29"
CANDIDATES = {
    "pixels, one more resolution": ("lean", "network.widths=[16,32,64,128]"),
    "pixels, patch 4, v": ("lean", "network.widths=[32,64,128] network.patch=4"),
    "pixels, patch 4, v, noise shifted": ("lean", f"network.widths=[32,64,128] network.patch=4 {SHIFTED}"),
    "pixels, patch 4, x0, noise shifted": (
        "lean",
        f"network.widths=[32,64,128] network.patch=4 parameterization=x0 {SHIFTED}",
    ),
    "pixels, patch 4, means and detail": ("patches", "network.widths=[32,64,128]"),
    "a nested network": ("patches", 'network={"name":"nested_unet","widths":[32,64,128]}'),
    "a transformer on patches of 8×8, x0": (
        "lean",
        f"network=transformer parameterization=x0 {SHIFTED}",
    ),
    "cosines of blocks of 4×4, x0": (
        "lean",
        "network.widths=[32,64,128] network.patch=1 data.codec=block_cosines parameterization=x0"
        " noise_distribution.mean=-0.75",
    ),
    "latents f4, 4 channels": ("latent", "network.widths=[32,64,128]"),
    "latents f4, 8 channels": ("latent", "network.widths=[32,64,128] data.codec.latent=8"),
    "latents f8, 16 channels": (
        "latent",
        "network.widths=[64,128] data.codec.latent=16 data.codec.widths=[32,96,96]",
    ),
}
AUTOENCODERS = {
    "as the recipe: f4, 4 channels, Muon, batches of 4": ("autoencoder", ""),
    "batches of 16": ("autoencoder", "batch=16 optimizer.learning_rate=0.006"),
    "Adam": (
        "autoencoder",
        'optimizer={"name":"adam","learning_rate":0.001,"warm_up":1000,"decay_from":0.6}',
    ),
    "three scales": ("autoencoder", "method.scales=3"),
    "no noise on the latents": ("autoencoder", "method.noise=0"),
    "no smaller and mirrored latents": ("autoencoder", "method.equivariance=0"),
    "8 channels": ("autoencoder", "network.latent=8"),
    "f8, 16 channels": ("autoencoder", "network.latent=16 network.widths=[32,96,96]"),
}
RUNTIMES = tuple(Runtime(dtype=dtype, channels_last=True) for dtype in (None, torch.bfloat16))
TIMED, TURNS = 8, 5  # samples of a timed step, and how often it is timed


class Row(NamedTuple):
    """What a candidate came to."""

    name: str
    parameters: int
    gflop: float
    decoding: float
    images: int
    evaluation: dict[str, Any]


def recipe_of(name: str, size: int, seed: int = 0) -> Recipe:
    """The recipe of a candidate."""
    preset, settings = (CANDIDATES | AUTOENCODERS)[name]
    common = [f"seed={seed}", f"data.size={size}", "data.channels=3", "monitor.share=0"]
    common += [] if preset == "autoencoder" else ["monitor.distance=0"]
    return with_settings(named_recipe(preset), [*common, *settings.split()])


def seconds_of(recipes: Sequence[Recipe]) -> list[tuple[Runtime, float]]:
    """The fastest runtime of each recipe, and the seconds that training on one sample takes in it."""
    torch.set_num_threads(1)
    trials = [Trial(recipe) for recipe in recipes]
    steps = [[trial.step(runtime, TIMED) for runtime in RUNTIMES] for trial in trials]
    found: list[list[list[float]]] = [[[] for _ in RUNTIMES] for _ in recipes]
    for turn in range(TURNS + 1):
        for i, own in enumerate(steps):
            for j, step in enumerate(own):
                took = step()
                if turn:
                    found[i][j].append(took / TIMED)
    best = [[median(times) for times in own] for own in found]
    return [(RUNTIMES[own.index(min(own))], min(own)) for own in best]


def encoding_seconds(recipe: Recipe, items: int) -> float:
    """About what encoding so many items with a codec of latents takes."""
    codec = build_codec(recipe.data)
    assert isinstance(codec, LearnedCodec)
    network = codec.network()
    pictures = torch.zeros(TIMED, *build_codec(first_stage(recipe).data).shape)
    began = time.thread_time()
    with torch.no_grad():
        network.eval().encode(pictures)
    return (time.thread_time() - began) / TIMED * items


def plan(names: Sequence[str], size: int, minutes: float, items: int) -> dict[str, dict[str, Any]]:
    """How many images each candidate sees in its minutes, its autoencoder's among them, and its runtimes."""
    recipes = [recipe_of(name, size) for name in names]
    inner = [first_stage(r) if isinstance(build_codec(r.data), LearnedCodec) else r for r in recipes]
    timed, timed_inner = seconds_of(recipes), seconds_of(inner)
    plans = {}
    for name, recipe, own, first in zip(names, recipes, timed, timed_inner, strict=True):
        seconds, each = 60 * minutes, {"runtime": own[0].to_dict()}
        if isinstance(build_codec(recipe.data), LearnedCodec):
            each |= {"autoencoder": round(SHARE * seconds / first[1]), "first_runtime": first[0].to_dict()}
            seconds -= SHARE * seconds + encoding_seconds(recipe, items)
        plans[name] = each | {"images": round(seconds / own[1])}
    return plans


def folder_of(out: Path, name: str) -> Path:
    """The run of a candidate."""
    return out / name.translate(str.maketrans({" ": "-", ",": None, ":": None, "×": "x"}))


def work(name: str, data: str, size: int, seed: int, folder: Path) -> None:
    """Trains and evaluates a candidate by its plan."""
    torch.set_num_threads(1)
    chosen = json.loads((folder / "plan.json").read_text())[name]
    run, recipe = folder_of(folder, name), recipe_of(name, size, seed)
    options: dict[str, Any] = {"runtime": Runtime.from_dict(chosen["runtime"])}
    if "autoencoder" in chosen:
        inner = run.with_name(run.name + "-autoencoder")
        runtime = replace(Runtime.from_dict(chosen["first_runtime"]), fused=False)
        last(
            launch(data, run=inner, recipe=first_stage(recipe), images=chosen["autoencoder"], runtime=runtime)
        )
        options["autoencoder"] = inner
    last(launch(data, run=run, recipe=recipe, images=chosen["images"], **options))


def evaluated(run: Path, data: str, n: int) -> dict[str, Any]:
    """The evaluation of a run, as the command prints it."""
    command = [sys.executable, "-c", "from alphabar.cli.__main__ import main; main()"]
    command += ["--extension", candidates.__file__, "evaluate", str(run)]
    command += ["--against", data, "-n", str(n), "--precision", "fp32", "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def row_of(name: str, run: Path, evaluation: dict[str, Any]) -> Row:
    """A row of the table."""
    model = load_model(run, "cpu")
    network = build_denoiser(model.recipe, model.vocabulary).network
    assert isinstance(network, Network)
    return Row(
        name,
        sum(p.numel() for p in network.parameters()),
        flops(network, model.codec.spatial) / 1e9,
        decoding_flops(model.codec) / 1e9,
        model.images,
        evaluation,
    )


def main() -> None:
    """Plans, trains two at a time, evaluates and prints the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=10.0, help="of one thread, for each candidate")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("-n", type=int, default=1000, help="samples of an evaluation")
    parser.add_argument(
        "--items", type=int, default=7126, help="pictures of the data, for the time to encode"
    )
    parser.add_argument("--autoencoders", action="store_true", help="compare autoencoders alone")
    parser.add_argument("--only", nargs="+", help="names of candidates; all by default")
    parser.add_argument("--work", help="a candidate; used by the benchmark itself")
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work, chosen.data, chosen.size, chosen.seed, chosen.out)
        return
    names = chosen.only or list(AUTOENCODERS if chosen.autoencoders else CANDIDATES)
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "plan.json"
    plans = json.loads(file.read_text()) if file.exists() else {}
    if missing := [name for name in names if name not in plans]:
        plans |= plan(missing, chosen.size, chosen.minutes, chosen.items)
        file.write_text(json.dumps(plans, indent=1))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
        note(f"training: {'; '.join(pair)}")
        own = [chosen.data, "--out", str(chosen.out), "--size", str(chosen.size), "--seed", str(chosen.seed)]
        children = [
            subprocess.Popen([sys.executable, __file__, *own, "--work", name], env=environment)
            for name in pair
        ]
        if any(code != 0 for code in [child.wait() for child in children]):
            raise SystemExit("a training failed; what it said is above")
    if chosen.autoencoders:
        print_autoencoders(chosen, names)
        return
    rows = []
    for name in names:
        run = folder_of(chosen.out, name)
        rows.append(row_of(name, run, evaluated(run, chosen.data, chosen.n)))
    print_section(
        "## Candidates",
        f"Which way to {chosen.size} px gives the best samples for {chosen.minutes:g} minutes of one thread?",
        f"{chosen.data} at {chosen.size} px, {torch.get_num_threads()} threads to evaluate with, "
        f"n = {chosen.n}, lite0 features at 224 px.",
    )
    head = ("candidate", "parameters", "GFLOP an evaluation", "to decode", "images seen")
    print_table((*head, "Fréchet distance", "kernel distance", "s a sample"), map(cells, rows))
    print_command()


def print_autoencoders(chosen: Any, names: Sequence[str]) -> None:
    """The table of the autoencoders, by what their monitors measured at the end."""
    print_section(
        "## Autoencoders",
        f"What does each part of the autoencoder bring in {chosen.minutes:g} minutes of one thread?",
        f"{chosen.data} at {chosen.size} px. PSNR, SSIM and the distance from the training pictures are of "
        "reconstructed held-out pictures; lite0 features at 96 px.",
    )
    rows = []
    for name in names:
        run = Run(folder_of(chosen.out, name))
        records = {record["kind"]: record for record in run.log.records()}
        near, far = records["reconstruction"], records["distance"]
        network = build_denoiser(run.recipe).network
        rows.append(
            (
                name,
                f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M",
                f"{near['images']:,}",
                f"{near['psnr']:.2f}",
                f"{near['ssim']:.3f}",
                f"{far['frechet']:.1f}",
                f"{far['kid']:.3f}",
            )
        )
    head = ("what differs from the recipe", "parameters", "images seen", "PSNR (dB)", "SSIM")
    print_table((*head, f"Fréchet distance (n = {far['n']})", "kernel distance"), rows)
    print_command()


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    e = row.evaluation
    metrics = {m["key"]: m["value"] for m in e["metrics"]}
    return (
        row.name,
        f"{row.parameters / 1e6:.2f} M",
        f"{row.gflop:.2f}",
        f"{row.decoding:.2f}" if row.decoding else "–",
        f"{row.images:,}",
        f"{metrics['frechet']:.1f}",
        f"{metrics['kid']:.4f}",
        f"{e['seconds_per_sample']:.2f}",
    )


if __name__ == "__main__":
    main()
