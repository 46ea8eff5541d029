"""Every precision of the exports to ONNX and OpenVINO against the model itself, as one table.

python benchmarks/export.py [MODEL] [--against DATA] [-n 256]

It needs the extra alphabar[export]. The two sides of each row generate in turns; run it on an idle machine.
"""

import argparse
import tempfile
from pathlib import Path

from alphabar import export_to, last, load_model
from alphabar.export import TARGETS

SEVERAL = ("onnx", "openvino")


def interval(distance: tuple[float, float, float] | None) -> str:
    return "–" if distance is None else "{:.4f} [{:.4f}, {:.4f}]".format(*distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="cars64")
    parser.add_argument("--against")
    parser.add_argument("-n", type=int, default=256)
    given = parser.parse_args()
    model = load_model(given.model, "cpu")
    print("| export | mean, largest difference of 255 | size, MB | time, model/export | distance |")
    print("| --- | --- | --- | --- | --- |")
    for target in SEVERAL:
        for precision in TARGETS[target].precisions:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                p = last(export_to(model, target, out, precision=precision, n=given.n, against=given.against))
            own, export = p.sides
            name = f"{target} {precision}"
            distance = interval(export.distance or p.distance)
            if export.distance:
                distance += f" (model {interval(own.distance)})"
            times = own.seconds / export.seconds
            size = export.size / 1e6
            print(
                f"| {name} | {p.mean:.3g}, {p.largest:g} | {size:.1f} | {times:.2f}× | {distance} |",
                flush=True,
            )
            if floats := p.about.get("float_layers"):
                print(f"|  | in float: {', '.join(floats)} | | | |", flush=True)


if __name__ == "__main__":
    main()
