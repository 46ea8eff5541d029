"""Controls that several tabs have, and what takes their place: the settings in a saved file."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.errors import UsageError
from alphabar.guidance import GUIDANCES, guidance_class
from alphabar.inference.recorded import as_described, batch_of
from alphabar.recipes.schema import MOST_STEPS
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.models import ModelStore
from alphabar.studio.page import Page

MAX_SAMPLES = 64  # at once
SEEDS = 1_000_000
"""Seeds that the page chooses are below this number: short enough to be read out."""


class SeedField:
    """A seed, and whether each job takes a new one. The one used is shown, and one that is typed is kept."""

    def __init__(self, page: Page, elem_id: str):
        with gr.Column(min_width=110, elem_classes="seed"):
            self.number = gr.Number(
                0, label=page.text("seed"), precision=0, minimum=0, min_width=110, elem_id=elem_id
            )
            self.new = gr.Checkbox(
                True, label=page.text("new_seed"), container=False, elem_id=f"{elem_id}-new"
            )
        self.inputs = [self.number, self.new]
        self.number.input(None, None, self.new, js="() => [false]")


def seed_to_use(number: float | None, new: bool) -> int:
    """The seed of a job, from the values of a `SeedField`."""
    return secrets.randbelow(SEEDS) if new else int(number or 0)


def saved_settings(about: Mapping[str, Any], models: ModelStore) -> tuple[SamplingSettings, int]:
    """The settings and the position of a sample, from what its file says, which anybody may have written.

    A model that guides is one of the opened folder. Raises AlphabarError for values that the page would not
    take.
    """
    settings, position = SamplingSettings.from_dict(about), about.get("position", 0)
    if not 1 <= settings.steps <= MOST_STEPS:
        raise UsageError("sampling.bad_steps", steps=settings.steps, most=MOST_STEPS)
    if not isinstance(position, int) or not 0 <= position < 2**31:
        raise UsageError("sampling.not_settings", problem=f"position {position}")
    guidance = tuple(
        {**spec, "model": str(models.run(Path(str(spec["model"])).name).path)} if spec.get("model") else spec
        for spec in settings.guidance
    )
    return replace(settings, guidance=guidance), position


def as_saved(model: Model, about: Mapping[str, Any], position: int) -> tuple[Model, range, list[str]]:
    """The model, computing as a sample's file says; the positions to generate; and what to tell about it.

    Kernels round as they do for a batch of a size, so the whole batch that the sample came from is generated.
    Raises AlphabarError for what cannot be repeated here.
    """
    runtime = about.get("runtime")
    if not isinstance(runtime, dict):
        return model, range(position, position + 1), []
    said = []
    for record in as_described(model, runtime):
        said += [record.message] if record.message else []
    assert record.result is not None
    return record.result[0], batch_of(runtime, position, about.get("n")), said


def scalable_guidances() -> list[str]:
    """The guidances that a scale alone sets going, which is what a slider can give."""
    return [name for name in GUIDANCES if not guidance_class(name).required_settings]


def settings_from_controls(
    model: Model, values: Sequence[Any], variation: bool = False
) -> tuple[int, SamplingSettings]:
    """The number of samples and their settings, from the values of the controls in their order.

    variation: of a picture, whose condition nobody knows: it has none but the one that is chosen, and without
    one the recipe's guidances towards a condition are left out.
    """
    number, seed, sampler, steps, initial_noise, *rest = values
    scales = {name: float(scale) for name, scale in zip(scalable_guidances(), rest)}
    fields = rest[len(scales) :]
    known = model.vocabulary.fields if model.vocabulary else ()
    condition = {field.name: str(value) for field, value in zip(known, fields) if value}
    if variation and not condition:
        for spec in patient_settings(model).guidance:
            name = spec["name"]
            if guidance_class(name).needs_condition and scales.get(name) == spec["scale"]:
                scales[name] = guidance_class(name).neutral
    # A name alone means its usual settings; the recipe's own sampler may have others.
    own = model.recipe.sampling.sampler
    settings = sampling_settings(
        model,
        seed=int(seed or 0),
        sampler=None if sampler == own["name"] else sampler,
        steps=int(steps),
        initial_noise=initial_noise,
        conditions=[condition] if condition else () if variation else None,
        guidance=scales,
    )
    return min(int(number), MAX_SAMPLES), settings
