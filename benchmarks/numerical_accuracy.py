"""How true the mathematics is: orders of the samplers, parity with diffusers, the posterior by matrix Bayes.

    python benchmarks/truth.py > docs/results/truth.md

Needs the development extras (diffusers, scipy). A minute or two on one core; deterministic.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from alphabar.codecs.image import ImageCodec, to_signal
from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.forward import posterior
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from exact import GaussianDenoiser, MixtureDenoiser

DETERMINISTIC = ("ddim", "euler", "heun", "dpmpp_2m", "unipc")
tensor = partial(torch.tensor, dtype=torch.float64)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def gaussian() -> tuple[Denoiser, Tensor, Tensor]:
    """A denoiser, x at sigma = 80, and where the probability flow takes it at sigma = 0.002."""
    denoiser = GaussianDenoiser(
        SCHEDULES.build("variance_exploding"), tensor([0.4, -0.3]), tensor([[0.25, 0.12], [0.12, 0.09]])
    )
    x = tensor([[80.0, -40.0], [-96.0, 24.0]])
    times = TIMESTEPS.build("karras")(denoiser.schedule, 2)
    return denoiser, x, denoiser.flow(x, times[0], times[1])


def mixture() -> tuple[Denoiser, Tensor, Tensor]:
    denoiser = MixtureDenoiser(
        SCHEDULES.build("variance_exploding"), tensor([0.3, 0.7]), tensor([[-0.6, 0.2], [0.5, -0.4]]), 0.2
    )
    x = tensor([[40.0, -25.0], [-60.0, 70.0]])

    def velocity(log_sigma: float, x: np.ndarray) -> np.ndarray:
        t = denoiser.schedule.time(tensor([-2 * log_sigma]))
        return x - denoiser(torch.from_numpy(x)[None], t)[0].numpy()

    ends = (math.log(80), math.log(0.002))
    solve = partial(solve_ivp, velocity, ends, method="DOP853", rtol=1e-12, atol=1e-13)
    return denoiser, x, torch.from_numpy(np.stack([solve(row.numpy()).y[:, -1] for row in x]))


def orders(data: str, denoiser: Denoiser, x: Tensor, truth: Tensor) -> Iterator[list[str]]:
    for name in DETERMINISTIC:
        errors = []
        for steps in (32, 64, 128, 256, 512):
            times = TIMESTEPS.build("karras")(denoiser.schedule, steps)[:-1]
            end = last_step(SAMPLERS.build(name)(denoiser, x, times, Noise(0, range(2), "truth"), None)).x
            errors.append((end - truth).abs().max().item())
        order = math.log2(errors[-2] / errors[-1])
        yield [data, f"`{name}`", *(f"{error:.2e}" for error in errors), f"{order:.2f}"]


class Replayed:
    """The noise that diffusers draws from the same seed, in its order."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, step: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def parity() -> Iterator[list[str]]:
    oracles = {
        "ancestral": (diffusers.DDPMScheduler, {"variance_type": "fixed_small", "clip_sample": False}),
        "ddim": (diffusers.DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
        "dpmpp_2m": (
            diffusers.DPMSolverMultistepScheduler,
            {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
        ),
        "unipc": (
            diffusers.UniPCMultistepScheduler,
            {"solver_order": 2, "solver_type": "bh2", "predict_x0": True, "final_sigmas_type": "zero"},
        ),
    }
    means = tensor([[-0.6, 0.2, 0.1], [0.5, -0.4, 0.8]])
    for name, (oracle, settings) in oracles.items():
        for T, steps in ((1000, 10), (1000, 50), (300, 300), (1000, 1000)):
            schedule = SCHEDULES.build({"name": "linear_beta", "steps": T})
            denoiser = MixtureDenoiser(schedule, tensor([0.3, 0.7]), means, 0.4)
            x_T = torch.randn(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            times = TIMESTEPS.build("uniform")(schedule, steps)
            ours = last_step(SAMPLERS.build(name)(denoiser, x_T, times, Replayed(), None)).x
            gaps = []
            for tables in (torch.float32, torch.float64):
                scheduler = oracle(
                    num_train_timesteps=T,
                    beta_start=1e-4,
                    beta_end=0.02,
                    timestep_spacing="trailing",
                    **settings,
                )
                if tables is torch.float64:
                    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
                    scheduler.alphas_cumprod = (1 - betas).cumprod(0)
                scheduler.set_timesteps(steps)
                x = x_T
                extra = {} if name == "unipc" else {"generator": torch.Generator().manual_seed(0)}
                for i in scheduler.timesteps:
                    t = ((i.double() + 1) / T).expand(len(x))
                    alpha, sigma = (c[:, None] for c in schedule(t))
                    eps = (x - alpha * denoiser(x, t)) / sigma
                    x = scheduler.step(eps, i, x, **extra).prev_sample
                gaps.append((x - ours).abs().max().item())
            yield [f"`{name}`", f"`{oracle.__name__}`", str(T), str(steps), *(f"{gap:.1e}" for gap in gaps)]


def bayes() -> Iterator[list[str]]:
    """q(x_s | x_t, x0) for all s < t, from the joint covariance of the chain x_1..x_T built of its betas."""
    x0, x_t = 0.7, -1.3
    for T, beta_min, beta_max in ((40, 0.01, 0.3), (100, 1e-4, 0.02)):
        schedule = SCHEDULES.build(
            {"name": "linear_beta", "steps": T, "beta_min": beta_min, "beta_max": beta_max}
        )
        beta = torch.linspace(beta_min, beta_max, T, dtype=torch.float64)
        inverse = torch.linalg.inv(torch.eye(T, dtype=torch.float64) - torch.diag((1 - beta[1:]).sqrt(), -1))
        mean, cov = inverse[:, 0] * (1 - beta[0]).sqrt() * x0, inverse @ torch.diag(beta) @ inverse.T
        worst_mean = worst_variance = 0.0
        for t in range(2, T + 1):
            s = torch.arange(1, t, dtype=torch.float64)
            gain = cov[: t - 1, t - 1] / cov[t - 1, t - 1]
            ones = torch.ones(t - 1, 1, dtype=torch.float64)
            got_mean, got_std = posterior(schedule, x_t * ones, x0 * ones, tensor([t / T] * (t - 1)), s / T)
            want_mean = mean[: t - 1] + gain * (x_t - mean[t - 1])
            want_variance = cov.diagonal()[: t - 1] - gain * cov[: t - 1, t - 1]
            worst_mean = max(worst_mean, (got_mean[:, 0] - want_mean).abs().max().item())
            worst_variance = max(worst_variance, (got_std[:, 0] ** 2 - want_variance).abs().max().item())
        pairs = T * (T - 1) // 2
        yield [
            str(T),
            f"{beta_min:g} … {beta_max:g}",
            str(pairs),
            f"{worst_mean:.1e}",
            f"{worst_variance:.1e}",
        ]


def few_steps() -> Iterator[list[str]]:
    """Where walks of few evaluations end, from the same noise, on the exact denoiser of 200 pictures."""
    *_, prepared = prepare(open_source("toycars:200"), ImageCodec(16))
    pictures = to_signal(torch.from_numpy(prepared.result.items[:])).double().flatten(1)
    schedule = SCHEDULES.build("variance_exploding")
    denoiser = MixtureDenoiser(
        schedule, torch.full((len(pictures),), 1 / len(pictures)).double(), pictures, 0.1
    )
    x = 80 * torch.randn(
        16, pictures.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def end(sampler: str, grid: str, steps: int) -> Tensor:
        times = TIMESTEPS.build(grid)(schedule, steps)
        return last_step(SAMPLERS.build(sampler)(denoiser, x, times, Noise(0, range(16), "truth"), None)).x

    truth = end("heun", "karras", 256)
    for sampler in ("heun", "dpmpp_2m", "unipc"):
        for grid in ("karras", "log_snr"):
            counts = (4, 5, 6, 18) if sampler == "heun" else (8, 10, 12, 35)
            gaps = [(end(sampler, grid, n) - truth).square().mean().sqrt().item() for n in counts]
            asked = [2 * n - 1 if sampler == "heun" else n for n in counts]
            yield [f"`{sampler}`", f"`{grid}`", *(f"{gap:.4f} ({n})" for gap, n in zip(gaps, asked))]


def main() -> None:
    torch.set_num_threads(1)
    order_head = ["data", "sampler", *(f"N = {n}" for n in (32, 64, 128, 256, 512)), "order"]
    order_rows = [*orders("Gaussian", *gaussian()), *orders("mixture of two", *mixture())]
    print(f"""# Truth: the mathematics against closed forms and oracles

```
python benchmarks/truth.py > docs/results/truth.md
```

torch {torch.__version__}, diffusers {diffusers.__version__}; float64 throughout.

## The order of each deterministic sampler

The error max |x - truth| of a walk of N levels on data whose denoiser is exact, from sigma = 80 down
Karras's grid (rho 7) to sigma_min = 0.002. Truth is the closed form of the probability flow for the
Gaussian, and DOP853 at rtol 1e-12 for the mixture. Order: log2 of the last two errors' ratio; the
methods are of order 1, 1, 2, 2 and 3 (UniPC of order 2 and its corrector).

{table(order_head, order_rows)}
## Few evaluations

The root mean square distance a pixel, pictures in [-1, 1], between the end of a walk and that of Heun's with
256 steps from the same noise: the exact denoiser of a mixture of 200 toycars at 16×16, each with a
standard deviation of 0.1. In brackets the network evaluations.

{table(["sampler", "grid", "8 or 7", "10 or 9", "12 or 11", "35"], list(few_steps()))}
## Parity with diffusers

The largest difference between the ends of two whole walks from the same x_T with the same noise, linear
betas 1e-4 … 0.02, exact denoiser of a mixture of two. diffusers keeps alpha_bar as float32, whose
rounding a long walk adds up; the last column gives it the same table in float64 (`DPMSolverMultistep`
and `UniPCMultistep` still round their sigmas to float32) and shows that the formulas agree.

{table(["sampler", "oracle", "T", "steps", "as shipped", "float64 table"], list(parity()))}
## The posterior against matrix Bayes

q(x_s | x_t, x0) for every pair s < t, against conditioning the joint Gaussian of the whole chain, which
is built from the betas alone. Largest absolute difference.

{table(["T", "beta", "pairs", "mean", "variance"], list(bayes()))}""")


if __name__ == "__main__":
    main()
