"""TODO-DOC from restoring"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.registry import Spec
from alphabar.restoration.operators.base import Linear, Operator, Spectral
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.separable import Separable
from alphabar.restoration.solvers.direct import is_identity
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.runs.model import Model

STEPS = 25
"""Of a restoration unless asked otherwise: twice as many measured no better (docs/results/restoration.md)."""


GUIDED = (0.0, 2.5)
"""The noise levels sigma/alpha at which perturbed attention acts: above them it brings nothing."""


ROUNDING = 2 / 255 / math.sqrt(12)
"""The standard deviation of what is lost by rounding to 8 bits, in the units of [-1, 1]: 0.0023."""


@dataclass(frozen=True)
class RestorationSettings:
    """How pictures are restored: enough, with the model and y, to restore them again."""

    seed: int
    solver: dict[str, Any]
    steps: int
    pag: float = 0.0  # perturbed-attention guidance of the denoiser, which asks it twice; 0 is none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def restoration_settings(
    model: Model,
    operator: Operator,
    sigma_y: float,
    *,
    seed: int = 0,
    solver: Spec | None = None,
    steps: int | None = None,
    pag: float | None = None,
) -> RestorationSettings:
    """The settings of a restoration: what is asked for, and what measured best for the rest.

    Raises UsageError for unknown names, for steps below one, and for guidance that the model cannot give.
    """
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    own_pag = next((g["scale"] for g in model.recipe.sampling.guidance if g["name"] == "pag"), 0.0)
    own = own_pag if model.attention else 0.0
    pag = own * _guidance_share(operator, sigma_y) if pag is None else pag
    if pag and not model.attention:
        raise UsageError(f"--pag needs self-attention in the network: that of {model.path} has none")
    best = SOLVERS.resolve(solver or _best(operator, sigma_y, pag, model.recipe.data.size))
    return RestorationSettings(seed, best, steps or STEPS, pag)


def _guidance_share(operator: Operator, sigma_y: float) -> float:
    """The share of its guidance in drawing that helps the model to invent what is lost."""
    if _enlarges(operator):
        return 1.0
    spoiled = operator.measured == operator.shape and not isinstance(operator, Mask)
    blurred = spoiled and sigma_y > ROUNDING and not is_identity(operator)
    return 0.5 if blurred or not isinstance(operator, Linear) else 0.0


def _enlarges(operator: Operator) -> bool:
    """Whether pictures are to have more pixels than are known, of which each is a mean of theirs."""
    return isinstance(operator, Separable) and math.prod(operator.measured[1:]) < math.prod(
        operator.shape[1:]
    )


def _best(operator: Operator, sigma_y: float, pag: float, size: int) -> Spec:
    """The solver for a kind of task: by how near its pictures are in docs/results/restoration.md.

    size: of the model's pictures; of smaller ones the singular values are not known.
    """
    if not isinstance(operator, Linear):
        return "ddnm"
    if isinstance(operator, Mask):
        return "mmps"
    if isinstance(operator, Spectral) and min(operator.shape[1:]) >= size:
        if is_identity(operator) and sigma_y > ROUNDING:
            # With less fresh noise than the paper's answers are nearer; with less than this too smooth.
            return {"name": "ddrm", "eta": 0.8}
        if operator.measured == operator.shape:
            # All of the picture is in y: what noise hides is found mode by mode, what is missing is inferred.
            return "ddrm" if sigma_y > ROUNDING else "diffpir"
        if _enlarges(operator) and pag:
            return "ddrm"
    return "pigdm"


def _times(model: Model, steps: int) -> Tensor:
    """Noise levels even in log SNR, whatever the model is sampled on, and one step for what hardly shows."""
    return TIMESTEPS.build({"name": "log_snr", "sigma_min": 0.05})(model.denoiser.schedule, steps)
