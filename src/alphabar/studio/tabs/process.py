"""The tab Process: one picture, any amount of noise, and what the model makes of it."""

import html
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from alphabar.codecs.image import to_pictures, to_signal
from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.denoiser import clipped
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.reporting.plots import FIRST, INK, SECOND, THIRD, Curve, plot
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.runs.run import Run
from alphabar.sampling.sample import sample
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, data_uri, empty

# Noise-to-signal ratios sigma / alpha between which the model has another kind of work to do.
REGIONS = ((0.15, "polish"), (0.8, "texture"), (4.0, "forms"), (math.inf, "mean"))


SOURCES = ("data", "drawn", "own")  # of a picture


def tab(page: Page, model: gr.Dropdown) -> None:
    """Build the tab. model: the dropdown with the chosen model's name."""
    text = page.text
    picture = gr.State(None)  # (1, 3, size, size) in [-1, 1], and the model it is for
    gr.HTML(f'<p class="teach">{text("process_about")}</p>')
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            source = gr.Radio(
                [(text(f"source_{name}"), name) for name in SOURCES],
                value=SOURCES[0],
                label=text("picture"),
                elem_id="process-source",
            )
            which = gr.Number(0, label=text("which"), precision=0, minimum=0)
            upload = gr.Image(
                label=text("own_picture"),
                type="filepath",
                sources=["upload", "clipboard"],
                visible=False,
                height=220,
                elem_id="process-upload",
            )
            seed = gr.Number(0, label=text("noise_seed"), precision=0, minimum=0)
            go = gr.Button(text("take"), variant="primary", elem_id="take", min_width=90)
        with gr.Column(scale=5, min_width=320):
            t = gr.Slider(0, 1, 0.4, step=0.01, label=text("time"), info=text("time_info"), elem_id="time")
            trio = gr.HTML(empty(text("process_empty")), elem_id="trio")
            teaching = gr.HTML(elem_id="teaching")
            curves = gr.HTML(elem_id="curves")

    def offered(name: str) -> Iterator[Any]:
        """Where a picture can come from: a model that is no run, a shipped one for example, knows no data."""
        known = name in page.shelf.runs() and page.shelf.run(name).data is not None
        names = SOURCES if known else SOURCES[1:]
        yield gr.update(choices=[(text(f"source_{each}"), each) for each in names], value=names[0])

    def take(name: str, source: str, which: float, upload: str | None) -> Iterator[tuple[Any, str]]:
        yield gr.skip(), page.note(text("loading"))
        loaded = page.shelf.load(name)
        size = loaded.recipe.data.size
        if source == "own":
            if upload is None:
                raise UsageError(text("no_picture"))
            pixels = torch.from_numpy(loaded.codec.read(Path(upload).read_bytes(), "crop").item)[None]
        elif source == "data":
            pixels = yield from _of_the_data(page, loaded, int(which or 0))
        else:
            pixels = yield from _drawn(page, loaded, int(which or 0))
        yield (name, to_signal(pixels)), page.note("")

    def slide(name: str, taken: Any, t: float, seed: float) -> Iterator[tuple[str, str, str]]:
        if taken is None or taken[0] != name:
            yield empty(text("process_empty")), "", ""
            return
        loaded = page.shelf.load(name)
        yield look_at(page, loaded, taken[1], float(t), int(seed or 0))

    source.change(
        lambda kind: (gr.update(visible=kind != "own"), gr.update(visible=kind == "own")),
        source,
        [which, upload],
        **LIGHT,
    )
    gr.on([page.blocks.load, model.change], page.told(offered), model, source, **LIGHT)
    views = [trio, teaching, curves]
    go.click(page.told(take), [model, source, which, upload], [picture, teaching], **ONE_AT_A_TIME).success(
        page.told(slide), [model, picture, t, seed], views, **ONE_AT_A_TIME
    )
    gr.on(
        [t.input, seed.input],
        page.told(slide),
        [model, picture, t, seed],
        views,
        trigger_mode="always_last",
        **ONE_AT_A_TIME,
    )
    model.change(lambda: (None, empty(text("process_empty")), "", ""), None, [picture, *views], **LIGHT)


def _of_the_data(page: Page, model: Model, which: int) -> Generator[tuple[Any, str], None, Tensor]:
    """A picture that training held out, or any where none is. Returns (1, size, size, 3) uint8."""
    data = Run(model.path).data
    if data is None:
        raise UsageError(page.text("no_data"))
    recipe = model.recipe.data
    for record in prepare(open_source(data), model.codec, recipe.fit):
        yield gr.skip(), page.progress(record.done, record.total, page.text("reading"))
    assert record.result is not None
    train, held_out = record.result.split(recipe.held_out)
    index = held_out if len(held_out) else train
    return torch.from_numpy(record.result.items[index[which % len(index)]].copy())[None]


def _drawn(page: Page, model: Model, which: int) -> Generator[tuple[Any, str], None, Tensor]:
    for record in sample(model, 1, patient_settings(model), first=which):
        yield gr.skip(), page.progress(record.done, record.total, page.text("drawing"))
    assert record.result is not None
    return record.result


def look_at(page: Page, model: Model, x0: Tensor, t: float, seed: int) -> tuple[str, str, str]:
    """A signal (1, 3, size, size) at time t: three pictures, what they teach, and the schedule's curves."""
    if not model.method.trains_denoiser:
        raise UsageError(page.text("no_diffusion"))
    schedule = model.denoiser.schedule
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = (part.item() for part in schedule(time))
    device = next(model.denoiser.parameters()).device
    x_t = diffuse(schedule, x0, time, Noise(seed, [0], "process").normal(0, x0)).to(device)
    with torch.no_grad():
        estimate = x0 if sigma == 0 else clipped(model.denoiser, model.codec.bounds)(x_t, time).cpu()
    # A variance-exploding x_t leaves the range of pictures; shown at the variance of a picture it does not.
    shown = (x0, x_t.cpu() / math.hypot(alpha, sigma), estimate)
    figures = "".join(
        f'<figure><img src="{data_uri(to_pictures(signal)[0].numpy())}" alt="{html.escape(said)}">'
        f"<figcaption>{html.escape(said)}</figcaption></figure>"
        for signal, said in zip(shown, (page.text(f"trio_{i}") for i in range(3)), strict=True)
    )
    rms = (estimate - x0).square().mean().sqrt().item() * 127.5
    ratio = sigma / alpha if alpha else math.inf
    region = next(name for most, name in REGIONS if ratio <= most)
    numbers = page.text(
        "process_numbers",
        t=f"{t:.2f}",
        alpha=f"{alpha:.3f}",
        sigma=f"{sigma:.3f}",
        snr="∞" if sigma == 0 else f"{(alpha / sigma) ** 2:.3g}",
        rms=f"{rms:.0f}",
    )
    teaching = f'<p class="teach">{numbers}</p><p class="teach">{page.text(f"region_{region}")}</p>'
    return f'<div class="trio">{figures}</div>', teaching, curves_at(page, model, t)


def curves_at(page: Page, model: Model, t: float) -> str:
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
