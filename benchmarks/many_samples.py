"""How much memory does it take to generate and to evaluate many samples?

    python benchmarks/many_samples.py -n 2000 10000 50000

Prints docs/results/many_samples.md: for each number of samples the peak memory of ``alphabar sample`` and of
an evaluation, each in a process of its own, with a small network at 16 px and small features, so that what
grows with n is not hidden by what does not.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from alphabar.evaluation.evaluate import evaluate
from alphabar.metrics.features import EXTRACTORS, Features
from alphabar.progress import last
from alphabar.runs.model import load_model
from alphabar.sampling.outputs import sampling_metadata
from alphabar.sampling.sample_folder import SampleFolder, sample_into
from alphabar.sampling.settings import sampling_settings
from alphabar.training.launch import launch
from common import argument_parser, note, print_command, print_section, print_table

NETWORK = [
    "data.size=16",
    "network=unet",
    "network.widths=[8,16]",
    "network.head_dim=8",
    "batch=8",
    "monitor.distance=0",
]
STEPS = 2


class BlockColors:
    """Features (n, 48): the mean colors of 4×4 blocks."""

    name, dim, protocol = "blocks", 48, "mean colors of 4×4 blocks"

    def __init__(self, device: str = "cpu"):
        pass

    def __call__(self, pictures: Tensor) -> Features:
        n, h, w, _ = pictures.shape
        means = pictures.float().reshape(n, 4, h // 4, 4, w // 4, 3).mean(dim=(2, 4))
        return Features(means.flatten(1), None)


def peak_memory() -> float:
    """The most memory that this process has held so far, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def work(what: str, run: Path, n: int, out: Path) -> None:
    """Does one of the works in this process and prints its peak memory before and after, and seconds."""
    model = load_model(run, "cpu")
    settings = sampling_settings(model, steps=STEPS)
    before, began = peak_memory(), time.monotonic()
    if what == "sample":
        folder = SampleFolder(out, model.codec, sampling_metadata(model, settings, "tiny"), n)
        last(sample_into(folder, model, n, [settings]))
    else:
        EXTRACTORS["blocks"] = BlockColors
        last(evaluate(model, "toycars:400", n=n, features="blocks", settings=settings, precision="fp32"))
    print(before, peak_memory(), time.monotonic() - began)


def measured(what: str, run: Path, n: int, out: Path) -> tuple[float, float, float]:
    """Peak memory in MiB before and after one of the works in a new process, and its seconds."""
    command = [sys.executable, __file__, "--work", what, str(run), str(out), "-n", str(n)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    before, after, seconds = map(float, done.stdout.split())
    return before, after, seconds


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("-n", type=int, nargs="+", default=[2000, 10_000, 50_000], help="samples")
    parser.add_argument("--work", nargs=3, metavar=("WHAT", "RUN", "OUT"), help="for its own processes")
    args = parser.parse_args()
    if args.work:
        what, run, out = args.work
        work(what, Path(run), args.n[0], Path(out))
        return
    torch.set_num_threads(1)
    print_section(
        "# Many samples",
        "How much memory does it take to generate and to evaluate many samples?",
        f"A network of widths 8 and 16 at 16 px with random weights, float32, {STEPS} steps, files of"
        " `sample_into`; features of 48 numbers; 400 toycars as the reference. Each number is the peak"
        f" resident memory of a new process, in MiB; in brackets what it was before the work. torch"
        f" {torch.__version__}.",
    )
    with tempfile.TemporaryDirectory() as root:
        run = Path(root) / "run"
        last(launch("toycars:64", run=run, recipe="lean", images=8, settings=NETWORK, runtime="plain"))

        def rows():
            for n in args.n:
                cells = []
                for what in ("sample", "evaluate"):
                    note(f"{what} {n}")
                    before, after, seconds = measured(what, run, n, Path(root) / f"{what}{n}")
                    cells += [f"{after:.0f} ({before:.0f})", f"{seconds:.0f}"]
                yield f"{n:,}", *cells

        print_table(("samples", "generating, MiB", "seconds", "evaluating, MiB", "seconds"), rows())
    print_command()


if __name__ == "__main__":
    main()
