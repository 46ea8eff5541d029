"""Every precision of the exports to ONNX and OpenVINO beside the model itself, as one table.

python benchmarks/export.py [MODEL] [--against DATA] [-n 128] [--grids FOLDER]

All generate the same samples, batch by batch in turns, so that their times compare; run it on an idle
machine. Kernel distances of lite0 features are from the real pictures of DATA; without it, between the
model's first half of the samples and the second half of the export's. It needs the extra alphabar[export].
"""

import argparse
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alphabar import last, load_model, sampling_settings
from alphabar.export import TARGETS
from alphabar.export.base import Export, MakeItems
from alphabar.export.parity import (
    BATCH,
    Distance,
    distance_between,
    generate_in_turns,
    model_folder,
    own_samples,
    reference_features,
    sample_features,
    size_on_disk,
)
from alphabar.images import image_grid
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of
from alphabar.inference.runtime import precisions
from alphabar.runs.model import Model
from alphabar.runtime import machine_state
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings

SEVERAL = ("onnx", "openvino")
LONG = 9000  # network evaluations of the job for which the model's own bf16 is chosen


def result(work: Generator[Any, None, Any]) -> Any:
    """What a generator returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@dataclass
class Row:
    """What generates samples, and what it takes on the disk in bytes."""

    name: str
    make: MakeItems
    size: int


def rows(model: Model, root: Path) -> Iterator[Row]:
    """The model itself, and its export in every precision of every target, in folders of root."""
    settings = sampling_settings(model)
    size = size_on_disk(model_folder(model.path))
    yield Row("the model, fp32", own_samples(Export(model, settings, "fp32")), size)
    if "bf16" in precisions(model.device):
        fast = last(choose_runtime(model, evaluations=LONG, batch=BATCH, precision="bf16"))
        chosen = runtime_of(fast)
        assert chosen is not None
        yield Row(f"the model, {chosen.name}", samples_of(fast, settings), size)
    for target in SEVERAL:
        for precision in TARGETS[target].precisions:
            export, chosen = Export(model, settings, precision), TARGETS.build(target)
            chosen.check(export)
            folder = root / f"{target} {precision}"
            folder.mkdir()
            about = last(chosen.write(export, folder))
            if floats := about.get("float_layers"):
                print(f"{folder.name}: in float {', '.join(floats)}", flush=True)
            yield Row(folder.name, chosen.load(export, folder), size_on_disk(folder))


def samples_of(model: Model, settings: SamplingSettings) -> MakeItems:
    """What a model generates, computing as it does."""
    return lambda first, count: last(sample(model, count, settings, first=first, batch=count))


def distances(model: Model, items: list[Tensor], against: str | None) -> list[Distance]:
    """The distance of each side's samples, from real pictures or from the model's first half."""
    features = [result(sample_features(model.codec, each)) for each in items]
    if against:
        export = Export(model, sampling_settings(model), "fp32")
        reference, real = result(reference_features(export, against))
        print(f"Kernel distance from {reference}")
        return [distance_between(each, real) for each in features]
    half = len(items[0]) // 2
    print("Kernel distance between the model's first half of the samples and the second half of each")
    first = features[0].chosen(slice(half))
    return [distance_between(first, each.chosen(slice(half, None))) for each in features]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="cars64")
    parser.add_argument("--against")
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("--grids", type=Path, help="folder for a grid of the first 16 samples of each")
    given = parser.parse_args()
    model = load_model(given.model, "cpu")
    with tempfile.TemporaryDirectory() as root:
        sides = list(rows(model, Path(root)))
        items, seconds = result(generate_in_turns([side.make for side in sides], given.n))
    found = distances(model, items, given.against)
    print(f"{given.n} samples each; {machine_state()}\n")
    print("| | mean difference of 255 | largest | kernel distance, interval | MB | s per sample | faster |")
    print("|---|---|---|---|---|---|---|")
    for side, own, each, time in zip(sides, items, found, seconds, strict=True):
        difference = (own.double() - items[0].double()).abs()
        distance = "{:.4f} [{:.4f}, {:.4f}]".format(*each)
        print(
            f"| {side.name} | {difference.mean():.2g} | {difference.max():g} | {distance} "
            f"| {side.size / 1e6:.1f} | {time:.3g} | {seconds[0] / time:.2f}× |"
        )
        if given.grids:
            given.grids.mkdir(parents=True, exist_ok=True)
            picture = image_grid(model.codec.preview(own[:16]))
            picture.save(given.grids / f"{side.name.replace(', ', ' ').replace(' ', '-')}.png")


if __name__ == "__main__":
    main()
