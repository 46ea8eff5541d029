"""Restoring signals: the API on a model, its default settings, grey, transparent and non-square images."""

from dataclasses import dataclass, replace

import pytest
import torch

from alphabar.errors import UsageError
from alphabar.progress import last
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.operators.base import Linear
from alphabar.restoration.operators.compose import PerSampleOperator
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS, build_operator
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import GUIDANCE_INTERVAL, restoration_settings
from alphabar.restoration.solvers.base import DDIMSolver, denoise
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.runs.model import Model
from refusals import refused
from restoration_models import SIZE, attending, exact_model, gaussian_images, restored, untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return untrained(tmp_path_factory.mktemp("restoration"))


# ---------------------------------------------------------------- the API


def test_a_restoration_is_a_generator_of_steps(model):
    operator = build_operator("box", (3, SIZE, SIZE))
    y = operator.A(torch.rand(2, 3, SIZE, SIZE))
    settings = restoration_settings(model, operator, 0.0, solver="diffpir", steps=4)
    records = list(restore(model, y, operator, n=3, settings=settings, batch=4))
    assert len(records) == 2 * 4 + 1  # six samples in batches of four
    assert [r.done for r in records] == [4, 8, 12, 16, 18, 20, 22, 24, 24]
    assert all(r.total == 24 for r in records)
    assert records[-1].result.shape == (3, 2, 3, SIZE, SIZE)
    assert not torch.equal(records[-1].result[0], records[-1].result[1])


@pytest.mark.parametrize("size", [(SIZE, SIZE), (20, 40), (12, 10)])
def test_a_sample_depends_on_its_own_measurement_alone(model, size):
    operator = build_operator("random", (3, *size))
    y = operator.A(torch.rand(2, 3, *size))
    both = restored(model, y, operator, n=2)
    assert both.shape == (2, 2, 3, *size)
    for i in (0, 1):
        single = restored(model, y[i : i + 1], operator, n=1, first=i)
        torch.testing.assert_close(single[0, 0], both[0, i], rtol=0, atol=1e-4)
    torch.testing.assert_close(operator.A(both[0]), y, rtol=0, atol=1e-5)


def test_each_image_may_have_its_own_operator(model):
    operators = [build_operator(spec, (3, SIZE, SIZE)) for spec in ("downsample", "blur")]
    each, x = PerSampleOperator(operators), torch.rand(2, 3, SIZE, SIZE)
    y = each.A(x)
    both = restored(model, y, each, 0.05, solver="pigdm", n=2)
    single = restored(model, operators[1].A(x[1:]), operators[1], 0.05, solver="pigdm", first=1)
    torch.testing.assert_close(both[0, 1], single[0, 0], rtol=0, atol=1e-4)
    with refused("restoration.one_operator_each", samples=1, operators=2):
        list(restore(model, y[:1], each))


def test_what_does_not_fit_is_refused(model):
    operator, y = build_operator("box", (3, SIZE, SIZE)), torch.zeros(1, 3, SIZE, SIZE)
    with refused("restoration.too_few_samples", n=0):
        restore(model, y, operator, n=0)
    with refused("restoration.y_shape", given=(1, 1, SIZE, SIZE)):
        restore(model, y[:, :1], operator)
    with refused("restoration.y_shape", given=(0, 3, SIZE, SIZE)):
        restore(model, y[:0], operator)
    with refused("restoration.channels", channels=3, given=1):
        restore(model, y[:, :1], build_operator("box", (1, SIZE, SIZE)))
    with refused("restoration.only_images_tile", size="16×16"):
        restore(model, torch.zeros(1, 3, 64), build_operator("denoise", (3, 64)))
    with refused("restoration.negative_noise", sigma_y=-1.0):
        restore(model, y, operator, -1.0)
    with refused("restoration.bad_steps", steps=0):
        restoration_settings(model, operator, 0.0, steps=0)
    with pytest.raises(UsageError, match="'pigdm'"):
        restoration_settings(model, operator, 0.0, solver="pigdmm")


