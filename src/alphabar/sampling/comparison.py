"""Samples from the same initial noise, side by side, with one setting at several values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alphabar.errors import UsageError, unknown
from alphabar.guidance import GUIDANCES, guidance_class, merge_guidance
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, uses_training_conditions


def comparison_settings(
    model: Model, settings: SamplingSettings, key: str, values: Sequence[str]
) -> list[SamplingSettings]:
    """The settings with one of them at each of several values.

    key: the option of a guidance, such as "pag", whose scale is set, or a field of the model's condition,
        which is set in every condition.
    Raises UsageError for a key that is neither, and for a scale that is no number.
    """
    fields = [field.name for field in model.vocabulary.fields] if model.vocabulary else []
    guidances = {guidance_class(name).option: name for name in GUIDANCES}
    if key in fields:
        known: Sequence[Mapping[str, str]] = (
            [{}] if uses_training_conditions(model, settings) else settings.conditions or [{}]
        )
        return [replace(settings, conditions=tuple({**c, key: value} for c in known)) for value in values]
    if key not in guidances:
        raise unknown("setting to compare", key, [*guidances, *fields])
    return [
        replace(settings, guidance=merge_guidance(settings.guidance, {guidances[key]: _number(key, value)}))
        for value in values
    ]


def _number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError("sampling.compared_no_number", key=key, value=value) from None


def per_sample_settings(settings: SamplingSettings, n: int, first: int = 0) -> list[dict[str, Any]]:
    """What sets n samples from number ``first`` on apart: their position, and their condition where there are
    any.
    """
    conditions = settings.conditions
    return [
        {"position": i} | ({"conditions": [conditions[i % len(conditions)]]} if conditions else {})
        for i in range(first, first + n)
    ]


def side_by_side(
    sets: Sequence[Tensor], variants: Sequence[SamplingSettings], first: int = 0
) -> tuple[Tensor, list[Mapping[str, Any]]]:
    """Sets of items (n, *item_shape), one for each variant, as one set (n·variants, *item_shape).

    The items from one initial noise follow each other. first: the number of the first noise. Returns the
    settings of each item too.
    """
    settings = [
        [{**variant.to_dict(), **own} for own in per_sample_settings(variant, len(sets[0]), first)]
        for variant in variants
    ]
    each = [of_item for of_noise in zip(*settings, strict=True) for of_item in of_noise]
    return torch.stack(list(sets), dim=1).flatten(0, 1), each
