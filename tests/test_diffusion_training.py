"""What training needs: random numbers, noise distributions, parameterizations, the loss."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from alphabar.diffusion.denoiser import NetworkDenoiser, enlarged, interpolation
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.loss import denoising_error, loss
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS, WEIGHTS, stratified
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.random import Noise, Purpose, stream_seed
from alphabar.diffusion.schedules import SCHEDULES, Level
from alphabar.errors import UsageError
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import build_denoiser
from exact import GaussianDenoiser

# eps-prediction does not exist on a schedule that ends at pure noise; every other pair does.
PAIRS = [(p, s) for p in PARAMETERIZATIONS for s in SCHEDULES if (p, s) != ("eps", "rectified_flow")]
every_pair = pytest.mark.parametrize(("parameterization", "schedule"), PAIRS)


class Answer(nn.Module):
    """A network with one given prediction, which remembers its inputs."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, cond=None):
        self.inputs = x, c_noise, cond
        return self.answer


def pictures(n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(n, 3, 4, 4, generator=generator, dtype=dtype) * 2 - 1
    eps = torch.randn(n, 3, 4, 4, generator=generator, dtype=dtype)
    t = torch.linspace(0.02, 0.97, n, dtype=torch.float64)
    return x0, t, eps


def wanted(parameterization, level, x0, eps):
    """What each network predicts, as its own paper writes it; level coefficients (n, 1, 1, 1)."""
    alpha, sigma = level
    norm = (alpha**2 + sigma**2).sqrt()
    if parameterization == "edm":  # Karras et al. 2022, table 1, on x / alpha
        s, y, sd = sigma / alpha, x0 + sigma / alpha * eps, 0.5
        c_skip, c_out = sd**2 / (s**2 + sd**2), s * sd / (sd**2 + s**2).sqrt()
        return (x0 - c_skip * y) / c_out
    return {
        "eps": lambda: eps,
        "x0": lambda: x0,
        "v": lambda: (alpha * eps - sigma * x0) / norm,
        "flow": lambda: eps - x0,
    }[parameterization]()


@every_pair
def test_one_loss_serves_every_parameterization_on_every_schedule(parameterization, schedule):
    schedule = SCHEDULES.build(schedule)
    x0, t, eps = pictures()
    level = Level(*(c[:, None, None, None] for c in schedule(t)))
    perfect = wanted(parameterization, level, x0, eps)
    denoiser = NetworkDenoiser(Answer(perfect), PARAMETERIZATIONS.build(parameterization), schedule)
    assert loss(denoiser, x0, t, eps).max() < 1e-20
    torch.testing.assert_close(denoiser(diffuse(schedule, x0, t, eps), t), x0, rtol=0, atol=1e-10)
    assert denoising_error(denoiser, x0, t, eps).max() < 1e-20

    error = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    denoiser.network.answer = perfect + error[:, None, None, None]
    torch.testing.assert_close(loss(denoiser, x0, t, eps), error**2)
    c_out = denoiser.coeffs(t).c_out
    torch.testing.assert_close(denoising_error(denoiser, x0, t, eps), (c_out * error) ** 2)


def means(x, k):
    return nn.functional.avg_pool2d(x, k)


def enlarge(x, k):
    return x.repeat_interleave(k, 2).repeat_interleave(k, 3)


@pytest.mark.parametrize("k", [2, 3])
def test_enlarging_is_smooth_and_keeps_means(k):
    torch.manual_seed(0)
    small = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    large = enlarged(small, k)
    assert large.shape == (2, 3, 8 * k, 12 * k)
    torch.testing.assert_close(means(large, k), small)
    wave = torch.sin(torch.arange(16 * k, dtype=torch.float64) / (4 * k)).expand(1, 1, 16 * k, -1)
    inside = slice(4 * k, -4 * k)
    smooth, blocky = (
        (made(means(wave, k), k) - wave)[..., inside, inside].abs().max() for made in (enlarged, enlarge)
    )
    assert smooth < 0.1 * blocky
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(enlarged(small.float(), k), large.float())


@every_pair
def test_a_network_for_coarse_pictures_denoises_them_as_it_did(parameterization, schedule):
    """Its input, level and answer are those of pictures of half the side, whose noise is half as strong."""
    schedule, parameterization = SCHEDULES.build(schedule), PARAMETERIZATIONS.build(parameterization)
    x0, t, eps = pictures()
    x_t = diffuse(schedule, x0, t, eps)
    answer = torch.randn(means(x0, 2).shape, dtype=torch.float64)
    small = NetworkDenoiser(Answer(answer), parameterization, schedule)
    large = NetworkDenoiser(Answer(enlarge(answer, 2)), parameterization, schedule, coarse=2)
    level = schedule(t)
    same = schedule.time(level.log_snr + 2 * math.log(2))  # where the noise is half as strong
    # Means of x_t are a picture of the schedule at that time but for a factor.
    factor = (schedule(same).alpha / level.alpha)[:, None, None, None]
    wanted = small(factor * means(x_t, 2), same)
    torch.testing.assert_close(large(x_t, t), enlarged(wanted, 2), rtol=0, atol=1e-9)
    given, c_noise, _ = large.network.inputs
    torch.testing.assert_close(means(given, 2), small.network.inputs[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(c_noise, small.network.inputs[1], rtol=0, atol=1e-9)


@every_pair
def test_the_detail_of_a_coarse_picture_is_predicted_itself(parameterization, schedule):
    schedule, parameterization = SCHEDULES.build(schedule), PARAMETERIZATIONS.build(parameterization)
    x0, t, eps = pictures()
    answer = torch.randn(x0.shape, dtype=torch.float64)
    denoiser = NetworkDenoiser(Answer(answer), parameterization, schedule, coarse=2)
    D = denoiser(diffuse(schedule, x0, t, eps), t)
    detail = answer - enlarge(means(answer, 2), 2)
    torch.testing.assert_close(D - enlarged(means(D, 2), 2), detail)
    wrong = D - x0
    weight = 1 / denoiser.coeffs(t).c_out ** 2
    coarse = means(wrong, 2).square().mean((1, 2, 3))
    fine = (wrong - enlarge(means(wrong, 2), 2)).square().mean((1, 2, 3))
    torch.testing.assert_close(loss(denoiser, x0, t, eps), weight * coarse + fine)


def test_any_network_can_have_a_coarse_picture():
    settings = [
        "network=mp_unet",
        "coarse=2",
        "data.size=16",
        "network.widths=[16,16]",
        "network.head_dim=16",
    ]
    denoiser = build_denoiser(with_settings(named_recipe("lean"), settings))
    assert denoiser.coarse == 2 and denoiser(torch.zeros(1, 3, 16, 16), torch.ones(1)).shape[-1] == 16


@pytest.mark.parametrize("around", [torch.inference_mode, lambda: torch.device("meta")])
def test_a_picture_can_be_enlarged_whatever_was_computed_first(around):
    """The matrix is kept from one call to the next."""
    interpolation.cache_clear()
    with around():
        interpolation(4, 2)
    coarse = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    enlarged(coarse, 2).sum().backward()
    torch.testing.assert_close(coarse.grad, torch.full((1, 1, 4, 4), 4.0, dtype=torch.float64))
    interpolation.cache_clear()


def test_the_eps_loss_is_plain_mean_squared_error_of_the_noise():
    """In float32, at a level so clean that subtracting x_t from x0 would lose three digits."""
    x0, _, eps = pictures(dtype=torch.float32)
    answer = torch.randn(eps.shape, generator=torch.Generator().manual_seed(1))
    schedule = SCHEDULES.build("linear_beta")
    denoiser = NetworkDenoiser(Answer(answer), PARAMETERIZATIONS.build("eps"), schedule)
    got = loss(denoiser, x0, torch.full((6,), 1e-4), eps)
    torch.testing.assert_close(got, ((answer - eps) ** 2).mean((1, 2, 3)), rtol=1e-6, atol=0)


def test_the_loss_has_the_weight_of_its_level():
    x0, t, eps = pictures()
    network, schedule = Answer(torch.zeros_like(x0)), SCHEDULES.build("cosine")
    denoiser = NetworkDenoiser(network, PARAMETERIZATIONS.build("x0"), schedule)
    plain = loss(denoiser, x0, t, eps)
    weighed = loss(denoiser, x0, t, eps, weight=lambda level: level.sigma**2)
    torch.testing.assert_close(weighed, plain * schedule(t).sigma ** 2)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weight_is_positive_at_every_level(weight):
    weight = WEIGHTS.build(weight)(SCHEDULES.build("cosine")(torch.linspace(0.01, 1, 100)))
    assert weight.shape == (100,) and (weight > 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edm_gives_the_network_unit_variance_in_and_out(schedule):
    """For data of variance sigma_data², as Karras et al. 2022, appendix B.6, derive the coefficients."""
    schedule, sd = SCHEDULES.build(schedule), 0.3
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    c_in, c_skip, c_out, c_noise = PARAMETERIZATIONS.build({"name": "edm", "sigma_data": sd})(schedule(t), t)
    alpha, sigma = schedule(t)
    one = torch.ones_like(t)
    torch.testing.assert_close(c_in**2 * (alpha**2 * sd**2 + sigma**2), one)
    torch.testing.assert_close(((1 - c_skip * alpha) ** 2 * sd**2 + c_skip**2 * sigma**2) / c_out**2, one)
    assert c_noise.isfinite().all()


def test_edm_noise_conditioning_is_a_quarter_of_log_sigma():
    schedule = SCHEDULES.build("variance_exploding")
    t = schedule.time(-2 * torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64).log())
    c_noise = PARAMETERIZATIONS.build("edm")(schedule(t), t).c_noise
    assert c_noise.tolist() == pytest.approx([math.log(s) / 4 for s in (0.002, 0.5, 80)], abs=1e-9)


@every_pair
def test_the_input_of_the_network_has_a_bounded_scale(parameterization, schedule):
    schedule = SCHEDULES.build(schedule)
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    alpha, sigma = schedule(t)
    c_in = PARAMETERIZATIONS.build(parameterization)(schedule(t), t).c_in
    assert (c_in * torch.hypot(alpha, sigma) < 2.01).all()
    assert (c_in * torch.maximum(alpha, sigma) > 0.49).all()


def test_eps_prediction_is_refused_before_training_where_it_cannot_sample():
    with pytest.raises(UsageError, match="alpha = 0"):
        NetworkDenoiser(Answer(None), PARAMETERIZATIONS.build("eps"), SCHEDULES.build("rectified_flow"))


def test_the_network_denoiser_passes_the_condition_and_casts_back():
    x0, t, eps = pictures(dtype=torch.float32)
    network = Answer(torch.zeros_like(x0, dtype=torch.bfloat16))
    denoiser = NetworkDenoiser(network, PARAMETERIZATIONS.build("flow"), SCHEDULES.build("rectified_flow"))
    labels = torch.arange(6)
    assert denoiser(eps, t, labels).dtype == torch.float32
    x, c_noise, cond = network.inputs
    assert x.dtype == c_noise.dtype == torch.float32 and cond is labels
    torch.testing.assert_close(c_noise, t.float())
    torch.testing.assert_close(x, eps)  # on its own path, flow leaves x as it is
    assert [name for name, _ in denoiser.named_children()] == ["network"]


def test_the_network_denoiser_scales_the_input_of_the_network():
    x0, t, eps = pictures(dtype=torch.float32)
    network, schedule = (
        Answer(torch.zeros_like(x0, dtype=torch.float64)),
        SCHEDULES.build("variance_exploding"),
    )
    denoiser = NetworkDenoiser(network, PARAMETERIZATIONS.build("edm"), schedule)
    assert denoiser.predict(eps, denoiser.coeffs(t)).dtype == torch.float32
    sigma = schedule(t).sigma[:, None, None, None]
    torch.testing.assert_close(network.inputs[0], (eps / (sigma**2 + 0.25).sqrt()).float())


def test_the_exact_denoiser_has_no_systematic_error():
    """Guards the reference of the other tests: E[(D - x0) · x_t] = 0, which defines E[x0 | x_t]."""
    schedule = SCHEDULES.build("cosine")
    mean, cov = torch.tensor([0.3, -0.2]).double(), torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double()
    denoiser = GaussianDenoiser(schedule, mean, cov)
    t = torch.tensor([0.6], dtype=torch.float64)
    alpha, sigma = schedule(t)
    b = denoiser(torch.zeros(1, 2).double(), t)
    A = (denoiser(torch.eye(2).double(), t.expand(2)) - b).T
    torch.testing.assert_close(A @ (alpha * mean) + b[0], mean)
    torch.testing.assert_close(A @ (alpha**2 * cov + sigma**2 * torch.eye(2)), alpha * cov)


@pytest.mark.parametrize("distribution", NOISE_DISTRIBUTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_noise_distribution_gives_times_within_range(distribution, schedule):
    schedule = SCHEDULES.build(schedule)
    extremes = torch.tensor([0.0, 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    u = torch.cat([extremes, torch.linspace(0, 0.999, 999)])
    t = NOISE_DISTRIBUTIONS.build(distribution)(schedule, u)
    assert t.shape == u.shape and t.dtype == torch.float64
    assert (t > 0).all() and (t <= 1).all()
    assert (schedule(t).sigma > 0).all()


def test_a_share_of_log_normal_levels_is_uniform():
    schedule = SCHEDULES.build("cosine")
    u = torch.arange(100_000, dtype=torch.float64) / 100_000
    distribution = NOISE_DISTRIBUTIONS.build(
        {"name": "log_normal", "mean": -8.0, "std": 0.1, "uniform_share": 0.25}
    )
    t = distribution(schedule, u)
    assert (t > 0.5).double().mean() == pytest.approx(0.125, abs=1e-4)
    assert (t <= 1).all() and (t > 0).all()
    with pytest.raises(UsageError, match="uniform_share"):
        NOISE_DISTRIBUTIONS.build({"name": "log_normal", "uniform_share": 1.0})(schedule, u)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("schedule", ["cosine", "rectified_flow"])
def test_the_mixture_of_log_normal_and_uniform_has_its_distribution_function(schedule, share):
    schedule, n = SCHEDULES.build(schedule), 20_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = NOISE_DISTRIBUTIONS.build({"name": "log_normal", "mean": -0.4, "std": 0.9, "uniform_share": share})(
        schedule, u
    )
    at = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    normal = stats.norm(-0.4, 0.9).cdf(-schedule(at).log_snr / 2)
    found = (t[None] <= at[:, None]).double().mean(1)
    assert found.tolist() == pytest.approx((share * at.numpy() + (1 - share) * normal).tolist(), abs=2e-4)


def test_the_discrete_uniform_distribution_gives_each_step_equally_often():
    u = (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000
    t = NOISE_DISTRIBUTIONS.build({"name": "uniform", "discrete": 300})(SCHEDULES.build("linear_beta"), u)
    steps, counts = t.unique(return_counts=True)
    assert steps.tolist() == [i / 300 for i in range(1, 301)]
    assert (counts == 10).all()


@pytest.mark.parametrize("schedule", ["variance_exploding", "rectified_flow", "cosine"])
def test_log_normal_is_normal_in_log_sigma(schedule):
    schedule = SCHEDULES.build(schedule)
    q = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.99], dtype=torch.float64)
    log_sigma = -schedule(NOISE_DISTRIBUTIONS.build("log_normal")(schedule, q)).log_snr / 2
    assert log_sigma.tolist() == pytest.approx(stats.norm(-1.2, 1.2).ppf(q).tolist(), abs=1e-6)


def test_logit_normal_is_normal_in_the_logit_of_time():
    q = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.99], dtype=torch.float64)
    t = NOISE_DISTRIBUTIONS.build({"name": "logit_normal", "mean": 0.5})(SCHEDULES.build("rectified_flow"), q)
    assert t.logit().tolist() == pytest.approx(stats.norm(0.5, 1).ppf(q).tolist(), abs=1e-9)


@given(batch=st.integers(1, 200), offset=st.integers(0, 10**6), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_stratified_numbers_are_one_in_every_stratum(batch, offset, seed):
    u = torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    places = torch.arange(offset * batch, (offset + 1) * batch)
    together = stratified(u, places, batch)
    assert sorted((together * batch).long().tolist()) == list(range(batch))
    half = batch // 2
    apart = [stratified(u[:half], places[:half], batch), stratified(u[half:], places[half:], batch)]
    assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("batch", [32, 128, 1000])
def test_a_part_of_a_stratified_batch_is_spread_over_all_levels(batch):
    u = torch.zeros(batch, dtype=torch.float64)
    for part in stratified(u, torch.arange(batch), batch).split(batch // 4):
        gaps = torch.cat([torch.zeros(1), part.sort().values, torch.ones(1)]).diff()
        assert gaps.max() < 4 / len(part)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
def test_an_item_has_the_same_noise_in_any_batch(shape):
    small, large = Noise(7, range(8), "train"), Noise(7, range(64), "train")
    eps = small.normal(3, torch.empty(8, *shape))
    assert torch.equal(eps, large.normal(3, torch.empty(64, *shape))[:8])
    assert torch.equal(small.uniform(3), large.uniform(3)[:8])
    single = Noise(7, [5], "train")
    assert torch.equal(single.normal(3, torch.empty(1, *shape))[0], eps[5])


def test_streams_of_noise_differ():
    like = torch.empty(2, 8)
    noises = [
        Noise(0, [0, 1], "train").normal(0, like),
        Noise(1, [0, 1], "train").normal(0, like),
        Noise(0, [0, 1], "sample").normal(0, like),
        Noise(0, [0, 1], "train").normal(1, like),
        Noise(0, [2, 3], "train").normal(0, like),
    ]
    rows = torch.cat(noises)
    assert len(rows.unique(dim=0)) == len(rows)
    assert stream_seed(1, "train", 2) != stream_seed(2, "train", 1)
    assert stream_seed(0, "a", 1, 23) != stream_seed(0, "a", 12, 3)


def test_noise_is_standard_normal_and_uniform():
    noise = Noise(0, range(2000), "train")
    assert stats.kstest(noise.normal(0, torch.empty(2000, 16)).flatten(), "norm").pvalue > 1e-3
    assert stats.kstest(noise.uniform(0), "uniform").pvalue > 1e-3


def test_uniform_numbers_are_those_of_split_mix_64(monkeypatch):
    monkeypatch.setattr("alphabar.diffusion.random.stream_seed", lambda *_: 1234567)
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
    found = Noise(0, range(1, 5), "train").uniform(0)
    assert found.tolist() == [(number >> 11) / 2**53 for number in published]


def test_noise_is_the_same_for_every_type_and_memory_format():
    noise, like = Noise(0, range(3), "train"), torch.empty(3, 3, 8, 8)
    eps = noise.normal(0, like)
    last = noise.normal(0, like.to(memory_format=torch.channels_last))
    assert torch.equal(last, eps) and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(noise.normal(0, like.double()).float(), eps)
    assert torch.equal(noise.normal(0, like.bfloat16()), eps.bfloat16())


def test_every_purpose_has_a_stream_of_its_own():
    purposes = [value for name, value in vars(Purpose).items() if name.isupper()]
    assert len(purposes) > 20 and len(set(purposes)) == len(purposes)
