"""Restoration with a denoiser that was trained for nothing of the kind: operators and posterior solvers."""

from alphabar.restoration.operators import (
    OPERATORS,
    Convolution,
    Each,
    Jpeg,
    Linear,
    Mask,
    Operator,
    Separable,
    Shape,
    Spectral,
    crop,
    then,
)
from alphabar.restoration.posterior import SOLVERS, Observation, Solver, is_identity

__all__ = [
    "OPERATORS",
    "SOLVERS",
    "Convolution",
    "Each",
    "Jpeg",
    "Linear",
    "Mask",
    "Observation",
    "Operator",
    "Separable",
    "Shape",
    "Solver",
    "Spectral",
    "crop",
    "is_identity",
    "then",
]
