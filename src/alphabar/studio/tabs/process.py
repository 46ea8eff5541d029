"""The tab Process: one picture, any amount of noise, and what the model makes of it; and films of it."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.progress import Progress
from alphabar.reporting.plots import FIRST, INK, SECOND, THIRD, Curve, plot
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.runs.run import Run
from alphabar.sampling.sample import sample
from alphabar.studio.elements import figures, heading, note, placeholder, progress_bar, terms
from alphabar.studio.film import (
    SCRIPT,
    Moment,
    forward_film,
    moment,
    player,
    predicted,
    reverse_film,
    write_gif,
)
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, Tab, paced

# Noise levels sigma/alpha between which denoising decides something else.
REGIONS = ((0.15, "grain"), (0.8, "texture"), (4.0, "shapes"), (math.inf, "mean"))
SOURCES = ("sample", "data", "upload")  # of a picture; the first is there at once
TERMS = ("forward", "reverse", "x0", "eps", "alpha_sigma", "snr", "nfe")


class ProcessTab(Tab):
    """Its controls and their handlers. model: the choice of the model. tab: is opened to see it."""

    def __init__(self, page: Page, model: gr.Dropdown, tab: gr.Tab | None = None):
        self.page, self.model = page, model
        self.picture = gr.State(None)  # the name of a model, and a signal (1, *shape) for it
        gr.HTML(f'<p class="lesson">{page.text("process_introduction")}</p>{terms(page.language, *TERMS)}')
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280, elem_classes="controls"):
                self._add_controls()
            with gr.Column(scale=5, min_width=320):
                self._add_results()
        self._connect(tab)

    def _add_controls(self) -> None:
        text = self.page.text
        self.source = gr.Radio(
            [(text(f"source_{name}"), name) for name in SOURCES],
            value=SOURCES[0],
            label=text("picture"),
            elem_id="process-source",
        )
        self.number = gr.Number(0, label=text("picture_number"), precision=0, minimum=0)
        self.upload = gr.Image(
            label=text("own_picture"),
            type="filepath",
            sources=["upload", "clipboard"],
            visible=False,
            height=220,
            elem_id="process-upload",
        )
        self.seed = gr.Number(0, label=text("noise_seed"), precision=0, minimum=0)
        self.take_button = gr.Button(
            text("take_picture"), variant="primary", elem_id="take-button", min_width=90
        )
        self.status = gr.HTML(elem_id="process-status")

    def _add_results(self) -> None:
        text = self.page.text
        self.time = gr.Slider(
            0, 1, 0.4, step=0.01, label=text("time"), info=text("time_help"), elem_id="time"
        )
        self.pictures = gr.HTML(placeholder(text("process_empty")), elem_id="process-pictures")
        self.lesson = gr.HTML(elem_id="process-lesson")
        gr.HTML(heading(text("films")))
        with gr.Row():
            self.forward_button = gr.Button(text("film_forward"), elem_id="forward-button", min_width=120)
            self.reverse_button = gr.Button(text("film_reverse"), elem_id="reverse-button", min_width=120)
            self.cancel_button = gr.Button(text("cancel"), min_width=90)
        self.film_status = gr.HTML(elem_id="film-status")
        self.film = gr.HTML(elem_id="film")
        self.curves = gr.HTML(elem_id="process-curves")

    def _connect(self, tab: gr.Tab | None) -> None:
        page, model, picture, status = self.page, self.model, self.picture, self.status
        views = [self.pictures, self.lesson, self.curves]
        page.blocks.load(None, None, None, js=SCRIPT)
        self.source.change(
            lambda kind: (gr.update(visible=kind != "upload"), gr.update(visible=kind == "upload")),
            self.source,
            [self.number, self.upload],
            **LIGHT,
        )
        inputs = [model, picture, self.time, self.seed]
        taking = [model, self.source, self.number, self.upload]
        taken = self.take_button.click(
            page.handler(self.take, status), taking, [picture, status], **ONE_AT_A_TIME
        )
        taken.success(page.handler(self.show, status), inputs, [*views, status], **ONE_AT_A_TIME)
        gr.on(
            [self.time.input, self.seed.input],
            page.handler(self.show, status),
            inputs,
            [*views, status],
            trigger_mode="always_last",
            **ONE_AT_A_TIME,
        )
        self.adapted = [self.source, picture, *views, status, self.film, self.film_status]
        self.kept, self.views = [picture, self.time, self.seed, self.number, self.upload, self.source], views
        films = [
            button.click(
                page.handler(function, self.film_status),
                [model, picture, self.seed],
                [self.film_status, self.film],
                **ONE_AT_A_TIME,
            )
            for button, function in (
                (self.forward_button, self.play_forward),
                (self.reverse_button, self.play_reverse),
            )
        ]
        page.cancel_button(self.cancel_button, films, self.film_status)
        if tab is not None:  # there is something to see at once
            first = tab.select(
                page.handler(self.take_first, status), [model, picture], [picture, status], **ONE_AT_A_TIME
            )
            first.success(page.handler(self.show, status), inputs, [*views, status], **ONE_AT_A_TIME)

    def adapt(self, model: Model) -> dict[Any, Any]:
        """No picture yet, and where one can come from: a model that is no run, such as a shipped one, has no
        data.
        """
        text, run = self.page.text, Run(model.path)
        names = [each for each in SOURCES if each != "data" or (run.exists and run.data is not None)]
        sources = [(text(f"source_{each}"), each) for each in names]
        return {
            **dict.fromkeys(self.adapted, ""),
            self.source: gr.update(choices=sources, value=names[0]),
            self.picture: None,
            self.pictures: placeholder(text("process_empty")),
        }

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The picture at its noise level."""
        taken, t, seed, *_ = values
        if taken is None:
            return {}
        shown = show_noise_level(self.page, model, taken[1], float(t), int(seed or 0))
        return dict(zip(self.views, shown, strict=True))

    def take_first(self, name: str | None, taken: Any) -> Iterator[tuple[Any, str]]:
        """A sample of the model, unless there is a picture already."""
        if name and (taken is None or taken[0] != name):
            yield from self.take(name, "sample", 0, None)
        else:
            yield gr.skip(), note("")

    def take(self, name: str, source: str, number: float, upload: str | None) -> Iterator[tuple[Any, str]]:
        """The picture to work with, as a signal."""
        yield gr.skip(), note(self.page.text("loading"))
        model = self.page.models.load(name)
        check_process(model)
        if source == "upload":
            if upload is None:
                raise UsageError("studio.no_picture")
            item = torch.from_numpy(model.codec.read(Path(upload).read_bytes(), "crop").item)[None]
        elif source == "data":
            item = yield from self._data_item(model, int(number or 0))
        else:
            item = yield from self._sample(model, int(number or 0))
        yield (name, model.codec.encode(item)), note("")

    def show(self, name: str, taken: Any, t: float, seed: float) -> Iterator[tuple[str, str, str, str]]:
        """The picture at time t."""
        if taken is None or taken[0] != name:
            yield placeholder(self.page.text("process_empty")), "", "", ""
            return
        model = self.page.models.load(name)
        yield *show_noise_level(self.page, model, taken[1], float(t), int(seed or 0)), note("")

    def play_forward(self, name: str, taken: Any, seed: float) -> Iterator[tuple[Any, Any]]:
        """The film of the picture on its way to noise."""
        if taken is None or taken[0] != name:
            raise UsageError("studio.take_first")
        yield from self._play("forward", name, lambda model: forward_film(model, taken[1], int(seed or 0)))

    def play_reverse(self, name: str, taken: Any, seed: float) -> Iterator[tuple[Any, Any]]:
        """The film of a sample on its way from noise."""
        yield from self._play("reverse", name, lambda model: reverse_film(model, int(seed or 0)))

    def _play(
        self, kind: str, name: str, film: Callable[[Model], Iterator[Progress[list[Moment]]]]
    ) -> Iterator[tuple[Any, Any]]:
        page = self.page
        yield note(page.text("loading")), gr.skip()
        model = page.models.load(name)
        check_process(model)
        moments = None
        for record in paced(film(model)):
            yield progress_bar(record.done, record.total, page.text(f"film_{kind}")), gr.skip()
            moments = record.result
        assert moments is not None
        file = page.new_file(f"{kind}-{name}.gif")
        write_gif(moments, file)
        yield note(page.text(f"film_{kind}")), player(page, moments, file)

    def _data_item(self, model: Model, number: int) -> Generator[tuple[Any, str], None, Tensor]:
        """An item (1, *item_shape) that training held out, or any where none is."""
        data = Run(model.path).data
        if data is None:
            raise UsageError("studio.no_data")
        recipe = model.recipe.data
        for record in paced(prepare(open_source(data), model.codec, recipe.fit)):
            yield gr.skip(), progress_bar(record.done, record.total, self.page.text("reading"))
        assert record.result is not None
        train, held_out = record.result.split(recipe.held_out)
        index = held_out if len(held_out) else train
        return torch.from_numpy(record.result.items[index[number % len(index)]].copy())[None]

    def _sample(self, model: Model, number: int) -> Generator[tuple[Any, str], None, Tensor]:
        for record in paced(sample(model, 1, patient_settings(model), first=number)):
            yield gr.skip(), progress_bar(record.done, record.total, self.page.text("generating"))
        assert record.result is not None
        return record.result


