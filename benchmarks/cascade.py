"""Is a cascade, a model of 64 px and one that upscales, a better way to 128 px than one?

    python benchmarks/cascade.py stanford_cars --out runs/cascade --minutes 10 -n 500

Prints a row of the table of larger_images.py. A training step of either model is timed in seconds at work of
one thread; ``--share`` of the minutes goes to the model of 64 px. Both train on one thread, and the samples
of the first are enlarged by the second, which sees them with a little noise. Results are kept in ``--out``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import alphabar
import candidates  # noqa: F401  (registers the upscaler)
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import enlarged
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, generate, last_step
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.networks.base import Network, flops
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import Model, build_denoiser
from alphabar.runtime import Runtime
from common import argument_parser, print_command, print_section, print_table
from larger_images import SHIFTED, seconds_of

SIZE = 64
COMMON = ["data.channels=3", "monitor.share=0", "monitor.distance=0"]
STEPS, NOISE, AT_ONCE = 10, 0.05, 50


def recipes(seed: int = 0) -> tuple[Recipe, Recipe]:
    """Those of the model of 64 px and of the upscaler."""
    common = [*COMMON, f"seed={seed}"]
    small = [*common, f"data.size={SIZE}", "network.widths=[32,64,128]"]
    large = [*common, "data.size=128", "name=upscaler", "method=upscaling", "network=upscaler"]
    large += [SHIFTED, "coarse=2", "sampling.guidance=[]"]
    return (
        alphabar.with_settings(alphabar.named_recipe("lean"), small),
        alphabar.with_settings(alphabar.named_recipe("lean"), large),
    )


@torch.no_grad()
def upscaled(model: Model, pictures: Tensor, seed: int = 0) -> Tensor:
    """Pictures (n, 64, 64, 3) uint8 -> (n, 128, 128, 3) uint8."""
    denoiser, recipe = model.denoiser, model.recipe
    times = TIMESTEPS.build(recipe.sampling.timesteps)(denoiser.schedule, STEPS)
    noise = INITIAL_NOISES.build("standard_normal", statistics=None, codec=model.codec)
    generator, found = torch.Generator().manual_seed(seed), []
    for first in range(0, len(pictures), AT_ONCE):
        low = ImageCodec(SIZE).encode(pictures[first : first + AT_ONCE])
        low = low + NOISE * torch.randn(low.shape, generator=generator)
        stem: Any = denoiser.network.stem
        stem.low = enlarged(low, 2)
        positions = range(first, first + len(low))
        steps = generate(
            denoiser,
            shape=model.codec.shape,
            positions=positions,
            seed=seed,
            sampler=SAMPLERS.build(recipe.sampling.sampler),
            times=times,
            initial_noise=noise,
        )
        found.append(model.codec.decode(last_step(steps).x))
    return torch.cat(found)


def trained(folder: Path, data: str, minutes: float, share: float, seed: int) -> tuple[Model, Model]:
    """The two models."""
    chosen, file = recipes(seed), folder / "plan.json"
    if not file.exists():
        timed = seconds_of(chosen)
        plan = [
            {"images": round(60 * minutes * part / seconds), "runtime": runtime.to_dict()}
            for part, (runtime, seconds) in zip((share, 1 - share), timed, strict=True)
        ]
        file.write_text(json.dumps(plan, indent=1))
    models = []
    for recipe, plan in zip(chosen, json.loads(file.read_text()), strict=True):
        run = folder / recipe.name
        runtime = Runtime.from_dict(plan["runtime"])
        last(alphabar.launch(data, run=run, recipe=recipe, images=plan["images"], runtime=runtime))
        models.append(alphabar.load_model(run, "cpu"))
    return models[0], models[1]


def network_of(model: Model) -> Network:
    """An untrained network of the model's recipe."""
    network = build_denoiser(model.recipe, model.vocabulary).network
    assert isinstance(network, Network)
    return network


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of one thread")
    parser.add_argument("--share", type=float, default=0.7, help="of the minutes, for the model of 64 px")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("-n", type=int, default=500, help="samples")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    small, large = trained(chosen.out, chosen.data, chosen.minutes, chosen.share, chosen.seed)
    samples = chosen.out / "samples"
    if not samples.exists():
        pictures = upscaled(large, last(alphabar.sample(small, chosen.n)))
        samples.mkdir()
        for i, picture in enumerate(pictures):
            large.codec.write(picture, samples / f"{i:06}.png", {})
    evaluation = last(alphabar.evaluate(samples, chosen.data, n=chosen.n)).to_dict()
    metrics = {metric["key"]: metric["value"] for metric in evaluation["metrics"]}
    networks = [network_of(model) for model in (small, large)]
    gflop = [flops(networks[0], (SIZE, SIZE)) / 1e9, flops(networks[1], (2 * SIZE, 2 * SIZE)) / 1e9]
    print_section(
        "## A cascade",
        f"How good is a cascade after {chosen.minutes:g} minutes of one thread?",
        f"{chosen.data}, {chosen.share:.0%} of the minutes for the model of 64 px, n = {chosen.n}, lite0"
        " features at 224 px.",
    )
    row = (
        f"{sum(p.numel() for n in networks for p in n.parameters()) / 1e6:.2f} M",
        " + ".join(f"{each:.2f}" for each in gflop),
        f"{small.images:,} + {large.images:,}",
        f"{metrics['frechet']:.1f}",
        f"{metrics['kid']:.4f}",
    )
    head = ("parameters", "GFLOP an evaluation", "images seen", "Fréchet distance", "kernel distance")
    print_table(head, [row])
    print_command()


if __name__ == "__main__":
    main()
