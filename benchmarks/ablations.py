"""Which changes to a textbook DDPM matter when compute is scarce? From `classic` to `lean`, step by step.

    python benchmarks/ablations.py stanford_cars --out runs/ablations --size 32 --minutes 6 --seeds 3 -n 500

Prints section 1 and appendix A of docs/results/ablations.md. First all steps train in turns for some seconds,
so that a machine that becomes slower or is shared slows all alike; the median rate says how many images a
step gets in its minutes. Then each step trains that many, however busy the machine is, and is evaluated with
the same held-out pictures and noise, the same sampler and the same seed. Results are kept in ``--out``: an
interrupted benchmark continues where it was.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import torch

import alphabar
from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.images import image_grid
from alphabar.networks.base import Network, flops
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import Model, build_denoiser
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.probe import probe
from common import argument_parser, load_dataset, note, print_command, print_section, print_table

# What each step changes, compared with the step before. The settings are those of pictures of 32 px.
CHANGES: tuple[tuple[str, str], ...] = (
    ("`classic`", ""),
    ("a U-Net with GroupNorm and attention", "network=unet"),
    ("a smaller U-Net, which sees more pictures", "network.widths=[32,64,64] network.attention=1"),
    ("batches of 32 instead of 128", "batch=32"),
    ("sampling uses the EMA of the weights", "ema.half_life=500000"),
    ("the learning rate warms up, and falls to zero", "optimizer.warm_up=1000 optimizer.decay_from=0.6"),
    (
        "a cosine schedule down to pure noise, v-prediction",
        "schedule=cosine parameterization=v noise_distribution=uniform",
    ),
    ("noise levels stratified over the batch", "stratified=true"),
    (
        "Muon instead of Adam, rate 3e-3",
        "optimizer.name=muon optimizer.learning_rate=0.003 optimizer.betas=[0.9,0.99] optimizer.warm_up=1000"
        " optimizer.decay_from=0.6",
    ),
    (
        "noise distribution concentrated where pictures form: `lean` for 32 px",
        "noise_distribution=log_normal noise_distribution.mean=-0.4 noise_distribution.std=0.9"
        " noise_distribution.uniform_share=0.1",
    ),
)
# Alternatives that start from the last step; none of them was taken.
EDM = (
    "schedule=variance_exploding parameterization=edm noise_distribution=log_normal"
    " noise_distribution.mean=-0.8 noise_distribution.std=1.4"
)
MAGNITUDE_PRESERVING = "network=mp_unet network.widths=[64,128] optimizer.learning_rate=0.15"
ALTERNATIVES: tuple[tuple[str, str], ...] = (
    ("blocks of 2×2 pixels and twice the channels", "network.patch=2 network.widths=[64,128]"),
    ("EDM instead of cosine and v: variance exploding, preconditioned, log-normal levels", EDM),
    ("a magnitude-preserving U-Net on blocks of 2×2 pixels, rate 0.15", MAGNITUDE_PRESERVING),
    ("both: `edm`", f"{EDM} {MAGNITUDE_PRESERVING}"),
)
LAST = len(CHANGES) - 1
SEVERAL_SEEDS = (7, LAST)  # the steps whose seeds show how much a measurement varies
SAMPLING_STEPS = 20
RATE_ROUNDS = 3


class AblationStep(NamedTuple):
    """One training. number: of CHANGES, and after them of ALTERNATIVES."""

    number: int
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.number:02d}-{self.seed}"


def ablation_steps(size: int, seeds: int) -> list[AblationStep]:
    """All trainings, for pictures of ``size`` px."""
    recipe = alphabar.with_settings(
        alphabar.named_recipe("classic"), [f"data.size={size}", "monitor.share=0"]
    )
    recipes = []
    for _, settings in CHANGES:
        recipe = alphabar.with_settings(recipe, settings.split())
        recipes.append(recipe)
    recipes += [alphabar.with_settings(recipe, settings.split()) for _, settings in ALTERNATIVES]
    return [
        AblationStep(number, seed, alphabar.with_settings(recipe, [f"seed={seed}"]))
        for number, recipe in enumerate(recipes)
        for seed in range(seeds if number in SEVERAL_SEEDS else 1)
    ]


# Trainings


def network_of(recipe: Recipe) -> Network:
    """The untrained network of a recipe."""
    network = build_denoiser(recipe).network
    assert isinstance(network, Network)
    return network


def choose_runtime(recipe: Recipe) -> Runtime:
    """Without torch.compile, which takes minutes and helps all steps about the same."""
    return probe(recipe, try_compile=False)


def measure_rates(
    dataset: Dataset, steps: Sequence[AblationStep], seconds: float, out: Path
) -> dict[int, float]:
    """Training pictures a second of each step, the median over rounds in which all take turns."""
    stored = out / "rates.json"
    if stored.exists():
        return {int(number): rate for number, rate in json.loads(stored.read_text()).items()}
    first = [step for step in steps if step.seed == 0]
    measured: dict[int, list[float]] = {step.number: [] for step in first}
    for turn in range(RATE_ROUNDS):
        for step in first:
            folder = out / f".rate-{step.number}"
            shutil.rmtree(folder, ignore_errors=True)
            run, runtime = alphabar.begin(folder, step.recipe), choose_runtime(step.recipe)
            *_, rate = (
                record.rate
                for record in alphabar.train(dataset, run, budget=seconds, runtime=runtime)
                if record.loss is not None
            )
            measured[step.number].append(rate)
            shutil.rmtree(folder)
            note(f"round {turn + 1}, step {step.number}: {rate:.1f} pictures/s")
    rates = {number: median(values) for number, values in measured.items()}
    stored.write_text(json.dumps(rates))
    return rates


def train_step(dataset: Dataset, run: Run, runtime: Runtime, images: int) -> Model:
    """The model after that many images."""
    began = time.monotonic()
    for record in alphabar.train(dataset, run, images=images, runtime=runtime):
        if record.loss is not None and time.monotonic() - began > 60:
            began = time.monotonic()
            note(f"  {record.images:,} images, {record.eta / 60:.0f} minutes left")
    return alphabar.load_model(run.path)


def result_of(
    dataset: Dataset, step: AblationStep, images: int, n: int, data: str, out: Path
) -> dict[str, Any]:
    """Train and evaluate a step, or read the result of having done so before."""
    stored = out / step.name / "result.json"
    if stored.exists():
        return json.loads(stored.read_text())
    note(f"step {step.number}, seed {step.seed}: {images:,} images")
    run, runtime = alphabar.begin(out / step.name, step.recipe), choose_runtime(step.recipe)
    model = train_step(dataset, run, runtime, images)
    monitored = alphabar.with_settings(step.recipe, ["monitor.levels=256"])
    monitor = TrainingMonitor(dataset, monitored, run, runtime, model.statistics)
    error = monitor.error_by_level(model.denoiser)
    settings = alphabar.sampling_settings(
        model, sampler="dpmpp_2m", timesteps="log_snr", steps=SAMPLING_STEPS, seed=0
    )
    image_grid(last(alphabar.sample(model, 64, settings))).save(out / f"{step.name}.png")
    evaluation = last(alphabar.evaluate(model, data, n=n, settings=settings))
    metrics = {metric.key: metric for metric in evaluation.report.metrics}
    network = network_of(step.recipe)
    result = {
        "number": step.number,
        "seed": step.seed,
        "images": model.images,
        "gflop": flops(network, model.codec.spatial) / 1e9,
        "parameters": sum(p.numel() for p in network.parameters()),
        "error": error["error"],
        "sigma": [math.exp(-level / 2) for level in error["levels"]],
        "frechet": metrics["frechet"].value,
        "kid": metrics["kid"].value,
        "kid_error": metrics["kid"].error,
    }
    stored.write_text(json.dumps(result))
    return result


# Tables


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(mean(math.log(value) for value in values))


def steps_table(
    results: Sequence[dict[str, Any]], rates: dict[int, float], levels: int
) -> Iterator[list[str]]:
    """A row for each step, with its held-out error relative to that of the step that it changes.

    levels: noise levels that the schedules of all steps reach, over which errors are averaged.
    """
    errors = {result["number"]: geometric_mean(result["error"][:levels]) for result in results}
    names = [name for name, _ in [*CHANGES, *ALTERNATIVES]]
    for result in results:
        number = result["number"]
        before = min(number - 1, LAST)
        yield [
            str(number),
            names[number],
            f"{rates[number]:.1f}",
            f"{result['images']:,}",
            f"{result['gflop']:.2f}",
            f"{errors[number]:.5f}",
            f"× {errors[number] / errors[before]:.3f}" if before in errors else "",
            f"{result['frechet']:.0f}",
            f"{result['kid']:.3f} ± {result['kid_error']:.3f}",
        ]


def seeds_table(results: Sequence[dict[str, Any]], levels: int) -> Iterator[list[str]]:
    """A row for each step that was trained with several seeds."""
    for number in SEVERAL_SEEDS:
        same = [result for result in results if result["number"] == number]
        if len(same) < 2:
            continue
        errors = [geometric_mean(result["error"][:levels]) for result in same]
        frechet, kid = ([result[key] for result in same] for key in ("frechet", "kid"))
        yield [
            str(number),
            str(len(same)),
            f"{mean(errors):.5f}",
            f"{stdev(errors) / mean(errors):.2%}",
            f"{mean(frechet):.0f} ± {stdev(frechet):.0f}",
            f"{mean(kid):.3f} ± {stdev(kid):.3f}",
        ]


def print_page(results: Sequence[dict[str, Any]], rates: dict[int, float], args: Any) -> None:
    levels = min(len(result["error"]) for result in results)
    first = [result for result in results if result["seed"] == 0]
    print_section(
        f"## 1. One change at a time, {args.minutes:g} minutes each",
        "Starting from `classic`, how much does each change improve the result at equal training time?",
        f"Pictures of {args.size}×{args.size} of {args.data}, {args.minutes:g} minutes of training per step"
        f" at the rate measured on {torch.get_num_threads()} threads; each row adds one change to the row"
        " above. The held-out error is the mean squared error of the predicted x0, the geometric mean over"
        " the noise levels, on 256 pictures that no step trained on, with the same noise. Distances are"
        f" those of {args.n} samples (DPM-Solver++(2M), {SAMPLING_STEPS} steps, the same seed) in `lite0`"
        " features. The rates were measured once, in turns.",
    )
    head = ["", "what changed", "pictures/s", "pictures", "GFLOP", "held-out error"]
    rest = ["Fréchet", "KID"]
    rows = list(steps_table(first, rates, levels))
    print_table([*head, "relative to the row above", *rest], rows[: LAST + 1])
    print(f"Alternatives that start from step {LAST}, none of which was taken:\n")
    print_table([*head, f"relative to step {LAST}", *rest], rows[LAST + 1 :])
    if seeds := list(seeds_table(results, levels)):
        print("How much seeds matter:\n")
        print_table(["", "seeds", "held-out error", "standard deviation", *rest], seeds)
    print_command()
    print("### A. Held-out error by noise level\n\nThe steps, by noise level (sigma / alpha):\n")
    print_table(
        ["", *(f"{round(sigma, 2):g}" for sigma in first[0]["sigma"][:levels])],
        ([str(r["number"]), *(f"{error:.4f}" for error in r["error"][:levels])] for r in first),
    )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", help="a folder of pictures or a built-in name")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="where results are kept")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures in pixels")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, for each step")
    parser.add_argument("--seeds", type=int, default=3, help="of the steps that show how much seeds matter")
    parser.add_argument("-n", type=int, default=500, help="samples in an evaluation")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    steps = ablation_steps(args.size, args.seeds)
    dataset = load_dataset(args.data, build_codec(steps[0].recipe.data))
    seconds = 60 * args.minutes
    rates = measure_rates(dataset, steps, seconds / 80, args.out)
    results = [
        result_of(dataset, step, int(rates[step.number] * seconds), args.n, args.data, args.out)
        for step in steps
    ]
    print_page(results, rates, args)


if __name__ == "__main__":
    main()
