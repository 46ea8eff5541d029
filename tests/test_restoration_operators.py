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
from alphabar.restoration.operators.jpeg_codec import CHROMINANCE, LUMINANCE, quantization_steps
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS, build_operator
from alphabar.restoration.operators.separable import Separable, crop

SHAPE = (3, 16, 24)
KERNEL = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MILD = KERNEL + 8 * torch.eye(5, dtype=torch.float64)[2, :, None] * torch.tensor([0, 1, 0]).double()


def signals(n=2, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def build(spec, shape=SHAPE):
    return build_operator(spec, shape)


def linear_operators():
    """Every registered operator that is linear, at its defaults, and the ways to make one of others."""
    registered = {name: build(name) for name in OPERATORS}
    known = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(2)) < 0.5
    several = {
        "kernel": Convolution(KERNEL, SHAPE),
        "a mask a picture": Mask(known, SHAPE),
        "blur, then downsample": compose(
            build({"name": "blur", "std": 0.7}), build({"name": "area_downsample", "factor": 2})
        ),
        "blur, then box": compose(build({"name": "blur", "std": 0.5}), build("box")),
        "crop, then kernel": compose(crop(SHAPE, (12, 20)), Convolution(MILD, (3, 12, 20))),
        "crop, then box": compose(crop(SHAPE, (12, 20)), build("box", (3, 12, 20))),
        "each": PerSampleOperator([build({"name": "blur", "std": 0.5}), build("downsample")]),
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
    return signals(n, operator.measurement_shape, seed)


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
    operators = [build("blur"), build("downsample")]
    each, x = PerSampleOperator(operators), signals()
    y = each.pack([o.A(x[i : i + 1]) for i, o in enumerate(operators)])
    close(each.A(x), y)
    for i, (operator, part) in enumerate(zip(operators, each.unpack(y), strict=True)):
        close(part, operator.A(x[i : i + 1]))
        close(each.prox(x, y, 0.1)[i : i + 1], operator.prox(x[i : i + 1], part, 0.1))
    with refused("one_size"):
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

    close(build("downsample").A(x), each_plane(theirs, x), 1e-5)


def test_area_downsampling_is_the_mean_of_squares():
    x = signals()
    close(build({"name": "area_downsample", "factor": 8}).A(x), torch.nn.functional.avg_pool2d(x, 8))


def test_grayscale_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1
    assert ((build("grayscale").A(x)[0, 0] + 1) * 127.5 - torch.tensor(theirs)).abs().max() <= 1


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
    assert [quantization_steps(t, quality).flatten().tolist() for t in (LUMINANCE, CHROMINANCE)] == [
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
    # As many strokes as cover the share: for what they cover none is added.
    again = build({"name": "strokes", "share": float(missing)}, (3, 64, 64))
    assert again.s.mean() == 1 - missing


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("spec", "identifier", "values"),
    [
        ({"name": "downsample", "factor": 5}, "factor_does_not_divide", {"factor": 5, "image": "24×16"}),
        ({"name": "area_downsample", "factor": 0}, "bad_factor", {"factor": 0}),
        (
            {"name": "box", "x0": 3, "y0": 4, "x1": 30, "y1": 12},
            "box_outside",
            {"box": "3,4,30,12", "image": "24×16"},
        ),
        ({"name": "random", "share": 1.0}, "bad_share", {"name": "random", "share": "1"}),
        ({"name": "strokes", "share": 0.0}, "bad_share", {"name": "strokes", "share": "0"}),
        ({"name": "blur", "std": 0.0}, "bad_blur", {"std": "0", "image": "24×16"}),
        ({"name": "motion", "length": 40}, "bad_motion", {"length": "40,45", "image": "24×16"}),
        ({"name": "jpeg", "quality": 0}, "jpeg_quality", {"quality": 0}),
    ],
)
def test_bad_settings_are_refused(spec, identifier, values):
    with pytest.raises(UsageError) as error:
        build(spec)
    assert error.value.message.identifier == f"restoration.{identifier}"
    assert error.value.message.values == values


def refused(identifier):
    return pytest.raises(UsageError, check=lambda e: e.message.identifier == f"restoration.{identifier}")


def test_shapes_that_do_not_fit_are_refused():
    with refused("mask_size"):
        Mask(torch.ones(1, 4, 8), SHAPE)
    with refused("shapes_do_not_fit"):
        compose(build("downsample"), build("blur"))
    with refused("kernel_too_large"):
        Convolution(torch.ones(3, 30), SHAPE)
    with refused("kernel_sums_to_zero"):
        Convolution(torch.tensor([[1.0, -1.0]]), SHAPE)
    with refused("only_images"):
        build("box", (1, 64))


# ---------------------------------------------------------------- grey, transparent and other samples


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("channels", [1, 4])
def test_operators_take_grey_and_transparent_images(name, channels):
    shape = (channels, 16, 24)
    if (name, channels) == ("jpeg", 4):
        with refused("jpeg_transparency"):
            build(name, shape)
        return
    operator, x = build(name, shape), signals(shape=shape)
    y = operator.A(x)
    assert tuple(y.shape[1:]) == operator.measurement_shape
    if operator.linear:
        v = measurements(operator)
        close(dot(y, v), dot(x, operator.adjoint(v)))


def test_grayscale_leaves_grey_and_alpha_as_they_are():
    x = signals(shape=(4, 16, 24))
    y = build("grayscale", (4, 16, 24)).A(x)
    close(y[:, 1], x[:, 3])
    close(y[:, :1], build("grayscale").A(x[:, :3]))
    assert build("grayscale", (1, 16, 24)).is_identity


def test_a_grey_jpeg_is_a_grey_one_of_pillow():
    pixels = (np.add.outer(np.arange(48), 2 * np.arange(64)) % 256).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=30)
    theirs = np.asarray(Image.open(file), np.float64)
    x = torch.tensor(pixels)[None, None].double() / 127.5 - 1
    ours = ((build({"name": "jpeg", "quality": 30}, (1, 48, 64)).A(x)[0, 0] + 1) * 127.5).numpy()
    assert np.abs(ours - theirs).mean() < 0.1 * np.abs(theirs - pixels).mean()


