"""Do schedules, samplers and posteriors agree with closed forms and with diffusers?

    python benchmarks/numerical_accuracy.py

Prints docs/results/numerical_accuracy.md: the order of each deterministic sampler, their accuracy with few
evaluations, agreement with diffusers, and the posterior q(x_s | x_t, x0) against Bayes' rule in matrix form.
Needs the development extras (diffusers, scipy). Takes a minute or two on one core; deterministic.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import diffusers
import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.forward import posterior
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, last_step
from alphabar.diffusion.schedules import SCHEDULES, Schedule
from alphabar.diffusion.timesteps import TIMESTEPS
from common import argument_parser, load_dataset, print_command, print_section, print_table
from exact import GaussianDenoiser, MixtureDenoiser

DETERMINISTIC = ("ddim", "euler", "heun", "dpmpp_2m", "unipc")
STEPS = (32, 64, 128, 256, 512)
DIFFUSERS: dict[str, tuple[Any, dict[str, Any]]] = {
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
BETAS = (1e-4, 0.02)
tensor = partial(torch.tensor, dtype=torch.float64)


def result_of(sampler: str, denoiser: Denoiser, x: Tensor, times: Tensor, noise: Any = None) -> Tensor:
    """Where a sampler leads from x (n, ...) at the first of the times. noise: of a stochastic one."""
    noise = noise or Noise(0, range(len(x)), "benchmark")
    return last_step(SAMPLERS.build(sampler)(denoiser, x, times, noise, None)).x


# 1. Orders


def gaussian() -> tuple[Denoiser, Tensor, Tensor]:
    """A denoiser, x at sigma = 80, and where the probability flow leads it at sigma = 0.002."""
    denoiser = GaussianDenoiser(
        SCHEDULES.build("variance_exploding"), tensor([0.4, -0.3]), tensor([[0.25, 0.12], [0.12, 0.09]])
    )
    x = tensor([[80.0, -40.0], [-96.0, 24.0]])
    times = TIMESTEPS.build("karras")(denoiser.schedule, 2)
    return denoiser, x, denoiser.flow(x, times[0], times[1])


def mixture() -> tuple[Denoiser, Tensor, Tensor]:
    """The same for a mixture of two Gaussians, by a solver of order 8."""
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
    """A row for each deterministic sampler: its errors, and log2 of the ratio of the last two."""
    for name in DETERMINISTIC:
        errors = []
        for steps in STEPS:
            times = TIMESTEPS.build("karras")(denoiser.schedule, steps)[:-1]  # the last would be sigma = 0
            errors.append((result_of(name, denoiser, x, times) - truth).abs().max().item())
        order = math.log2(errors[-2] / errors[-1])
        yield [data, f"`{name}`", *(f"{error:.2e}" for error in errors), f"{order:.2f}"]


# 2. Few evaluations


def few_evaluations() -> Iterator[list[str]]:
    """A row for each sampler and its timesteps: how far from the truth on the denoiser of 200 pictures."""
    codec = ImageCodec(16)
    pictures = codec.encode(torch.from_numpy(load_dataset("toycars:200", codec).items[:])).double().flatten(1)
    weights = torch.full((len(pictures),), 1 / len(pictures), dtype=torch.float64)
    schedule = SCHEDULES.build("variance_exploding")
    denoiser = MixtureDenoiser(schedule, weights, pictures, 0.1)
    generator = torch.Generator().manual_seed(0)
    x = 80 * torch.randn(16, pictures.shape[1], generator=generator, dtype=torch.float64)
    truth = result_of("heun", denoiser, x, TIMESTEPS.build("karras")(schedule, 256))
    for sampler in ("heun", "dpmpp_2m", "unipc"):
        for timesteps in ("karras", "log_snr"):
            cells = []
            for steps in (4, 5, 6, 18) if sampler == "heun" else (8, 10, 12, 35):
                found = result_of(sampler, denoiser, x, TIMESTEPS.build(timesteps)(schedule, steps))
                error = (found - truth).square().mean().sqrt()
                cells.append(f"{error:.4f} ({2 * steps - 1 if sampler == 'heun' else steps})")
            yield [f"`{sampler}`", f"`{timesteps}`", *cells]


# 3. diffusers


class SameNoise:
    """The noise that diffusers takes from one seed, in its order."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, step: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def sample_by_diffusers(
    name: str, denoiser: Denoiser, x: Tensor, T: int, steps: int, dtype: torch.dtype
) -> Tensor:
    """The result of diffusers' scheduler. dtype: of its table of alpha_bar, float32 as released."""
    scheduler_class, settings = DIFFUSERS[name]
    scheduler = scheduler_class(
        num_train_timesteps=T,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        timestep_spacing="trailing",
        **settings,
    )
    if dtype is torch.float64:
        scheduler.alphas_cumprod = (1 - torch.linspace(*BETAS, T, dtype=dtype)).cumprod(0)
    scheduler.set_timesteps(steps)
    extra = {} if name == "unipc" else {"generator": torch.Generator().manual_seed(0)}
    for i in scheduler.timesteps:
        t = ((i.double() + 1) / T).expand(len(x))
        alpha, sigma = (c[:, None] for c in denoiser.schedule(t))
        eps = (x - alpha * denoiser(x, t)) / sigma
        x = scheduler.step(eps, i, x, **extra).prev_sample
    return x


