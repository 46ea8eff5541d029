"""deepinv's physics as our operators, our denoisers in its algorithms."""

import pytest
import torch

from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.restoration.deepinv import DeepinvDenoiser, Physics
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.solvers.base import Observation
from alphabar.restoration.solvers.registry import SOLVERS
from exact import MixtureDenoiser

try:
    import deepinv
except Exception as problem:  # torchvision, which it imports, may be of another torch
    pytest.skip(f"deepinv cannot be imported: {problem}", allow_module_level=True)

SHAPE = (3, 16, 16)


def physics(name: str):
    torch.manual_seed(0)
    if name == "blur":
        row = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
        kernel = torch.outer(row, row) / row.sum() ** 2
        return deepinv.physics.Blur(filter=kernel[None, None], padding="circular")
    if name == "down":
        return deepinv.physics.Downsampling(img_size=SHAPE, factor=4, filter="gaussian", padding="circular")
    return deepinv.physics.Inpainting(img_size=SHAPE, mask=0.5)


@pytest.mark.parametrize("name", ["blur", "down", "mask"])
def test_its_physics_is_an_operator(name):
    A = Physics(physics(name), SHAPE)
    x = torch.randn(2, *SHAPE)
    y = A.A(x)
    v = torch.randn_like(y)
    assert tuple(y.shape[1:]) == A.measurement_shape
    assert (y * v).sum().item() == pytest.approx((x * A.adjoint(v)).sum().item(), rel=1e-4)
    torch.testing.assert_close(A.A(A.pinv(y)), y, atol=2e-3, rtol=2e-3)
    u = A.prox(x, y + 0.1, 0.3)
    residual = A.adjoint(A.A(u) - y - 0.1) + 0.3 * (u - x)
    assert residual.abs().max() < 1e-3


def test_a_mask_of_its_answers_as_ours():
    theirs = physics("mask")
    known = theirs.mask[0, :1] if theirs.mask.ndim == 4 else theirs.mask[:1]
    known = known.expand(1, *SHAPE[1:])
    ours, adapted = Mask(known, SHAPE), Physics(deepinv.physics.Inpainting(img_size=SHAPE, mask=known), SHAPE)
    denoiser = MixtureDenoiser(
        SCHEDULES.build("variance_exploding"),
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.stack([torch.full((768,), -0.4), torch.full((768,), 0.5)]).double(),
        0.3,
    )

    class Shaped:
        schedule = denoiser.schedule

        def __call__(self, x, t, cond=None):
            return denoiser(x.flatten(1), t).reshape(x.shape)

    x0 = 0.5 + 0.3 * torch.randn(2, *SHAPE, dtype=torch.float64)
    times = TIMESTEPS.build("log_snr")(denoiser.schedule, 12)
    answers = []
    for A in (ours, adapted):
        start = 80 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        observed = Observation(A, A.A(x0), 0.05)
        walk = SOLVERS.build("diffpir").solve(Shaped(), start, times, Noise(0, range(2), "test"), observed)
        answers.append(last_step(walk).x)
    torch.testing.assert_close(answers[0], answers[1], atol=1e-6, rtol=1e-6)


class Pixels:
    """The exact denoiser of independent pixels N(0.2, 0.5²) in [-1, 1]."""

    def __init__(self, schedule):
        self.schedule = SCHEDULES.build(schedule)

    def __call__(self, x, t, cond=None):
        alpha, sigma = (part.to(x)[:, None, None, None] for part in self.schedule(t))
        return 0.2 + 0.25 * alpha * (x - 0.2 * alpha) / (0.25 * alpha**2 + sigma**2)


@pytest.mark.parametrize("schedule", ["variance_exploding", "cosine"])
def test_our_denoiser_speaks_its_units(schedule):
    denoiser = DeepinvDenoiser(Pixels(schedule))
    x = torch.rand(3, *SHAPE)
    for sigma in (0.05, torch.tensor([0.02, 0.1, 0.4])):
        s = torch.as_tensor(sigma).expand(3)[:, None, None, None]
        wanted = 0.6 + 0.0625 * (x - 0.6) / (0.0625 + s**2)  # N(0.6, 0.25²) in [0, 1]
        torch.testing.assert_close(denoiser(x, sigma), wanted, atol=1e-4, rtol=1e-4)


def test_a_network_keeps_its_type_where_an_algorithm_walks_in_another():
    network = NETWORKS.build({"name": "unet", "widths": (16, 32), "attention": 0}, channels=3)
    schedule, parameterization = SCHEDULES.build("cosine"), PARAMETERIZATIONS.build("v")
    denoiser = DeepinvDenoiser(NetworkDenoiser(network, parameterization, schedule))
    x = torch.rand(2, *SHAPE)
    answer = denoiser(x.double(), 0.2)
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer.float(), denoiser(x, 0.2), atol=1e-5, rtol=1e-5)


def test_its_algorithms_run_with_our_denoiser():
    torch.manual_seed(0)
    A = physics("mask")
    A.noise_model = deepinv.physics.GaussianNoise(0.02)
    x = (0.6 + 0.25 * torch.randn(1, *SHAPE)).clamp(0, 1)
    y = A(x)
    denoiser = DeepinvDenoiser(Pixels("variance_exploding"))
    fidelity = deepinv.optim.data_fidelity.L2()
    found = deepinv.sampling.DiffPIR(denoiser, fidelity, sigma=0.02, max_iter=20, device="cpu")(y, A)
    known = A.mask.expand_as(x).bool()
    assert (found - x)[known].abs().mean() < 0.08
    assert found[~known].mean().item() == pytest.approx(0.6, abs=0.1)


def test_what_is_not_linear_is_refused():
    with pytest.raises(UsageError, match="not a linear physics"):
        Physics(object(), SHAPE)