def check_process(model: Model) -> None:
    """Raises UsageError for a model that generates in one evaluation and so knows no noise levels."""
    if model.method.one_step:
        raise UsageError("studio.no_process", model=model.path.name)


def show_noise_level(page: Page, model: Model, x0: Tensor, t: float, seed: int) -> tuple[str, str, str]:
    """A signal (1, *shape) at time t: its pictures, what they teach, and the schedule's curves.

    Raises UsageError as `check_process` does.
    """
    check_process(model)
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = (part.item() for part in model.denoiser.schedule(time))
    x_t = diffuse(model.denoiser.schedule, x0, time, Noise(seed, [0], "process").normal(0, x0))
    estimate = predicted(model, x_t, t)
    shown = [np.asarray(model.codec.preview(model.codec.decode(x0))[0])]
    shown += moment(model, t, x_t, estimate).pictures
    pictures = figures(shown, (page.text(f"process_picture_{i}") for i in range(4)))
    ratio = sigma / alpha if alpha else math.inf
    region = next(name for most, name in REGIONS if ratio <= most)
    numbers = page.text(
        "process_numbers",
        t=f"{t:.2f}",
        alpha=f"{alpha:.3f}",
        sigma=f"{sigma:.3f}",
        snr="∞" if sigma == 0 else f"{(alpha / sigma) ** 2:.3g}",
        rms=f"{(estimate - x0).square().mean().sqrt().item():.2f}",
    )
    lesson = f'<p class="lesson">{numbers}</p><p class="lesson">{page.text(f"region_{region}")}</p>'
    return pictures, lesson, schedule_curves(page, model, t)


def schedule_curves(page: Page, model: Model, t: float) -> str:
    """alpha and sigma, and the signal-to-noise ratio, over t, with a line at t."""
    times = torch.linspace(0.005, 1, 120, dtype=torch.float64)
    alphas, sigmas = model.denoiser.schedule(times)
    x = times.tolist()
    decibels = (20 * (alphas.clamp(min=1e-9) / sigmas.clamp(min=1e-9)).log10()).tolist()
    top = max(1.0, sigmas.max().item())
    levels = plot(
        f"levels-{page.language}",
        [
            Curve("α", x, alphas.tolist(), FIRST),
            Curve("σ", x, sigmas.tolist(), SECOND),
            Curve(None, [t, t], [0, top], INK, ":"),
        ],
        x_label="t",
        y_label="α, σ",
        description=page.text("levels_plot"),
    )
    ratio = plot(
        f"ratio-{page.language}",
        [Curve(None, x, decibels, THIRD), Curve(None, [t, t], [min(decibels), max(decibels)], INK, ":")],
        x_label="t",
        y_label=page.text("snr_axis"),
        description=page.text("snr_plot"),
    )
    return f'<div class="plots"><div>{levels}</div><div>{ratio}</div></div>'
