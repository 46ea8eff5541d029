"""Operators: by adjointness and projection, and against the libraries that do the same to pictures."""

import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Spectral
from alphabar.restoration.operators.compose import PerSampleOperator, compose
from alphabar.restoration.operators.convolution import Convolution
from alphabar.restoration.operators.jpeg_codec import CHROMINANCE, LUMINANCE, steps
from alphabar.restoration.operators.mask import Mask, crop
from alphabar.restoration.operators.registry import OPERATORS
from alphabar.restoration.operators.separable import Separable

SHAPE = (3, 16, 24)
KERNEL = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MILD = KERNEL + 8 * torch.eye(5, dtype=torch.float64)[2, :, None] * torch.tensor([0, 1, 0]).double()


def signals(n=2, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def build(spec, shape=SHAPE):
    return OPERATORS.build(spec, shape=shape)()


def linear_operators():
    """Every registered operator that is linear, at its defaults, and the ways to make one of others."""
    registered = {name: build(name) for name in OPERATORS}
    known = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(2)) < 0.5
    several = {
        "kernel": Convolution(KERNEL, SHAPE),
        "a mask a picture": Mask(known, SHAPE),
        "blur, then down": compose(
            build({"name": "blur", "std": 0.7}), build({"name": "average", "factor": 2})
        ),
        "blur, then box": compose(build({"name": "blur", "std": 0.5}), build("box")),
        "crop, then kernel": compose(crop(SHAPE, 12, 20), Convolution(MILD, (3, 12, 20))),
        "crop, then box": compose(crop(SHAPE, 12, 20), build("box", (3, 12, 20))),
        "each": PerSampleOperator([build({"name": "blur", "std": 0.5}), build("down")]),
    }
    return {
        name: operator for name, operator in (registered | several).items() if isinstance(operator, Linear)
    }


LINEAR = linear_operators()
every_linear = pytest.mark.parametrize("operator", LINEAR.values(), ids=LINEAR)
every_spectral = pytest.mark.parametrize(
    "operator", [pytest.param(o, id=name) for name, o in LINEAR.items() if isinstance(o, Spectral)]
)


def measurements(operator, n=2, seed=5):
    return signals(n, operator.measured, seed)


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def dot(a, b):
    return (a * b).flatten(1).sum(1)


def test_all_but_jpeg_are_linear():
    assert set(OPERATORS) - set(LINEAR) == {"jpeg"}


@every_linear
def test_the_adjoint_is_the_adjoint(operator):
    x, y = signals(), measurements(operator)
    assert operator.A(x).shape == y.shape
    close(dot(operator.A(x), y), dot(x, operator.adjoint(y)))


@every_linear
def test_the_pseudo_inverse_inverts_what_can_be(operator):
    """The four conditions of Penrose, those on symmetry by adjointness."""
    x, y, u, v = signals(), measurements(operator), signals(seed=3), measurements(operator, seed=4)
    A, pinv = operator.A, operator.pinv
    close(A(pinv(A(x))), A(x), 1e-8)
    close(pinv(A(pinv(y))), pinv(y), 1e-6)
    close(dot(pinv(A(x)), u), dot(x, pinv(A(u))), 1e-6)
    close(dot(A(pinv(y)), v), dot(y, A(pinv(v))), 1e-6)


@every_spectral
def test_a_known_decomposition_inverts_to_rounding(operator):
    x = signals()
    close(operator.A(operator.pinv(operator.A(x))), operator.A(x))


@every_linear
@pytest.mark.parametrize("rho", [1e-2, 1.0, 1e6])
def test_prox_is_where_the_gradient_vanishes(operator, rho):
    x, y = signals(), measurements(operator)
    u = operator.prox(x, y, rho)
    # Relative to rho: a huge one magnifies rounding.
    close(operator.adjoint(operator.A(u) - y) / max(rho, 1) + min(rho, 1) * (u - x), torch.zeros_like(x))


