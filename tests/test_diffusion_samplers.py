"""Samplers and initial noise, against closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import FunctionDenoiser, clipped
from alphabar.diffusion.initial_noise import INITIAL_NOISES, DataStatistics, fit_gaussian
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import (
    SAMPLERS,
    Step,
    adds_noise,
    count_nfe,
    generate,
    last_step,
    sampler_traits,
)
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError
from exact import GaussianDenoiser, MixtureDenoiser
from refusals import refused

MEAN = torch.tensor([0.4, -0.3], dtype=torch.float64)
COV = torch.tensor([[0.25, 0.12], [0.12, 0.09]], dtype=torch.float64)
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}
STOCHASTIC = [{"name": "ancestral"}, {"name": "ddim", "eta": 0.5}, {"name": "ddim", "eta": 1.0}]
NOISE = Noise(0, range(4), "sample")
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def run(sampler, denoiser, x, times, noise=NOISE):
    return list(SAMPLERS.build(sampler)(denoiser, x, times, noise, None))


class Impulses:
    """Noise whose every number is an input of its own: row (i, j) has a one in coordinate j of step i."""

    def __init__(self, steps, dim):
        self.rows = torch.eye(steps * dim, dtype=torch.float64).reshape(steps * dim, steps, dim)

    def normal(self, step, like):
        rest = like.new_zeros(len(like) - len(self.rows), like.shape[1])
        return torch.cat([rest, self.rows[:, step]])


def law(sampler, denoiser, mean, cov, times):
    """Mean and covariance of the sampler's x after every step, from x ~ N(mean, cov) at times[0].

    With a denoiser that is affine in x, so is every step, and running it on a basis gives its matrices.
    """
    d, steps = len(mean), len(times) - 1
    noise = Impulses(steps, d)
    x = torch.zeros(1 + d + len(noise.rows), d, dtype=torch.float64)
    x[1 : 1 + d] = torch.eye(d)
    for step in SAMPLERS.build(sampler)(denoiser, x, times, noise, None):
        b = step.x[0]
        A, B = (step.x[1 : 1 + d] - b).T, (step.x[1 + d :] - b).T
        yield step.t, A @ mean + b, A @ cov @ A.T + B @ B.T


def test_every_deterministic_sampler_has_its_order_stated():
    assert set(ORDERS) == set(SAMPLERS) - {"ancestral"}


def measured_order(sampler, denoiser, x, truth):
    """log2 of the ratio of the errors with 256 and 512 steps, on Karras's timesteps without the last to 0."""
    errors = []
    for steps in (256, 512):
        times = TIMESTEPS.build("karras")(denoiser.schedule, steps)[:-1]
        errors.append((run(sampler, denoiser, x, times)[-1].x - truth(times[0], times[-1])).abs().max())
    return (errors[0] / errors[1]).log2().item()


@every_schedule
@pytest.mark.parametrize("sampler", ORDERS)
def test_deterministic_samplers_have_their_order_on_a_gaussian(sampler, schedule):
    denoiser = GaussianDenoiser(SCHEDULES.build(schedule), MEAN, COV)
    t = TIMESTEPS.build("karras")(denoiser.schedule, 2)[0]
    x = denoiser.schedule(t).sigma * torch.tensor([[1.0, -0.5], [-1.2, 0.3]], dtype=torch.float64)
    order = measured_order(sampler, denoiser, x, lambda t, s: denoiser.flow(x, t, s))
    assert order == pytest.approx(ORDERS[sampler], abs=0.05)


