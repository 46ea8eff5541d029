"""The tab Restore: inpaint, upscale, or undo a degradation, with several samples and how far they differ."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image
from torch import Tensor

from alphabar.codecs.png_metadata import png_metadata
from alphabar.errors import UsageError
from alphabar.images import on_white
from alphabar.progress import last
from alphabar.reporting.report_figures import patient_settings
from alphabar.restoration.degradation import Degradation, parse_degradation
from alphabar.restoration.photo import read_photo
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import STEPS, restoration_settings
from alphabar.restoration.task import Task, degrade, panels, read_task
from alphabar.sampling.sample import sample
from alphabar.studio.elements import figures, note, picture_grid, placeholder, progress_bar
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, forming
from alphabar.studio.pictures import (
    MAX_SIDE,
    enlarged_for_painting,
    limited,
    magnified,
    painted_mask,
    without_enlargement,
)

MAX_SAMPLES = 8
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
    """The settings of a restoration. samples: how many. longest: the longest side in pixels."""

    samples: int
    steps: int
    seed: int
    longest: int


class RestoredFiles(NamedTuple):
    """What the last restoration left: files that the browser may read."""

    before: Path
    samples: tuple[Path, ...]


class RestoreTab:
    """Its controls and their handlers. model: the choice of the model."""

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        self.restored = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320, elem_classes="controls"):
                with gr.Tabs(elem_id="restore-tabs"):
                    with gr.Tab(page.text("inpaint"), id="inpaint"):
                        self.painting = PaintingPanel(page, model)
                    with gr.Tab(page.text("upscale"), id="upscale"):
                        self._add_upscaling()
                    with gr.Tab(page.text("undo_degradation"), id="degradation"):
                        self._add_degradation()
                self._add_numbers()
            with gr.Column(scale=1, min_width=320):
                self._add_results()
        self._connect()

    def _add_upscaling(self) -> None:
        text = self.page.text
        gr.Markdown(text("upscale_help"))
        self.small = self._picture("upscale-picture")
        self.factor = gr.Radio(list(FACTORS), value=4, label=text("factor"))
        self.upscale_button = gr.Button(
            text("upscale"), variant="primary", elem_id="upscale-button", min_width=90
        )

    def _add_degradation(self) -> None:
        text = self.page.text
        gr.Markdown(text("undo_degradation_help"))
        self.degraded = self._picture("restore-picture")
        self.degradation = gr.Dropdown(
            list(EXAMPLES),
            value=EXAMPLES[0],
            allow_custom_value=True,
            label=text("degradation"),
            info=text("degradation_help"),
            elem_id="degradation",
        )
        self.degrade_first = gr.Checkbox(True, label=text("degrade_first"))
        self.restore_button = gr.Button(
            text("restore"), variant="primary", elem_id="restore-button", min_width=90
        )

    def _picture(self, elem_id: str) -> gr.Image:
        return gr.Image(
            label=self.page.text("own_picture"),
            type="filepath",
            sources=["upload", "clipboard"],
            height=260,
            elem_id=elem_id,
        )

    def _add_numbers(self) -> None:
        text = self.page.text
        with gr.Row():
            self.samples = gr.Slider(1, MAX_SAMPLES, 4, step=1, label=text("samples"), min_width=130)
            self.steps = gr.Slider(5, 200, STEPS, step=1, label=text("steps"), min_width=130)
        with gr.Row():
            self.seed = gr.Number(0, label=text("seed"), precision=0, minimum=0, min_width=110)
            self.longest = gr.Slider(
                32, MAX_SIDE, 128, step=8, label=text("longest"), info=text("longest_help"), min_width=150
            )
        self.cancel_button = gr.Button(self.page.text("cancel"), elem_id="restore-cancel")

    def _add_results(self) -> None:
        text = self.page.text
        self.status = gr.HTML(placeholder(text("samples_appear_here")), elem_id="restore-status")
        with gr.Column(visible=False) as self.results:
            self.slider = gr.ImageSlider(
                label=text("before_after"),
                show_label=False,
                interactive=False,
                elem_id="before-after",
                height=380,
            )
            self.gallery = gr.Gallery(
                show_label=False,
                columns=4,
                height=170,
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                elem_id="restored-samples",
                buttons=[],
            )
            self.spread = gr.HTML(elem_id="spread")
            with gr.Row():
                self.save = gr.DownloadButton(text("save_all"), elem_id="restore-save", min_width=90)
                self.continue_button = gr.Button(text("continue_with_sample"), min_width=90)

    def _connect(self) -> None:
        page, model, painting = self.page, self.model, self.painting
        numbers = [self.samples, self.steps, self.seed, self.longest]
        results = [
            self.status,
            self.results,
            self.slider,
            self.gallery,
            self.spread,
            self.save,
            self.restored,
        ]
        jobs = [
            button.click(page.handler(handler), [model, *inputs, *numbers], results, **ONE_AT_A_TIME)
            for button, handler, inputs in (
                (painting.inpaint_button, self.inpaint, [painting.editor]),
                (self.upscale_button, self.upscale, [self.small, self.factor]),
                (self.restore_button, self.undo, [self.degraded, self.degradation, self.degrade_first]),
            )
        ]
        page.cancel_button(self.cancel_button, jobs, self.status)
        painting.connect(self.seed, self.continue_button, self.slider)
        self.gallery.select(self.choose, self.restored, self.slider, **LIGHT)

    def inpaint(self, name: str, painted: Any, *numbers: Any) -> Iterator[Any]:
        """Fills in what was painted over; every other pixel stays as it is."""
        chosen = to_numbers(numbers)
        if painted is None or painted["background"] is None:
            raise UsageError("studio.no_picture")
        picture = limited(without_enlargement(painted["background"].convert("RGB")), chosen.longest)
        mask = painted_mask(painted["layers"], picture.size)
        if not mask.any():
            raise UsageError("studio.no_mask")
        before, file, hole = (self.page.new_file(".png") for _ in range(3))
        grey = self.page.models.load(name).codec.channels == 1
        picture.convert("L" if grey else "RGB").save(file)
        Image.fromarray((mask * 255).astype(np.uint8)).save(hole)
        Image.fromarray(np.where(mask[..., None], 127, np.asarray(picture)).astype(np.uint8)).save(before)
        degradation = Degradation("mask", ({"name": "mask", "file": str(hole)},), 0.0)
        yield from self._restore(name, file, degradation, before, chosen)

    def upscale(self, name: str, file: str | None, factor: int, *numbers: Any) -> Iterator[Any]:
        """A picture at several times its width and height."""
        chosen = to_numbers(numbers)
        small = self._working_file(file, max(chosen.longest // int(factor), 8))
        degradation = parse_degradation(f"downsample:{int(factor)}")
        yield from self._restore(name, small, degradation, self._magnified(small, int(factor)), chosen)

    def undo(
        self, name: str, file: str | None, degradation: str, degrade_first: bool, *numbers: Any
    ) -> Iterator[Any]:
        """A picture as it may have been before a degradation."""
        chosen, parsed = to_numbers(numbers), parse_degradation(str(degradation))
        if parsed.needs_files:
            raise UsageError("studio.no_degradation_files")
        factor = parsed.factor
        side = max(chosen.longest // (1 if degrade_first else factor), 8)
        given = self._working_file(file, side, factor if degrade_first else 1)
        if degrade_first:
            image = degrade(read_photo(given), parsed, seed=chosen.seed)
            given = self.page.new_file(".png")
            image.save(given)
        yield from self._restore(name, given, parsed, self._magnified(given, factor), chosen)

    def _restore(
        self, name: str, file: Path, degradation: Degradation, before: Path, numbers: Numbers
    ) -> Iterator[tuple[Any, ...]]:
        """Samples as they form, then the finished ones. before: the picture to compare them with."""
        page, n = self.page, numbers.samples
        model = page.models.load(name)
        task = read_task(file, degradation, model.codec.channels)
        settings = restoration_settings(
            model, task.operator, task.sigma_y, seed=numbers.seed, steps=numbers.steps
        )
        for record in restore(model, task.y, task.operator, task.sigma_y, n=n, settings=settings):
            if record.result is None:
                line = page.text("step", i=record.done, n=record.total)
                pictures = picture_grid(forming(model, record))
                yield progress_bar(record.done, record.total, line) + pictures, *[gr.skip()] * 6
        assert record.result is not None
        samples = record.result[:, 0]
        about = {
            "model": name,
            "images": model.images,
            "image": task.photo.name,
            "degradation": task.degradation.text,
            "sigma_y": task.sigma_y,
            **settings.to_dict(),
        }
        paths = self._write_samples(task, samples, about)
        spread = panels(task, samples)[-1] if n > 1 else None
        yield (
            note(" ".join([page.text("restored", n=n), *(m.in_language(page.language) for m in task.notes)])),
            gr.update(visible=True),
            (str(before), str(paths[0])),
            [str(path) for path in paths],
            "" if spread is None else figures([spread], [page.text("spread")]),
            str(self._archive(paths, spread)),
            RestoredFiles(before, tuple(paths)),
        )

    def _write_samples(self, task: Task, samples: Tensor, about: dict[str, Any]) -> list[Path]:
        """Each sample as a file of the kind of the picture that was given, with its settings inside."""
        paths = []
        for k, signal in enumerate(samples):
            paths.append(self.page.new_file(".png"))
            image = task.photo.image(signal, task.known, task.colored)
            image.save(paths[-1], pnginfo=png_metadata({**about, "answer": k}))
        return paths

    def _archive(self, paths: list[Path], spread: Tensor | None) -> Path:
        archive = self.page.new_file(".zip")
        with zipfile.ZipFile(archive, "w") as packed:
            for k, path in enumerate(paths):
                packed.write(path, f"sample-{k + 1}.png")
            if spread is not None:
                with packed.open("spread.png", "w") as file:
                    Image.fromarray(spread.numpy()).save(file, "PNG")
        return archive

    def choose(self, restored: RestoredFiles | None, event: gr.SelectData) -> Any:
        """The sample that was clicked, beside the picture before."""
        return gr.skip() if restored is None else (str(restored.before), str(restored.samples[event.index]))

    def _working_file(self, file: str | None, longest: int, multiple: int = 1) -> Path:
        """A picture file as one that the page can work on, its sides multiples of a number.

        Raises UsageError where there is none, and what `read_photo` raises.
        """
        if file is None:
            raise UsageError("studio.no_picture")
        photo = read_photo(Path(file))
        image = limited(photo.image(photo.signal()[0]), longest)
        width, height = (max(side // multiple, 1) * multiple for side in image.size)
        path = self.page.new_file(".png")
        image.crop((0, 0, width, height)).save(path)
        return path

    def _magnified(self, file: Path, factor: int) -> Path:
        """The picture as large as its samples."""
        path = self.page.new_file(".png")
        with Image.open(file) as image:
            magnified(image.convert("RGB"), factor).save(path)
        return path


class PaintingPanel:
    """The picture under a brush: what is painted over is filled in. model: the choice of the model."""

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        self.past = gr.State([])
        text = page.text
        gr.Markdown(text("inpaint_help"))
        self.editor = gr.ImageEditor(
            type="pil",
            format="png",  # what is known has to come back exactly
            label=text("picture_and_mask"),
            brush=gr.Brush(default_size=36, colors=["#ff3d8b"], color_mode="fixed"),
            eraser=gr.Eraser(default_size=36),
            layers=False,
            transforms=(),
            sources=("upload", "clipboard"),
            height=400,
            elem_id="editor",
        )
        with gr.Row():
            self.inpaint_button = gr.Button(
                text("inpaint"), variant="primary", elem_id="inpaint-button", min_width=90
            )
            self.example_button = gr.Button(text("generate_example"), elem_id="inpaint-example", min_width=90)
            self.undo_button = gr.Button(text("undo"), elem_id="inpaint-undo", min_width=90)

    def connect(self, seed: gr.Number, continue_button: gr.Button, slider: gr.ImageSlider) -> None:
        """Connect the handlers. seed: of the example. continue_button: takes the sample on the slider."""
        page, editor = self.page, self.editor
        editor.upload(page.handler(self.uploaded), editor, editor, **LIGHT)
        self.example_button.click(page.handler(self.example), [self.model, seed], editor, **ONE_AT_A_TIME)
        states = [editor, self.past]
        continue_button.click(page.handler(self.take), [slider, editor, self.past], states, **LIGHT)
        self.undo_button.click(page.handler(self.undo), self.past, states, **LIGHT)

    def uploaded(self, painted: Any) -> Iterator[Any]:
        """The picture that was uploaded, large enough to paint on."""
        picture = painted["background"] if painted else None
        yield gr.skip() if picture is None else enlarged_for_painting(picture.convert("RGB"))

    def example(self, name: str, seed: float) -> Iterator[Any]:
        """A sample of the model."""
        model = self.page.models.load(name)
        item = last(sample(model, 1, patient_settings(model), first=int(seed or 0)))
        picture = on_white(model.codec.preview(item))[0]
        yield enlarged_for_painting(Image.fromarray(picture.numpy()))

    def take(self, pair: Any, painted: Any, past: list[Any]) -> Iterator[Any]:
        """The sample on the slider in the place of the picture."""
        if pair is None:
            raise UsageError("studio.no_picture")
        before = painted["background"] if painted else None
        with Image.open(pair[1]) as chosen:
            yield enlarged_for_painting(chosen.convert("RGB")), [*past[-8:], before]

    def undo(self, past: list[Any]) -> Iterator[Any]:
        """The picture before the last one that was taken."""
        yield (past[-1], past[:-1]) if past else (None, [])


def to_numbers(values: Any) -> Numbers:
    """The values of the controls, whole."""
    samples, steps, seed, longest = values
    return Numbers(int(samples), int(steps), int(seed or 0), int(longest))