@every_linear
def test_prox_without_noise_changes_no_more_than_it_must(operator):
    x, y = signals(), operator.A(signals(seed=3))
    u = operator.prox(x, y, 0.0)
    close(operator.A(u), y, 1e-8)
    close(u, x + operator.pinv(y - operator.A(x)), 1e-8)


@every_spectral
def test_singular_values_are_those_of_the_matrix(operator):
    """Of the first picture's operator, written out as a matrix."""
    d = 3 * 16 * 24
    matrix = (
        operator.A(torch.eye(d, dtype=torch.float64).reshape(d, *SHAPE)[:d]) if operator.s.ndim < 4 else None
    )
    if matrix is None:
        pytest.skip("has an operator a picture")
    values = torch.linalg.svdvals(matrix.reshape(d, -1))
    stated = operator.s.expand(SHAPE).flatten().sort(descending=True).values
    close(values, stated[: len(values)], 1e-9)


@every_linear
def test_a_batch_of_two_is_two_singles(operator):
    if isinstance(operator, PerSampleOperator) or (isinstance(operator, Mask) and operator.s.ndim == 4):
        pytest.skip("has an operator a picture")
    x, y = signals(), measurements(operator)
    for f, arguments in (
        (operator.A, (x,)),
        (operator.pinv, (y,)),
        (lambda a, b: operator.prox(a, b, 0.1), (x, y)),
    ):
        close(f(*arguments), torch.cat([f(*(a[i : i + 1] for a in arguments)) for i in (0, 1)]), 1e-9)


def test_each_picture_has_its_own_operator():
    operators = [build("blur"), build("down")]
    each, x = PerSampleOperator(operators), signals()
    y = each.pack([o.A(x[i : i + 1]) for i, o in enumerate(operators)])
    close(each.A(x), y)
    for i, (operator, part) in enumerate(zip(operators, each.unpack(y), strict=True)):
        close(part, operator.A(x[i : i + 1]))
        close(each.prox(x, y, 0.1)[i : i + 1], operator.prox(x[i : i + 1], part, 0.1))
    with pytest.raises(UsageError, match="one size"):
        PerSampleOperator([build("blur"), build("blur", (3, 8, 8))])


@every_linear
def test_float32_pictures_stay_float32(operator):
    x = signals().float()
    y = operator.A(x)
    assert y.dtype == operator.adjoint(y).dtype == operator.prox(x, y, 0.1).dtype == torch.float32
    close(y.double(), operator.A(x.double()), 1e-5)


# ---------------------------------------------------------------- against the libraries


def each_plane(function, x):
    return torch.tensor(np.stack([[function(plane) for plane in picture] for picture in x.numpy()]))


@pytest.mark.parametrize("std", [0.5, 1.5, 3.0])
def test_blur_is_that_of_scipy(std):
    x = signals()
    theirs = each_plane(
        lambda plane: scipy.ndimage.gaussian_filter(plane, std, mode="reflect", truncate=4), x
    )
    close(build({"name": "blur", "std": std}).A(x), theirs, 5e-4)  # what CUT leaves away


def test_a_kernel_is_convolved_as_by_scipy():
    x = signals()
    theirs = each_plane(lambda plane: scipy.ndimage.convolve(plane, KERNEL.numpy(), mode="wrap"), x)
    close(Convolution(KERNEL, SHAPE).A(x), theirs / KERNEL.sum())


def test_motion_smears_along_its_line():
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    x[..., 8, 12] = 1
    y = build({"name": "motion", "length": 7, "angle": 0}).A(x)[0, 0]
    assert y[8, 9:16].min() > 0.12 and y[8].sum() == pytest.approx(1)
    up = build({"name": "motion", "length": 7, "angle": 90}).A(x)[0, 0]
    assert up[5:12, 12].min() > 0.12
    diagonal = build({"name": "motion", "length": 7, "angle": 45}).A(x)[0, 0]
    assert diagonal[6, 14] > 0.05 > diagonal[6, 10]  # counter-clockwise: up to the right


