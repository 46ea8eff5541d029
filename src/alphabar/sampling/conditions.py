"""TODO-DOC from sampling"""

import torch

from alphabar.conditioning.fields import CAPTION
from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.runs.model import Model, load_model
from alphabar.sampling.settings import SamplingSettings


def condition_rows(model: Model, settings: SamplingSettings, positions: range) -> Condition | None:
    """The conditions (n, columns) of the pictures at these positions; None where nothing is asked.

    Raises UsageError for what the model does not know.
    """
    if not settings.conditions:
        return None
    vocabulary = model.vocabulary
    if vocabulary is None and settings.classifier:
        vocabulary = load_model(settings.classifier).vocabulary
    if vocabulary is None:
        raise UsageError(
            f"{model.path} was trained without conditions and can be asked for nothing:"
            " train one with --condition class, attributes, text or clusters"
        )
    places = [position % len(settings.conditions) for position in positions]
    rows = {place: vocabulary.row(settings.conditions[place]) for place in set(places)}
    return torch.stack([rows[place] for place in places]).to(next(model.denoiser.parameters()).device)


def negative_condition(model: Model, settings: SamplingSettings) -> Condition | None:
    """The condition (columns,) that pictures are led away from."""
    if settings.negative is None or model.vocabulary is None:
        return None
    first = model.vocabulary.fields[0].name
    row = model.vocabulary.row({first if first in ("class", CAPTION) else CAPTION: settings.negative})
    return row.to(next(model.denoiser.parameters()).device)
