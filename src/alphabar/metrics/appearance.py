"""How samples differ from real images in brightness, contrast and tint."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.codecs.color import LUMA
from alphabar.metrics.intervals import Z95, wilson
from alphabar.parts import Rows


class AppearanceShift(NamedTuple):
    """One statistic, of 255: its mean over real images and samples, their difference with its 95 % interval.

    effect: the difference over the standard deviation among the real images.
    """

    statistic: str
    data: float
    samples: float
    difference: float
    low: float
    high: float
    effect: float


class BrightnessThirds(NamedTuple):
    """Shares of samples in the darkest, middle and brightest third of the data: (share, low, high), 95 %."""

    dark: tuple[float, float, float]
    middle: tuple[float, float, float]
    bright: tuple[float, float, float]


def appearance_statistics(pictures: Tensor | Rows) -> dict[str, Tensor]:
    """Statistics of each picture (n, h, w, 3) uint8, by name: (n,) float64 each, in units of 255.

    brightness: mean luma. contrast: the standard deviation of luma. redness: mean of red − green.
    yellowness: mean of (red + green)/2 − blue. chroma: mean of the largest − the smallest of the three.
    """
    parts: dict[str, list[Tensor]] = {}
    red_weight, green_weight, blue_weight = LUMA.tolist()
    for rows in pictures.split(512):
        x = rows.double().flatten(1, 2)
        red, green, blue = x.unbind(dim=2)
        luma = red_weight * red + green_weight * green + blue_weight * blue
        statistics = {
            "brightness": luma.mean(dim=1),
            "contrast": luma.std(dim=1),
            "redness": (red - green).mean(dim=1),
            "yellowness": ((red + green) / 2 - blue).mean(dim=1),
            "chroma": (x.amax(dim=2) - x.amin(dim=2)).mean(dim=1),
        }
        for name, value in statistics.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(value) for name, value in parts.items()}


def appearance_shift(
    real: Tensor | Rows, fake: Tensor | Rows
) -> tuple[tuple[AppearanceShift, ...], BrightnessThirds]:
    """How fakes (n, h, w, 3) differ from reals (m, h, w, 3) in brightness, contrast and tint; n, m ≥ 2.

    Intervals are Welch's, with the normal's 1.96.
    """
    of_real, of_fake = appearance_statistics(real), appearance_statistics(fake)
    found = []
    for name, a in of_real.items():
        b = of_fake[name]
        difference = float(b.mean() - a.mean())
        half = Z95 * math.sqrt(float(a.var() / len(a) + b.var() / len(b)))
        effect = difference / max(float(a.std()), 1e-12)
        means = float(a.mean()), float(b.mean())
        found.append(AppearanceShift(name, *means, difference, difference - half, difference + half, effect))
    edges = of_real["brightness"].quantile(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    third = torch.bucketize(of_fake["brightness"], edges).bincount(minlength=3).tolist()
    n = len(fake)
    dark, middle, bright = ((count / n, *wilson(count, n)) for count in third)
    return tuple(found), BrightnessThirds(dark, middle, bright)
