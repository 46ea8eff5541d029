"""Guidances: one file for each, and their names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alphabar.errors import UsageError, unknown
from alphabar.guidance.autoguidance import Autoguidance
from alphabar.guidance.base import EVERYWHERE, Guidance, GuidedModel, Interval, guided
from alphabar.guidance.classifier import ClassifierGuidance
from alphabar.guidance.classifier_free import ClassifierFree
from alphabar.guidance.perturbed_attention import PerturbedAttention
from alphabar.guidance.self_attention import SelfAttentionGuidance
from alphabar.registry import Registry, Spec

__all__ = [
    "EVERYWHERE",
    "GUIDANCES",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Guidance",
    "GuidedModel",
    "Interval",
    "PerturbedAttention",
    "SelfAttentionGuidance",
    "build_guidances",
    "evaluates_early",
    "guidance_class",
    "guided",
    "merge_guidance",
    "resolve_guidance",
]

GUIDANCES = Registry(
    "guidance",
    {
        "classifier_free": ClassifierFree,
        "pag": PerturbedAttention,
        "autoguidance": Autoguidance,
        "sag": SelfAttentionGuidance,
        "classifier": ClassifierGuidance,
    },
)
"""In the order in which the terms of several are added."""


def guidance_class(name: str) -> type[Guidance]:
    """The guidance of that name. Raises UsageError with the nearest name where there is none."""
    if name not in GUIDANCES:
        raise unknown("guidance", name, GUIDANCES)
    return GUIDANCES[name]  # type: ignore[return-value]


def resolve_guidance(specs: Iterable[Spec]) -> list[dict[str, Any]]:
    """Specs of guidances with every setting written out, in the order of the registry.

    Raises UsageError for unknown names and settings, for values that do not fit and for a name given twice.
    """
    if isinstance(specs, str | Mapping) or not isinstance(specs, Iterable):
        raise UsageError("guidance.not_a_list", given=specs)
    resolved = [GUIDANCES.resolve(spec) for spec in specs]
    build_guidances(resolved)
    names = [spec["name"] for spec in resolved]
    for name in names:
        if names.count(name) > 1:
            raise UsageError("guidance.given_twice", name=name)
    return sorted(resolved, key=lambda spec: list(GUIDANCES).index(spec["name"]))


def build_guidances(specs: Iterable[Spec]) -> list[Guidance]:
    """The guidances that specs describe, not yet bound to a model."""
    return [GUIDANCES.build(spec) for spec in specs]


def evaluates_early(specs: Iterable[Spec]) -> bool:
    """Whether guidances of these specs may evaluate the model as it was early in its training."""
    strong = [each for each in build_guidances(specs) if each.scale != each.neutral]
    return any((worse := each.worse()) is None or worse.early for each in strong)


def merge_guidance(
    specs: Sequence[Mapping[str, Any]], given: Mapping[str, float | Mapping[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Specs with some settings replaced or guidances added, written out; without those that are idle.

    given: name -> scale, or a mapping of settings. Settings that it does not name stay as in specs.
    Raises UsageError for unknown names and settings and for values that do not fit.
    """
    merged: dict[str, dict[str, Any]] = {spec["name"]: dict(spec) for spec in specs}
    for name, settings in given.items():
        new = settings if isinstance(settings, Mapping) else {"scale": settings}
        merged[name] = {**merged.get(name, {}), **new, "name": name}
    resolved = resolve_guidance(merged.values())
    return tuple(
        spec for spec, guidance in zip(resolved, build_guidances(resolved), strict=True) if not guidance.idle
    )
