"""Pictures of pictures, and curves. Pure functions: arrays and numbers in, an image or SVG text out.

Gaps between pictures are transparent, and curves take their colours from CSS variables, so that both
look right on a light page and on a dark one.
"""

import base64
import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from alphabar.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    Pictures = np.ndarray | Tensor

COLUMNS = 10
"""Moments in a strip, as many as a telephone's width can show."""


# Pictures


def grid(pictures: "Pictures", columns: int | None = None, pad: int = 2, scale: int = 1) -> Image.Image:
    """Pictures (n, h, w, 3) uint8 side by side, row after row; as square as n allows unless columns is given.

    pad: transparent pixels between pictures; scale: each pixel becomes scale × scale pixels.
    Returns an RGBA image. Raises UsageError where there is no picture.
    """
    array = _checked(pictures)
    n, h, w, _ = array.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (h + pad) - pad, columns * (w + pad) - pad, 4), np.uint8)
    for i, picture in enumerate(array):
        y, x = (h + pad) * (i // columns), (w + pad) * (i % columns)
        sheet[y : y + h, x : x + w, :3] = picture
        sheet[y : y + h, x : x + w, 3] = 255
    return Image.fromarray(sheet.repeat(scale, axis=0).repeat(scale, axis=1))


def strip(moments: Sequence["Pictures"], pad: int = 2, scale: int = 1) -> Image.Image:
    """One row a sample, one column a moment. moments: for each moment, the samples (n, h, w, 3) uint8."""
    if not len(moments):
        raise UsageError("a strip needs pictures of at least one moment")
    by_sample = np.stack([_checked(pictures) for pictures in moments], axis=1)
    return grid(by_sample.reshape(-1, *by_sample.shape[2:]), len(moments), pad, scale)


def forward_strip(pictures_by_level: Sequence["Pictures"], scale: int = 1) -> Image.Image:
    """The forward process: the same pictures (n, h, w, 3), a column a noise level, clean to noise."""
    return strip(pictures_by_level, scale=scale)


def reverse_strip(
    pictures_by_step: Sequence["Pictures"], columns: int = COLUMNS, scale: int = 1
) -> Image.Image:
    """The reverse process: samples (n, h, w, 3) after each step, noise to picture.

    Of more steps than columns it shows ``evenly(len(pictures_by_step), columns)``.
    """
    return strip([pictures_by_step[i] for i in evenly(len(pictures_by_step), columns)], scale=scale)


def nearest_panel(samples: "Pictures", neighbours: "Pictures", pad: int = 2, scale: int = 1) -> Image.Image:
    """Samples (n, h, w, 3) in the top row, below each its k nearest pictures: neighbours (n, k, h, w, 3)."""
    found = np.asarray(neighbours)
    if found.ndim != 5 or len(found) != len(samples):
        raise UsageError(
            f"neighbours must be of shape (n, k, h, w, 3) for n = {len(samples)} samples, not {found.shape}"
        )
    top = grid(samples, len(samples), pad, scale)
    below = grid(found.swapaxes(0, 1).reshape(-1, *found.shape[2:]), len(found), pad, scale)
    gap = 4 * pad * scale
    panel = Image.new("RGBA", (top.width, top.height + gap + below.height))
    panel.paste(top, (0, 0))
    panel.paste(below, (0, top.height + gap))
    return panel


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0..count-1, evenly spread, with the first and the last."""
    return [round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()]


def png_data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _checked(pictures: "Pictures") -> np.ndarray:
    array = np.asarray(pictures)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not len(array):
        raise UsageError(
            f"pictures must be uint8 of shape (n, h, w, 3), n ≥ 1, not {array.dtype} {array.shape}"
        )
    return array


# Curves

# Okabe and Ito's colours, which colour-blind readers tell apart. matplotlib writes them into the SVG,
# where each becomes a CSS variable of the page with the colour itself as fallback.
FIRST, SECOND, THIRD, INK, FAINT = "#0072b2", "#d55e00", "#009e73", "#555c66", "#d5d9de"
VARIABLES = {FIRST: "--first", SECOND: "--second", THIRD: "--third", INK: "--ink-soft", FAINT: "--line"}


class Curve(NamedTuple):
    """One line of a plot. x and y have the same length; error is the half-width of a band around y."""

    label: str | None
    x: Sequence[float]
    y: Sequence[float]
    colour: str = FIRST
    style: str = "-"
    opacity: float = 1.0
    error: Sequence[float] | None = None
    points: bool = False


def plot(
    name: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    description: str,
    counts: bool = False,
    log_y: bool = False,
    floor: float | None = None,
) -> str:
    """Curves as an inline SVG, readable from 350 to 700 pixels wide.

    name: unique on its page, all ids begin with it. description: for those who cannot see the plot.
    counts: x counts images, 1500 reads 1.5k. floor: a dotted line, named "real pictures".
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 12,
        "text.parse_math": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.7,
        "legend.labelcolor": INK,
        "legend.frameon": False,
        "legend.handlelength": 1.8,
        "legend.columnspacing": 1.5,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6, 3.9), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=5)
        for curve in curves:
            if curve.error is not None:
                y, error = np.asarray(curve.y), np.asarray(curve.error)
                axes.fill_between(curve.x, y - error, y + error, color=curve.colour, alpha=0.18, linewidth=0)
            axes.plot(
                curve.x,
                curve.y,
                curve.style,
                color=curve.colour,
                alpha=curve.opacity,
                label=curve.label,
                linewidth=2,
                marker="o" if curve.points else None,
                markersize=4.5,
            )
        if floor is not None:
            axes.axhline(floor, color=INK, linestyle=":", linewidth=1.6, label="real pictures (floor)")
        if log_y:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_yticks(_log_ticks(low, high))
            axes.set_ylim(low, high)
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        if counts:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.set_xlabel(x_label, labelpad=6)
        axes.set_ylabel(y_label, labelpad=6)
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper left", ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(buffer.getvalue(), name, description)


def smooth(x: Sequence[float], y: Sequence[float], most: int = 120) -> tuple[list[float], list[float]]:
    """Long noisy curves made readable: the means of at most ``most`` neighbouring groups of points."""
    groups = min(len(x), most)
    if not groups:
        return [], []
    means = [[float(part.mean()) for part in np.array_split(np.asarray(v, float), groups)] for v in (x, y)]
    return means[0], means[1]


def short_count(number: float) -> str:
    """12, 1.5k, 240k, 3.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between low and high: powers of ten, and finer where those are few."""
    decades = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks: list[float] = []
    for digits in ((1,), (1, 2, 5), range(1, 10), [d / 10 for d in range(10, 100)]):
        ticks = [tick for decade in decades for d in digits if low <= (tick := decade * d) <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 6)] if ticks else [low, high]


def _inline(svg: str, name: str, description: str) -> str:
    """matplotlib's SVG file as part of a page, with the page's fonts and colours and ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;]*; ", "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable}, {colour})")
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None, "matplotlib writes a viewBox"
    opening = f'<svg class="plot" role="img" aria-label="{escape(description)}" viewBox="{box[1]}">'
    return re.sub(r"^<svg.*?>", lambda _: opening, body, count=1, flags=re.DOTALL).strip()
