"""Films of the forward and the reverse process: as a player in the page, and as a GIF."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from alphabar.diffusion.denoiser import clipped
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.images import evenly
from alphabar.progress import Progress
from alphabar.reporting.report_figures import patient_settings
from alphabar.runs.model import Model
from alphabar.sampling.sample import sample
from alphabar.studio.elements import figures, note
from alphabar.studio.page import Page

FRAMES = 32  # of a film
NAMES = ("x_t", "noise", "x0")  # of the pictures of a moment
SPEEDS = ("0.25", "0.5", "1", "2", "4")
GIF_SIDE = 192  # pixels of a picture in a GIF, at least
GIF_MILLISECONDS = 160

SCRIPT = files("alphabar.studio").joinpath("film.js").read_text(encoding="utf-8")
"""What the players of a page need, for its ``load``."""


@dataclass(frozen=True)
class Moment:
    """One frame: the time t in [0, 1], and x_t, the predicted noise and the predicted x0 as pictures."""

    t: float
    pictures: tuple[NDArray[np.uint8], ...]


def moment(model: Model, t: float, x_t: Tensor, x0: Tensor) -> Moment:
    """The pictures of signals x_t and predicted x0 (1, *shape) at a time; the noise follows from both."""
    alpha, sigma = (part.item() for part in model.denoiser.schedule(torch.tensor([t], dtype=torch.float64)))
    noise = (x_t - alpha * x0) / sigma if sigma else torch.zeros_like(x_t)
    # A variance-exploding x_t leaves the range of pictures; shown at the variance of a picture it does not.
    # Half of the noise stays in the range: black and white are then two standard deviations away.
    signals = torch.cat([x_t / math.hypot(alpha, sigma), noise / 2, x0])
    shown = model.codec.preview(model.codec.decode(signals))
    return Moment(t, tuple(np.asarray(picture) for picture in shown))


def predicted(model: Model, x_t: Tensor, t: float) -> Tensor:
    """The model's estimate of x0 from x_t (1, *shape) at a time; where there is no noise, x_t itself."""
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = (part.item() for part in model.denoiser.schedule(time))
    if sigma == 0:
        return x_t / alpha
    with torch.no_grad():
        return clipped(model.denoiser, model.codec.bounds)(x_t.to(model.device), time).cpu()


def forward_film(model: Model, x0: Tensor, seed: int) -> Iterator[Progress[list[Moment]]]:
    """A signal (1, *shape) on its way to noise, and what the model predicts at each moment."""
    moments: list[Moment] = []
    noise = Noise(seed, [0], "process").normal(0, x0)
    for i in range(FRAMES):
        t = i / (FRAMES - 1)
        x_t = diffuse(model.denoiser.schedule, x0, torch.tensor([t], dtype=torch.float64), noise)
        moments.append(moment(model, t, x_t, predicted(model, x_t, t)))
        yield Progress("", i + 1, FRAMES, moments if i == FRAMES - 1 else None)


def reverse_film(model: Model, seed: int) -> Iterator[Progress[list[Moment]]]:
    """The way of the model's sampler from noise to a sample, with what it predicts at each step."""
    moments: list[Moment] = []
    before: tuple[float, Tensor] | None = None
    for record in sample(model, 1, patient_settings(model), first=seed):
        if record.preview is not None:
            step = record.preview.step
            if before is not None:  # a step's prediction is made where the step before has led
                moments.append(moment(model, *before, step.x0.cpu()))
            before = float(step.t), step.x.cpu()
        yield Progress("", record.done, record.total)
    if before is not None:
        moments.append(moment(model, before[0], before[1], predicted(model, before[1], before[0])))
    yield Progress("", 1, 1, [moments[i] for i in evenly(len(moments), FRAMES)])


def player(page: Page, moments: Sequence[Moment], gif: Path) -> str:
    """The film as HTML with its controls. gif: the same film as a file that the browser may read."""
    parts = ("play", "speed", "moment", "full", "save", "keys")
    text = {part: html.escape(page.text(f"film_{part}")) for part in parts}
    frames = "".join(_frame(page, each, shown=each is moments[0]) for each in moments)
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == "1" else ""}>{speed} ×</option>' for speed in SPEEDS
    )
    controls = (
        f'<button class="play" aria-pressed="false" onclick="film.toggle(this)">{text["play"]}</button>',
        f'<label>{text["speed"]} <select onchange="film.speed(this)">{speeds}</select></label>',
        f'<input type="range" min="0" max="{len(moments) - 1}" value="0" oninput="film.seek(this)"',
        f' aria-label="{text["moment"]}">',
        f'<button onclick="film.full(this)">{text["full"]}</button>',
        f'<a href="gradio_api/file={quote(str(gif))}" download="{html.escape(gif.name)}">{text["save"]}</a>',
    )
    return (
        f'<div class="film" data-at="0" tabindex="0" onkeydown="film.key(event)" aria-label="{text["keys"]}">'
        f'{frames}<div class="film-controls">{"".join(controls)}</div>{note(page.text("film_keys"))}</div>'
    )


def _frame(page: Page, each: Moment, shown: bool) -> str:
    captions = (page.text(f"film_{name}") for name in NAMES)
    pictures = figures(each.pictures, captions)
    return f'<div class="moment{" shown" if shown else ""}"><b>t = {each.t:.2f}</b>{pictures}</div>'


def write_gif(moments: Sequence[Moment], path: Path) -> None:
    """Write a film as an endless GIF: the three pictures side by side, with the time below them."""
    frames = [_gif_frame(each) for each in moments]
    rest = [GIF_MILLISECONDS] * (len(frames) - 1)
    frames[0].save(
        path, "GIF", save_all=True, append_images=frames[1:], duration=[*rest, 8 * GIF_MILLISECONDS], loop=0
    )


def _gif_frame(each: Moment) -> Image.Image:
    height, width = each.pictures[0].shape[:2]
    factor = max(1, math.ceil(GIF_SIDE / max(height, width)))
    w, h, gap, line = width * factor, height * factor, 8, 22
    frame = Image.new("RGB", (3 * w + 4 * gap, h + 2 * gap + 2 * line), "white")
    draw = ImageDraw.Draw(frame)
    for i, (picture, name) in enumerate(zip(each.pictures, NAMES, strict=True)):
        shown = Image.fromarray(picture).convert("RGB").resize((w, h), Image.Resampling.NEAREST)
        left = gap + i * (w + gap)
        frame.paste(shown, (left, gap))
        draw.text((left, h + gap + 4), name, "black")
    draw.text((gap, h + gap + line), f"t = {each.t:.2f}", "black")
    return frame.convert("P", palette=Image.Palette.ADAPTIVE)
