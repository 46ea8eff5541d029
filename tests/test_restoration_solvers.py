"""Solvers on Gaussian data, where the posterior is known, and in their limits."""

from itertools import pairwise

import pytest
import torch

from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.restoration.operators.compose import PerSampleOperator, compose
from alphabar.restoration.operators.convolution import Convolution
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import build_operator
from alphabar.restoration.solvers.base import Observation, trajectory
from alphabar.restoration.solvers.ddnm import time_travel_schedule
from alphabar.restoration.solvers.mmps import MMPS, conjugate_gradients
from alphabar.restoration.solvers.registry import SOLVERS
from exact import GaussianDenoiser
from gaussian_restoration import SHAPE, exact_denoiser, law, nearness, posterior

# The steps, and how far each may then be from 0 dB, a variance ratio of 1 and a chi² of 1, inpainting and
# blur: what the approximation behind each method costs, with a small margin. DDRM counts y again in every
# step, so that more steps take it further away.
BOUNDS = {
    "mmps": ({"name": "mmps", "iterations": 20}, 40, 0.01, 0.30, 0.33),
    "pigdm": ({"name": "pigdm"}, 40, 0.25, 0.30, 0.15),
    "diffpir": ({"name": "diffpir"}, 40, 1.6, 0.40, 0.40),
    "ddrm": ({"name": "ddrm"}, 20, 1.35, 0.75, 0.30),
    "perturb_and_map": ({"name": "perturb_and_map"}, 40, 0.40, 0.35, 0.06),
}
PROBLEMS = {"random": {"name": "random", "share": 0.5}, "blur": {"name": "blur", "std": 1.0}}
NOT_LINEAR_IN_Y = {"dps"}
NOISELESS = {"ddnm"}
PLAIN = {"direct"}


def operator(spec, shape=SHAPE):
    return build_operator(spec, shape)


@pytest.fixture(scope="module")
def denoiser():
    return exact_denoiser(SCHEDULES.build("variance_exploding"))


def test_every_solver_has_its_test():
    assert set(BOUNDS) | NOT_LINEAR_IN_Y | NOISELESS | PLAIN == set(SOLVERS)


@pytest.mark.parametrize("solver", BOUNDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_linear_solver_is_as_near_the_posterior_as_its_method(solver, problem, denoiser):
    spec, steps, decibels, variance, chi2 = BOUNDS[solver]
    A, times = operator(PROBLEMS[problem]), TIMESTEPS.build("karras")(denoiser.schedule, steps)
    found = law(spec, denoiser, *denoiser.marginal(times[0]), times, A, 0.05)
    near = nearness(found, denoiser.mean, denoiser.cov, A, 0.05)
    assert near.decibels < decibels
    assert near.variance == pytest.approx(1, abs=variance)
    assert near.chi2 == pytest.approx(1, abs=chi2)


@pytest.mark.parametrize("schedule", ["cosine", "variance_exploding"])
def test_mmps_converges_to_the_posterior(schedule):
    """Its mean is exact, its variance to first order in the steps."""
    denoiser = exact_denoiser(SCHEDULES.build(schedule))
    A, errors = operator({"name": "area_downsample", "factor": 4}), []
    exact = posterior(denoiser.mean, denoiser.cov, A, 0.1)
    for steps in (20, 40):
        times = TIMESTEPS.build("karras")(denoiser.schedule, steps)
        spec = {"name": "mmps", "iterations": 8}
        found = law(spec, denoiser, *denoiser.marginal(times[0]), times, A, 0.1)
        torch.testing.assert_close(found.gain, exact.gain, rtol=0, atol=2e-3)
        errors.append(abs(found.cov.trace() / exact.cov.trace() - 1).item())
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.4)


