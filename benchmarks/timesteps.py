"""Which noise levels a model is best sampled on: the quick distance of n samples, grid by grid.

    python benchmarks/grids.py --model cars64 --data stanford_cars -n 300

The distances are those that a training watches: lite0 features at 96 px, 2,000 training pictures.
"""

import argparse
from typing import Any

import numpy as np
import torch

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.metrics.distances import frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS, extract

LINES: tuple[tuple[str, Any, int], ...] = (
    ("unipc", "log_snr", 10),
    ("unipc", "log_snr", 20),
    ("unipc", {"name": "log_snr", "sigma_min": 0.05}, 10),
    ("unipc", {"name": "log_snr", "sigma_min": 0.3}, 10),
    ("unipc", "karras", 10),
    ("unipc", "linear_beta", 10),
    ("dpmpp_2m", "linear_beta", 10),
    ("unipc", "linear_beta", 20),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("-n", type=int, default=300)
    given = parser.parse_args()
    model = alphabar.load_model(given.model)
    recipe = model.recipe.data
    *_, prepared = alphabar.prepare(alphabar.open_source(given.data), ImageCodec(recipe.size), recipe.fit)
    train, _ = prepared.result.split(recipe.held_out)
    extractor = EXTRACTORS.build("lite0_96", device="cpu")

    def features(pictures: torch.Tensor) -> torch.Tensor:
        *_, done = extract(extractor, pictures)
        return done.result.features

    reference = features(torch.from_numpy(np.asarray(prepared.result.items[np.sort(train[:2000])])))
    print(f"{model.images:,} images seen; n = {given.n}\n")
    print("| sampler | noise levels | steps | last level | Fréchet | KID |")
    print("| --- " * 6 + "|")
    for sampler, timesteps, steps in LINES:
        settings = alphabar.sampling_settings(
            model, sampler=sampler, timesteps=timesteps, steps=steps, pag=0.0
        )
        times = TIMESTEPS.build(settings.timesteps)(model.denoiser.schedule, steps)
        level = model.denoiser.schedule(times[-2])
        *_, drawn = alphabar.sample(model, given.n, settings)
        found = features(drawn.pictures)
        value = kid(found, reference)
        print(
            f"| {sampler} | {settings.timesteps['name']} | {steps} | {(level.sigma / level.alpha).item():.3f}"
            f" | {frechet_distance(found, reference):.0f} | {value.value:.2f} ± {value.standard_error:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