@pytest.fixture(scope="module")
def mixture():
    """An exact denoiser, x at sigma = 80, and where the flow takes it at sigma = 0.002."""
    denoiser = MixtureDenoiser(
        SCHEDULES.build("variance_exploding"),
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-0.6, 0.2], [0.5, -0.4]], dtype=torch.float64),
        0.2,
    )
    x = torch.tensor([[40.0, -25.0]], dtype=torch.float64)

    def velocity(log_sigma, x):
        t = denoiser.schedule.time(torch.tensor([-2 * log_sigma], dtype=torch.float64))
        return x - denoiser(torch.from_numpy(x)[None], t)[0].numpy()

    ends = np.log([80, 0.002])
    truth = solve_ivp(velocity, ends, x[0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return denoiser, x, torch.from_numpy(truth)


@pytest.mark.parametrize("sampler", ORDERS)
def test_deterministic_samplers_have_their_order_on_a_mixture(sampler, mixture):
    denoiser, x, truth = mixture
    order = measured_order(sampler, denoiser, x, lambda t, s: truth)
    assert order == pytest.approx(ORDERS[sampler], abs=0.05)


@every_schedule
@pytest.mark.parametrize("spec", [*ORDERS, *STOCHASTIC], ids=str)
@pytest.mark.parametrize("timesteps", TIMESTEPS)
def test_every_sampler_is_exact_for_data_of_one_item(spec, schedule, timesteps):
    """x_t = alpha·x0 + sigma·eps at each of a few times, in mean and covariance."""
    schedule = SCHEDULES.build(schedule)
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: MEAN.expand_as(x))
    times = TIMESTEPS.build(timesteps)(schedule, 6)
    alpha, sigma = schedule(times[0])
    eye = torch.eye(2, dtype=torch.float64)
    for t, mean, cov in law(spec, denoiser, alpha * MEAN, sigma**2 * eye, times):
        alpha, sigma = schedule(t)
        torch.testing.assert_close(mean, alpha * MEAN, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(cov, sigma**2 * eye, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
@pytest.mark.parametrize("schedule", ["linear_beta", "cosine", "rectified_flow"])
def test_stochastic_samplers_converge_to_the_data(spec, schedule):
    """The mean is right with any number of steps, the covariance to first order in their size."""
    denoiser = GaussianDenoiser(SCHEDULES.build(schedule), MEAN, COV)
    errors = []
    for steps in (50, 100, 200):
        times = TIMESTEPS.build("uniform")(denoiser.schedule, steps)
        *_, (_, mean, cov) = law(spec, denoiser, *denoiser.marginal(times[0]), times)
        torch.testing.assert_close(mean, MEAN, rtol=1e-9, atol=1e-10)
        errors.append((cov - COV).abs().max().item())
    assert errors[-1] < 0.1 * COV.max()
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.5)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)


def test_ddim_with_eta_one_is_ancestral_sampling():
    denoiser = GaussianDenoiser(SCHEDULES.build("linear_beta"), MEAN, COV)
    times = TIMESTEPS.build("uniform")(denoiser.schedule, 20)
    x = torch.randn(4, 2, dtype=torch.float64)
    ddim = run({"name": "ddim", "eta": 1.0}, denoiser, x, times)
    for a, b in zip(run("ancestral", denoiser, x, times), ddim, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", ORDERS)
def test_deterministic_samplers_do_not_depend_on_the_schedule(sampler):
    """With the same sigma / alpha and x / alpha, alpha is only a unit of length."""
    ends = []
    for schedule in map(SCHEDULES.build, SCHEDULES):
        denoiser = GaussianDenoiser(schedule, MEAN, COV)
        times = TIMESTEPS.build("karras")(schedule, 12)
        x = schedule(times[0]).alpha * torch.tensor([[60.0, -35.0]], dtype=torch.float64)
        ends.append(run(sampler, denoiser, x, times)[-1].x)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-9, atol=1e-10)


@every_schedule
@every_sampler
@pytest.mark.parametrize("timesteps", TIMESTEPS)
def test_a_sampler_yields_every_step(sampler, schedule, timesteps):
    schedule = SCHEDULES.build(schedule)
    times = TIMESTEPS.build(timesteps)(schedule, 7)
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: (0.5 * x).tanh())
    steps = run(sampler, denoiser, torch.randn(4, 1, 3, 3), times)
    assert [step.i for step in steps] == list(range(7))
    assert [step.t for step in steps] == times[1:].tolist()
    for step in steps:
        assert step.x.shape == step.x0.shape == (4, 1, 3, 3)
        assert step.x.dtype == torch.float32 and step.x.isfinite().all()
    torch.testing.assert_close(steps[-1].x, steps[-1].x0)  # at t = 0 there is no noise


@every_sampler
def test_a_sampler_passes_the_condition_on(sampler):
    schedule = SCHEDULES.build("cosine")
    seen = []
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: seen.append((t.shape, cond)) or x)
    labels = torch.arange(4)
    last_step(
        SAMPLERS.build(sampler)(denoiser, torch.randn(4, 2), torch.tensor([1.0, 0.5, 0.0]), NOISE, labels)
    )
    assert seen and all(shape == (4,) and cond is labels for shape, cond in seen)


