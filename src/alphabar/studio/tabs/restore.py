"""The tab Restore: inpaint, upscale, or undo a degradation, with several samples and how far they differ."""

import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alphabar.codecs.base import reader_of
from alphabar.codecs.png_metadata import png_metadata
from alphabar.errors import UsageError
from alphabar.formatting import format_duration
from alphabar.restoration.degradation import Degradation, parse_degradation
from alphabar.restoration.photo import Photo, read_photo
from alphabar.restoration.restoration_folder import choose_for
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import STEPS, model_notes, restoration_settings
from alphabar.restoration.task import Task, degrade, panels, photo_task
from alphabar.runs.model import Model
from alphabar.studio.controls import SeedField, seed_to_use
from alphabar.studio.elements import error_note, figures, note, picture_grid, placeholder, progress_bar
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, Tab, forming, paced
from alphabar.studio.pictures import (
    MAX_SIDE,
    cropped,
    magnified,
    painted_mask,
    picture_of,
    read_upload,
    reduced,
    reduced_size,
    size_of,
    to_show,
)
from alphabar.studio.tabs.own_picture import Held, PicturePanel

MAX_SAMPLES = 8
MAX_PIXELS = 8_000_000  # of an enlarged picture: it takes some GiB and, on a CPU, an hour
FACTORS = (2, 4, 8)
EXAMPLES = (
    "blur:1.5+noise:0.02",
    "motion:9,45",
    "noise:0.2",
    "jpeg:10",
    "grayscale",
    "random:0.7",
    "downsample:2",
    "noise:auto",
)
"""Degradations to try without knowing the grammar."""


class Numbers(NamedTuple):
    """The settings of a restoration. samples: how many. longest: the longest side that is worked on."""

    samples: int
    steps: int
    seed: int
    longest: int


class Work(NamedTuple):
    """What is to be done. name: of the files. before: the picture to compare samples with.

    finish: from a signal (channels, h, w) to the picture that a person gets.
    """

    name: str
    task: Task
    before: Image.Image
    finish: Callable[[Tensor], Image.Image]
    notes: tuple[str, ...] = ()


class Restored(NamedTuple):
    """What the last restoration left. before, shown: as they are shown; files: the samples, whole.

    archive: of the samples and of where they differ. chosen: the number of the sample that is compared with
    the picture before.
    """

    before: Path
    shown: tuple[Path, ...]
    files: tuple[Path, ...]
    archive: Path
    chosen: int = 0


