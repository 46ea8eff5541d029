"""The samplers against diffusers' schedulers, from noise to sample with an exact denoiser."""

import pytest
import torch

from alphabar.diffusion.samplers import SAMPLERS, last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from exact import MixtureDenoiser

diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SETTINGS = {
    "ancestral": ("DDPMScheduler", {"variance_type": "fixed_small", "clip_sample": False}),
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": True, "clip_sample": False}),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "solver_type": "midpoint",
            "final_sigmas_type": "zero",
        },
    ),
    "unipc": (
        "UniPCMultistepScheduler",
        {"solver_order": 2, "solver_type": "bh2", "predict_x0": True, "final_sigmas_type": "zero"},
    ),
}


class Replayed:
    """The noise that diffusers draws from the same seed, in its order."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, step, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def mixture(schedule):
    means = torch.tensor([[-0.6, 0.2, 0.1], [0.5, -0.4, 0.8]], dtype=torch.float64)
    return MixtureDenoiser(schedule, torch.tensor([0.3, 0.7], dtype=torch.float64), means, 0.4)


def reference_run(sampler, steps, denoiser, x):
    """What diffusers' scheduler makes of x with the denoiser's eps; its step i - 1 is our time i / T."""
    T = denoiser.schedule.steps
    name, settings = SETTINGS[sampler]
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=T, timestep_spacing="trailing", **BETAS, **settings
    )
    # Its tables are float32, where 1 - alpha_bar_i / alpha_bar_{i-1} cancels: 300 steps add up to 5e-5.
    scheduler.betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    scheduler.alphas_cumprod = (1 - scheduler.betas).cumprod(0)
    scheduler.set_timesteps(steps)
    extra = {} if sampler == "unipc" else {"generator": torch.Generator().manual_seed(0)}
    for i in scheduler.timesteps:
        t = ((i.double() + 1) / T).expand(len(x))
        alpha, sigma = (c[:, None] for c in denoiser.schedule(t))
        eps = (x - alpha * denoiser(x, t)) / sigma
        x = scheduler.step(eps, i, x, **extra).prev_sample
    return x


@pytest.mark.parametrize(("T", "steps"), [(1000, 10), (1000, 50), (300, 300)])
@pytest.mark.parametrize("sampler", SETTINGS)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_samplers_agree_with_diffusers(sampler, T, steps):
    denoiser = mixture(SCHEDULES.build({"name": "linear_beta", "steps": T}))
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tolerance = 1e-5 if sampler in ("dpmpp_2m", "unipc") else 1e-9  # their sigmas stay float32
    times = TIMESTEPS.build("uniform")(denoiser.schedule, steps)
    ours = last_step(SAMPLERS.build(sampler)(denoiser, x, times, Replayed(), None)).x
    torch.testing.assert_close(ours, reference_run(sampler, steps, denoiser, x), rtol=0, atol=tolerance)


def test_alpha_bar_agrees_with_diffusers():
    for name, settings in {"linear_beta": BETAS, "cosine": {"beta_schedule": "squaredcos_cap_v2"}}.items():
        theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **settings).alphas_cumprod
        alpha = SCHEDULES.build(name)(torch.arange(1, 1001, dtype=torch.float64) / 1000).alpha
        torch.testing.assert_close(alpha**2, theirs.double(), rtol=0, atol=1e-6)
