"""The tab Compare: the same noise through several models, samplers or scales."""

import html
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from alphabar.diffusion.samplers import SAMPLERS
from alphabar.errors import UsageError
from alphabar.guidance import merge_guidance
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, cancelling, data_uri, empty

COLUMNS, ROWS = 6, 8  # at most


WHAT = ("models", "samplers", "steps", "guidance")


USUAL = {
    "samplers": "ddim, heun, dpmpp_2m, unipc",
    "steps": "3, 5, 10, 20, 50",
    "guidance": "1, 1.5, 2, 3, 5",
}


def tab(page: Page, model: gr.Dropdown) -> None:
    """Build the tab. model: the dropdown with the chosen model's name."""
    text = page.text
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=290, elem_classes="controls"):
            what = gr.Radio(
                [(text(f"vary_{name}"), name) for name in WHAT],
                value="samplers",
                label=text("vary"),
                elem_id="vary",
            )
            models = gr.Dropdown(
                page.shelf.models(),
                multiselect=True,
                max_choices=COLUMNS,
                label=text("models"),
                visible=False,
                elem_id="compare-models",
            )
            values = gr.Textbox(
                USUAL["samplers"], label=text("values"), info=text("values_info"), elem_id="values"
            )
            conditions = gr.Textbox("", label=text("conditions"), info=text("ask_info"), visible=False)
            with gr.Row():
                rows = gr.Slider(1, ROWS, 4, step=1, label=text("noises"), min_width=120)
                seed = gr.Number(0, label=text("seed"), precision=0, minimum=0, min_width=110)
            with gr.Row():
                go = gr.Button(text("compare_go"), variant="primary", elem_id="compare-go", min_width=90)
                stop = gr.Button(text("cancel"), min_width=90)
        with gr.Column(scale=5, min_width=320):
            said = gr.HTML(page.note(""), elem_id="compared-said")
            shown = gr.HTML(empty(text("compare_empty")), elem_id="compared")

    def adapt(what: str) -> tuple[Any, Any, Any]:
        usual = gr.update(visible=what != "models", value=USUAL.get(what, ""))
        names = gr.update(visible=what == "models", choices=page.shelf.models())
        return names, usual, gr.update(visible=what == "guidance")

    def run(
        name: str, what: str, models: list[str], values: str, conditions: str, rows: int, seed: float
    ) -> Iterator[Any]:
        if what == "models":
            columns = list(models or [])
        else:
            columns = [value.strip() for value in values.split(",") if value.strip()]
        if not columns:
            raise UsageError(text("no_values"))
        columns, n = columns[:COLUMNS], min(int(rows), ROWS)
        drawn: list[list[str]] = []
        for i, column in enumerate(columns):
            loaded = page.shelf.load(column if what == "models" else name)
            settings = settings_of_column(loaded, what, column, conditions, int(seed or 0))
            for record in sample(loaded, n, settings):
                share = (i + record.done / record.total) / len(columns)
                yield (
                    page.progress(
                        share, 1, f"{column}: {text('step', i=record.preview.step.i + 1, n=settings.steps)}"
                    ),
                    gr.skip(),
                )
            assert record.result is not None
            about = {
                "model": column if what == "models" else name,
                "images": loaded.images,
                **settings.to_dict(),
            }
            pictures = enumerate(record.result.numpy())
            drawn.append([data_uri(picture, {**about, "position": k}) for k, picture in pictures])
            yield page.progress((i + 1) / len(columns), 1, column), table(columns, drawn, n)
        yield page.note(text("compared")), table(columns, drawn, n)

    what.change(adapt, what, [models, values, conditions], **LIGHT)
    job = go.click(
        page.told(run), [model, what, models, values, conditions, rows, seed], [said, shown], **ONE_AT_A_TIME
    )
    cancelling(page, stop, [job], said)


def settings_of_column(model: Model, what: str, value: str, conditions: str, seed: int) -> SamplingSettings:
    """The model's usual settings with one of them at this value. Raises UsageError for one that is none."""
    usual = replace(patient_settings(model), seed=seed)
    if what == "models":
        return usual
    if what == "samplers":
        return sampling_settings(
            model, seed=seed, sampler=SAMPLERS.resolve(value), steps=min(usual.steps, 50)
        )
    try:
        number = float(value)
    except ValueError:
        raise UsageError(f"{value!r} is no number") from None
    if what == "steps":
        if not 1 <= number <= 1000:
            raise UsageError(f"steps are from 1 to 1000, not {value}")
        return replace(usual, steps=int(number))
    asked = {}
    for part in filter(None, (part.strip() for part in conditions.split(","))):
        key, equals, wanted = part.partition("=")
        if not equals:
            raise UsageError(f"{part!r} should read field=value, for example class=hatchback")
        asked[key.strip()] = wanted.strip()
    guidance = merge_guidance(usual.guidance, {"classifier_free": number})
    return replace(usual, conditions=(asked,) if asked else (), guidance=guidance)


def table(columns: list[str], drawn: list[list[str]], rows: int) -> str:
    """A row a noise, a column a value; what is not drawn yet is empty."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = []
    for row in range(rows):
        cells = "".join(
            f'<td><a href="{drawn[i][row]}" download="compared-{i + 1}-{row + 1}.png">'
            f'<img src="{drawn[i][row]}" alt=""></a></td>'
            if i < len(drawn)
            else "<td></td>"
            for i in range(len(columns))
        )
        body.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table class="compared"><tr>{head}</tr>{"".join(body)}</table></div>'
