"""TODO-DOC from sampling"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alphabar.errors import UsageError, unknown
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, uses_training_conditions


def comparison_settings(
    model: Model, settings: SamplingSettings, key: str, values: Sequence[str]
) -> list[SamplingSettings]:
    """The settings with one of them at each of several values: a guidance's scale, or a field to ask for.

    Raises UsageError for a key that is neither, and for a scale that is no number.
    """
    scales = ("guidance", "sag", "pag", "autoguidance", "classifier_scale")
    asked = [field.name for field in model.vocabulary.fields] if model.vocabulary else []
    variants = []
    for value in values:
        if key in asked:
            asks = [{}] if uses_training_conditions(model, settings) else settings.conditions or [{}]
            variant = replace(settings, conditions=tuple({**conditions, key: value} for conditions in asks))
        elif key in scales:
            try:
                variant = replace(settings, **{key: float(value)})  # type: ignore[arg-type]
            except ValueError:
                raise UsageError(f"--compare {key}: {value!r} is no number") from None
        else:
            raise unknown("thing to compare", key, [*scales, *asked])
        variants.append(variant)
    return variants


def per_sample_settings(settings: SamplingSettings, n: int) -> list[dict[str, Any]]:
    """What sets each of n pictures apart: its position, and what it is asked for."""
    return [
        {"position": i}
        | ({"conditions": [settings.conditions[i % len(settings.conditions)]]} if settings.conditions else {})
        for i in range(n)
    ]


def side_by_side(
    drawn: Sequence[Tensor], variants: Sequence[SamplingSettings]
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The pictures (n, h, w, 3) of all variants as one set, noise by noise, and the settings of each."""
    rows = [
        [{**settings.to_dict(), **own} for own in per_sample_settings(settings, len(drawn[0]))]
        for settings in variants
    ]
    each = [variant for row in zip(*rows, strict=True) for variant in row]
    return torch.stack(list(drawn), dim=1).flatten(0, 1), each
