"""The picture that the tab Restore works on: uploaded, painted over, exchanged, and had back again."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from alphabar.errors import UsageError
from alphabar.progress import last
from alphabar.reporting.report_figures import patient_settings
from alphabar.sampling.sample import sample
from alphabar.studio.controls import seed_to_use
from alphabar.studio.elements import error_note, figures, note
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page
from alphabar.studio.pictures import picture_of, read_upload, size_of, to_show

PAINTED_SIDE = 480  # pixels of the longer side of what is painted on: a brush that is seen, and quick strokes
MOST_HELD = 12  # pictures that can be had back


class Held(NamedTuple):
    """A picture: its file as it was given, and the files of the layers that were painted over it."""

    file: Path
    layers: tuple[Path, ...] = ()


class PicturePanel:
    """The picture, and how it is exchanged. model: the choice of the model.

    held: the state with the picture, `Held` or None. editor: the picture under a brush; previews: pieces of
    HTML that show it without one. status: the line for what went wrong. Of what is replaced nothing is lost:
    `past` has it, painted layers and all.
    """

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        self.held, self.past = gr.State(None), gr.State([])
        text = page.text
        self.upload = gr.File(
            label=text("own_picture"), height=150, elem_id="picture-upload", elem_classes="picture-upload"
        )
        self.facts = gr.HTML(elem_id="picture-facts")
        with gr.Row(elem_classes="small-buttons"):
            self.other = gr.UploadButton(
                text("other_picture"), visible=False, size="sm", min_width=90, elem_id="other-picture"
            )
            self.example_button = gr.Button(
                text("generate_example"), size="sm", min_width=90, elem_id="example"
            )
            self.undo_button = gr.Button(text("undo"), size="sm", min_width=90, elem_id="picture-undo")

    def add_editor(self) -> None:
        """The picture under a brush, in a tab of its own."""
        self.editor = gr.ImageEditor(
            type="pil",
            format="png",
            show_label=False,
            brush=gr.Brush(default_size=36, colors=["#ff3d8b"], color_mode="fixed"),
            eraser=gr.Eraser(default_size=36),
            layers=False,
            transforms=(),
            sources=(),  # a browser would not open what `read_upload` does, and say nothing
            height=340,
            visible=False,
            elem_id="editor",
        )

    def connect(self, previews: list[gr.HTML]) -> None:
        """Connect the handlers. previews: where else the picture is shown."""
        page = self.page
        self.previews = previews
        before = [self.held, self.past, self.editor]
        self.outputs: list[Any] = [
            *(self.held, self.past, self.editor, self.upload, self.other, self.facts),
            *previews,
        ]
        handled = page.handler(self.take, self.facts)
        self.upload.upload(handled, [self.upload, *before], self.outputs, **LIGHT)
        self.other.upload(handled, [self.other, *before], self.outputs, **LIGHT)
        self.example_button.click(
            page.handler(self.example, self.facts), [self.model, *before], self.outputs, **ONE_AT_A_TIME
        )
        self.undo_button.click(
            page.handler(self.undo, self.facts), [self.held, self.past], self.outputs, **LIGHT
        )
        self.held.change(self._painted, self.held, self.editor, js="() => window.editorReady()", **LIGHT)
        self.editor.clear(lambda held: self._painted(held), self.held, self.editor, **LIGHT)

    def take(
        self, file: str | Path | None, held: Held | None, past: list[Held], painted: Any
    ) -> Iterator[Any]:
        """A file in the place of the picture, which goes to the past with what was painted on it."""
        if file is None:
            raise UsageError("studio.no_picture")
        copy = self.page.new_file(Path(file).name)  # Gradio deletes uploads after a while
        shutil.copyfile(file, copy)
        updates = self.show(Held(copy))  # which raises where the file is no picture
        if held is not None:
            past = [*past[1 - MOST_HELD :], self.painted(held, painted)]
        yield {**updates, self.past: past}

    def painted(self, held: Held, editor: Any) -> Held:
        """The picture with the layers that are in the editor at this moment."""
        layers = []
        for layer in (editor or {}).get("layers") or ():
            layers.append(self.page.new_file("layer.png"))
            layer.save(layers[-1])
        return held._replace(layers=tuple(layers))

    def example(self, name: str, held: Held | None, past: list[Held], painted: Any) -> Iterator[Any]:
        """A sample of the model."""
        model = self.page.models.load(name)
        item = last(sample(model, 1, patient_settings(model), first=seed_to_use(None, True)))[0]
        file = self.page.new_file(f"{name}{model.codec.suffix}")
        model.codec.write(item, file, {})
        yield from self.take(file, held, past, painted)

    def undo(self, held: Held | None, past: list[Held]) -> Iterator[Any]:
        """The picture before, as it was painted over; without one nothing changes."""
        if past:
            yield {**self.show(past[-1]), self.past: past[:-1]}
        elif held is None:
            yield {self.facts: error_note(self.page.text("no_picture"))}
        else:
            yield {self.facts: self._facts(held) + note(self.page.text("nothing_to_undo"))}

    def _facts(self, held: Held) -> str:
        photo = read_upload(held.file)
        width, height = size_of(photo)
        clear = "" if photo.alpha is None else " " + self.page.text("transparency_kept")
        return note(self.page.text("picture_facts", name=held.file.name, width=width, height=height) + clear)

    def show(self, held: Held) -> dict[Any, Any]:
        """The updates of everything that shows the picture."""
        image = to_show(picture_of(read_upload(held.file)))
        preview = figures([np.asarray(image)], [held.file.name], kind="figures own-picture")
        return {
            self.held: held,
            self.editor: gr.update(visible=True),
            self.upload: gr.update(value=None, visible=False),
            self.other: gr.update(visible=True),
            self.facts: self._facts(held),
            **dict.fromkeys(self.previews, preview),
        }

    def _painted(self, held: Held | None) -> Any:
        """The picture for the editor, on white, with its layers. The editor takes it once it is visible."""
        if held is None:
            return gr.skip()
        image = to_show(picture_of(read_upload(held.file)), PAINTED_SIDE).convert("RGBA")
        ground = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if not held.layers:
            return ground
        composite, layers = ground, []
        for file in held.layers:
            with Image.open(file) as layer:
                layers.append(layer.convert("RGBA"))
            composite = Image.alpha_composite(composite, layers[-1].resize(image.size))
        return {"background": ground, "layers": layers, "composite": composite}