@pytest.mark.parametrize("shape", [(2, 32), (1, 8, 12, 16)])
@pytest.mark.parametrize("name", ["denoise", "random", "downsample", "area_downsample", "blur"])
def test_some_operators_take_sound_and_volumes(name, shape):
    operator, x = build(name, shape), signals(shape=shape)
    y = operator.A(x)
    v = signals(shape=operator.measurement_shape, seed=5)
    close(dot(y, v), dot(x, operator.adjoint(v)))
    close(operator.A(operator.pinv(y)), y, 1e-8)


# ---------------------------------------------------------------- what a restoration asks


def test_operators_say_what_is_missing():
    box = build({"name": "box", "x0": 4, "y0": 2, "x1": 20, "y1": 14})
    assert torch.equal(box.missing(0.0), box.s[0] == 0) and box.missing(0.1).all()
    assert box.needs_whole_image((12, 16)) and not box.needs_whole_image((13, 16))
    assert not build({"name": "random", "share": 0.5}).needs_whole_image((8, 8))
    assert build("grayscale").needs_whole_image((8, 8)) and not build("blur").needs_whole_image((8, 8))
    assert build("blur").missing(0.0).all()
    assert compose(build("blur"), box).removes_pixels and not build("jpeg").removes_pixels


@pytest.mark.parametrize("name", ["box", "grayscale"])
def test_a_smaller_problem_is_that_of_smaller_images(name):
    x = torch.nn.functional.interpolate(signals(), (32, 48), mode="nearest")
    operator = build(
        {"name": "box", "x0": 8, "y0": 8, "x1": 24, "y1": 24} if name == "box" else name, (3, 32, 48)
    )
    smaller, y = operator.shrink(operator.A(x), SHAPE[1:])
    assert smaller.shape == SHAPE
    close(smaller.A(signals()), smaller.A(y) if name == "box" else y, 1e-6)


def test_parts_of_a_batch_are_selected():
    x = signals(3)
    each = PerSampleOperator([build("blur"), build("downsample"), build({"name": "blur", "std": 0.5})])
    y = each.A(x)
    some, part = each.select(y, [2, 0, 2])
    close(part, some.A(x[[2, 0, 2]]))
    one, part = each.select(y, [1])
    close(part, one.A(x[1:2]))
    masks = Mask(torch.rand(3, 1, 16, 24) < 0.5, SHAPE)
    some, part = masks.select(masks.A(x), [2, 1])
    close(part, some.A(x[[2, 1]]))
    with refused("one_operator_each"):
        each.select(y[:2], [0])


def test_operators_merge_where_they_can():
    assert isinstance(compose(build("blur"), build("downsample")), Separable)
    assert isinstance(compose(build("grayscale"), build("blur", (1, 16, 24))), Separable)
    assert isinstance(compose(build("grayscale"), build("downsample", (1, 16, 24))), Spectral)
    assert compose(build("denoise"), box := build("box")) is box