def test_bicubic_is_that_of_pillow():
    x = signals()

    def theirs(plane):
        image = Image.fromarray(plane.astype(np.float32))
        return np.asarray(image.resize((6, 4), Image.Resampling.BICUBIC), np.float64)

    close(build("down").A(x), each_plane(theirs, x), 1e-5)


def test_average_is_the_mean_of_squares():
    x = signals()
    close(build({"name": "average", "factor": 8}).A(x), torch.nn.functional.avg_pool2d(x, 8))


def test_grey_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1
    assert ((build("grey").A(x)[0, 0] + 1) * 127.5 - torch.tensor(theirs)).abs().max() <= 1


@pytest.mark.parametrize("quality", [1, 10, 50, 75])
@pytest.mark.parametrize("size", [(64, 48), (59, 37)])
def test_jpeg_is_that_of_pillow(quality, size):
    """The same tables, and the same picture but for coefficients that libjpeg rounds the other way."""
    rng = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(*size, 3)), (2, 2, 0)) * 200 + 128
    pixels = (smooth + rng.normal(size=(*size, 3)) * 3).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    image = Image.open(file)
    assert [steps(t, quality).flatten().tolist() for t in (LUMINANCE, CHROMINANCE)] == [
        *image.quantization.values()
    ]
    theirs = np.asarray(image, np.float64)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1
    ours = ((build({"name": "jpeg", "quality": quality}, (3, *size)).A(x)[0] + 1) * 127.5).permute(1, 2, 0)
    gap, done = np.abs(ours.numpy() - theirs).mean(), np.abs(theirs - pixels).mean()
    assert gap < 0.13 * done


def test_jpeg_lets_gradients_through():
    x = signals().requires_grad_()
    build("jpeg").A(x).square().sum().backward()
    assert x.grad.abs().max() > 0.1


def test_masks_miss_what_they_should():
    known = build({"name": "box", "x0": 3, "y0": 5, "x1": 7, "y1": 6}).s
    assert (known == 0).nonzero()[:, 1:].tolist() == [[5, 3], [5, 4], [5, 5], [5, 6]]
    assert build({"name": "random", "share": 0.25}).s.mean() == 0.75
    assert not torch.equal(build({"name": "random", "seed": 1}).s, build("random").s)
    missing = 1 - build({"name": "strokes", "share": 0.3}, (3, 64, 64)).s.mean()
    assert 0.3 <= missing < 0.5


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "down", "factor": 5}, "does not divide a picture of 24×16"),
        ({"name": "average", "factor": 0}, "factor of 0"),
        ({"name": "box", "x0": 3, "x1": 30}, "not a box inside a picture of 24×16"),
        ({"name": "random", "share": 1.0}, "between 0 and 1"),
        ({"name": "strokes", "share": 0.0}, "between 0 and 1"),
        ({"name": "blur", "std": 0.0}, "above 0"),
        ({"name": "motion", "length": 40}, "within the picture"),
        ({"name": "jpeg", "quality": 0}, "1 to 100"),
        ({"name": "blurr"}, "did you mean 'blur'"),
    ],
)
def test_bad_settings_are_told(spec, message):
    with pytest.raises(UsageError, match=message):
        build(spec)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="mask of 8×4 does not fit a picture of 24×16"):
        Mask(torch.ones(1, 4, 8), SHAPE)
    with pytest.raises(UsageError, match="grey already"):
        build("grey", (1, 8, 8))
    with pytest.raises(UsageError, match="cannot follow"):
        compose(build("down"), build("blur"))
    with pytest.raises(UsageError, match="kernel of 30×3"):
        Convolution(torch.ones(3, 30), SHAPE)
    with pytest.raises(UsageError, match="sum to 0"):
        Convolution(torch.tensor([[1.0, -1.0]]), SHAPE)


def test_operators_merge_where_they_can():
    assert isinstance(compose(build("blur"), build("down")), Separable)
    assert isinstance(compose(build("grey"), build("blur", (1, 16, 24))), Separable)
    assert isinstance(compose(build("grey"), build("down", (1, 16, 24))), Spectral)
