"""The tab Compare: the same initial noise with several models, samplers, numbers of steps or guidances."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from alphabar.diffusion.samplers import SAMPLERS
from alphabar.errors import UsageError
from alphabar.guidance import guidance_class, merge_guidance
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.bound import in_fastest_runtime, weights_fingerprint
from alphabar.sampling.comparison import per_sample_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.controls import scalable_guidances
from alphabar.studio.elements import (
    data_address,
    item_files,
    note,
    picture_address,
    picture_cell,
    placeholder,
    progress_bar,
    scrolling,
)
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, Tab, paced

MAX_COLUMNS, MAX_ROWS = 6, 8
MAX_STEPS = 1000
COMPARED = ("models", "samplers", "steps", "guidance")
EXAMPLES = {
    "samplers": "ddim, heun, dpmpp_2m, unipc",
    "steps": "3, 5, 10, 20, 50",
    "guidance": "1, 1.5, 2, 3, 5",
}


class CompareTab(Tab):
    """Its controls and their handlers. model: the choice of the model."""

    def __init__(self, page: Page, model: gr.Dropdown):
        self.page, self.model = page, model
        self.compared = gr.State(None)  # the file of the last finished table
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=290, elem_classes="controls"):
                self._add_controls()
            with gr.Column(scale=5, min_width=320):
                self.table = gr.HTML(placeholder(page.text("compare_empty")), elem_id="compare-table")
        self._connect()

    def _add_controls(self) -> None:
        text = self.page.text
        self.setting = gr.Radio(
            [(text(f"compare_{name}"), name) for name in COMPARED],
            value="samplers",
            label=text("compared_setting"),
            elem_id="compared-setting",
        )
        self.models = gr.Dropdown(
            self.page.models.models(),
            multiselect=True,
            max_choices=MAX_COLUMNS,
            label=text("models"),
            visible=False,
            elem_id="compare-models",
        )
        guidances = scalable_guidances()
        self.guidance = gr.Dropdown(
            [
                (self.page.text_or(f"guidance_{name}", guidance_class(name).option), name)
                for name in guidances
            ],
            value=guidances[0],
            label=text("guidance"),
            visible=False,
        )
        self.values = gr.Textbox(
            EXAMPLES["samplers"], label=text("values"), info=text("values_help"), elem_id="values"
        )
        self.condition = gr.Textbox(
            "", label=text("condition"), info=text("condition_example"), visible=False
        )
        with gr.Row():
            self.rows = gr.Slider(1, MAX_ROWS, 4, step=1, label=text("rows"), min_width=120)
            self.seed = gr.Number(0, label=text("seed"), precision=0, minimum=0, min_width=110)
        with gr.Row():
            self.compare_button = gr.Button(
                text("compare"), variant="primary", elem_id="compare-button", min_width=90
            )
            self.cancel_button = gr.Button(text("cancel"), min_width=90)
        self.status = gr.HTML(note(""), elem_id="compare-status", elem_classes="status")

    def _connect(self) -> None:
        page = self.page
        chosen = [self.setting, self.models, self.guidance, self.values, self.condition, self.rows, self.seed]
        self.adapted = [self.setting, self.models, self.guidance, self.values, self.condition]
        self.setting.change(self.needed, self.setting, self.adapted[1:], **LIGHT)
        self.setting.input(lambda setting: EXAMPLES.get(setting, ""), self.setting, self.values, **LIGHT)
        self.kept, self.views = [self.compared, *chosen], [self.table]
        job = self.compare_button.click(
            page.handler(self.compare, self.status),
            [self.model, *chosen],
            [self.status, self.table, self.compared],
            **ONE_AT_A_TIME,
        )
        page.cancel_button(self.cancel_button, [job], self.status)

    def needed(self, setting: str) -> tuple[Any, Any, Any, Any]:
        """The controls that the comparison of a setting needs."""
        guidance = gr.update(visible=setting == "guidance")
        models = gr.update(visible=setting == "models", choices=self.page.models.models())
        return models, guidance, gr.update(visible=setting != "models"), guidance

    def adapt(self, model: Model) -> dict[Any, Any]:
        """What of the model can be compared: settings that it leaves open, and guidances that it can use."""
        text = self.page.text
        guidances = [each for each in scalable_guidances() if guidance_class(each).available(model)]
        fixed = model.method.fixed_sampling or model.method.one_step
        missing = {"samplers", "steps"} if fixed else set()
        missing |= set() if guidances else {"guidance"}
        offered = [each for each in COMPARED if each not in missing]
        setting = next(each for each in ("samplers", *offered) if each in offered)
        names = [
            (self.page.text_or(f"guidance_{each}", guidance_class(each).option), each) for each in guidances
        ]
        return {
            self.setting: gr.update(
                choices=[(text(f"compare_{each}"), each) for each in offered], value=setting
            ),
            self.models: gr.update(choices=self.page.models.models()),
            self.guidance: gr.update(choices=names, value=next(iter(guidances), None)),
            self.values: EXAMPLES.get(setting, ""),
        }

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The last finished table."""
        file = values[0]
        return {self.table: file.read_text("utf-8")} if file is not None and file.exists() else {}

    def compare(
        self,
        name: str,
        setting: str,
        models: list[str],
        guidance: str,
        values: str,
        condition: str,
        rows: int,
        seed: float,
    ) -> Iterator[Any]:
        """The table as its columns are generated; before the first, all values are checked.

        A model computes in one way for all of its columns, or rounding would tell them apart.
        """
        if setting == "models":
            columns = list(models or [])
        else:
            columns = [value.strip() for value in values.split(",") if value.strip()]
        if not columns:
            raise UsageError("studio.nothing_to_compare")
        if len(columns) > MAX_COLUMNS:
            raise UsageError("studio.too_many_columns", most=MAX_COLUMNS, n=len(columns))
        n = min(int(rows), MAX_ROWS)

        # One model is in memory at a time; those of the list have usual settings.
        parts = [(column, [column]) for column in columns] if setting == "models" else [(name, columns)]
        changed = guidance if setting == "guidance" else setting
        cells: list[list[str]] = []
        for of_model, values_of_model in parts:
            model = self.page.models.load(of_model)
            variants = [
                settings_of_column(model, changed, value, condition, int(seed or 0))
                for value in values_of_model
            ]
            for settings in variants:
                sample(model, n, settings)  # which checks the settings
            choosing = in_fastest_runtime(model, n, *variants)
            model, runtime = yield from self.page.with_progress(choosing, self.status)
            for column, settings in zip(values_of_model, variants, strict=True):
                for record in paced(sample(model, n, settings)):
                    step = self.page.text("step", i=record.preview.step.i + 1, n=settings.steps)
                    share = (len(cells) + record.done / record.total) / len(columns)
                    table = comparison_table(columns, cells, n)
                    yield {self.status: progress_bar(share, 1, f"{column}: {step}"), self.table: table}
                assert record.result is not None
                cells.append(cells_of_column(model, settings, record.result, len(cells), runtime))
        file, table = self.page.new_file("compared.html"), comparison_table(columns, cells, n)
        file.write_text(table, "utf-8")
        yield {self.status: note(self.page.text("compared")), self.table: table, self.compared: file}


