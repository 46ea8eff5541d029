"""Every precision of the exports to ONNX and OpenVINO beside the model itself, as one table.

python benchmarks/export.py [MODEL] [--against DATA] [-n 128] [--grids FOLDER]

All generate the same samples, batch by batch in turns, so that their times compare; run it on an idle
machine. Distances (KID of lite0 features) are from the real pictures of DATA; without it, between the model's
first half of the samples and the second half of the export's. It needs the extra alphabar[export].
"""

import argparse
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from alphabar import last, load_model, sampling_settings
from alphabar.export import TARGETS
from alphabar.export.base import Export
from alphabar.export.parity import (
    distance_between,
    generate_in_turns,
    model_folder,
    own_samples,
    reference_features,
    sample_features,
    size_on_disk,
)
from alphabar.images import image_grid
from alphabar.runtime import machine_state

SEVERAL = ("onnx", "openvino")


def result(work: Generator[Any, None, Any]) -> Any:
    """What a generator returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="cars64")
    parser.add_argument("--against")
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("--grids", type=Path, help="folder for a grid of the first 16 samples of each")
    given = parser.parse_args()
    model = load_model(given.model, "cpu")
    settings = sampling_settings(model)
    own = Export(model, settings, "fp32")
    names, sides, sizes = ["the model, fp32"], [own_samples(own)], [size_on_disk(model_folder(model.path))]
    with tempfile.TemporaryDirectory() as root:
        for target in SEVERAL:
            for precision in TARGETS[target].precisions:
                export, chosen = Export(model, settings, precision), TARGETS.build(target)
                chosen.check(export)
                folder = Path(root) / f"{target} {precision}"
                folder.mkdir()
                about = last(chosen.write(export, folder))
                if floats := about.get("float_layers"):
                    print(f"{folder.name}: in float {', '.join(floats)}", flush=True)
                names.append(folder.name)
                sides.append(chosen.load(export, folder))
                sizes.append(size_on_disk(folder))
        items, seconds = result(generate_in_turns(sides, given.n))
    features = [result(sample_features(model.codec, each)) for each in items]
    half = given.n // 2
    if given.against:
        reference, real = result(reference_features(own, given.against))
        distances = [distance_between(each, real) for each in features]
        print(f"distance from {reference}")
    else:
        first = features[0].chosen(slice(half))
        distances = [distance_between(first, each.chosen(slice(half, None))) for each in features]
        print("distance between the model's first half and the second half of each")
    print(f"{given.n} samples each; {machine_state()}\n")
    print("| | mean difference of 255 | largest | KID, 95 % interval | MB | s per sample | faster |")
    print("|---|---|---|---|---|---|---|")
    for i, name in enumerate(names):
        difference = (items[i].double() - items[0].double()).abs()
        distance = "{:.4f} [{:.4f}, {:.4f}]".format(*distances[i])
        print(
            f"| {name} | {difference.mean():.2g} | {difference.max():g} | {distance} | {sizes[i] / 1e6:.1f} "
            f"| {seconds[i]:.3g} | {seconds[0] / seconds[i]:.2f}× |"
        )
        if given.grids:
            given.grids.mkdir(parents=True, exist_ok=True)
            image_grid(model.codec.preview(items[i][:16])).save(given.grids / f"{name.replace(' ', '-')}.png")


if __name__ == "__main__":
    main()
