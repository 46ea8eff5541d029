"""The plots of a report, from the records of a training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from alphabar.formatting import format_short_count
from alphabar.messages import Message, message
from alphabar.reporting.plots import FIRST, SECOND, THIRD, Curve, plot, smooth
from alphabar.reporting.values import finite, items, pairs, series

Levels = tuple[int, list[float], list[float]]  # images seen, log SNR, value at each


def error_plot(records: list[dict[str, Any]], language: str) -> Markup | None:
    """The denoising error for training and held-out images at the last record of it."""
    lines = (
        ("train_error", message("reporting.of_training"), SECOND, "--"),
        ("error", message("reporting.of_held_out"), FIRST, "-"),
    )
    curves = []
    for key, label, color, style in lines:
        if measured := _by_level(records, key):
            _, x, y = measured[-1]
            curves.append(Curve(label, x, y, color, style))
    return _curves(
        "levels",
        curves,
        x_label=message("reporting.axis_levels"),
        y_label=message("reporting.axis_error"),
        description=message("reporting.plot_levels"),
        language=language,
    )


def progress_plot(records: list[dict[str, Any]], language: str) -> Markup | None:
    """The held-out error, or the training error where nothing is held out, along the training."""
    return _moments(
        "progress",
        _by_level(records, "error") or _by_level(records, "train_error"),
        y_label=message("reporting.axis_error"),
        description=message("reporting.plot_progress"),
        language=language,
    )


def accuracy_plot(records: list[dict[str, Any]], language: str) -> Markup | None:
    """The accuracy of a classifier on held-out images at each noise level, along the training."""

    def log_snr(record: dict[str, Any]) -> list[float | None]:
        sigmas = items(record.get("sigma"))
        return [-2 * float(np.log(sigma)) if finite(sigma) and sigma > 0 else None for sigma in sigmas]

    return _moments(
        "accuracy",
        _by_level(records, "accuracy", log_snr),
        y_label=message("reporting.axis_accuracy"),
        description=message("reporting.plot_accuracy"),
        log_y=False,
        language=language,
    )


def distance_plot(records: list[dict[str, Any]], key: str, name: str, language: str) -> Markup | None:
    """A distance of samples from the training data against images seen, with that of real images.

    That is 0 on average for the kernel distance; for the Fréchet distance newer logs have it.
    """
    measured = [r for r in records if finite(r.get(key))]
    x, y = series(measured, key)
    _, errors = series(measured, f"{key}_error")
    _, baselines = series(measured, f"{key}_baseline")
    baseline = baselines[-1] if baselines else 0.0 if key == "kid" else None
    curve = Curve(
        message("reporting.of_samples"), x, y, error=errors if len(errors) == len(y) else None, points=True
    )
    return _curves(
        key,
        [curve] if x else [],
        x_label=message("reporting.images_seen"),
        y_label=name,
        description=message("reporting.plot_distance", name=name),
        counts=True,
        log_y=False,
        baseline=baseline,
        language=language,
    )


def training_plot(records: list[dict[str, Any]], key: str, label: Message, language: str) -> Markup | None:
    """A value of every update, such as the loss, against images seen."""
    x, y = smooth(*series(records, key))
    return _curves(
        key,
        [Curve(None, x, y, FIRST if key == "loss" else THIRD, points=len(x) < 3)] if x else [],
        x_label=message("reporting.images_seen"),
        y_label=label,
        description=message("reporting.plot_training", name=label),
        counts=True,
        log_y=key == "loss",
        language=language,
    )


def _moments(name: str, measured: list[Levels], **settings: Any) -> Markup | None:
    """Curves over the noise level at up to four moments of the training; later ones are darker."""
    # Learning slows down, so that moments further and further apart show as much change each.
    chosen = sorted({round(len(measured) ** (k / 3)) - 1 for k in range(4)}) if measured else []
    opacities = np.linspace(1, 0.25, len(chosen))[::-1].tolist()
    curves = [
        Curve(message("reporting.images", n=format_short_count(images)), x, y, THIRD, opacity=opacity)
        for (images, x, y), opacity in zip((measured[i] for i in chosen), opacities, strict=True)
    ]
    return _curves(name, curves, x_label=message("reporting.axis_levels"), **settings)


def _by_level(
    records: list[dict[str, Any]],
    key: str,
    levels: Callable[[dict[str, Any]], Any] = lambda record: record.get("levels"),
) -> list[Levels]:
    """For each record that has them: images seen, log SNRs, values."""
    measured = [(record["images"], *pairs(levels(record), record.get(key))) for record in records]
    return [(images, x, y) for images, x, y in measured if x]


def _curves(name: str, curves: Sequence[Curve], *, log_y: bool = True, **settings: Any) -> Markup | None:
    """The plot, or None where there is nothing to show."""
    if not curves:
        return None
    positive = all(value > 0 for curve in curves for value in curve.y)
    return Markup(plot(f"plot-{name}", curves, log_y=log_y and positive, **settings))