def test_direct_denoising_is_the_posterior(denoiser):
    """A = I: starting at x = y, sigma = sigma_y, gives p(x0 | y), as does a solver that starts at noise."""
    A, gaps = operator("denoise"), []
    exact = posterior(denoiser.mean, denoiser.cov, A, 0.3)
    times = TIMESTEPS.build("karras")(denoiser.schedule, 60)
    for spec in ({"name": "direct"}, {"name": "mmps", "iterations": 8}):
        found = law(spec, denoiser, *denoiser.marginal(times[0]), times, A, 0.3)
        gaps.append((found.gain - exact.gain).abs().max())
        assert found.cov.trace() / exact.cov.trace() == pytest.approx(1, abs=0.25)
    assert max(gaps) < 1e-2


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - PLAIN))  # `direct` has times of its own
def test_the_steps_are_numbered_and_end_at_the_next_time(solver, denoiser):
    times, noise = TIMESTEPS.build("karras")(denoiser.schedule, 5), Noise(0, [0], "steps")
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    observation = Observation(operator(PROBLEMS["random"]), x + 1, 0.0 if solver in NOISELESS else 0.1)
    steps = list(SOLVERS.build(solver).solve(denoiser, x, times, noise, observation))
    assert [(step.i, step.t) for step in steps] == list(enumerate(times[1:]))


# ---------------------------------------------------------------- limits


UNCONDITIONAL = {
    "pigdm": {"eta": 1.0},
    "mmps": {"eta": 1.0},
    "diffpir": None,
    "perturb_and_map": None,
    "dps": {"zeta": 0.0},
}


@pytest.mark.parametrize("solver", UNCONDITIONAL)
@pytest.mark.parametrize("schedule", ["cosine", "variance_exploding"])
def test_knowing_nothing_is_sampling(solver, schedule):
    """sigma_y → ∞ (zeta → 0 for dps): the walk of the unconditional sampler with the same noise.

    That is `ancestral`, but for DiffPIR and perturb-and-MAP, which have a step of their own.
    """
    denoiser = exact_denoiser(SCHEDULES.build(schedule))
    times, noise = TIMESTEPS.build("karras")(denoiser.schedule, 12), Noise(0, [4, 5], "limit")
    x = denoiser.schedule(times[0]).sigma * noise.normal(99, torch.zeros(2, *SHAPE, dtype=torch.float64))
    A = operator({"name": "random", "share": 0.5})
    spec = {"name": solver, **(UNCONDITIONAL[solver] or {})}
    y = torch.ones(2, *SHAPE, dtype=torch.float64)
    end = last_step(SOLVERS.build(spec).solve(denoiser, x, times, noise, Observation(A, y, 1e9))).x
    if UNCONDITIONAL[solver]:
        wanted = last_step(SAMPLERS.build("ancestral")(denoiser, x, times, noise, None)).x
    else:
        wanted = by_hand(solver, denoiser, x, times, noise)
    torch.testing.assert_close(end, wanted, rtol=0, atol=1e-9)


def by_hand(solver, denoiser, x, times, noise, zeta=0.3, s2=0.25):
    steps = len(times) - 1
    for i, (t, s) in enumerate(pairwise(times)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = denoiser.schedule(t), denoiser.schedule(s)
        x0 = denoiser(x, t.expand(2))
        eps = (x - alpha_t * x0) / sigma_t
        if solver == "perturb_and_map":
            variance = 1 / ((alpha_t / sigma_t) ** 2 + 1 / s2)
            x0 = x0 + variance.sqrt() * noise.normal(steps + i, x)
            zeta = 1
        x = alpha_s * x0 + sigma_s * ((1 - zeta) ** 0.5 * eps + zeta**0.5 * noise.normal(i, x))
    return x


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - PLAIN))
def test_without_noise_what_is_known_is_kept(solver, denoiser):
    A, noise = operator("box"), Noise(0, [0, 1], "keep")
    times = TIMESTEPS.build("karras")(denoiser.schedule, 100 if solver == "dps" else 30)
    truth = denoiser.mean.reshape(1, *SHAPE) + 0.3 * noise.normal(98, torch.zeros(2, *SHAPE).double())
    x = denoiser.schedule(times[0]).sigma * noise.normal(99, truth)
    end = last_step(SOLVERS.build(solver).solve(denoiser, x, times, noise, Observation(A, A.A(truth), 0.0))).x
    # By construction, but for DPS, which only leans that way, and mmps by two iterations of its solve.
    atol = {"dps": 0.5, "mmps": 0.05, "pigdm": 1e-3}.get(solver, 1e-6)
    torch.testing.assert_close(A.A(end), A.A(truth), rtol=0, atol=atol)


