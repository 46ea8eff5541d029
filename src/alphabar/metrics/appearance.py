"""TODO-DOC from metrics.shares"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.metrics.intervals import Z95, wilson


class AppearanceShift(NamedTuple):
    """One look of pictures, of 255: its mean over reals and fakes, their difference with its 95 % interval.

    effect: the difference over the standard deviation among the reals.
    """

    look: str
    data: float
    samples: float
    difference: float
    low: float
    high: float
    effect: float


class BrightnessHistogram(NamedTuple):
    """Shares of samples in the darkest, middle and brightest third of the data, each with its interval."""

    dark: tuple[float, float, float]
    middle: tuple[float, float, float]
    bright: tuple[float, float, float]


def appearance_statistics(pictures: Tensor) -> dict[str, Tensor]:
    """What of each picture (n, h, w, 3) uint8 is measured, (n,) float64 each, in units of 255.

    brightness: mean luma (Rec. 601). contrast: its standard deviation. redness: mean of red − green.
    yellowness: mean of (red + green)/2 − blue. colour: mean of the largest − the smallest of the three.
    """
    parts: dict[str, list[Tensor]] = {}
    for rows in pictures.split(512):
        x = rows.double().flatten(1, 2)
        red, green, blue = x.unbind(dim=2)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        measured = {
            "brightness": luma.mean(dim=1),
            "contrast": luma.std(dim=1),
            "redness": (red - green).mean(dim=1),
            "yellowness": ((red + green) / 2 - blue).mean(dim=1),
            "colour": (x.amax(dim=2) - x.amin(dim=2)).mean(dim=1),
        }
        for name, value in measured.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(value) for name, value in parts.items()}


def appearance_shift(real: Tensor, fake: Tensor) -> tuple[tuple[AppearanceShift, ...], BrightnessHistogram]:
    """How fakes (n, h, w, 3) differ from reals (m, h, w, 3) in brightness, contrast and tint; n, m ≥ 2.

    Intervals are Welch's, with the normal's 1.96.
    """
    seen_real, seen_fake = appearance_statistics(real), appearance_statistics(fake)
    found = []
    for name, a in seen_real.items():
        b = seen_fake[name]
        difference = float(b.mean() - a.mean())
        half = Z95 * math.sqrt(float(a.var() / len(a) + b.var() / len(b)))
        effect = difference / max(float(a.std()), 1e-12)
        means = float(a.mean()), float(b.mean())
        found.append(AppearanceShift(name, *means, difference, difference - half, difference + half, effect))
    edges = seen_real["brightness"].quantile(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    third = torch.bucketize(seen_fake["brightness"], edges).bincount(minlength=3).tolist()
    n = len(fake)
    dark, middle, bright = ((count / n, *wilson(count, n)) for count in third)
    return tuple(found), BrightnessHistogram(dark, middle, bright)
