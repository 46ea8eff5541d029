"""Which timesteps serve a model best, and with which sampler?

    python benchmarks/timesteps.py --model cars64 --data stanford_cars -n 300

Prints a table with the distances of n samples for several samplers and timesteps, without guidance (appendix
G of docs/results/quality_vs_compute.md). The distances are those of the training monitor: lite0 features at
96 px, 2,000 training pictures.
"""

from typing import Any

import numpy as np

import alphabar
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.metrics.distances import frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS
from alphabar.progress import last
from common import argument_parser, compute_features, dataset_of, print_command, print_table

CHOICES: tuple[tuple[str, Any, int], ...] = (
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
    parser = argument_parser(__doc__)
    parser.add_argument("--model", required=True, help="a run, a model folder or a shipped model")
    parser.add_argument("--data", required=True, help="the pictures that the model was trained on")
    parser.add_argument("-n", type=int, default=300, help="samples in a row")
    args = parser.parse_args()
    model = alphabar.load_model(args.model)
    dataset = dataset_of(model, args.data)
    train, _ = dataset.split(model.recipe.data.held_out)
    extractor = EXTRACTORS.build("lite0_96", device="cpu")
    reference = compute_features(extractor, np.asarray(dataset.items[np.sort(train[:2000])]))

    def row(sampler: str, timesteps: Any, steps: int) -> tuple[str, ...]:
        settings = alphabar.sampling_settings(
            model, sampler=sampler, timesteps=timesteps, steps=steps, guidance={}
        )
        times = TIMESTEPS.build(settings.timesteps)(model.denoiser.schedule, steps)
        level = model.denoiser.schedule(times[-2])
        found = compute_features(extractor, last(alphabar.sample(model, args.n, settings)))
        distance = kid(found, reference)
        return (
            sampler,
            settings.timesteps["name"],
            str(steps),
            f"{(level.sigma / level.alpha).item():.3f}",
            f"{frechet_distance(found, reference):,.0f}",
            f"{distance.value:.2f} ± {distance.standard_error:.2f}",
        )

    print(f"{model.images:,} images seen; n = {args.n}\n")
    head = ("sampler", "timesteps", "steps", "last noise level before 0", "Fréchet", "kernel distance")
    print_table(head, (row(*choice) for choice in CHOICES))
    print_command()


if __name__ == "__main__":
    main()