class RestoreTab(Tab):
    """Its controls and their handlers. model: the choice of the model."""

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        self.restored = gr.State(None)
        self.unable = gr.HTML(visible=False, elem_id="restore-unable")
        with gr.Row(equal_height=False) as self.layout:
            with gr.Column(scale=1, min_width=320, elem_classes="controls"):
                self.panel = PicturePanel(page, model)
                with gr.Tabs(elem_id="restore-tabs"):
                    with gr.Tab(page.text("inpaint"), id="inpaint"):
                        self._add_inpainting()
                    with gr.Tab(page.text("upscale"), id="upscale"):
                        self._add_upscaling()
                    with gr.Tab(page.text("undo_degradation"), id="degradation"):
                        self._add_degradation()
                with gr.Row(elem_classes="pair", equal_height=False):
                    with gr.Column(scale=4, min_width=150):
                        self.status = gr.HTML(note(""), elem_id="restore-status", elem_classes="status")
                    self.cancel_button = gr.Button(
                        page.text("cancel"), size="sm", scale=1, min_width=80, elem_id="restore-cancel"
                    )
                self._add_numbers()
            with gr.Column(scale=1, min_width=320):
                self._add_results()
        self._connect()

    def _button(self, name: str) -> gr.Button:
        return gr.Button(self.page.text(name), variant="primary", elem_id=f"{name}-button", min_width=90)

    def _add_inpainting(self) -> None:
        gr.Markdown(self.page.text("inpaint_help"))
        self.panel.add_editor()
        self.inpaint_plan = gr.HTML(elem_id="inpaint-plan")
        self.inpaint_button = self._button("inpaint")

    def _add_upscaling(self) -> None:
        text = self.page.text
        gr.Markdown(text("upscale_help"))
        self.small = gr.HTML(elem_id="upscale-picture")
        self.factor = gr.Radio(list(FACTORS), value=4, label=text("factor"), elem_id="factor")
        self.upscale_plan = gr.HTML(elem_id="upscale-plan")
        self.upscale_button = self._button("upscale")

    def _add_degradation(self) -> None:
        text = self.page.text
        gr.Markdown(text("undo_degradation_help"))
        self.degraded = gr.HTML(elem_id="restore-picture")
        self.degradation = gr.Dropdown(
            [(f"{text(f'degradation_{i}')} ({each})", each) for i, each in enumerate(EXAMPLES)],
            value=EXAMPLES[0],
            allow_custom_value=True,
            label=text("degradation"),
            info=text("degradation_help"),
            elem_id="degradation",
        )
        self.degrade_first = gr.Checkbox(True, label=text("degrade_first"))
        self.undo_plan = gr.HTML(elem_id="restore-plan")
        self.restore_button = self._button("restore")

    def _add_numbers(self) -> None:
        text = self.page.text
        with gr.Row():
            self.samples = gr.Slider(1, MAX_SAMPLES, 4, step=1, label=text("samples"), min_width=130)
            self.seed = SeedField(self.page, "restore-seed")
        with gr.Accordion(text("more_settings"), open=False, elem_id="restore-settings"), gr.Row():
            self.steps = gr.Slider(
                5, 200, STEPS, step=1, label=text("steps"), min_width=130, elem_id="restore-steps"
            )
            self.longest = gr.Slider(
                *(32, MAX_SIDE, 128),
                step=8,
                label=text("longest"),
                info=text("longest_help"),
                min_width=150,
                elem_id="longest",
            )

    def _add_results(self) -> None:
        text = self.page.text
        self.forming = gr.HTML(placeholder(text("samples_appear_here")), elem_id="restore-forming")
        with gr.Column(visible=False) as self.results:
            self.slider = gr.ImageSlider(
                label=text("before_after"), show_label=False, interactive=False, elem_id="before-after"
            )
            self.gallery = gr.Gallery(
                show_label=False,
                columns=4,
                height="auto",
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                elem_id="restored-samples",
                buttons=[],
            )
            with gr.Row():
                self.continue_button = gr.Button(
                    text("continue_with_sample"), min_width=90, elem_id="continue-button"
                )
                self.edit_button = gr.Button(text("use_in_generate"), min_width=90, elem_id="use-in-generate")
                self.save = gr.DownloadButton(text("save_all"), elem_id="restore-save", min_width=90)
            self.spread = gr.HTML(elem_id="spread")

    def _connect(self) -> None:
        page, model, panel = self.page, self.model, self.panel
        numbers = [self.samples, self.steps, *self.seed.inputs, self.longest]
        results = [
            *(self.status, self.forming, self.results, self.slider, self.gallery, self.spread, self.save),
            *(self.restored, self.seed.number),
        ]
        jobs = [
            button.click(
                page.handler(handler, self.status),
                [model, panel.held, *inputs, *numbers],
                results,
                **ONE_AT_A_TIME,
            )
            for button, handler, inputs in (
                (self.inpaint_button, self.inpaint, [panel.editor]),
                (self.upscale_button, self.upscale, [self.factor]),
                (self.restore_button, self.undo, [self.degradation, self.degrade_first]),
            )
        ]
        page.cancel_button(self.cancel_button, jobs, self.status)
        for job in jobs:  # however it ends, what was there before is there again
            for ended in (job.then, job.failure):
                ended(self.settle, self.restored, [self.forming, self.results], **LIGHT)
        panel.connect([self.small, self.degraded])
        self.gallery.select(self.choose, self.restored, [self.restored, self.slider], **LIGHT)
        self.continue_button.click(
            page.handler(self.go_on, self.status),
            [self.restored, panel.held, panel.past, panel.editor],
            [*panel.outputs, self.status],
            **LIGHT,
        )
        planned: list[Any] = [panel.held, self.factor, self.longest, self.degrade_first]
        gr.on(
            [component.change for component in planned],
            page.handler(self.plan),
            planned,
            [self.inpaint_plan, self.upscale_plan, self.undo_plan],
            trigger_mode="always_last",
            **LIGHT,
        )
        self.adapted = [self.unable, self.layout]
        self.kept = [
            *(panel.held, panel.past, panel.editor, self.restored),
            *(*numbers, *planned[1:2], self.degrade_first, self.degradation),
        ]
        self.views = [*panel.outputs, *results]

    def adapt(self, model: Model) -> dict[Any, Any]:
        """The controls, or why the model cannot restore."""
        able, unable = model.method.denoises, note(self.page.text("cannot_restore", model=model.path.name))
        return {self.unable: gr.update(value=unable, visible=not able), self.layout: gr.update(visible=able)}

    def keep(self, values: Sequence[Any]) -> Sequence[Any]:
        """What is painted at this moment belongs to the picture."""
        held, past, editor, *rest = values
        return [held and self.panel.painted(held, editor), past, None, *rest]

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The picture, what is painted on it, and the samples."""
        held, _, _, restored, *_ = values
        updates = {} if held is None else self.panel.show(held)
        return updates | ({} if restored is None else self._results(restored))

    def plan(self, held: Held | None, factor: int, longest: int, degrade_first: bool) -> Iterator[Any]:
        """What size goes in and comes out, for each of the three tasks."""
        if held is None:
            yield "", "", ""
            return
        width, height = size_of(read_upload(held.file))
        work = reduced_size((width, height), int(longest))
        sizes = {"width": width, "height": height, "w": work[0], "h": work[1]}
        same = work == (width, height)
        try:
            upscaled = note(self.page.text("upscale_plan", **_enlarged((width, height), int(factor))))
        except UsageError as error:
            upscaled = error_note(self.page.say(error.message))
        yield (
            "" if same else note(self.page.text("inpaint_plan", **sizes)),
            upscaled,
            "" if same else note(self.page.text("undo_plan", **sizes)),
        )

    def inpaint(self, name: str, held: Held | None, painted: Any, *numbers: Any) -> Iterator[Any]:
        """Fills in what was painted over; every other pixel stays as it is."""
        chosen, full = to_numbers(numbers), _read(held)
        work = reduced(full, chosen.longest)
        layers = (painted or {}).get("layers") or []
        mask, whole_mask = (painted_mask(layers, size_of(photo)) for photo in (work, full))
        if not mask.any():
            raise UsageError("studio.no_mask")
        hole = self.page.new_file("mask.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(hole)
        degradation = Degradation("mask", ({"name": "mask", "file": str(hole)},), 0.0)
        task = photo_task(work, degradation, reader_of(self.page.models.load(name).codec).channels)
        given = full.without_color() if task.photo.grey and not full.grey else full
        before = np.array(picture_of(given).convert("RGBA"))
        before[whole_mask] = (127, 127, 127, 255)
        notes = [self.page.say(message) for message in task.notes]
        if work is not full:
            width, height = size_of(work)
            notes.append(self.page.text("filled_reduced", width=width, height=height))

        def finish(signal: Tensor) -> Image.Image:
            size = whole_mask.shape
            if signal.shape[1:] != size:
                signal = F.interpolate(signal[None], size, mode="bicubic")[0]
            return given.image(signal, torch.from_numpy(~whole_mask))

        picture = Image.fromarray(before)
        work_to_do = Work(
            "inpainted", task, picture if full.alpha is not None else picture.convert("RGB"), finish
        )
        yield from self._restore(name, work_to_do._replace(notes=tuple(notes)), chosen)

    def upscale(self, name: str, held: Held | None, factor: int, *numbers: Any) -> Iterator[Any]:
        """A picture at several times its width and height."""
        chosen, photo, factor = to_numbers(numbers), _read(held), int(factor)
        sizes = _enlarged(size_of(photo), factor)
        yield from self._undo(
            name,
            "enlarged",
            photo,
            parse_degradation(f"downsample:{factor}"),
            chosen,
            self.page.text("upscaled", **sizes),
        )

    def undo(
        self, name: str, held: Held | None, degradation: str, degrade_first: bool, *numbers: Any
    ) -> Iterator[Any]:
        """A picture as it may have been before a degradation."""
        chosen, photo, parsed = to_numbers(numbers), _read(held), parse_degradation(str(degradation))
        if parsed.needs_files:
            raise UsageError("studio.no_degradation_files")
        given = reduced(photo, max(chosen.longest // (1 if degrade_first else parsed.factor), 8))
        width, height = size_of(given)
        said = [] if given is photo else [self.page.text("reduced_first", width=width, height=height)]
        if degrade_first:
            given = self._degraded(cropped(given, parsed.factor), parsed, chosen.seed)
        yield from self._undo(name, "restored", given, parsed, chosen, *said)

    def _degraded(self, photo: Photo, degradation: Degradation, seed: int) -> Photo:
        file = self.page.new_file(f"{photo.name}.png")
        degrade(photo, degradation, seed=seed).save(file)
        degraded = read_photo(file)
        clear = None if photo.alpha is None else Image.fromarray(photo.alpha).resize(size_of(degraded))
        return replace(degraded, alpha=None if clear is None else np.array(clear))

    def _undo(
        self, name: str, what: str, photo: Photo, degradation: Degradation, numbers: Numbers, *said: str
    ) -> Iterator[Any]:
        task = photo_task(photo, degradation, reader_of(self.page.models.load(name).codec).channels)
        before = magnified(picture_of(photo), degradation.factor)
        notes = (*said, *(self.page.say(message) for message in task.notes))
        work = Work(what, task, before, lambda x: task.photo.image(x, task.known, task.colored), notes)
        yield from self._restore(name, work, numbers)

    def _restore(self, name: str, work: Work, numbers: Numbers) -> Iterator[dict[Any, Any]]:
        """Samples as they form, then the finished ones."""
        page, n, task = self.page, numbers.samples, work.task
        model = page.models.load(name)
        work = work._replace(notes=(*work.notes, *map(page.say, model_notes(model))))
        settings = restoration_settings(
            model, task.operator, task.sigma_y, seed=numbers.seed, steps=numbers.steps
        )
        restore(model, task.y, task.operator, task.sigma_y, n=n, settings=settings)  # which checks them
        model, runtime = yield from page.with_progress(choose_for(model, task, n, settings), self.status)
        began = time.monotonic()
        for record in paced(restore(model, task.y, task.operator, task.sigma_y, n=n, settings=settings)):
            if record.result is None:
                left = (time.monotonic() - began) / record.done * (record.total - record.done)
                line = page.text("step_left", i=record.done, n=record.total, left=format_duration(left))
                pictures = [np.asarray(to_show(Image.fromarray(p.numpy()))) for p in forming(model, record)]
                yield {
                    self.status: progress_bar(record.done, record.total, line),
                    self.forming: gr.update(value=picture_grid(pictures), visible=True),
                    self.results: gr.update(visible=False),
                    self.seed.number: numbers.seed,
                }
        assert record.result is not None
        about = {
            "model": name,
            "images": model.images,
            "image": task.photo.name,
            "degradation": task.degradation.text,
            "sigma_y": task.sigma_y,
            "n": n,
            "weights": model.fingerprint[:16],
            "runtime": runtime,
            **settings.to_dict(),
        }
        yield self._finished(work, record.result[:, 0], about)

    def _finished(self, work: Work, samples: Tensor, about: dict[str, Any]) -> dict[Any, Any]:
        """The updates that show what came out, whose files are of the kind of the picture that was given."""
        name, photo = f"{work.task.photo.name}-{work.name}", work.task.photo
        files, shown = [], []
        for k, signal in enumerate(samples):
            files.append(self.page.new_file(f"{name}-{k + 1}.png"))
            info = png_metadata({**about, "answer": k})
            work.finish(signal).save(files[-1], pnginfo=info, **photo.extras)
            shown.append(self._shown(picture_of(read_photo(files[-1]))))
        before = self._shown(work.before)
        spread = panels(work.task, samples)[-1] if len(samples) > 1 else None
        archive = self.page.new_file(f"{name}.zip")
        with zipfile.ZipFile(archive, "w") as packed:
            for file in files:
                packed.write(file, file.name)
            if spread is not None:
                with packed.open("spread.png", "w") as out:
                    Image.fromarray(spread.numpy()).save(out, "PNG")
        restored = Restored(before, tuple(shown), tuple(files), archive)
        said = " ".join([self.page.text("restored", n=len(samples)), *work.notes])
        return {self.restored: restored, **self._results(restored), self.status: note(said)}

    def _results(self, restored: Restored) -> dict[Any, Any]:
        """The updates that show what the last restoration left."""
        text, spread = self.page.text, None
        if len(restored.files) > 1:
            with zipfile.ZipFile(restored.archive) as packed, packed.open("spread.png") as file:
                spread = np.asarray(Image.open(file))
        return {
            self.status: note(text("restored", n=len(restored.files))),
            self.slider: (str(restored.before), str(restored.shown[restored.chosen])),
            self.gallery: [str(path) for path in restored.shown],
            self.spread: "" if spread is None else figures([spread], [text("spread")]),
            self.save: str(restored.archive),
            self.forming: gr.update(visible=False),
            self.results: gr.update(visible=True),
        }

    def _shown(self, image: Image.Image) -> Path:
        path = self.page.new_file("shown.png")
        to_show(image).save(path)
        return path

    def settle(self, restored: Restored | None) -> tuple[Any, Any]:
        """The finished samples, or the place where they will be."""
        empty = placeholder(self.page.text("samples_appear_here"))
        return gr.update(value=empty, visible=restored is None), gr.update(visible=restored is not None)

    def choose(self, restored: Restored | None, event: gr.SelectData) -> Any:
        """The sample that was clicked, beside the picture before."""
        if restored is None:
            return gr.skip(), gr.skip()
        chosen = restored._replace(chosen=event.index)
        return chosen, (str(chosen.before), str(chosen.shown[chosen.chosen]))

    def go_on(self, restored: Restored | None, *panel: Any) -> Iterator[Any]:
        """The chosen sample in the place of the picture."""
        if restored is None:
            raise UsageError("studio.no_picture")
        yield from self.panel.take(restored.files[restored.chosen], *panel)


def _read(held: Held | None) -> Photo:
    if held is None:
        raise UsageError("studio.no_picture")
    return read_upload(held.file)


def _enlarged(size: tuple[int, int], factor: int) -> dict[str, int]:
    """Width and height that go in, and w and h that come out. Raises UsageError where these are too many."""
    (width, height), (w, h) = size, (size[0] * factor, size[1] * factor)
    sizes = {"width": width, "height": height, "w": w, "h": h}
    if w * h <= MAX_PIXELS:
        return sizes
    fitting = [str(other) for other in FACTORS if width * height * other**2 <= MAX_PIXELS]
    limits = {"factor": factor, "most": MAX_PIXELS // 10**6, **sizes}
    if fitting:
        raise UsageError("studio.upscale_smaller_factor", factors=", ".join(fitting), **limits)
    raise UsageError("studio.upscale_too_large", **limits)


def to_numbers(values: Any) -> Numbers:
    """The values of the controls, whole; a new seed where one is wanted."""
    samples, steps, seed, new_seed, longest = values
    return Numbers(int(samples), int(steps), seed_to_use(seed, new_seed), int(longest))