@every_sampler
def test_network_evaluations_are_counted(sampler):
    schedule = SCHEDULES.build("variance_exploding")
    times = TIMESTEPS.build("karras")(schedule, 18)
    assert count_nfe(SAMPLERS.build(sampler), schedule, times) == (35 if sampler == "heun" else 18)


@pytest.mark.parametrize("order", [1, 3])
def test_unipc_has_one_order_more_than_its_predictor(order, mixture):
    denoiser, x, truth = mixture
    got = measured_order({"name": "unipc", "order": order}, denoiser, x, lambda t, s: truth)
    assert got == pytest.approx(order + 1, abs=0.15)


def test_unipc_refuses_order_zero():
    with pytest.raises(UsageError, match="order = 0"):
        run({"name": "unipc", "order": 0}, None, torch.zeros(4, 2), torch.tensor([1.0, 0.0]))


def test_ancestral_sampling_clamps_x_when_set_to():
    denoiser = FunctionDenoiser(SCHEDULES.build("linear_beta"), lambda x, t, cond: 3 * x)
    times = TIMESTEPS.build("uniform")(denoiser.schedule, 10)
    x = torch.randn(4, 8)
    assert all(s.x.abs().max() <= 1 for s in run({"name": "ancestral", "clamp": True}, denoiser, x, times))
    assert any(s.x.abs().max() > 1 for s in run("ancestral", denoiser, x, times))


def test_a_clipped_denoiser_stays_within_the_bounds():
    denoiser = FunctionDenoiser(SCHEDULES.build("cosine"), lambda x, t, cond: 2 * x)
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(clipped(denoiser, (-1, 1.5))(x, torch.ones(9)), (2 * x).clamp(-1, 1.5))
    assert clipped(denoiser, (-1, 1)).schedule is denoiser.schedule
    assert torch.equal(clipped(denoiser, None)(x, torch.ones(9)), 2 * x)


@pytest.mark.parametrize("spec", [*ORDERS, *STOCHASTIC], ids=str)
def test_a_sampler_says_whether_it_adds_noise(spec):
    """Two runs from the same x with different noise end apart if and only if noise is added."""
    denoiser = GaussianDenoiser(SCHEDULES.build("cosine"), MEAN, COV)
    times = TIMESTEPS.build("uniform")(denoiser.schedule, 5)
    x = torch.ones(4, 2, dtype=torch.float64)
    a, b = (run(spec, denoiser, x, times, Noise(seed, range(4), ""))[-1].x for seed in (0, 1))
    assert adds_noise(SAMPLERS.resolve(spec)) == (not torch.equal(a, b))


@every_sampler
def test_a_samplers_own_timesteps_exist(sampler):
    traits = sampler_traits(sampler)
    assert traits.timesteps in TIMESTEPS and traits.steps >= 1


# --- initial noise ---

RGB, GREY = ImageCodec(8), ImageCodec(12, channels=1)


@pytest.fixture(scope="module")
def statistics():
    return fit_gaussian([torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))], RGB)


def brightness_data(n=500):
    """Pictures that differ in overall brightness only."""
    brightness = 0.3 + 0.4 * torch.randn(n, generator=torch.Generator().manual_seed(0))
    return brightness, brightness[:, None, None, None].expand(n, 1, 12, 12)


class OneHot:
    """Noise of given numbers for each part of an initial noise: eps (step 0) and z (step 1)."""

    def __init__(self, eps, z):
        self.numbers = eps, z

    def normal(self, step, like):
        return self.numbers[step].to(like).expand_as(like) if step < 2 else None


@pytest.mark.parametrize("size", [(16, 16), (20, 12), (4, 4), (64, 64)])
def test_thumbnails_of_gaussian_initial_noise_have_the_mean_and_covariance_of_the_data(size):
    generator = torch.Generator().manual_seed(0)
    h, w = size
    detail = torch.rand(300, 3, h, w, generator=generator)
    pictures = torch.rand(300, 3, 1, 1, generator=generator) + 0.2 * detail
    codec = ImageCodec(size)
    statistics = fit_gaussian(pictures.split(77), codec)
    torch.testing.assert_close(statistics.mean, pictures.mean(0))
    initial_noise = INITIAL_NOISES.build("gaussian", statistics=statistics, codec=codec)
    level = SCHEDULES.build("cosine")(torch.zeros(()))
    k = len(statistics.factor)
    sampled = initial_noise(level, OneHot(torch.zeros(()), torch.eye(k)), torch.empty(k, 3, h, w))

    def thumbnails(x):
        return torch.nn.functional.adaptive_avg_pool2d(x, (min(h, 8), min(w, 8))).flatten(1)

    B = thumbnails(sampled - statistics.mean).T
    torch.testing.assert_close(B @ B.T, thumbnails(pictures).T.cov(), rtol=1e-3, atol=1e-5)


