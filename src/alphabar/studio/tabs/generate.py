"""The tab Generate: samples that appear while they form, and a saved sample generated again."""

import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.conditioning.fields import Categorical
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.errors import UsageError
from alphabar.formatting import format_short_count
from alphabar.guidance import GUIDANCES, guidance_class
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.comparison import per_sample_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings, training_conditions
from alphabar.studio.elements import figures, item_files, note, picture_grid, placeholder, progress_bar
from alphabar.studio.page import ONE_AT_A_TIME, Page, forming

MAX_FIELDS = 8  # of a condition, that the page has room for
MAX_SAMPLES = 64  # at once


class GenerateTab:
    """Its controls and their handlers. model: the choice of the model; model_facts: the line about it."""

    def __init__(self, page: Page, model: gr.Dropdown, model_facts: gr.HTML):
        self.page, self.model, self.model_facts = page, model, model_facts
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300, elem_classes="controls"):
                self._add_controls()
            with gr.Column(scale=3, min_width=320):
                self._add_results()
        self._connect()

    def _add_controls(self) -> None:
        text = self.page.text
        with gr.Row():
            self.number = gr.Slider(1, MAX_SAMPLES, 16, step=1, label=text("samples"), min_width=140)
            self.seed = gr.Number(
                0, label=text("seed"), precision=0, minimum=0, min_width=110, elem_id="seed"
            )
        self.condition_note = gr.HTML(note(text("condition_help")), visible=False, elem_id="condition-note")
        self.fields = [
            gr.Dropdown([], label=text("condition"), visible=False, allow_custom_value=True)
            for _ in range(MAX_FIELDS)
        ]
        with gr.Row():
            self.sampler = gr.Dropdown(list(SAMPLERS), label=text("sampler"), min_width=140)
            self.steps = gr.Slider(1, 300, 20, step=1, label=text("steps"), min_width=140, elem_id="steps")
        self.initial_noise = gr.Radio(
            [(self.page.text_or(f"noise_{name}", name), name) for name in INITIAL_NOISES],
            label=text("initial_noise"),
            info=text("initial_noise_help"),
            elem_id="initial-noise",
        )
        with gr.Accordion(
            text("guidance"), open=False, visible=False, elem_id="guidance"
        ) as self.guidance_panel:
            self.scales = {name: self._guidance_slider(name) for name in scalable_guidances()}
        with gr.Row():
            self.generate_button = gr.Button(
                text("generate"), variant="primary", elem_id="generate-button", min_width=90
            )
            self.cancel_button = gr.Button(text("cancel"), elem_id="generate-cancel", min_width=90)

    def _guidance_slider(self, name: str) -> gr.Slider:
        guidance = guidance_class(name)
        low, high = guidance.scale_range
        return gr.Slider(
            low,
            high,
            guidance.neutral,
            step=0.1,
            label=self.page.text_or(f"guidance_{name}", guidance.option),
            info=self.page.text_or(f"guidance_{name}_help", guidance.help),
            visible=False,
            elem_id=f"guidance-{name.replace('_', '-')}",
        )

    def _add_results(self) -> None:
        text = self.page.text
        self.status = gr.HTML(note(""), elem_id="generate-status")
        self.sample_grid = gr.HTML(placeholder(text("samples_appear_here")), elem_id="samples")
        self.save = gr.DownloadButton(text("save_all"), visible=False, elem_id="generate-save", min_width=90)
        with gr.Accordion(text("reproduce"), open=False, elem_id="reproduce"):
            gr.Markdown(text("reproduce_help"))
            self.saved_file = gr.File(
                label=text("reproduce_file"), file_types=[".png"], height=120, elem_id="reproduce-file"
            )
            self.reproduced = gr.HTML(elem_id="reproduced")

    def _connect(self) -> None:
        page, model = self.page, self.model
        adapted = [
            self.sampler,
            self.steps,
            self.initial_noise,
            self.guidance_panel,
            *self.scales.values(),
            self.condition_note,
            self.model_facts,
            *self.fields,
        ]
        settings = [
            self.number,
            self.seed,
            self.sampler,
            self.steps,
            self.initial_noise,
            *self.scales.values(),
            *self.fields,
        ]
        gr.on([page.blocks.load, model.change], page.handler(self.adapt), model, adapted, **ONE_AT_A_TIME)
        self.sampler.input(page.handler(self.usual_steps), [model, self.sampler], self.steps, **ONE_AT_A_TIME)
        job = self.generate_button.click(
            page.handler(self.generate),
            [model, *settings],
            [self.status, self.sample_grid, self.save],
            **ONE_AT_A_TIME,
        )
        page.cancel_button(self.cancel_button, [job], self.status)
        self.saved_file.change(
            page.handler(self.reproduce), [self.saved_file, model], self.reproduced, **ONE_AT_A_TIME
        )

    def adapt(self, name: str) -> Iterator[dict[Any, Any]]:
        """Only the controls that the model supports, at its own defaults."""
        page = self.page
        if name not in page.models.models():
            yield {self.model_facts: note(page.text("no_model", folder=page.models.path))}
            return
        model = page.models.load(name)
        settings = patient_settings(model)
        own = {spec["name"]: spec["scale"] for spec in settings.guidance}
        updates: dict[Any, Any] = {
            self.sampler: gr.update(
                value=settings.sampler["name"],
                interactive=not (model.method.fixed_sampling or model.method.one_step),
            ),
            self.steps: settings.steps,
            self.initial_noise: settings.initial_noise["name"],
            self.condition_note: gr.update(visible=bool(training_conditions(model))),
            self.model_facts: describe(page, model),
        }
        available = [key for key in self.scales if guidance_class(key).available(model)]
        for key, slider in self.scales.items():
            scale = own.get(key, guidance_class(key).neutral)
            updates[slider] = gr.update(value=scale, visible=key in available)
        updates[self.guidance_panel] = gr.update(visible=bool(available))
        known = model.vocabulary.fields if model.vocabulary else ()
        for i, dropdown in enumerate(self.fields):
            if i < len(known):
                field = known[i]
                names = list(field.names) if isinstance(field, Categorical) else []
                updates[dropdown] = gr.update(label=field.name, choices=["", *names], value="", visible=True)
            else:
                updates[dropdown] = gr.update(visible=False, value="")
        yield updates

    def usual_steps(self, name: str, sampler: str) -> Iterator[int]:
        """The number of steps that suits a sampler."""
        model = self.page.models.load(name)
        patient = patient_settings(model)
        same = patient.sampler["name"] == sampler
        yield patient.steps if same else sampling_settings(model, sampler=sampler).steps

    def generate(self, name: str, *values: Any) -> Iterator[tuple[str, str, Any]]:
        """Samples as they form, then the finished ones and an archive of them. values: of the controls."""
        text = self.page.text
        yield note(text("loading")), gr.skip(), gr.update(visible=False)
        model = self.page.models.load(name)
        n, settings = settings_from_controls(model, values)
        began = time.monotonic()
        for record in sample(model, n, settings):
            if record.result is None:
                line = text("step", i=record.preview.step.i + 1, n=settings.steps)
                pictures = picture_grid(forming(model, record))
                yield progress_bar(record.done, record.total, line), pictures, gr.skip()
        assert record.result is not None
        about = {"model": name, "images": model.images, **settings.to_dict()}
        files = item_files(
            model.codec, record.result, [{**about, **own} for own in per_sample_settings(settings, n)]
        )
        names = [f"{name}-{settings.seed}-{i:03d}{model.codec.suffix}" for i in range(n)]
        archive = self.page.new_file(".zip")
        with zipfile.ZipFile(archive, "w") as packed:
            for file_name, data in zip(names, files, strict=True):
                packed.writestr(file_name, data)
        yield (
            note(text("generated", n=n, seconds=f"{time.monotonic() - began:.1f}")),
            picture_grid(model.codec.preview(record.result), files, names, text("save_one")),
            gr.update(value=str(archive), visible=True),
        )

    def reproduce(self, file: str | None, name: str) -> Iterator[str]:
        """The sample in a saved file generated again, beside the file."""
        if file is None:
            yield ""
            return
        about = read_png_metadata(file)
        if "degradation" in about:
            raise UsageError("studio.reproduce_restored")
        settings = SamplingSettings.from_dict(about)
        models = self.page.models
        origin = Path(str(about.get("model"))).name
        model = models.load(origin if origin in models.models() else name)
        for record in sample(model, 1, settings, first=int(about.get("position", 0))):
            line = self.page.text("step", i=record.preview.step.i + 1, n=settings.steps)
            yield progress_bar(record.done, record.total, line)
        assert record.result is not None
        yield compare_with_file(self.page, model, Path(file), record.result, about)


