"""TODO-DOC from cli"""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from alphabar.errors import UsageError


def parse_duration(text: str) -> float:
    """Seconds in '45s', '90m', '2h', '1h30m', or a plain number of seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is no time: write for example 45s, 90m, 2h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"a time of {text!r} leaves nothing to do: give more than zero")
    return total


def parse_count(text: str) -> int:
    """A whole number: '500k', '2M', '12_000'."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kM]?)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is no number of images: write for example 50000, 500k or 2M")
    value = round(float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]])
    if value <= 0:
        raise UsageError(f"{text!r} images leave nothing to do: give more than zero")
    return value


def parse_conditions(
    classes: Sequence[str], attributes: Sequence[str], prompts: Sequence[str] = ()
) -> list[dict[str, str]]:
    """What to ask for, every combination of the values given for each field, in their order."""
    values: dict[str, list[str]] = {}
    for field, given in (("class", classes), ("caption", prompts)):
        if given:
            values[field] = list(given)
    for text in attributes:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} should read key=value, for example --set color=red")
        values.setdefault(key.strip(), []).append(value.strip())
    if not values:
        return []
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def all_or_nothing(asked: list[dict[str, str]], unconditional: bool) -> Sequence[dict[str, str]] | None:
    """What `sampling.settings` takes: where nothing is asked None for every kind, or () for nothing."""
    if unconditional and asked:
        raise UsageError("--unconditional asks for nothing: leave out --class, --set and --prompt")
    return asked or (() if unconditional else None)


def parse_interval(text: str) -> tuple[float, float]:
    """Two numbers: '0.2,5'."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is no interval: write for example 0.2,5") from None
    return lo, hi


def parse_lengths(text: str) -> list[float]:
    """Numbers: '0.03,0.1,0.2'."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--ema {text!r} should read as shares of the training, for example 0.03,0.1"
        ) from None


def parse_guidance(
    guidance: float = 1.0,
    negative: str | None = None,
    sag: float = 0.0,
    pag: float | None = None,
    autoguidance: float = 1.0,
    classifier: Path | None = None,
    classifier_scale: float = 1.0,
) -> dict[str, Any] | None:
    """The guidances that options name; None where all are left to the recipe."""
    given: dict[str, Any] = {}
    if guidance != 1 or negative is not None:
        given["classifier_free"] = {"scale": guidance, "negative": negative}
    if sag:
        given["sag"] = sag
    if pag is not None:
        given["pag"] = pag
    if autoguidance != 1:
        given["autoguidance"] = autoguidance
    if classifier is not None:
        given["classifier"] = {"scale": classifier_scale, "model": str(classifier)}
    return given or None


def parse_compared(text: str) -> tuple[str, list[str]]:
    """A key and the values to compare: 'guidance=1,1.5,2'."""
    key, _, values = text.partition("=")
    # Sentences may have commas.
    parts = [part.strip() for part in values.split("|" if "|" in values else ",") if part.strip()]
    if not parts:
        raise UsageError(f"--compare {text!r} should read key=value,value, for example guidance=1,1.5,2,3")
    return key.strip(), parts
