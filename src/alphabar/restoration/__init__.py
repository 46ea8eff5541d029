"""Restoration with a denoiser that was trained for nothing of the kind: operators and posterior solvers."""

from alphabar.restoration.operators.base import Linear, Operator, Shape, Spectral
from alphabar.restoration.operators.compose import PerSampleOperator, compose
from alphabar.restoration.operators.convolution import Convolution
from alphabar.restoration.operators.jpeg import Jpeg
from alphabar.restoration.operators.mask import Mask, crop
from alphabar.restoration.operators.registry import OPERATORS
from alphabar.restoration.operators.separable import Separable
from alphabar.restoration.solvers.base import Observation, Solver
from alphabar.restoration.solvers.direct import is_identity
from alphabar.restoration.solvers.registry import SOLVERS

__all__ = [
    "OPERATORS",
    "SOLVERS",
    "Convolution",
    "PerSampleOperator",
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
