"""How near each posterior solver comes to the exact posterior of Gaussian data, in closed form.

    python benchmarks/restoration_truth.py

writes the part of docs/results/restoration.md between its markers. Minutes on one core; deterministic, no
Monte Carlo: means and covariances are propagated through every step (tests/gaussian_restoration.py).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.restoration.operators.registry import build_operator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from gaussian_restoration import SHAPE, exact_denoiser, law, nearness

ROOT = Path(__file__).parents[1]
STEPS = (20, 100)
PROBLEMS = {
    "half the pixels missing": ({"name": "random", "share": 0.5}, 0.05),
    "a box missing": ("box", 0.05),
    "Gaussian blur of std 1": ({"name": "blur", "std": 1.0}, 0.05),
    "×2 by averaging": ({"name": "area_downsample", "factor": 2}, 0.05),
    "noise 0.3": ("denoise", 0.3),
}
SOLVERS = {
    "`mmps`, 20 iterations": {"name": "mmps", "iterations": 20},
    "`mmps`, 20 iterations, eta 0": {"name": "mmps", "iterations": 20, "eta": 0.0},
    "`pigdm`": {"name": "pigdm"},
    "`pigdm`, data_std 1 (as published)": {"name": "pigdm", "data_std": 1.0},
    "`diffpir`": {"name": "diffpir"},
    "`ddrm`": {"name": "ddrm"},
    "`perturb_and_map`": {"name": "perturb_and_map"},
    "`direct`": {"name": "direct"},
}
BEGIN, END = "<!-- exact data -->", "<!-- end of exact data -->"


def rows() -> Iterator[list[str]]:
    denoiser = exact_denoiser(SCHEDULES.build("variance_exploding"))
    for problem, (spec, sigma_y) in PROBLEMS.items():
        operator = build_operator(spec, SHAPE)
        for name, solver in SOLVERS.items():
            if solver["name"] == "direct" and spec != "denoise":
                continue
            cells = []
            for steps in STEPS:
                times = TIMESTEPS.build("karras")(denoiser.schedule, steps)
                x_law = denoiser.marginal(times[0])
                found = law(solver, denoiser, *x_law, times, operator, sigma_y)
                near = nearness(found, denoiser.mean, denoiser.cov, operator, sigma_y)
                cells.append(f"{near.decibels:.2f} / {near.variance:.2f} / {near.chi2:.2f}")
            print(problem, name, *cells, file=sys.stderr, flush=True)
            yield [problem, name, *cells]


def write(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what a page has between two markers."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    head = ["data lost", "solver", *(f"{steps} steps" for steps in STEPS)]
    lines = [head, ["---"] * len(head), *rows()]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    write(ROOT / "docs/results/restoration.md", BEGIN, END, table)


if __name__ == "__main__":
    main()
