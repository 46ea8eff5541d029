"""The operators that can be named in a degradation."""

from alphabar.registry import Registry, Spec
from alphabar.restoration.operators.base import Operator, Shape
from alphabar.restoration.operators.convolution import motion
from alphabar.restoration.operators.jpeg import JPEG
from alphabar.restoration.operators.mask import box, random, strokes
from alphabar.restoration.operators.separable import area_downsample, blur, denoise, downsample, grayscale

OPERATORS = Registry(
    "degradation",
    {
        "denoise": denoise,
        "box": box,
        "random": random,
        "strokes": strokes,
        "downsample": downsample,
        "area_downsample": area_downsample,
        "blur": blur,
        "motion": motion,
        "grayscale": grayscale,
        "jpeg": JPEG,
    },
)
"""Name → a class of operators, or a function that makes one: ``f(shape, *, setting=default)``."""


def build_operator(spec: Spec, shape: Shape) -> Operator:
    """The operator of a spec for samples of a shape (channels, *spatial).

    Raises UsageError for unknown names and settings, and what the operator raises where they do not fit the
    shape.
    """
    built = OPERATORS.build(spec, shape=shape)
    return built if isinstance(built, Operator) else built()
