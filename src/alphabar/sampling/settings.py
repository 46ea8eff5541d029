"""The settings of a sampling: everything that, with the model, decides which samples are generated."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, SamplerTraits, adds_noise, count_nfe, sampler_traits
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import Interval, build_guidances, guidance_class, merge_guidance, resolve_guidance
from alphabar.guidance.base import check_interval, evaluations_at
from alphabar.recipes.schema import MOST_STEPS, SamplingDefaults
from alphabar.registry import Spec
from alphabar.runs.model import Model
from alphabar.validation import first_problem

DETERMINISTIC: dict[str, Any] = {"sampler": "dpmpp_2m", "timesteps": "log_snr", "steps": 20}
"""A sampling that adds no noise of its own, for models whose recipe's sampler does."""


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are generated. With the model it is enough to generate them again.

    sampler, timesteps, initial_noise: resolved specs of their registries. steps: of the sampler.
    conditions: sample i has entry i modulo their number, a mapping from fields to values; () for none.
    guidance: resolved specs, each {"name", "scale", "interval", ...}, in the order of their registry.
    guidance_interval: the noise levels sigma/alpha within which any guidance acts; None: all.
    """

    seed: int
    sampler: dict[str, Any]
    timesteps: dict[str, Any]
    steps: int
    initial_noise: dict[str, Any]
    conditions: tuple[Mapping[str, str], ...] = ()
    guidance: tuple[Mapping[str, Any], ...] = ()
    guidance_interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, of plain values that JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "SamplingSettings":
        """The inverse of `to_dict`, also after JSON and among other values. Raises UsageError for others."""
        known = {f.name: values[f.name] for f in fields(SamplingSettings) if f.name in values}
        try:
            settings = TypeAdapter(SamplingSettings).validate_python(known)
        except ValidationError as error:
            raise UsageError("sampling.not_settings", problem=first_problem(error)) from None
        return replace(
            settings,
            conditions=tuple(dict(condition) for condition in settings.conditions),
            guidance=tuple(resolve_guidance(settings.guidance)),
        )


def sampling_settings(
    model: Model,
    *,
    seed: int = 0,
    sampler: Spec | None = None,
    timesteps: Spec | None = None,
    steps: int | None = None,
    initial_noise: Spec | None = None,
    conditions: Sequence[Mapping[str, str]] | None = None,
    guidance: Mapping[str, float | Mapping[str, Any]] | None = None,
    guidance_interval: Interval | None = None,
) -> SamplingSettings:
    """The settings of a sampling: what is given, and the recipe's choice for the rest.

    sampler: one other than the recipe's brings the timesteps and the number of steps that it works well with,
        unless they are given.
    conditions: of sample i entry i modulo their number; () for none. By default those of training samples, so
        that every class is generated as often as the training data has it.
    guidance: name -> scale, or a mapping of settings such as {"scale": 2.0, "negative": "a van"}. The
        recipe's guidances stay unless they are named, and keep the settings that are not given; {} is no
        guidance at all. Those of the recipe that the model has no means for are left out.
    guidance_interval: the noise levels sigma/alpha within which guidance acts, in place of the recipe's.

    Raises UsageError for unknown names, steps below one or beyond counting, a model that generates nothing
    and settings that the model does not leave open. Whether the model can do what they need, `sample` checks.
    """
    if model.method.reconstructs:
        raise UsageError("sampling.autoencoder", model=model.path)
    if not model.method.samples:
        raise UsageError("sampling.cannot_sample", model=model.path, method=model.recipe.method["name"])
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise UsageError("sampling.bad_steps", steps=steps, most=MOST_STEPS)
    check_interval(guidance_interval)
    own = model.recipe.sampling
    chosen = SAMPLERS.resolve(sampler or own.sampler)
    same = chosen["name"] == own.sampler["name"]
    defaults: SamplingDefaults | SamplerTraits = own if same else sampler_traits(chosen["name"])
    settings = SamplingSettings(
        seed=seed,
        sampler=chosen,
        timesteps=TIMESTEPS.resolve(timesteps or defaults.timesteps),
        steps=steps or defaults.steps,
        initial_noise=INITIAL_NOISES.resolve(initial_noise or own.initial_noise),
        conditions=tuple(dict(c) for c in (training_conditions(model) if conditions is None else conditions)),
        guidance=_guidance(model, guidance, guidance_interval),
        guidance_interval=guidance_interval,
    )
    fixed = ["sampler", "timesteps", "steps"] if model.method.fixed_sampling or model.method.one_step else []
    fixed += ["initial_noise"] if model.method.one_step else []
    changed = [name for name in fixed if getattr(settings, name) != getattr(own, name)]
    if changed:
        raise UsageError(
            "sampling.fixed",
            model=model.path,
            method=model.recipe.method["name"],
            steps=own.steps,
            changed=", ".join(changed),
        )
    return settings


def _guidance(
    model: Model, given: Mapping[str, float | Mapping[str, Any]] | None, interval: Interval | None
) -> tuple[dict[str, Any], ...]:
    if given is not None and not given:
        return ()
    own = [spec for spec in model.recipe.sampling.guidance if guidance_class(spec["name"]).available(model)]
    if interval is not None:
        own = [{**spec, "interval": None} for spec in own]
    return merge_guidance(own, given or {})


def training_conditions(model: Model) -> Sequence[Mapping[str, str]]:
    """Conditions of training samples, with which every class is generated as often as in the data.

    None for a model without conditions.
    """
    return model.label_frequencies


def uses_training_conditions(model: Model, settings: SamplingSettings) -> bool:
    """Whether the settings have the conditions of training samples."""
    return bool(settings.conditions) and settings.conditions == tuple(training_conditions(model))


def deterministic(model: Model, settings: SamplingSettings | None = None) -> SamplingSettings:
    """The settings with `DETERMINISTIC` sampling in place of a sampler that adds noise of its own.

    settings: by default the recipe's, without conditions.
    """
    settings = settings or sampling_settings(model, conditions=())
    if not adds_noise(settings.sampler):
        return settings
    return replace(
        settings,
        sampler=SAMPLERS.resolve(DETERMINISTIC["sampler"]),
        timesteps=TIMESTEPS.resolve(DETERMINISTIC["timesteps"]),
        steps=DETERMINISTIC["steps"],
    )


def require_deterministic(settings: SamplingSettings) -> None:
    """Raises UsageError for a sampler that adds noise of its own."""
    if adds_noise(settings.sampler):
        raise UsageError("sampling.adds_noise", sampler=settings.sampler["name"])


def nfe_per_sample(model: Model, settings: SamplingSettings) -> int:
    """The number of network evaluations (NFE) that one sample takes, those of guidance included.

    The network of classifier guidance does not count.
    """
    schedule, guidances = model.denoiser.schedule, build_guidances(settings.guidance)
    times = TIMESTEPS.build(settings.timesteps)(schedule, settings.steps)
    return count_nfe(
        SAMPLERS.build(settings.sampler),
        schedule,
        times,
        lambda ratio: evaluations_at(ratio, guidances, settings.guidance_interval),
    )