def test_a_mask_that_misses_nothing_changes_nothing(model):
    operator = Mask(torch.ones(1, SIZE, SIZE), (3, SIZE, SIZE))
    y = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(restored(model, y, operator)[0], y, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- other images


@pytest.mark.parametrize("size", [None, "[16, 24]"])
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_transparent_and_non_square_models_restore(tmp_path, channels, size):
    """Images of the model's size, larger ones in tiles, and smaller ones."""
    model = untrained(tmp_path, f"data.channels={channels}", *([f"data.size={size}"] if size else []))
    for spatial in (model.shape[1:], (20, 52), (8, 16)):
        for spec in ("box", "downsample"):
            operator = build_operator(spec, (channels, *spatial))
            y = operator.A(torch.rand(1, channels, *spatial) - 0.5)
            x = restored(model, y, operator)
            assert x.shape == (1, 1, channels, *spatial)
            torch.testing.assert_close(operator.A(x[0]), y, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- the defaults


@pytest.fixture(scope="module")
def gaussian(model) -> tuple[Model, torch.Tensor]:
    """A model that is exact for Gaussian images, and four of them."""
    mean, cov = gaussian_images()
    factor = torch.linalg.cholesky(cov + 1e-9 * torch.eye(len(cov)))
    normal = torch.randn(4, len(mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return exact_model(model), (mean + normal @ factor.T).reshape(4, 3, SIZE, SIZE).float()


def error_of_posterior_samples(operator, sigma_y):
    """E(x - x0)² of a sample of p(x0 | y), averaged over pixels: twice the posterior variance."""
    _, cov = gaussian_images()
    d = len(cov)
    A = operator.A(torch.eye(d, dtype=torch.float64).reshape(d, 3, SIZE, SIZE)).flatten(1).T
    seen = A @ cov @ A.T + max(sigma_y, 1e-4) ** 2 * torch.eye(len(A))
    return 2 * (cov - cov @ A.T @ torch.linalg.pinv(seen, hermitian=True) @ A @ cov).trace().item() / d


@pytest.mark.parametrize("spec", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_the_default_solver_can_do_its_task(gaussian, spec, sigma_y):
    """With an exact denoiser it errs no more than samples of the posterior do, and agrees with y."""
    if spec == "denoise" and sigma_y == 0:
        pytest.skip("nothing to restore")
    model, x0 = gaussian
    operator = build_operator(spec, tuple(x0.shape[1:]))
    y = operator.A(x0)
    y = y + sigma_y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    x = last(restore(model, y, operator, sigma_y))[0]
    error = (x - x0).square().mean().item()
    if operator.linear:
        assert error < 1.15 * error_of_posterior_samples(operator, sigma_y) + 1e-4
        assert (operator.A(x) - y).square().mean().sqrt() == pytest.approx(sigma_y, rel=0.25, abs=1e-4)
    else:  # what an image generated from nothing would be away, and half of it
        unrelated = 2 * (gaussian_images()[1].trace() / x0[0].numel()).item()
        assert error < (0.3 if sigma_y == 0 else 0.6) * unrelated


def own_guidance(pag: float) -> str:
    return f'sampling.guidance=[{{"name": "pag", "scale": {pag}}}]' if pag else "sampling.guidance=[]"


@pytest.mark.parametrize(
    ("task", "size", "own_pag", "solver", "pag"),
    [
        ("blur:1.5", 16, 0, "diffpir", 0),
        ("blur:1.5", 16, 3, "diffpir", 0),
        ("blur:1.5+noise:0.05", 16, 3, "ddrm", 1.5),
        # of a part of the model's image singular values are not known
        ("blur:1.5+noise:0.05", 32, 0, "pigdm", 0),
        ("motion:5,45+noise:0.05", 16, 0, "ddrm", 0),
        ("noise:0.2", 16, 3, {"name": "ddrm", "eta": 0.8}, 0),
        ("grayscale", 16, 3, "pigdm", 0),
        ("downsample:2", 16, 0, "pigdm", 0),
        ("downsample:2", 16, 3, "ddrm", 3),
        ("downsample:2", 32, 3, "pigdm", 3),
        ("random:0.5+noise:0.1", 16, 3, "mmps", 0),
        ("jpeg:10", 16, 3, "ddnm", 1.5),
    ],
)
def test_the_defaults_follow_from_what_is_missing(model, task, size, own_pag, solver, pag):
    attentive = attending(model, f"data.size={size}", own_guidance(own_pag))
    degradation = parse_degradation(task)
    settings = restoration_settings(attentive, degradation.operator((3, 16, 16)), degradation.sigma)
    scales = {spec["name"]: spec["scale"] for spec in settings.guidance}
    assert (settings.solver, scales) == (SOLVERS.resolve(solver), {"pag": pag} if pag else {})
    assert all(spec["interval"] == GUIDANCE_INTERVAL for spec in settings.guidance)


def test_where_means_are_denoised_guidance_acts_at_the_levels_of_their_noise(model):
    attentive = attending(model, "coarse=2", own_guidance(3))
    operator = build_operator("downsample", (3, 16, 16))
    (pag,) = restoration_settings(attentive, operator, 0.0).guidance
    assert pag["interval"] == tuple(2 * level for level in GUIDANCE_INTERVAL)


def test_where_detail_is_predicted_on_its_own_its_covariance_is_damped(model):
    operator = parse_degradation("random:0.5").operator((3, 16, 16))
    for coarse, solver in ((1, "mmps"), (2, {"name": "mmps", "damping": 0.3})):
        settings = restoration_settings(attending(model, f"coarse={coarse}"), operator, 0.0)
        assert settings.solver == SOLVERS.resolve(solver)
    patches = attending(model, "coarse=2")
    network = patches.recipe.network | {"times": 2}  # of a nested network, whose Jacobian is near enough
    nested = replace(patches, recipe=patches.recipe.model_copy(update={"network": network}))
    assert restoration_settings(nested, operator, 0.0).solver == SOLVERS.resolve("mmps")


def test_guidance_acts_where_the_network_attends(model):
    operator = build_operator("downsample", (3, SIZE, SIZE))
    y = torch.rand(1, *operator.measurement_shape) - 0.5
    attentive = attending(model)
    plain, again, led = (
        restored(attentive, y, operator, guidance=g) for g in ({}, {"pag": 0.0}, {"pag": 2.0})
    )
    assert torch.equal(plain, again) and not torch.allclose(plain, led, atol=1e-3)
    torch.testing.assert_close(operator.A(led[0]), y, rtol=0, atol=1e-4)
    nowhere = {"pag": {"scale": 2.0, "interval": (1e-9, 2e-9)}}
    idle = restored(attentive, y, operator, guidance=nowhere, solver="ddrm")
    torch.testing.assert_close(
        idle, restored(attentive, y, operator, guidance={}, solver="ddrm"), rtol=0, atol=1e-5
    )
    with refused("guidance.needs_attention", option="pag"):
        restored(model, y, operator, guidance={"pag": 2.0})


# ---------------------------------------------------------------- one's own operator and solver


class Shift(Linear):
    """Moved to the right, around the edge: an operator as an extension would add it."""

    def __init__(self, shape, *, pixels: int = 3):
        self.shape = self.measurement_shape = shape
        self.pixels = pixels

    def A(self, x):
        return x.roll(self.pixels, -1)

    def adjoint(self, y):
        return y.roll(-self.pixels, -1)


@dataclass(frozen=True, kw_only=True)
class Projection(DDIMSolver):
    """The denoised image, made to agree with y: a solver as an extension would add it."""

    eta: float = 1.0

    def estimate(self, denoiser, x, step, noise, observation):
        return self.linear_operator(observation).prox(denoise(denoiser, x, step), observation.y, 0.0)

    def churn(self, step):
        return step.fresh_noise(self.eta)


def test_an_own_operator_and_an_own_solver_are_one_class_each(model, monkeypatch):
    monkeypatch.setitem(OPERATORS, "shift", Shift)
    monkeypatch.setitem(SOLVERS, "projection", Projection)
    operator = parse_degradation("shift:5+box").operator((3, SIZE, SIZE))
    x0 = torch.rand(1, 3, SIZE, SIZE) - 0.5
    assert torch.equal(operator.A(x0), build_operator("box", (3, SIZE, SIZE)).A(x0.roll(5, -1)))
    x = restored(model, operator.A(x0), operator, solver={"name": "projection", "eta": 0.5})
    torch.testing.assert_close(operator.A(x[0]), operator.A(x0), rtol=0, atol=1e-4)
    assert restoration_settings(model, operator, 0.0).solver["name"] == "pigdm"