def settings_of_column(model: Model, setting: str, value: str, condition: str, seed: int) -> SamplingSettings:
    """The model's usual settings with one of them at a value.

    setting: "models", "samplers", "steps" or the name of a guidance. condition: for a guidance, "field=value"
    joined by commas. Raises UsageError for a value that does not fit.
    """
    usual = replace(patient_settings(model), seed=seed)
    if setting == "models":
        return usual
    if setting == "samplers":
        return sampling_settings(
            model, seed=seed, sampler=SAMPLERS.resolve(value), steps=min(usual.steps, 50)
        )
    try:
        number = float(value)
    except ValueError:
        raise UsageError("studio.not_a_number", value=value) from None
    if setting == "steps":
        if not 1 <= number <= MAX_STEPS:
            raise UsageError("studio.bad_steps", most=MAX_STEPS, value=value)
        return replace(usual, steps=int(number))
    wanted = {}
    for part in filter(None, (part.strip() for part in condition.split(","))):
        key, equals, chosen = part.partition("=")
        if not equals:
            raise UsageError("studio.bad_condition", part=part)
        wanted[key.strip()] = chosen.strip()
    conditions = (wanted,) if wanted else usual.conditions
    guidance = merge_guidance(usual.guidance, {setting: number})
    return replace(usual, conditions=conditions, guidance=guidance)


def cells_of_column(
    model: Model, settings: SamplingSettings, items: Any, column: int, runtime: Mapping[str, Any]
) -> list[str]:
    """The samples of a column as pictures, each with a link that saves its file.

    runtime: how they were computed (`alphabar.inference.recorded`).
    """
    about = {
        "model": model.path.name,
        "images": model.images,
        "n": len(items),
        "weights": weights_fingerprint(model, settings)[:16],
        "runtime": runtime,
        **settings.to_dict(),
    }
    own = per_sample_settings(settings, len(items))
    files = item_files(model.codec, items, [{**about, **each} for each in own])
    cells = []
    for row, (picture, file) in enumerate(zip(model.codec.preview(items), files, strict=True), 1):
        name = f"compared-{column + 1}-{row}{model.codec.suffix}"
        address = data_address(file, model.codec.suffix)
        cells.append(picture_cell(picture_address(picture), f"{column + 1}, {row}", (address, name)))
    return cells


def comparison_table(columns: list[str], cells: list[list[str]], rows: int) -> str:
    """A row for each initial noise, a column for each value; columns not yet generated are empty."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = []
    for row in range(rows):
        made = [cells[i][row] if i < len(cells) else "<i></i>" for i in range(len(columns))]
        line = "".join(f"<td>{cell}</td>" for cell in made)
        body.append(f"<tr>{line}</tr>")
    return scrolling(f'<table class="compared"><tr>{head}</tr>{"".join(body)}</table>')
