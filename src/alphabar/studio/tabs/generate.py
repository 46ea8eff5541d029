"""The tab Generate: samples that appear while they form, and a saved sample generated again."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import reader_of
from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.conditioning.fields import Categorical
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.errors import UsageError
from alphabar.formatting import format_short_count
from alphabar.guidance import guidance_class
from alphabar.inference.agreement import MOST_APART_LEVELS
from alphabar.messages import Message, message
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.bound import in_fastest_runtime, weights_fingerprint
from alphabar.sampling.comparison import per_sample_settings
from alphabar.sampling.edit import edit
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import (
    deterministic,
    sampling_settings,
    training_conditions,
)
from alphabar.studio.controls import (
    MAX_SAMPLES,
    SeedField,
    as_saved,
    saved_settings,
    scalable_guidances,
    seed_to_use,
    settings_from_controls,
)
from alphabar.studio.elements import figures, item_files, note, picture_grid, placeholder, progress_bar
from alphabar.studio.generated import Generated
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, Tab, forming, paced
from alphabar.studio.tabs.edit_panel import EditPanel, read_item
from alphabar.studio.tabs.restore import Restored, RestoreTab

MAX_FIELDS = 8  # of a condition, that the page has room for
MOST_REMEMBERED = 12  # generations that can be had back
CHOSEN = "(...values) => window.withChosen(values, {})"  # the number of the picture that is enlarged


class GenerateTab(Tab):
    """Its controls and their handlers. model: the choice of the model; model_facts: the line about it."""

    def __init__(self, page: Page, model: gr.Dropdown, model_facts: gr.HTML):
        self.page, self.model, self.model_facts = page, model, model_facts
        self.past, self.shown = gr.State([]), gr.State(None)
        with gr.Row(equal_height=False, elem_id="generate-layout"):
            with gr.Column(min_width=300, elem_classes="controls submits", elem_id="generate-main"):
                self._add_main()
            with gr.Column(min_width=300, elem_id="generate-results"):
                self._add_results()
            with gr.Column(min_width=300, elem_classes="controls submits", elem_id="generate-more"):
                self._add_conditions()
                self._add_settings()
                self.editing = EditPanel(page, model)
                self._add_reproduction()
        self._connect()

    def _add_main(self) -> None:
        text = self.page.text
        with gr.Row(elem_classes="pair"):
            self.number = gr.Slider(
                1, MAX_SAMPLES, 16, step=1, label=text("samples"), min_width=110, elem_id="number"
            )
            self.seed = SeedField(self.page, "seed")
        with gr.Row(elem_classes="pair"):
            self.generate_button = gr.Button(
                text("generate"), variant="primary", elem_id="generate-button", min_width=90
            )
            self.cancel_button = gr.Button(text("cancel"), elem_id="generate-cancel", min_width=90)
        self.status = gr.HTML(note(""), elem_id="generate-status", elem_classes="status")

    def _add_results(self) -> None:
        text = self.page.text
        self.sample_grid = gr.HTML(placeholder(text("samples_appear_here")), elem_id="samples")
        self.save = gr.DownloadButton(
            text("save_all"), visible=False, size="sm", elem_id="generate-save", min_width=90
        )
        with gr.Column(visible=False) as self.past_panel:
            gr.HTML(note(text("history_help")))
            self.gallery = gr.Gallery(
                show_label=False,
                columns=6,
                height="auto",
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                elem_id="history",
                buttons=[],
            )
        # Clicked by the script of the page, for the picture that is enlarged.
        self.chosen = gr.Number(0, visible=False)
        self.restore_button = gr.Button("", elem_id="to-restore", visible="hidden")
        self.edit_button = gr.Button("", elem_id="to-edit", visible="hidden")

    def _add_conditions(self) -> None:
        text = self.page.text
        self.condition_note = gr.HTML(note(text("condition_help")), visible=False, elem_id="condition-note")
        with gr.Row(elem_classes="pair", elem_id="conditions"):
            self.fields = [
                gr.Dropdown(
                    [], label=text("condition"), visible=False, allow_custom_value=True, min_width=120
                )
                for _ in range(MAX_FIELDS)
            ]

    def _add_settings(self) -> None:
        text = self.page.text
        with gr.Accordion(text("more_settings"), open=False, elem_id="generate-settings"):
            with gr.Row(elem_classes="pair"):
                self.sampler = gr.Dropdown(
                    list(SAMPLERS), label=text("sampler"), min_width=120, elem_id="sampler"
                )
                self.steps = gr.Slider(
                    1, 300, 20, step=1, label=text("steps"), min_width=120, elem_id="steps"
                )
            self.initial_noise = gr.Radio(
                [(self.page.text_or(f"noise_{name}", name), name) for name in INITIAL_NOISES],
                label=text("initial_noise"),
                info=text("initial_noise_help"),
                elem_id="initial-noise",
            )
            self.scales = {name: self._guidance_slider(name) for name in scalable_guidances()}

    def _add_reproduction(self) -> None:
        text = self.page.text
        with gr.Accordion(text("reproduce"), open=False, elem_id="reproduce"):
            gr.Markdown(text("reproduce_help"))
            self.saved_file = gr.File(
                label=text("reproduce_file"), file_types=[".png"], height=120, elem_id="reproduce-file"
            )
            self.reproduced = gr.HTML(elem_id="reproduced")

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

    @property
    def settings(self) -> list[Any]:
        """The controls that decide what is generated, in the order of `settings_from_controls`."""
        return [
            *(self.number, self.seed.number, self.sampler, self.steps, self.initial_noise),
            *(*self.scales.values(), *self.fields),
        ]

    def _connect(self) -> None:
        page, model = self.page, self.model
        self.sampler.input(page.handler(self.usual_steps), [model, self.sampler], self.steps, **ONE_AT_A_TIME)
        for field in self.fields:
            field.input(page.handler(self.narrow), [model, *self.fields], self.fields, **LIGHT)
        results = [self.sample_grid, self.save, self.past_panel, self.gallery]
        job = self.generate_button.click(
            page.handler(self.generate, self.status),
            [model, self.seed.new, self.editing.base, self.editing.strength, self.past, *self.settings],
            [self.status, self.sample_grid, self.seed.number, self.past, self.shown],
            **ONE_AT_A_TIME,
        )
        for ended in (job.then, job.failure):  # however it ends, finished samples are there again
            ended(page.handler(self.settle), [self.shown, self.past], results, **LIGHT)
        page.cancel_button(self.cancel_button, [job], self.status)
        self.gallery.select(
            page.handler(self.have_back, self.status),
            [self.past, model],
            [self.shown, self.status, self.seed.new, *results, *self.settings],
            **LIGHT,
        )
        self.saved_file.change(
            page.handler(self.reproduce, self.reproduced),
            [self.saved_file, model],
            self.reproduced,
            **ONE_AT_A_TIME,
        )
        self.adapted = [
            *(self.sampler, self.steps, self.initial_noise, self.editing.panel, *self.scales.values()),
            *(self.condition_note, self.model_facts, *self.fields),
        ]
        self.editing.connect(self.status)
        self.kept = [
            *(self.past, self.shown, self.editing.base, self.editing.strength, self.seed.new),
            *self.settings,
        ]
        self.views = [self.status, *results, *self.editing.outputs]
        self.edit_button.click(
            page.handler(self.edit_sample, self.status),
            [model, self.shown, self.chosen],
            self.editing.outputs,
            js=CHOSEN.format(2),
            **ONE_AT_A_TIME,
        )

    def exchange_with(self, restoring: RestoreTab, tabs: gr.Tabs) -> None:
        """Let pictures go from here to the tab Restore and back. tabs: those of the page."""
        page, panel = self.page, restoring.panel

        def send(shown: Generated | None, number: float, *there: Any) -> Iterator[dict[Any, Any]]:
            yield from panel.take(self._file_of(shown, number), *there)

        def receive(name: str, restored: Restored | None) -> Iterator[dict[Any, Any]]:
            if restored is not None:
                for updates in self.editing.take(name, restored.files[restored.chosen]):
                    yield {**updates, tabs: gr.update(selected="generate")}

        # The tab first: an editor that is given a picture while its tab is built loads it dozens of times.
        self.restore_button.click(lambda: gr.update(selected="restore"), None, tabs, **LIGHT).then(
            page.handler(send, panel.facts),
            [self.shown, self.chosen, panel.held, panel.past, panel.editor],
            panel.outputs,
            js=CHOSEN.format(1),
            **LIGHT,
        )
        restoring.edit_button.click(
            page.handler(receive, restoring.status),
            [self.model, restoring.restored],
            [*self.editing.outputs, tabs, restoring.status],
            **ONE_AT_A_TIME,
        )

    def adapt(self, model: Model) -> dict[Any, Any]:
        """Only the controls that the model supports, at its own defaults."""
        page = self.page
        settings = patient_settings(model)
        own = {spec["name"]: spec["scale"] for spec in settings.guidance}
        fixed = model.method.fixed_sampling or model.method.one_step
        updates: dict[Any, Any] = {
            self.sampler: gr.update(value=settings.sampler["name"], visible=not fixed),
            self.steps: gr.update(value=settings.steps, visible=not fixed),
            self.initial_noise: gr.update(
                value=settings.initial_noise["name"], visible=not model.method.one_step
            ),
            self.editing.panel: gr.update(visible=model.method.denoises),
            self.condition_note: gr.update(visible=bool(training_conditions(model))),
            self.model_facts: describe(page, model),
        }
        for key, slider in self.scales.items():
            guidance = guidance_class(key)
            scale = own.get(key, guidance.neutral)
            updates[slider] = gr.update(value=scale, visible=guidance.available(model))
        known = model.vocabulary.fields if model.vocabulary else ()
        for i, dropdown in enumerate(self.fields):
            if i < len(known):
                field = known[i]
                names = list(field.names) if isinstance(field, Categorical) else []
                updates[dropdown] = gr.update(label=field.name, choices=["", *names], value="", visible=True)
            else:
                updates[dropdown] = gr.update(visible=False, value="")
        return updates

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The samples of `kept`, the picture to begin with, and names that go with the condition."""
        past, shown, base, *_ = values
        updates = self.editing.show(model, base)
        if shown is not None:
            updates |= {self.status: note(self.page.say(shown.said)), **self._results(shown, past)}
        narrowed = self._narrowed(model, values[-MAX_FIELDS:])
        return updates | {f: u for f, u in zip(self.fields, narrowed) if u.get("value")}

    def narrow(self, name: str, *values: Any) -> Iterator[list[Any]]:
        """For each field the names that occur in the data together with what the others say."""
        yield self._narrowed(self.page.models.load(name), values)

    def _narrowed(self, model: Model, values: Sequence[Any]) -> list[Any]:
        known = model.vocabulary.fields if model.vocabulary else ()
        updates: list[Any] = [gr.skip()] * MAX_FIELDS
        for i, field in enumerate(known[:MAX_FIELDS]):
            if isinstance(field, Categorical):
                others = {f.name: str(v) for k, (f, v) in enumerate(zip(known, values)) if v and k != i}
                beside = names_beside(field, others, training_conditions(model))
                updates[i] = gr.update(choices=["", *beside], value=values[i])
        return updates

    def usual_steps(self, name: str, sampler: str) -> Iterator[int]:
        """The number of steps that suits a sampler."""
        model = self.page.models.load(name)
        patient = patient_settings(model)
        same = patient.sampler["name"] == sampler
        yield patient.steps if same else sampling_settings(model, sampler=sampler).steps

    def generate(
        self,
        name: str,
        new_seed: bool,
        base: Path | None,
        strength: float,
        past: list[Generated],
        *values: Any,
    ) -> Iterator[dict[Any, Any]]:
        """Samples as they form, then all about the finished ones. values: of the controls `settings`."""
        text = self.page.text
        yield {self.status: note(text("loading"))}
        model = self.page.models.load(name)
        variation = base is not None and model.method.denoises
        n, settings = settings_from_controls(model, values, variation)
        settings = replace(settings, seed=seed_to_use(settings.seed, new_seed))
        about: dict[str, Any] = {"model": name, "images": model.images, "n": n}
        began = time.monotonic()
        if base is not None and variation:
            if settings.sampler["name"] == model.recipe.sampling.sampler["name"]:
                settings = deterministic(model, settings)
            signal = model.codec.encode(read_item(model, base)[None])[0]
            work = partial(edit, signal=signal, settings=settings, strength=strength, n=n)
            about |= {"image": base.name, "strength": strength, "invert": False}
        else:
            work = partial(sample, n=n, settings=settings)
        work(model)  # which checks the settings
        about["weights"] = weights_fingerprint(model, settings)[:16]
        choosing = in_fastest_runtime(model, n, settings)
        model, about["runtime"] = yield from self.page.with_progress(choosing, self.status)
        for record in paced(work(model)):
            if record.result is None:
                step = record.preview.step.i + 1
                line = text("step", i=step, n=max(step, settings.steps))
                pictures = picture_grid(forming(model, record))
                yield {
                    self.status: progress_bar(record.done, record.total, line),
                    self.sample_grid: pictures,
                    self.seed.number: settings.seed,
                }
        assert record.result is not None
        seconds = f"{time.monotonic() - began:.1f}"
        said = message("studio.generated", n=n, seconds=seconds, seed=settings.seed)
        about |= settings.to_dict()
        used = (values[0], settings.seed, *values[2:])
        done = self._generated(
            model, name, used, record.result, about, per_sample_settings(settings, n), said
        )
        for forgotten in past[MOST_REMEMBERED - 1 :]:
            shutil.rmtree(forgotten.archive.parent, ignore_errors=True)
        yield {
            self.status: note(self.page.say(said)),
            self.seed.number: settings.seed,
            self.past: [done, *past[: MOST_REMEMBERED - 1]],
            self.shown: done,
        }

    def _generated(
        self,
        model: Model,
        name: str,
        values: tuple[Any, ...],
        items: Tensor,
        about: Mapping[str, Any],
        own: Sequence[Mapping[str, Any]],
        said: Message,
    ) -> Generated:
        begin, suffix = f"{name}-{about['seed']}", model.codec.suffix
        files = {
            f"{begin}-{i:03d}{suffix}": file
            for i, file in enumerate(item_files(model.codec, items, [{**about, **each} for each in own]))
        }
        done = Generated(name, values, tuple(files), self.page.new_file(f"{begin}.zip"), said)
        done.write(files, model.codec.preview(items))
        return done

    def settle(self, shown: Generated | None, past: list[Generated]) -> Iterator[dict[Any, Any]]:
        """The finished samples and what was generated before, or the place where samples will be."""
        if shown is None:
            yield {self.sample_grid: placeholder(self.page.text("samples_appear_here"))}
        else:
            yield self._results(shown, past)

    def _results(self, shown: Generated, past: list[Generated]) -> dict[Any, Any]:
        there = [(str(each.thumbnail), f"{each.values[1]}") for each in past]
        return {
            self.sample_grid: shown.grid(),
            self.save: gr.update(value=str(shown.archive), visible=True),
            self.past_panel: gr.update(visible=len(past) > 1),
            self.gallery: [thumbnail for thumbnail in there if Path(thumbnail[0]).exists()],
        }

    def have_back(self, past: list[Generated], name: str, event: gr.SelectData) -> Iterator[dict[Any, Any]]:
        """The samples that were clicked and, for the model that is loaded, their settings and seed."""
        shown = [each for each in past if each.thumbnail.exists()][event.index]
        same = shown.model == name
        if same:
            yield {self.seed.new: False, **dict(zip(self.settings, shown.values, strict=True))}
        said = self.page.say(shown.said) if same else self.page.text("generated_with", model=shown.model)
        results = self._results(shown, past)
        yield {self.shown: shown, self.status: note(said), self.seed.new: False, **results}

    def edit_sample(self, name: str, shown: Generated | None, number: float) -> Iterator[dict[Any, Any]]:
        """A sample to begin with."""
        yield from self.editing.take(name, self._file_of(shown, number))

    def _file_of(self, shown: Generated | None, number: float) -> Path:
        if shown is None or not 0 <= number < len(shown.names):
            raise UsageError("studio.no_picture")
        file = self.page.new_file(shown.names[int(number)])
        file.write_bytes(shown.file(int(number)))
        return file

    def reproduce(self, file: str | None, name: str) -> Iterator[str]:
        """The sample in a saved file generated again, beside the file."""
        if file is None:
            yield ""
            return
        about = read_png_metadata(file)
        if "degradation" in about:
            raise UsageError("studio.reproduce_restored")
        if "strength" in about:
            raise UsageError("studio.reproduce_edited")
        if "rows" in about:
            raise UsageError("studio.reproduce_interpolated")
        models = self.page.models
        settings, position = saved_settings(about, models)
        origin = Path(str(about.get("model"))).name
        model = models.load(origin if origin in models.models() else name)
        weights = weights_fingerprint(model, settings)[:16]
        model, batch, said = as_saved(model, about, position)
        same = about.get("images") == model.images and about.get("weights", weights) == weights
        for record in paced(sample(model, len(batch), settings, first=batch.start, batch=len(batch))):
            line = self.page.text("step", i=record.preview.step.i + 1, n=settings.steps)
            yield progress_bar(record.done, record.total, line)
        assert record.result is not None
        item = record.result[position - batch.start :][:1]
        compared = compare_with_file(self.page, model, Path(file), item, same)
        yield compared + "".join(note(self.page.say(each)) for each in said)


