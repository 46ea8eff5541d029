"""A picture to begin with, in the tab Generate: its coarse structure stays, the rest is generated again."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from alphabar.codecs.base import Unreadable
from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.model import Model
from alphabar.studio.elements import figures, note
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page

STRENGTH = 0.6
"""The share of the steps that an edit makes, as the command line has it."""


class EditPanel:
    """The picture and the strength of the edit. model: the choice of the model.

    base: the state with the picture's file, or None. panel: the accordion with all of it.
    """

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        text = page.text
        with gr.Accordion(text("edit"), open=False, visible=False, elem_id="edit") as self.panel:
            gr.HTML(note(text("edit_help")))
            self.base = gr.State(None)
            self.upload = gr.File(
                label=text("own_picture"), height=120, elem_id="edit-file", elem_classes="picture-upload"
            )
            self.shown = gr.HTML(elem_id="edit-picture")
            self.strength = gr.Slider(
                *(0.05, 1, STRENGTH),
                step=0.05,
                label=text("strength"),
                info=text("strength_help"),
                elem_id="strength",
            )
            self.remove_button = gr.Button(
                text("remove_picture"), size="sm", visible=False, elem_id="edit-remove"
            )

    def connect(self, status: gr.HTML) -> None:
        """Connect the handlers. status: the line for what happened."""
        page = self.page
        self.status = status
        self.outputs = [self.base, self.shown, self.upload, self.remove_button, self.panel, status]
        self.upload.upload(
            page.handler(self.take, status), [self.model, self.upload], self.outputs, **ONE_AT_A_TIME
        )
        self.remove_button.click(page.handler(self.remove, status), None, self.outputs, **LIGHT)

    def take(self, name: str, file: str | Path | None) -> Iterator[dict[Any, Any]]:
        """A picture to begin with, as the model sees it."""
        if file is None:
            raise UsageError("studio.no_picture")
        copy = self.page.new_file(Path(file).name)  # Gradio deletes uploads after a while
        shutil.copyfile(file, copy)
        yield self.show(self.page.models.load(name), copy)

    def show(self, model: Model, base: Path | None) -> dict[Any, Any]:
        """The updates that show a picture to begin with; none without one."""
        if base is None:
            return {}
        picture = model.codec.preview(read_item(model, base)[None])[0]
        return {
            self.base: base,
            self.shown: figures([picture], [self.page.text("edit_picture", name=base.name)]),
            self.upload: gr.update(value=None, visible=False),
            self.remove_button: gr.update(visible=True),
            self.panel: gr.update(open=True),
            self.status: note(self.page.text("edit_ready")),
        }

    def remove(self) -> Iterator[dict[Any, Any]]:
        """The page without a picture to begin with."""
        yield {
            self.base: None,
            self.shown: "",
            self.upload: gr.update(value=None, visible=True),
            self.remove_button: gr.update(visible=False),
            self.status: note(""),
        }


def read_item(model: Model, file: Path) -> Tensor:
    """A picture file as an item of the model's codec. Raises AlphabarError naming one that cannot be read."""
    fit = model.recipe.data.fit
    try:
        # The box of a fit is the data set's; a single picture has none.
        reading = model.codec.read(file.read_bytes(), "crop" if fit == "box" else fit)
    except Unreadable as problem:
        raise AlphabarError("restoration.unusable_image", path=file.name, reason=problem.message) from None
    return torch.from_numpy(reading.item.copy())