def test_gaussian_initial_noise_corrects_a_schedule_that_does_not_end_at_noise():
    """On exact data: with it samples have the data's brightness, from standard normal noise a wrong one."""
    brightness, pictures = brightness_data()
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 300})
    statistics = fit_gaussian(pictures.split(100), GREY)
    d = 12 * 12
    ones = torch.ones(d, dtype=torch.float64)
    cov = brightness.double().var() * ones.outer(ones)
    denoiser = GaussianDenoiser(schedule, brightness.double().mean() * ones, cov)
    times = TIMESTEPS.build("uniform")(schedule, 20)
    means, spreads = {}, {}
    for name in INITIAL_NOISES:
        initial_noise = INITIAL_NOISES.build(name, statistics=statistics, codec=GREY)
        steps = generate(
            denoiser, shape=(1, 12, 12), positions=range(400), seed=0,
            sampler=SAMPLERS.build("dpmpp_2m"), times=times, initial_noise=initial_noise,
        )  # fmt: skip
        sampled = last_step(steps).x.mean((1, 2, 3))
        means[name], spreads[name] = sampled.mean().item(), sampled.std().item()
    assert means["gaussian"] == pytest.approx(brightness.mean().item(), abs=0.04)
    assert spreads["gaussian"] == pytest.approx(brightness.std().item(), rel=0.12)
    # From noise of mean 0, the flow carries the mean of x_T to a wrong brightness; known in closed form.
    wrong = denoiser.flow(torch.zeros(1, d).double(), times[0], times[-1]).mean().item()
    assert abs(wrong - brightness.mean().item()) > 0.05
    assert means["standard_normal"] == pytest.approx(wrong, abs=0.04)
    assert spreads["standard_normal"] < 0.8 * brightness.std().item()


def test_gaussian_initial_noise_is_at_its_level():
    """Coefficient by coefficient: alpha·mean, sigma·eps, alpha·factor."""
    statistics = fit_gaussian([brightness_data()[1]], GREY)
    initial_noise = INITIAL_NOISES.build("gaussian", statistics=statistics, codec=GREY)
    level = SCHEDULES.build("cosine")(torch.tensor(0.7))
    like, zero, one = torch.empty(2, 1, 12, 12), torch.zeros(()), torch.ones(())
    mean = initial_noise(level, OneHot(zero, zero), like)
    torch.testing.assert_close(mean, (level.alpha * statistics.mean).float().expand_as(like))
    eps = initial_noise(level, OneHot(one, zero), like) - mean
    torch.testing.assert_close(eps, level.sigma.float().expand_as(like))
    z = initial_noise(level, OneHot(zero, torch.eye(64)[:2]), like) - mean
    full = initial_noise(SCHEDULES.build("cosine")(torch.tensor(0.0)), OneHot(zero, torch.eye(64)[:2]), like)
    torch.testing.assert_close(z, level.alpha.float() * (full - statistics.mean))


@every_schedule
@pytest.mark.parametrize("t", [1.0, 0.8])
def test_standard_normal_initial_noise_has_the_scale_of_its_level(schedule, t):
    level = SCHEDULES.build(schedule)(torch.tensor(t))
    x = INITIAL_NOISES.build("standard_normal", statistics=None, codec=None)(
        level, OneHot(torch.ones(()), None), torch.empty(1, 3, 4, 4)
    )
    assert x.mean().item() == pytest.approx((level.alpha**2 + level.sigma**2).sqrt().item())
    if t == 1:  # the usual initial noise
        assert x.mean().item() == pytest.approx(80 if schedule == "variance_exploding" else 1, rel=1e-4)


def test_statistics_are_stored_as_two_tensors(statistics):
    again = DataStatistics(**statistics._asdict())
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(again, statistics))