@pytest.mark.parametrize("solver", sorted(set(SOLVERS)))
def test_a_batch_of_two_is_two_singles(solver, denoiser):
    A = operator("denoise" if solver in PLAIN else "area_downsample")
    sigma_y = 0.0 if solver in NOISELESS else 0.1
    times, method = TIMESTEPS.build("karras")(denoiser.schedule, 6), SOLVERS.build(solver)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, *A.measurement_shape, generator=generator, dtype=torch.float64)
    x = 80 * torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)

    def end(rows):
        noise = Noise(3, [7 + row for row in rows], "batch")
        return last_step(method.solve(denoiser, x[rows], times, noise, Observation(A, y[rows], sigma_y))).x

    torch.testing.assert_close(end([0, 1]), torch.cat([end([0]), end([1])]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", ["ddnm", "diffpir", "pigdm", "mmps", "perturb_and_map", "dps"])
def test_operators_may_differ_within_a_batch(solver, denoiser):
    operators = [operator("box"), operator({"name": "area_downsample", "factor": 2})]
    each, times = PerSampleOperator(operators), TIMESTEPS.build("karras")(denoiser.schedule, 6)
    truth = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, method = 80 * truth.flip(2), SOLVERS.build(solver)
    sigma_y = 0.0 if solver in NOISELESS else 1e-3

    class Silent:
        def normal(self, step, like):
            return torch.zeros_like(like)

    def end(A, rows):
        observation = Observation(A, A.A(truth[rows]), sigma_y)
        return last_step(method.solve(denoiser, x[rows], times, Silent(), observation)).x

    singles = torch.cat([end(A, [i]) for i, A in enumerate(operators)])
    torch.testing.assert_close(end(each, [0, 1]), singles, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", ["ddnm", "dps"])
def test_jpeg_is_taken_by_solvers_that_need_no_linearity(solver):
    schedule = SCHEDULES.build("variance_exploding")
    A, noise = operator("jpeg", (3, 16, 16)), Noise(0, [0], "jpeg")
    truth = torch.linspace(-0.8, 0.8, 16).expand(1, 3, 16, 16).contiguous()
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: x / (1 + schedule(t[:1]).sigma.to(x) ** 2))
    times = TIMESTEPS.build("karras")(schedule, 30)
    x = 80 * noise.normal(99, truth)
    end = last_step(SOLVERS.build(solver).solve(denoiser, x, times, noise, Observation(A, A.A(truth), 0.0))).x
    free = last_step(SAMPLERS.build("ancestral")(denoiser, x, times, noise, None)).x
    assert (A.A(end) - A.A(truth)).norm() < 0.6 * (A.A(free) - A.A(truth)).norm()


def test_time_travel_goes_up_and_down():
    assert list(time_travel_schedule(3, 2, 2)) == [
        (0, 1),
        (1, 2),
        (2, 0),
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 2),
        (2, 3),
    ]
    assert list(time_travel_schedule(3, 1, 1)) == [(0, 1), (1, 2), (2, 3)]


def test_time_travel_keeps_the_law_of_noise():
    """With one picture in the data and nothing known, x_t = alpha·x0 + sigma·eps wherever the walk ends."""
    schedule, mean = SCHEDULES.build("cosine"), torch.linspace(-1, 1, 64, dtype=torch.float64)
    denoiser = GaussianDenoiser(schedule, mean, torch.zeros(64, 64, dtype=torch.float64))
    A = Mask(torch.zeros(1, *SHAPE[1:]), SHAPE)
    times = TIMESTEPS.build("karras")(schedule, 7)[:4]
    spec = {"name": "ddnm", "travel": 3, "repeats": 2}
    found = law(spec, denoiser, *denoiser.marginal(times[0]), times, A, 0.0)
    alpha, sigma = schedule(times[-1])
    torch.testing.assert_close(found.offset, alpha * mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.cov, sigma**2 * torch.eye(64).double(), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- what solvers refuse


@pytest.mark.parametrize(
    ("solver", "spec", "sigma_y", "message"),
    [
        ("ddnm", "box", 0.1, "ddnm is for images without noise"),
        ("direct", "denoise", 0.0, "plain denoising"),
        ("direct", "box", 0.1, "plain denoising"),
        *[(name, "jpeg", 0.1, "linear degradations only") for name in BOUNDS],
    ],
)
def test_what_a_solver_cannot_do_it_says(solver, spec, sigma_y, message):
    schedule = SCHEDULES.build("variance_exploding")
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: x)
    A, x = operator(spec, (3, 8, 8)), torch.zeros(1, 3, 8, 8)
    times = TIMESTEPS.build("karras")(schedule, 3)
    with pytest.raises(UsageError, match=message):
        list(SOLVERS.build(solver).solve(denoiser, x, times, Noise(0, [0], ""), Observation(A, x, sigma_y)))


def test_ddrm_needs_singular_values_and_nobody_begins_at_pure_noise():
    A = compose(operator("box"), Convolution(torch.ones(3, 3), SHAPE))
    x, noise = torch.zeros(1, *SHAPE), Noise(0, [0], "")
    schedule = SCHEDULES.build("rectified_flow")
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: x)
    with pytest.raises(UsageError, match="singular values"):
        list(SOLVERS.build("ddrm").solve(denoiser, x, torch.tensor([0.9, 0]), noise, Observation(A, x, 0.1)))
    with pytest.raises(UsageError, match="pure noise"):
        list(
            SOLVERS.build("diffpir").solve(denoiser, x, torch.tensor([1.0, 0]), noise, Observation(A, x, 0.1))
        )


