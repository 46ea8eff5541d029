"""Curves as SVG text, which takes its colors from CSS variables: it fits a light page and a dark one."""

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from alphabar.formatting import format_short_count
from alphabar.messages import message, translated

# Okabe and Ito's colors, which color-blind readers can distinguish. matplotlib writes them into the SVG,
# where each becomes a CSS variable of the page with the color itself as fallback.
FIRST, SECOND, THIRD, INK, FAINT = "#0072b2", "#d55e00", "#009e73", "#555c66", "#d5d9de"

VARIABLES = {FIRST: "--first", SECOND: "--second", THIRD: "--third", INK: "--ink-soft", FAINT: "--line"}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
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


class Curve(NamedTuple):
    """One line of a plot. x and y have the same length; error is the half-width of a band around y."""

    label: str | None
    x: Sequence[float]
    y: Sequence[float]
    color: str = FIRST
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
    baseline: float | None = None,
    language: str = "en",
) -> str:
    """Curves as an inline SVG, readable from 350 to 700 pixels wide.

    name: unique on its page, all ids begin with it. description: for those who cannot see the plot.
    counts: x counts images, 1500 reads 1.5k. baseline: a dotted line, the score of real images.
    language: of texts that are messages.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = STYLE | {"svg.hashsalt": name}
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
            _add_curve(axes, curve, language)
        if baseline is not None:
            label = translated(message("reporting.real_images"), language)
            axes.axhline(baseline, color=INK, linestyle=":", linewidth=1.6, label=label)
        _scale(axes, counts, log_y)
        axes.set_xlabel(translated(x_label, language), labelpad=6)
        axes.set_ylabel(translated(y_label, language), labelpad=6)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside upper left", ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(buffer.getvalue(), name, translated(description, language))


def _add_curve(axes: Any, curve: Curve, language: str) -> None:
    if curve.error is not None:
        y, error = np.asarray(curve.y), np.asarray(curve.error)
        axes.fill_between(curve.x, y - error, y + error, color=curve.color, alpha=0.18, linewidth=0)
    axes.plot(
        curve.x,
        curve.y,
        curve.style,
        color=curve.color,
        alpha=curve.opacity,
        label=curve.label and translated(curve.label, language),
        linewidth=2,
        marker="o" if curve.points or len(curve.x) == 1 else None,  # a line of one point is not seen
        markersize=4.5,
    )


def _scale(axes: Any, counts: bool, log_y: bool) -> None:
    """Ticks at round numbers, written out."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

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
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short_count(value)))


def smooth(x: Sequence[float], y: Sequence[float], most: int = 120) -> tuple[list[float], list[float]]:
    """Long noisy curves made readable: the means of at most ``most`` neighbouring groups of points."""
    groups = min(len(x), most)
    if not groups:
        return [], []
    means = [[float(part.mean()) for part in np.array_split(np.asarray(v, float), groups)] for v in (x, y)]
    return means[0], means[1]


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
    """matplotlib's SVG file as part of a page, with the page's fonts and colors and ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;]*; ", "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var({variable}, {color})")
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None, "matplotlib writes a viewBox"
    opening = f'<svg class="plot" role="img" aria-label="{escape(description)}" viewBox="{box[1]}">'
    return re.sub(r"^<svg.*?>", lambda _: opening, body, count=1, flags=re.DOTALL).strip()