def scalable_guidances() -> list[str]:
    """The guidances that a scale alone sets going, which is what a slider can give."""
    return [name for name in GUIDANCES if not guidance_class(name).required_settings]


def settings_from_controls(model: Model, values: Sequence[Any]) -> tuple[int, SamplingSettings]:
    """The number of samples and their settings, from the values of the controls in their order."""
    number, seed, sampler, steps, initial_noise, *rest = values
    scales = dict(zip(scalable_guidances(), rest))
    fields = rest[len(scales) :]
    known = model.vocabulary.fields if model.vocabulary else ()
    condition = {field.name: str(value) for field, value in zip(known, fields) if value}
    # A name alone means its usual settings; the recipe's own sampler may have others.
    own = model.recipe.sampling.sampler
    settings = sampling_settings(
        model,
        seed=int(seed or 0),
        sampler=None if sampler == own["name"] else sampler,
        steps=int(steps),
        initial_noise=initial_noise,
        conditions=[condition] if condition else None,
        guidance={name: float(scale) for name, scale in scales.items()},
    )
    return min(int(number), MAX_SAMPLES), settings


def describe(page: Page, model: Model) -> str:
    """One line about a model: its recipe, the size of its samples, its parameters, what it has seen."""
    parameters = sum(p.numel() for p in model.denoiser.parameters())
    facts = (
        model.recipe.name,
        " × ".join(map(str, reversed(model.codec.spatial))),
        page.text("parameters", n=format_short_count(parameters)),
        page.text("images_seen", n=format_short_count(model.images)),
    )
    return note(" · ".join(facts))


def compare_with_file(page: Page, model: Model, file: Path, items: Tensor, about: Mapping[str, Any]) -> str:
    """A saved file beside the item (1, *item_shape) that was generated again, and how far they differ."""
    codec = model.codec
    with Image.open(file) as image:
        same_size = image.size == codec.spatial[::-1]
    saved = torch.from_numpy(codec.read(file.read_bytes(), codec.fits[0]).item)[None]
    if not same_size:
        verdict = page.text("reproduced_other_size")
    elif (difference := int((saved.int() - items.int()).abs().max())) == 0:
        verdict = page.text("reproduced_identical")
    else:
        verdict = page.text("reproduced_rounding", difference=difference)
    if about.get("images") != model.images:
        verdict += " " + page.text("reproduced_other_model")
    captions = page.text("saved_sample"), page.text("generated_again")
    pictures = [codec.preview(item)[0] for item in (saved, items)]
    return figures(pictures, captions) + note(verdict)
