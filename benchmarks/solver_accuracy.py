"""How close does each solver of inverse problems come to the exact posterior of Gaussian data?

    python benchmarks/solver_accuracy.py

Propagates means and covariances through every step of a solver in closed form, without Monte Carlo error
(tests/gaussian_restoration.py), and writes the table of section 1 of docs/results/restoration.md between its
markers. Takes minutes on one core; deterministic.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.restoration.operators.base import Linear
from alphabar.restoration.operators.registry import build_operator
from common import argument_parser, note
from gaussian_restoration import SHAPE, exact_denoiser, law, nearness

PAGE = Path(__file__).parents[1] / "docs" / "results" / "restoration.md"
BEGIN, END = "<!-- exact data -->", "<!-- end of exact data -->"
STEPS = (20, 100)
PROBLEMS: dict[str, tuple[dict[str, Any], float]] = {
    "half the pixels missing": ({"name": "random", "share": 0.5}, 0.05),
    "a box missing": ({"name": "box"}, 0.05),
    "Gaussian blur of std 1": ({"name": "blur", "std": 1.0}, 0.05),
    "×2 by averaging": ({"name": "area_downsample", "factor": 2}, 0.05),
    "noise 0.3": ({"name": "denoise"}, 0.3),
}
SOLVERS: dict[str, dict[str, Any]] = {
    "`mmps`, 20 iterations": {"name": "mmps", "iterations": 20},
    "`mmps`, 20 iterations, eta 0": {"name": "mmps", "iterations": 20, "eta": 0.0},
    "`pigdm`": {"name": "pigdm"},
    "`pigdm`, data_std 1 (as published)": {"name": "pigdm", "data_std": 1.0},
    "`diffpir`": {"name": "diffpir"},
    "`ddrm`": {"name": "ddrm"},
    "`perturb_and_map`": {"name": "perturb_and_map"},
    "`direct`": {"name": "direct"},
}


def rows(all_steps: tuple[int, ...]) -> Iterator[list[str]]:
    """A row for each problem and each solver that can take it; a cell for each number of steps."""
    denoiser = exact_denoiser(SCHEDULES.build("variance_exploding"))
    for problem, (spec, sigma_y) in PROBLEMS.items():
        operator = build_operator(spec, SHAPE)
        assert isinstance(operator, Linear)
        for name, solver in SOLVERS.items():
            if solver["name"] == "direct" and spec["name"] != "denoise":
                continue
            cells = []
            for steps in all_steps:
                times = TIMESTEPS.build("karras")(denoiser.schedule, steps)
                mean, cov = denoiser.marginal(times[0])
                found = law(solver, denoiser, mean, cov, times, operator, sigma_y)
                near = nearness(found, denoiser.mean, denoiser.cov, operator, sigma_y)
                cells.append(f"{near.decibels:.2f} / {near.variance:.2f} / {near.chi2:.2f}")
            note(" | ".join([problem, name, *cells]))
            yield [problem, name, *cells]


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what a page has between two markers."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="a column for each")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    head = ["data lost", "solver", *(f"{steps} steps" for steps in args.steps)]
    lines = [head, ["---"] * len(head), *rows(tuple(args.steps))]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    write_between(args.page, BEGIN, END, table)


if __name__ == "__main__":
    main()