def names_beside(
    field: Categorical, others: Mapping[str, str], conditions: Sequence[Mapping[str, str]]
) -> list[str]:
    """The names of a field that occur with the others' values in the conditions, or in none of these."""
    seen = {each.get(field.name) for each in conditions}
    beside = {
        each.get(field.name)
        for each in conditions
        if all(each.get(key) == value for key, value in others.items())
    }
    known = beside - {None}
    return [name for name in field.names if not known or name in known or name not in seen]


def describe(page: Page, model: Model) -> str:
    """One line about a model: its recipe, the size of its samples, its parameters, what it has seen."""
    parameters = sum(p.numel() for p in model.denoiser.parameters())
    facts = (
        model.recipe.name,
        " × ".join(map(str, reversed(reader_of(model.codec).spatial))),
        page.text("parameters", n=format_short_count(parameters)),
        page.text("images_seen", n=format_short_count(model.images)),
    )
    return note(" · ".join(facts))


def compare_with_file(page: Page, model: Model, file: Path, items: Tensor, same_weights: bool) -> str:
    """A saved file beside the item (1, *item_shape) that was generated again, and how far they differ.

    same_weights: whether the model that generated the file is this one.
    """
    codec = model.codec
    with Image.open(file) as image:
        same_size = image.size == reader_of(codec).spatial[::-1]
    saved = torch.from_numpy(codec.read(file.read_bytes(), codec.fits[0]).item)[None]
    if not same_size:
        verdict = page.text("reproduced_other_size")
    elif not (differences := (saved.int() - items.int()).abs().float()).any():
        verdict = page.text("reproduced_identical")
    elif (mean := differences.mean().item()) > MOST_APART_LEVELS or not same_weights:
        verdict = page.text("reproduced_different", difference=mean)
    else:
        verdict = page.text("reproduced_rounding", difference=int(differences.max()))
    if not same_weights:
        verdict += " " + page.text("reproduced_other_weights", model=model.path.name)
    captions = page.text("saved_sample"), page.text("generated_again")
    pictures = [codec.preview(item)[0] for item in (saved, items)]
    return figures(pictures, captions) + note(verdict)
