"""TODO-DOC from sampling"""

import torch

from alphabar.conditioning.fields import CAPTION
from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.runs.model import Model, load_model
from alphabar.sampling.settings import SamplingSettings


def condition_rows(model: Model, how: SamplingSettings, positions: range) -> Condition | None:
    """The conditions (n, columns) of the pictures at these positions; None where nothing is asked.

    Raises UsageError for what the model does not know.
    """
    if not how.ask:
        return None
    vocabulary = model.conditioning
    if vocabulary is None and how.classifier:
        vocabulary = load_model(how.classifier).conditioning
    if vocabulary is None:
        raise UsageError(
            f"{model.path} was trained without conditions and can be asked for nothing:"
            " train one with --condition class, attributes, text or clusters"
        )
    places = [position % len(how.ask) for position in positions]
    rows = {place: vocabulary.request(how.ask[place]) for place in set(places)}
    return torch.stack([rows[place] for place in places]).to(next(model.denoiser.parameters()).device)


def negative_condition(model: Model, how: SamplingSettings) -> Condition | None:
    """The condition (columns,) that pictures are led away from."""
    if how.negative is None or model.conditioning is None:
        return None
    first = model.conditioning.fields[0].name
    row = model.conditioning.request({first if first in ("class", CAPTION) else CAPTION: how.negative})
    return row.to(next(model.denoiser.parameters()).device)