@pytest.mark.parametrize("batches", [[], [torch.rand(1, 3, 8, 8)]])
def test_a_gaussian_of_too_few_signals_is_refused(batches):
    with pytest.raises(AlphabarError, match=f"to {len(batches)} items"):
        fit_gaussian(batches, RGB)


def test_gaussian_initial_noise_says_what_it_lacks(statistics):
    level, like = SCHEDULES.build("cosine")(torch.tensor(1.0)), torch.empty(1, 3, 16, 16)
    with pytest.raises(UsageError, match="statistics"):
        INITIAL_NOISES.build("gaussian", statistics=None, codec=RGB)(level, NOISE, like)
    with pytest.raises(UsageError, match=r"\(3, 16, 16\).*\(3, 8, 8\)"):
        INITIAL_NOISES.build("gaussian", statistics=statistics, codec=RGB)(level, NOISE, like)


@every_sampler
@pytest.mark.parametrize("initial_noise", INITIAL_NOISES)
def test_a_sample_is_the_same_in_any_batch(sampler, initial_noise, statistics):
    schedule = SCHEDULES.build("linear_beta")
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: (0.5 * x).tanh())
    initial_noise = INITIAL_NOISES.build(initial_noise, statistics=statistics, codec=RGB)

    def samples(positions, seed=3):
        steps = generate(
            denoiser, shape=(3, 8, 8), positions=positions, seed=seed,
            sampler=SAMPLERS.build(sampler), times=TIMESTEPS.build("uniform")(schedule, 5),
            initial_noise=initial_noise,
        )  # fmt: skip
        return last_step(steps).x

    everything = samples(range(16))
    torch.testing.assert_close(samples([5, 11]), everything[[5, 11]], rtol=0, atol=1e-6)
    assert not any(torch.allclose(a, b) for a, b in pairwise(everything))
    assert not torch.allclose(samples(range(16), seed=4), everything)


def test_sampling_keeps_no_graph():
    schedule = SCHEDULES.build("cosine")
    scale = torch.ones((), requires_grad=True)
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: scale * x)
    steps = generate(
        denoiser, shape=(3, 8, 8), positions=[0], seed=0, sampler=SAMPLERS.build("ddim"),
        times=torch.tensor([1.0, 0.0]),
        initial_noise=INITIAL_NOISES.build("standard_normal", statistics=None, codec=None),
    )  # fmt: skip
    assert not last_step(steps).x.requires_grad
    assert torch.is_grad_enabled()


def test_the_seed_decides_the_noise_of_every_step():
    schedule = SCHEDULES.build("cosine")

    def samples(seed):
        steps = generate(
            FunctionDenoiser(schedule, lambda x, t, cond: 0.5 * x), shape=(1, 4, 4), positions=[0], seed=seed,
            sampler=SAMPLERS.build("ancestral"), times=TIMESTEPS.build("uniform")(schedule, 3),
            initial_noise=lambda level, noise, like: torch.ones_like(like),
        )  # fmt: skip
        return last_step(steps).x

    assert torch.equal(samples(1), samples(1))
    assert not torch.allclose(samples(1), samples(2))


@pytest.mark.parametrize("eta", [-1, -0.01, 1.01, 2, float("nan"), float("inf"), "much"])
def test_an_eta_outside_0_to_1_is_refused(eta):
    with refused("registry.bad_value", setting="sampler.eta"):
        SAMPLERS.resolve({"name": "ddim", "eta": eta})


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_an_eta_from_0_to_1_is_taken(eta):
    assert SAMPLERS.resolve({"name": "ddim", "eta": eta}) == {"name": "ddim", "eta": eta}


def test_sampling_begins_with_noise_of_the_first_time():
    schedule = SCHEDULES.build("variance_exploding")
    times = TIMESTEPS.build("karras")(schedule, 3)
    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: torch.zeros_like(x))

    def begin(denoiser, x, times, noise, cond):
        yield Step(0, times[0], x, x)

    (step,) = generate(
        denoiser, shape=(1, 8, 8), positions=range(40), seed=0, sampler=begin, times=times,
        initial_noise=INITIAL_NOISES.build("standard_normal", statistics=None, codec=None),
    )  # fmt: skip
    assert step.x.std().item() == pytest.approx(float(torch.hypot(*schedule(times[:1]))), rel=0.05)
