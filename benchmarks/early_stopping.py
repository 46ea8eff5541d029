"""Few pictures, many epochs: when does the held-out error rise, and are the samples of that moment better?

One training on 100 toycars is stopped at several moments. At each, the model is compared with its own
training pictures, with those it held out, and with cars that it never saw. Prints a table.

    python benchmarks/early_stopping.py --work early
"""

import math
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alphabar import begin, last, load_model, named_recipe, open_source, prepare, sample, train, with_settings
from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.diffusion.loss import denoising_error
from alphabar.diffusion.random import Noise, Purpose
from alphabar.formatting import format_count
from alphabar.metrics.distances import kid
from alphabar.metrics.features import EXTRACTORS, Extractor
from alphabar.metrics.memorization import FeaturePair, Thresholds, memorization, thresholds
from alphabar.runs.model import Model
from alphabar.training.monitor import SIGMAS
from common import (
    argument_parser,
    compute_features,
    load_dataset,
    note,
    print_command,
    print_section,
    print_table,
)

N, UNSEEN = 100, 600  # cars in the data set, and others
SAMPLES, ERROR_OF = 200, 200  # for the distance and copies, and cars for the denoising error
SETTINGS = ["data.size=16", "network.widths=[32,64]", "network.patch=1", "monitor.share=0"]
END = ["monitor.samples=1", "monitor.levels=0", "monitor.distance=0"]  # nothing is measured by the training


def main() -> None:
    """Train, stop, measure, go on."""
    parser = argument_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run, which can go on")
    parser.add_argument("--images", type=int, default=64_000, help="in the whole training")
    options = parser.parse_args()
    recipe = with_settings(named_recipe("lean"), [*SETTINGS, *END, "data.channels=3"])
    codec = build_codec(recipe.data)
    dataset = last(prepare(open_source(f"toycars:{N}"), codec))
    unseen = load_dataset(f"toycars:{N + UNSEEN}", codec).items[N:]
    run = begin(options.work, recipe)
    print_section(
        "## Few pictures, many epochs",
        "When does the held-out error rise, and are samples of that moment better than those of the end?",
        f"`lean` with widths 32-64 on {N} toycars of 16 px, a tenth held out, {options.images:,} images in"
        f" all. Errors are geometric means over {len(SIGMAS)} noise levels; kernel distances (lite0_96) are"
        f" of {SAMPLES} samples against {UNSEEN} cars that the model never saw; the baseline is of real cars"
        " among these. Copies are samples nearer to a training picture than 99 in 100 of those cars come.",
    )
    extractor = EXTRACTORS.build("lite0_96", device="cpu")
    measure = Measure(dataset, recipe.data.held_out, unseen, extractor)
    rows = []
    for moment in moments(options.images):
        stop = threading.Event()
        for record in train(dataset, run, images=options.images, stop=stop, checkpoint_every=60):
            if record.loss is not None and record.images >= moment:
                stop.set()
        rows.append(measure.row(load_model(options.work, "cpu")))
        note("  ".join(rows[-1]))
    errors = ("training error", "held-out error", "unseen error")
    head = ("images", "epochs", *errors, "kernel distance", "copies")
    print_table(head, [*rows, ("real cars", "", "", "", "", measure.baseline, "")])
    print_command()


def moments(images: int) -> list[int]:
    """Half of the number before, from the whole training downwards, in ascending order."""
    return [images >> i for i in reversed(range(6))]


class Measure:
    """What is measured at each moment. unseen: cars (n, h, w, 3) that are not in the data set."""

    def __init__(self, dataset: Dataset, held_out: float, unseen: np.ndarray, extractor: Extractor):
        train_index, held_index = dataset.split(held_out)
        self.train, self.held = (dataset.items[np.sort(i)] for i in (train_index, held_index))
        self.unseen, self.extractor = unseen, extractor
        self.features = compute_features(extractor, unseen, cached=True)
        self.train_features = compute_features(extractor, self.train)
        half = len(unseen) // 2
        real = kid(self.features[:half], self.features[half:])
        self.baseline = f"{real.value:.4f} ± {real.standard_error:.4f}"
        cars = self.pair(torch.from_numpy(unseen), self.features)
        self.below: Thresholds = thresholds(cars, torch.from_numpy(self.train), self.train_features)

    def pair(self, pictures: Tensor, features: Tensor) -> FeaturePair:
        """Pictures with their features and those of their mirror images."""
        return FeaturePair(pictures, features, compute_features(self.extractor, pictures.flip(2)))

    def row(self, model: Model) -> tuple[str, ...]:
        """The numbers of a model as a row of the table."""
        errors = [error(model, items) for items in (self.train, self.held, self.unseen[:ERROR_OF])]
        samples = last(sample(model, SAMPLES))
        features = compute_features(self.extractor, samples)
        distance = kid(features, self.features)
        found = memorization(
            self.pair(samples, features), torch.from_numpy(self.train), self.train_features, self.below
        )
        return (
            format_count(model.images),
            f"{model.images / len(self.train):.0f}",
            *(f"{e:.5f}" for e in errors),
            f"{distance.value:.4f} ± {distance.standard_error:.4f}",
            f"{found.share[0]:.0%}",
        )


@torch.no_grad()
def error(model: Model, items: np.ndarray) -> float:
    """The geometric mean over noise levels of the mean squared error of D, with the same noise always."""
    x0 = model.codec.encode(torch.from_numpy(items))
    eps = Noise(0, range(len(x0)), Purpose.HELD_OUT_ERROR).normal(0, x0)
    levels = -2 * torch.tensor(SIGMAS, dtype=torch.float64).log()
    times = model.denoiser.schedule.time(levels)
    logs = [denoising_error(model.denoiser, x0, t.expand(len(x0)), eps).mean().log().item() for t in times]
    return math.exp(sum(logs) / len(logs))


if __name__ == "__main__":
    main()
