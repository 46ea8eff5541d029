"""How a restoration runs: solver, steps and guidance, by default those that suit the operator."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from alphabar.codecs.base import LearnedCodec, reader_of
from alphabar.diffusion.schedules import Schedule
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import guidance_class, merge_guidance
from alphabar.messages import Message, message
from alphabar.recipes.schema import MOST_STEPS
from alphabar.registry import Spec
from alphabar.restoration.operators.base import Operator
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.runs.model import Model

STEPS = 25
"""The default number of steps: twice as many measured no better (docs/results/restoration.md)."""

GUIDANCE_INTERVAL = (0.0, 2.5)
"""The noise levels at which guidance acts in a restoration: above them it brings nothing.

They are sigma/alpha as the parameterization has it, of the coarse picture where there is one.
"""


@dataclass(frozen=True)
class RestorationSettings:
    """How samples are restored: enough, with the model and y, to restore them again.

    solver: its resolved spec. steps: for each image size. guidance: resolved specs of `alphabar.guidance`.
    """

    seed: int
    solver: dict[str, Any]
    steps: int
    guidance: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON can hold."""
        return asdict(self)


def restoration_settings(
    model: Model,
    operator: Operator,
    sigma_y: float,
    *,
    seed: int = 0,
    solver: Spec | None = None,
    steps: int | None = None,
    guidance: Mapping[str, float | Mapping[str, Any]] | None = None,
) -> RestorationSettings:
    """The settings that are given, and for the rest what suits the operator (`Operator.default_solver`).

    guidance: name → scale or settings. The recipe's guidances stay unless they are named, with the share of
        their scale that helps with this operator (`Operator.guidance_share`); {} is no guidance at all.
    Raises UsageError for unknown names and for steps below 1 or beyond counting. Whether the model can be
    guided so, `restore` checks.
    """
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise UsageError("restoration.bad_steps", steps=steps, most=MOST_STEPS)
    chosen = _guidance(model, guidance, operator.guidance_share(sigma_y))
    smaller = any(side < own for side, own in zip(operator.shape[1:], reader_of(model.codec).spatial))
    # From latents no degradation is linear.
    default: Spec = "diffpir" if operator.has_prox else "ddnm"
    if not isinstance(model.codec, LearnedCodec):
        default = operator.default_solver(sigma_y, guided=bool(chosen), smaller=smaller)
        nested = model.recipe.network.get("times", 1)
        if default == "mmps" and model.recipe.coarse > nested:
            # Patches hold means and detail, and the Jacobian is far from symmetric, so it is no covariance.
            default = {"name": "mmps", "damping": 0.3}
    return RestorationSettings(seed, SOLVERS.resolve(solver or default), steps or STEPS, chosen)


def model_notes(model: Model) -> tuple[Message, ...]:
    """What a person should know about restoring with a model."""
    if isinstance(model.codec, LearnedCodec):
        return (message("restoration.latents_are_less_exact"),)
    return ()


def _guidance(
    model: Model, given: Mapping[str, float | Mapping[str, Any]] | None, share: float
) -> tuple[dict[str, Any], ...]:
    if given is not None and not given:
        return ()
    interval = tuple(model.recipe.coarse * level for level in GUIDANCE_INTERVAL)
    specs = []
    for spec in model.recipe.sampling.guidance:
        guidance = guidance_class(spec["name"])
        if guidance.available(model) and not guidance.needs_condition:
            scale = guidance.neutral + share * (spec["scale"] - guidance.neutral)
            specs.append({**spec, "scale": scale, "interval": interval})
    own = {spec["name"] for spec in specs}
    specs += [{"name": name, "interval": interval} for name in given or {} if name not in own]
    return merge_guidance(specs, given or {})


def restoration_times(schedule: Schedule, steps: int) -> Tensor:
    """Times (steps + 1,) even in log SNR, whatever the model samples on, and one last step to 0."""
    return TIMESTEPS.build({"name": "log_snr", "sigma_min": 0.05})(schedule, steps)
