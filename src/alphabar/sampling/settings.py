"""TODO-DOC from sampling"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, count_nfe
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance.guided import EVERYWHERE
from alphabar.methods.registry import is_diffusion
from alphabar.registry import Spec
from alphabar.runs.model import Model


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are drawn: enough, with the model, to draw them again."""

    seed: int
    sampler: dict[str, Any]
    timesteps: dict[str, Any]
    steps: int
    initial_noise: dict[str, Any]
    conditions: Sequence[
        Mapping[str, str]
    ] = ()  # picture i is asked for entry i modulo their number; () for nothing
    guidance: float = 1.0  # classifier-free, 1 is none
    guidance_interval: tuple[float, float] | None = None  # sigma/alpha within which guidance acts
    sag: float = 0.0  # 0 is none
    pag: float = 0.0  # 0 is none
    pag_interval: tuple[float, float] | None = None  # sigma/alpha within which it acts, of the model's own
    autoguidance: float = 1.0  # 1 is none
    negative: str | None = None  # what guidance leads away from
    classifier: str | None = None  # the run or model folder of one that guides towards what is asked
    classifier_scale: float = 1.0  # 0 is none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "SamplingSettings":
        """The inverse of `to_dict`, also after JSON and among other values. Raises UsageError for others."""
        try:
            known = {f.name: values[f.name] for f in fields(SamplingSettings) if f.name in values}
            settings = TypeAdapter(SamplingSettings).validate_python(known)
        except ValidationError as error:
            raise UsageError(f"these are no settings of a sampling: {str(error).splitlines()[0]}") from None
        return replace(settings, conditions=tuple(dict(asked) for asked in settings.conditions))


def sampling_settings(
    model: Model,
    *,
    seed: int = 0,
    sampler: Spec | None = None,
    timesteps: Spec | None = None,
    steps: int | None = None,
    initial_noise: Spec | None = None,
    conditions: Sequence[Mapping[str, str]] | None = None,
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    sag: float = 0.0,
    pag: float | None = None,
    autoguidance: float = 1.0,
    negative: str | None = None,
    classifier: str | None = None,
    classifier_scale: float = 1.0,
) -> SamplingSettings:
    """The settings of a sampling: what is asked for, and the recipe's choice for the rest.

    A sampler other than the recipe's own brings the grid it works best on, unless one is given.
    ask: what picture i is asked for, by field of the model's vocabulary: entry i modulo their number;
        () for nothing. By default every kind as often as the training pictures have it (`as_data`).
    negative: what guidance leads away from, a sentence or a class, instead of from nothing in particular.
    guidance, sag, pag, autoguidance, classifier_scale: scales of the guidances, see `diffusion.guidance`; pag
        is the recipe's choice too, with its noise levels unless guidance_interval says which, and none where
        the network has no attention in its middle.
    classifier: the folder of a model of the recipe classifier, which guides towards what is asked.
    Raises UsageError for unknown names, steps below one and a model that draws nothing; what the model can
    do, `sample` checks.
    """
    if model.recipe.method["name"] == "classifier":
        raise UsageError(
            f"{model.path} is a classifier and draws nothing: guide another model with it, --classifier"
        )
    own = model.recipe.sampling
    chosen = SAMPLERS.resolve(sampler) if sampler else own.sampler
    other = chosen["name"] != own.sampler["name"]
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    default_timesteps: Spec = own.timesteps
    if other:
        default_timesteps = "uniform" if chosen["name"] in ("ancestral", "ddim") else "linear_beta"
    default_steps = own.steps if not other else 250 if chosen["name"] == "ancestral" else 20
    if pag is None:
        pag = own.pag if model.attention else 0.0
    settings = SamplingSettings(
        seed=seed,
        sampler=chosen,
        timesteps=TIMESTEPS.resolve(timesteps or default_timesteps),
        steps=steps or default_steps,
        initial_noise=INITIAL_NOISES.resolve(initial_noise or own.initial_noise),
        conditions=tuple(
            dict(asked) for asked in (training_conditions(model) if conditions is None else conditions)
        ),
        guidance=guidance,
        guidance_interval=guidance_interval,
        sag=sag,
        pag=pag,
        pag_interval=own.pag_interval if pag and guidance_interval is None else None,
        autoguidance=autoguidance,
        negative=negative,
        classifier=classifier,
        classifier_scale=classifier_scale,
    )
    if model.recipe.method["name"] == "distillation" and (
        settings.sampler,
        settings.timesteps,
        settings.steps,
    ) != (
        own.sampler,
        own.timesteps,
        own.steps,
    ):
        raise UsageError(
            f"{model.path} was shortened and draws in {own.steps} steps of its own:"
            " leave out sampler, grid and steps"
        )
    if not is_diffusion(model.recipe) and (
        settings.sampler,
        settings.timesteps,
        settings.steps,
        settings.initial_noise,
    ) != (
        own.sampler,
        own.timesteps,
        own.steps,
        own.initial_noise,
    ):
        raise UsageError(
            f"{model.path} is a {model.recipe.method['name']} and draws in one evaluation:"
            " leave out sampler, grid, steps and start"
        )
    return settings


def training_conditions(model: Model) -> Sequence[Mapping[str, str]]:
    """What to ask for so that pictures are of every kind as often as the training pictures are.

    Nothing for a model without conditions.
    """
    return model.label_frequencies


def uses_training_conditions(model: Model, settings: SamplingSettings) -> bool:
    """Whether the settings ask for every kind as often as the training pictures have it."""
    return bool(settings.conditions) and settings.conditions == tuple(training_conditions(model))


def nfe_per_sample(model: Model, settings: SamplingSettings) -> int:
    """How often a picture goes through a network until it is drawn, what guidance asks included.

    Classifier guidance asks another network, which does not count.
    """
    lo, hi = settings.guidance_interval or EVERYWHERE
    low, high = settings.pag_interval or EVERYWHERE
    guides = (settings.guidance != 1) + (settings.autoguidance != 1) + bool(settings.sag)

    def asked(ratio: float) -> int:
        return 1 + (lo < ratio <= hi) * (guides + bool(settings.pag) * (low < ratio <= high))

    schedule = model.denoiser.schedule
    times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)
    return count_nfe(SAMPLERS.build(settings.sampler), schedule, times, asked)
