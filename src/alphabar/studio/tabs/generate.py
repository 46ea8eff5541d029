"""The tab Generate: pictures that appear while they form."""

import html
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from alphabar.codecs.image import to_pictures
from alphabar.codecs.png_metadata import png_metadata, read_png_metadata
from alphabar.vocabulary.fields import Categorical
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.errors import UsageError
from alphabar.reporting.plots import short_count
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.comparison import per_sample_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.page import ONE_AT_A_TIME, Page, cancelling, data_uri, empty, sheet

FIELDS = 8  # conditions that the page has room for


MOST = 64  # pictures at once


def tab(page: Page, model: gr.Dropdown, about_model: gr.HTML) -> None:
    """Build the tab. model: the dropdown with the chosen model's name; about_model: the line about it."""
    text = page.text
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300, elem_classes="controls"):
            with gr.Row():
                number = gr.Slider(1, MOST, 16, step=1, label=text("number"), min_width=140)
                seed = gr.Number(0, label=text("seed"), precision=0, minimum=0, min_width=110, elem_id="seed")
            as_data = gr.HTML(page.note(text("as_data")), visible=False, elem_id="as-data")
            fields = [
                gr.Dropdown([], label=text("field"), visible=False, allow_custom_value=True)
                for _ in range(FIELDS)
            ]
            guidance = gr.Slider(
                1, 8, 1, step=0.1, label=text("guidance"), info=text("guidance_info"), visible=False
            )
            with gr.Row():
                sampler = gr.Dropdown(list(SAMPLERS), label=text("sampler"), min_width=140)
                steps = gr.Slider(1, 300, 20, step=1, label=text("steps"), min_width=140, elem_id="steps")
            start = gr.Radio(
                [(text(f"start_{name}"), name) for name in INITIAL_NOISES],
                label=text("start"),
                info=text("start_info"),
            )
            with gr.Accordion(text("more"), open=False, visible=False) as more:
                autoguidance = gr.Slider(1, 4, 1, step=0.1, label=text("autoguidance"), visible=False)
                sag = gr.Slider(0, 2, 0, step=0.1, label=text("sag"), visible=False)
                pag = gr.Slider(0, 6, 0, step=0.1, label=text("pag"), visible=False)
            with gr.Row():
                go = gr.Button(text("draw"), variant="primary", elem_id="draw", min_width=90)
                stop = gr.Button(text("cancel"), elem_id="cancel", min_width=90)
        with gr.Column(scale=3, min_width=320):
            said = gr.HTML(page.note(""), elem_id="drawn-said")
            shown = gr.HTML(empty(text("draw_empty")), elem_id="drawn")
            save = gr.DownloadButton(text("save_all"), visible=False, elem_id="save-all", min_width=90)
            with gr.Accordion(text("again"), open=False, elem_id="again"):
                gr.Markdown(text("again_info"))
                dropped = gr.File(
                    label=text("again_drop"), file_types=[".png"], height=120, elem_id="again-file"
                )
                again = gr.HTML(elem_id="again-shown")

    scales = (guidance, sag, pag, autoguidance)
    where = [sampler, steps, start, more, *scales, as_data, about_model]
    chosen = (number, seed, sampler, steps, start, *scales, *fields)

    def adapt(name: str) -> Iterator[list[Any]]:
        """Only the controls that the model supports, at its own defaults."""
        if name not in page.shelf.models():
            none = page.note(text("no_model", folder=page.shelf.path))
            yield [*[gr.skip()] * (len(where) - 1), none, *[gr.skip()] * FIELDS]
            return
        loaded = page.shelf.load(name)
        settings = patient_settings(loaded)
        attends = loaded.attention is not None
        known = loaded.vocabulary.fields if loaded.vocabulary else ()
        seen = bool(loaded.label_frequencies)
        slots = []
        for field in known[:FIELDS]:
            names = list(field.names) if isinstance(field, Categorical) else []
            slots.append(gr.update(label=field.name, choices=["", *names], value="", visible=True))
        slots += [gr.update(visible=False, value="")] * (FIELDS - len(slots))
        yield [
            settings.sampler["name"],
            settings.steps,
            settings.initial_noise["name"],
            gr.update(visible=attends or loaded.early is not None),
            gr.update(value=1, visible=bool(known)),
            gr.update(value=0, visible=attends),
            gr.update(
                value=next((g["scale"] for g in settings.guidance if g["name"] == "pag"), 0), visible=attends
            ),
            gr.update(value=1, visible=loaded.early is not None),
            gr.update(visible=seen),
            describe(page, loaded),
            *slots,
        ]

    def usual_steps(name: str, sampler: str) -> Iterator[int]:
        loaded = page.shelf.load(name)
        patient = patient_settings(loaded)
        same = patient.sampler["name"] == sampler
        yield patient.steps if same else sampling_settings(loaded, sampler=sampler).steps

    def draw(name: str, *values: Any) -> Iterator[tuple[str, str, Any]]:
        yield page.note(text("loading")), gr.skip(), gr.update(visible=False)
        loaded = page.shelf.load(name)
        n, settings = settings_from_controls(page, loaded, values)
        begun, images = time.monotonic(), ""
        for record in sample(loaded, n, settings):
            if record.result is None:
                line = text("step", i=record.preview.step.i + 1, n=settings.steps)
                images = sheet(to_pictures(record.preview.step.x0.cpu()))
                yield page.progress(record.done, record.total, line), images, gr.skip()
        assert record.result is not None
        about = {"model": name, "images": loaded.images, **settings.to_dict()}
        abouts = [{**about, **own} for own in per_sample_settings(settings, n)]
        path = page.new_file(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for i, picture in enumerate(record.result.numpy()):
                with archive.open(f"{name}-{settings.seed}-{i:03d}.png", "w") as file:
                    Image.fromarray(picture).save(file, "PNG", pnginfo=png_metadata(abouts[i]))
        yield (
            page.note(text("drawn", n=n, seconds=f"{time.monotonic() - begun:.1f}")),
            sheet(record.result, abouts, f"{name}-{settings.seed}", text("save_one")),
            gr.update(value=str(path), visible=True),
        )

    def redraw(file: str | None, name: str) -> Iterator[str]:
        if file is None:
            yield ""
            return
        about = read_png_metadata(file)
        if "degradation" in about:
            raise UsageError(text("again_restored"))
        settings = SamplingSettings.from_dict(about)
        origin = Path(str(about.get("model"))).name
        loaded = page.shelf.load(origin if origin in page.shelf.models() else name)
        for record in sample(loaded, 1, settings, first=int(about.get("position", 0))):
            said = page.progress(
                record.done, record.total, text("step", i=record.preview.step.i + 1, n=settings.steps)
            )
            yield said
        assert record.result is not None
        yield reproduced(page, Path(file), record.result[0].numpy(), about, loaded.images)

    gr.on([page.blocks.load, model.change], page.told(adapt), model, [*where, *fields], **ONE_AT_A_TIME)
    sampler.input(page.told(usual_steps), [model, sampler], steps, **ONE_AT_A_TIME)
    job = go.click(page.told(draw), [model, *chosen], [said, shown, save], **ONE_AT_A_TIME)
    cancelling(page, stop, [job], said)
    dropped.change(page.told(redraw), [dropped, model], again, **ONE_AT_A_TIME)


def settings_from_controls(page: Page, model: Model, values: Sequence[Any]) -> tuple[int, SamplingSettings]:
    """How many pictures, and how they are drawn, from the values of the controls in their order."""
    number, seed, sampler, steps, initial_noise, guidance, sag, pag, autoguidance, *fields = values
    known = model.vocabulary.fields if model.vocabulary else ()
    conditions = {field.name: str(value) for field, value in zip(known, fields, strict=False) if value}
    # A name alone means its usual settings; the recipe's own sampler may have others.
    own = model.recipe.sampling.sampler
    settings = sampling_settings(
        model,
        seed=int(seed or 0),
        sampler=None if sampler == own["name"] else sampler,
        steps=int(steps),
        initial_noise=initial_noise,
        conditions=[conditions] if conditions else None,
        guidance={
            "classifier_free": float(guidance),
            "sag": float(sag),
            "pag": float(pag),
            "autoguidance": float(autoguidance),
        },
    )
    return min(int(number), MOST), settings


def describe(page: Page, model: Model) -> str:
    """One line about the loaded model."""
    size = model.recipe.data.size
    parameters = sum(p.numel() for p in model.denoiser.parameters())
    facts = (
        model.recipe.name,
        f"{size} × {size}",
        page.text("parameters", n=short_count(parameters)),
        page.text("images_seen", n=short_count(model.images)),
    )
    return page.note(" · ".join(facts))


def reproduced(page: Page, dropped: Path, picture: np.ndarray, about: Mapping[str, Any], images: int) -> str:
    """The dropped picture beside the one drawn again, and how far they lie apart."""
    with Image.open(dropped) as image:
        before = np.asarray(image.convert("RGB"))
    if before.shape != picture.shape:
        verdict = page.text("again_other_size")
    elif (apart := int(np.abs(before.astype(int) - picture.astype(int)).max())) == 0:
        verdict = page.text("again_same")
    else:
        verdict = page.text("again_apart", apart=apart)
    if about.get("images") != images:
        verdict += " " + page.text("again_other_model")
    pair = zip((page.text("dropped"), page.text("drawn_again")), (before, picture), strict=True)
    figures = "".join(
        f'<figure><img src="{data_uri(array)}" alt=""><figcaption>{html.escape(said)}</figcaption></figure>'
        for said, array in pair
    )
    return f'<div class="pair">{figures}</div>{page.note(verdict)}'
