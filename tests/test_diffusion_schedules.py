"""Schedules, the forward process and timesteps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphabar.diffusion.forward import diffuse, posterior
from alphabar.diffusion.schedules import SCHEDULES, terminal_snr, terminal_warning
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError

times = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(lambda t: torch.tensor(t, dtype=torch.float64))
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@every_schedule
def test_a_schedule_runs_from_clean_to_noisy(name):
    schedule = SCHEDULES.build(name)
    alpha, sigma = level = schedule(torch.linspace(0, 1, 5001))
    assert alpha.dtype == sigma.dtype == torch.float64
    assert alpha[0] == 1 and sigma[0] == 0
    assert (level.log_snr.diff() < 0).all()
    assert terminal_warning(schedule) is None


@every_schedule
@given(t=times)
@settings(deadline=None, max_examples=50)
def test_time_inverts_the_schedule(name, t):
    schedule = SCHEDULES.build(name)
    torch.testing.assert_close(schedule.time(schedule(t).log_snr), t, rtol=0, atol=1e-12)


@every_schedule
@given(log_snr=st.floats(-30, 30))
@settings(deadline=None, max_examples=50)
def test_the_schedule_inverts_time(name, log_snr):
    schedule = SCHEDULES.build(name)
    end = schedule(torch.ones(1)).log_snr.item()
    t = schedule.time(torch.tensor([log_snr], dtype=torch.float64))
    if log_snr < end:
        assert t.item() == pytest.approx(1, abs=1e-12)
    else:
        assert schedule(t).log_snr.item() == pytest.approx(log_snr, abs=1e-6)


def test_linear_beta_is_the_product_of_its_steps():
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 300})
    alpha_bar = 1.0
    for i in range(1, 301):
        alpha_bar *= 1 - (1e-4 + (i - 1) / 299 * (0.02 - 1e-4))
        alpha, sigma = schedule(torch.tensor([i / 300], dtype=torch.float64))
        assert alpha.item() ** 2 == pytest.approx(alpha_bar, rel=1e-12)
        assert sigma.item() ** 2 == pytest.approx(1 - alpha_bar, rel=1e-11)
    assert alpha_bar == pytest.approx(0.0481, abs=5e-5)  # as in the notebook that the recipe classic follows


def test_linear_beta_keeps_beta_constant_between_its_steps():
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 10})
    alpha = schedule(torch.tensor([0.4, 0.45, 0.5], dtype=torch.float64)).alpha
    assert (alpha[1] / alpha[0]).item() == pytest.approx((alpha[2] / alpha[1]).item(), rel=1e-12)


def test_cosine_is_the_papers_discrete_schedule_with_its_cap():
    def f(i):
        return math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bar = 1.0
    schedule = SCHEDULES.build("cosine")
    for i in range(1, 1001):
        alpha_bar *= 1 - min(1 - f(i) / f(i - 1), 0.999)
        alpha = schedule(torch.tensor([i / 1000], dtype=torch.float64)).alpha.item()
        assert alpha**2 == pytest.approx(alpha_bar, rel=1e-8), i


def test_variance_exploding_ends_at_sigma_max_and_is_geometric_above_sigma_min():
    schedule = SCHEDULES.build({"name": "variance_exploding", "sigma_min": 0.002, "sigma_max": 50.0})
    sigma = schedule(torch.tensor([1.0, 0.9, 0.8, 0.7])).sigma
    assert sigma[0].item() == pytest.approx(50, rel=1e-12)
    assert (sigma[1] / sigma[2]).item() == pytest.approx((sigma[2] / sigma[3]).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("spec", "snr"),
    [
        ({"name": "linear_beta", "steps": 300}, 0.0505),
        ({"name": "linear_beta"}, 4.04e-5),
        ({"name": "rectified_flow"}, 0),
        ({"name": "variance_exploding"}, 80**-2),
    ],
)
def test_the_terminal_snr_is_that_of_the_end(spec, snr):
    assert terminal_snr(SCHEDULES.build(spec)) == pytest.approx(snr, rel=2e-3)


def test_a_schedule_that_does_not_end_at_noise_is_warned_of():
    warning = terminal_warning(SCHEDULES.build({"name": "linear_beta", "steps": 300}))
    assert "alpha_bar = 0.048" in warning and "SNR 0.05" in warning and "--initial-noise gaussian" in warning
    assert "\n" not in warning and "ruido" in warning.in_language("es")


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "linear_beta", "steps": 0},
        {"name": "linear_beta", "beta_max": 1.0},
        {"name": "linear_beta", "beta_min": 0.0},
        {"name": "cosine", "offset": 0.0},
        {"name": "cosine", "steps": 1},
        {"name": "variance_exploding", "sigma_min": 0.0},
        {"name": "variance_exploding", "sigma_min": 90.0},
    ],
)
def test_impossible_settings_are_refused(spec):
    with pytest.raises(UsageError, match=spec["name"]):
        SCHEDULES.build(spec)


@every_schedule
def test_diffuse_mixes_each_signal_at_its_own_level(name):
    schedule = SCHEDULES.build(name)
    x0, eps = torch.rand(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    x_t = diffuse(schedule, x0, t, eps)
    assert x_t.dtype == torch.float32
    assert torch.equal(x_t[0], x0[0])
    for k in range(3):
        alpha, sigma = schedule(t[k])
        torch.testing.assert_close(x_t[k], (alpha * x0[k] + sigma * eps[k]).float())


def test_the_posterior_is_that_of_matrix_bayes():
    """Condition the joint Gaussian of the whole chain x_1..x_T, built from the betas alone."""
    T = 40
    beta = torch.linspace(0.01, 0.3, T, dtype=torch.float64)
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": T, "beta_min": 0.01, "beta_max": 0.3})
    # x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) eps_i: (I - S) x = r x0 + diag(sqrt(beta)) eps.
    S = torch.diag((1 - beta[1:]).sqrt(), -1)
    r = torch.zeros(T, dtype=torch.float64)
    r[0] = (1 - beta[0]).sqrt()
    inverse = torch.linalg.inv(torch.eye(T, dtype=torch.float64) - S)
    mean, cov = inverse @ r, inverse @ torch.diag(beta) @ inverse.T
    x0, x_t = 0.7, -1.3
    for t in range(2, T + 1):
        for s in range(1, t):
            gain = cov[s - 1, t - 1] / cov[t - 1, t - 1]
            want_mean = mean[s - 1] * x0 + gain * (x_t - mean[t - 1] * x0)
            want_variance = cov[s - 1, s - 1] - gain * cov[s - 1, t - 1]
            got_mean, got_std = posterior(
                schedule,
                torch.full((1, 1), x_t, dtype=torch.float64),
                torch.full((1, 1), x0, dtype=torch.float64),
                torch.tensor([t / T], dtype=torch.float64),
                torch.tensor([s / T], dtype=torch.float64),
            )
            assert got_mean.item() == pytest.approx(want_mean.item(), abs=1e-12), (t, s)
            assert got_std.item() ** 2 == pytest.approx(want_variance.item(), abs=1e-12), (t, s)


@every_schedule
@given(s=st.floats(0.01, 0.98), gap=st.floats(0.01, 1))
@settings(deadline=None, max_examples=50)
def test_the_posterior_gives_back_the_marginal(name, s, gap):
    """x_s from q(x_s | x_t, x0), x_t from q(x_t | x0), has the law q(x_s | x0)."""
    schedule = SCHEDULES.build(name)
    s, t = (torch.tensor([u], dtype=torch.float64) for u in (s, min(1.0, s + gap)))
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    c_x, std = posterior(schedule, one, zero, t, s)
    c_x0, _ = posterior(schedule, zero, one, t, s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    assert (c_x * alpha_t + c_x0).item() == pytest.approx(alpha_s.item(), abs=1e-12)
    assert (c_x**2 * sigma_t**2 + std**2).item() == pytest.approx(sigma_s.item() ** 2, rel=1e-10)


@every_schedule
def test_the_posterior_at_time_zero_is_the_clean_signal(name):
    x_t, x0 = torch.randn(2, 3), torch.randn(2, 3)
    mean, std = posterior(SCHEDULES.build(name), x_t, x0, torch.ones(2), torch.zeros(2))
    torch.testing.assert_close(mean, x0)
    assert (std == 0).all()


@every_schedule
@pytest.mark.parametrize("timesteps", TIMESTEPS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_timesteps_fall_to_zero(name, timesteps, steps):
    t = TIMESTEPS.build(timesteps)(SCHEDULES.build(name), steps)
    assert t.shape == (steps + 1,) and t.dtype == torch.float64
    assert t[-1] == 0 and t[0] <= 1 and (t.diff() < 0).all()


@pytest.mark.parametrize("timesteps", TIMESTEPS)
def test_timesteps_without_steps_are_refused(timesteps):
    with pytest.raises(UsageError, match="at least 1 step, not 0"):
        TIMESTEPS.build(timesteps)(SCHEDULES.build("cosine"), 0)


def test_uniform_timesteps_are_the_trained_steps_exactly():
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 300})
    uniform = TIMESTEPS.build("uniform")
    assert uniform(schedule, 300).tolist() == [i / 300 for i in range(300, -1, -1)]
    assert [round(300 * t, 9) for t in uniform(schedule, 50).tolist()] == list(range(300, -1, -6))


def test_karras_timesteps_are_equation_5():
    schedule = SCHEDULES.build("variance_exploding")
    N, rho = 18, 7
    sigma = schedule(TIMESTEPS.build("karras")(schedule, N)).sigma
    for i in range(N):
        want = (80 ** (1 / rho) + i / (N - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
        assert sigma[i].item() == pytest.approx(want, rel=1e-9)


def test_log_snr_timesteps_have_equal_steps():
    schedule = SCHEDULES.build("rectified_flow")
    log_snr = schedule(TIMESTEPS.build("log_snr")(schedule, 12)).log_snr[:-1]
    assert log_snr[0].item() == pytest.approx(-2 * math.log(80))
    torch.testing.assert_close(log_snr.diff(), log_snr.diff()[:1].expand(11))


@pytest.mark.parametrize("timesteps", ["karras", "log_snr"])
def test_timesteps_begin_no_higher_than_the_schedule_reaches(timesteps):
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 300})
    assert TIMESTEPS.build(timesteps)(schedule, 10)[0].item() == pytest.approx(1, abs=1e-12)
    with pytest.raises(UsageError, match=r"below .*, not 5"):
        TIMESTEPS.build({"name": timesteps, "sigma_min": 5.0})(schedule, 10)


def test_linear_beta_timesteps_have_the_levels_of_the_schedule_of_that_name():
    schedule = SCHEDULES.build({"name": "linear_beta", "steps": 1000})
    t = TIMESTEPS.build("linear_beta")(schedule, 10)
    assert torch.allclose(t, torch.linspace(1, 0, 11, dtype=torch.float64), atol=4e-3)
    exploding = SCHEDULES.build("variance_exploding")
    log_alpha_bar = torch.nn.functional.logsigmoid(
        exploding(TIMESTEPS.build("linear_beta")(exploding, 10)[:-1]).log_snr
    )
    u = ((0.01 - 2 * 19.9 * log_alpha_bar).sqrt() - 0.1) / 19.9  # of 0.1 u + 19.9 u² / 2
    assert torch.allclose(u.diff(), -u[-1].expand(9), atol=1e-9) and 0.9 < u[0] < 1