def agreement_with_diffusers() -> Iterator[list[str]]:
    """A row for each sampler and number of steps: the largest difference between the two results."""
    means = tensor([[-0.6, 0.2, 0.1], [0.5, -0.4, 0.8]])
    for name, (scheduler_class, _) in DIFFUSERS.items():
        for T, steps in ((1000, 10), (1000, 50), (300, 300), (1000, 1000)):
            schedule: Schedule = SCHEDULES.build({"name": "linear_beta", "steps": T})
            denoiser = MixtureDenoiser(schedule, tensor([0.3, 0.7]), means, 0.4)
            x_T = torch.randn(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            times = TIMESTEPS.build("uniform")(schedule, steps)
            found = result_of(name, denoiser, x_T, times, SameNoise())
            theirs = (
                sample_by_diffusers(name, denoiser, x_T, T, steps, dtype)
                for dtype in (torch.float32, torch.float64)
            )
            gaps = (f"{(x - found).abs().max().item():.1e}" for x in theirs)
            yield [f"`{name}`", f"`{scheduler_class.__name__}`", str(T), str(steps), *gaps]


# 4. The posterior


def chain(beta: Tensor, x0: float) -> tuple[Tensor, Tensor]:
    """Mean (T,) and covariance (T, T) of the whole chain x_1 … x_T from x0, built of its betas alone."""
    matrix = torch.eye(len(beta), dtype=torch.float64) - torch.diag((1 - beta[1:]).sqrt(), -1)
    inverse = torch.linalg.inv(matrix)
    return inverse[:, 0] * (1 - beta[0]).sqrt() * x0, inverse @ torch.diag(beta) @ inverse.T


def posteriors() -> Iterator[list[str]]:
    """A row for each chain: the largest differences of q(x_s | x_t, x0) over all s < t."""
    x0, x_t = 0.7, -1.3
    for T, beta_min, beta_max in ((40, 0.01, 0.3), (100, *BETAS)):
        schedule = SCHEDULES.build(
            {"name": "linear_beta", "steps": T, "beta_min": beta_min, "beta_max": beta_max}
        )
        mean, cov = chain(torch.linspace(beta_min, beta_max, T, dtype=torch.float64), x0)
        worst_mean = worst_variance = 0.0
        for t in range(2, T + 1):
            s = torch.arange(1, t, dtype=torch.float64)
            ones = torch.ones(t - 1, 1, dtype=torch.float64)
            found_mean, found_std = posterior(
                schedule, x_t * ones, x0 * ones, tensor([t / T] * (t - 1)), s / T
            )
            gain = cov[: t - 1, t - 1] / cov[t - 1, t - 1]
            true_mean = mean[: t - 1] + gain * (x_t - mean[t - 1])
            true_variance = cov.diagonal()[: t - 1] - gain * cov[: t - 1, t - 1]
            worst_mean = max(worst_mean, (found_mean[:, 0] - true_mean).abs().max().item())
            worst_variance = max(worst_variance, (found_std[:, 0] ** 2 - true_variance).abs().max().item())
        worst = (f"{worst_mean:.1e}", f"{worst_variance:.1e}")
        yield [str(T), f"{beta_min:g} … {beta_max:g}", str(T * (T - 1) // 2), *worst]


# The page


def print_orders() -> None:
    print_section(
        "## 1. The order of each deterministic sampler",
        "Does each sampler converge with the order that its paper states?",
        "The error max |x − truth| after N steps on data whose denoiser is exact, on Karras timesteps with"
        " rho 7 from sigma = 80 to 0.002. The truth is the closed form of the probability flow for the"
        " Gaussian, and DOP853 with rtol 1e-12 for the mixture. The order is log2 of the ratio of the last"
        " two errors.",
    )
    head = ["data", "sampler", *(f"N = {n}" for n in STEPS), "order"]
    print_table(head, [*orders("Gaussian", *gaussian()), *orders("mixture of two", *mixture())])


def print_few_evaluations() -> None:
    print_section(
        "## 2. Few evaluations",
        "Which sampler is most accurate with few network evaluations?",
        "The root mean square distance per pixel, for pictures in [-1, 1], from the result of Heun's method"
        " with 256 steps and the same initial noise. The denoiser is the exact one of a mixture of 200"
        " toycars at 16×16, each with a standard deviation of 0.1. Network evaluations are in brackets.",
    )
    print_table(["sampler", "timesteps", "8 or 7", "10 or 9", "12 or 11", "35"], few_evaluations())


def print_agreement() -> None:
    print_section(
        "## 3. Agreement with diffusers",
        "Do the samplers compute the same as those of diffusers?",
        "The largest difference between the results of two complete samplings from the same x_T with the"
        " same noise, linear betas 1e-4 … 0.02, with the exact denoiser of a mixture of two. diffusers keeps"
        " alpha_bar in float32, whose rounding adds up over many steps; the last column gives it the same"
        " table in float64 (`DPMSolverMultistep` and `UniPCMultistep` still round their sigmas to float32).",
    )
    head = ["sampler", "diffusers", "T", "steps", "diffusers as released", "float64 table"]
    print_table(head, agreement_with_diffusers())


def print_posteriors() -> None:
    print_section(
        "## 4. The posterior against Bayes' rule in matrix form",
        "Is q(x_s | x_t, x0) right?",
        "Every pair s < t, compared with conditioning the joint Gaussian of the whole chain, which is built"
        " from the betas alone. The table has the largest absolute differences.",
    )
    print_table(["T", "beta", "pairs", "mean", "variance"], posteriors())


SECTIONS = {
    "orders": print_orders,
    "few-evaluations": print_few_evaluations,
    "diffusers": print_agreement,
    "posterior": print_posteriors,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)}; all by default")
    args = parser.parse_args(arguments)
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"there is no section {min(unknown)}")
    torch.set_num_threads(1)
    print("# Numerical accuracy of the diffusion core\n")
    print(
        f"All numbers are in float64, with torch {torch.__version__} and diffusers {diffusers.__version__}.\n"
    )
    print_command()
    for name in args.sections or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