class TestBound:
    @pytest.mark.parametrize("solver", ["pigdm", "mmps"])
    def test_no_mean_leaves_the_range_of_pictures(self, solver):
        """A denoiser whose Jacobian is ten times that of a mean, as networks' are at high noise."""
        schedule = SCHEDULES.build("variance_exploding")

        def wild(x, t, cond):
            return torch.tanh(10 * x / (1 + schedule(t).sigma[:, None, None, None].to(x)))

        A = Mask((torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5), (3, 8, 8))
        y = A.A(torch.full((2, 3, 8, 8), 0.9))
        noise = Noise(0, range(2), "")
        times = TIMESTEPS.build("linear_beta")(schedule, 12)
        x = 80 * noise.normal(99, y)
        largest = {}
        for bounds in ((-1.0, 1.0), None):
            observation = Observation(A, y, 0.0, bounds)
            steps = SOLVERS.build(solver).solve(
                FunctionDenoiser(schedule, wild), x, times, noise, observation
            )
            largest[bounds] = max(step.x0.abs().max().item() for step in steps)
        assert largest[(-1.0, 1.0)] <= 1.0 < largest[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_solve_ends_where_it_is_exact(dtype):
    """Of a matrix of rank one the first iteration is exact: what is left is rounding, in any direction."""
    u = torch.randn(2, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)

    def matrix(v):
        return u * (u * v).sum(1, keepdim=True)

    v = conjugate_gradients(matrix, 0.7 * u, 20)
    torch.testing.assert_close(matrix(v), 0.7 * u)
    assert v.abs().max() < 1


def test_damping_keeps_mmps_near_y_where_the_jacobian_is_not_symmetric():
    schedule, generator = SCHEDULES.build("variance_exploding"), torch.Generator().manual_seed(0)
    R = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    J = 0.3 * torch.eye(16, dtype=torch.float64) + 0.05 * (R - R.T)
    y = torch.randn(8, 1, 4, 4, generator=generator, dtype=torch.float64)
    observation = Observation(Mask(torch.ones(1, 4, 4), (1, 4, 4)), y, 0.0)
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: (x.flatten(1) @ J.T).view_as(x))
    *_, step = trajectory(schedule, TIMESTEPS.build({"name": "log_snr", "sigma_min": 0.5})(schedule, 3))
    left = {}
    for damping in (0.0, 0.3):
        solver = MMPS(iterations=2, damping=damping)
        found = solver.estimate(denoiser, torch.zeros_like(y), step, Noise(0, range(8), "none"), observation)
        left[damping] = ((found - y).square().mean() / y.square().mean()).item()
    assert left[0.3] < 0.3 and left[0.0] > 1  # further from y than the denoised signal
