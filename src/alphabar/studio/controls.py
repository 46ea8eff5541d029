"""Controls that several tabs have."""

import secrets

import gradio as gr

from alphabar.studio.page import Page

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
