"""Values of JSON files as a page shows them. A value may be missing or of another type than it should."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from alphabar.formatting import format_count, format_number


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a value that should be a list of them."""
    return [each for each in items(value) if isinstance(each, dict)]


def pairs(x: Any, y: Any) -> tuple[list[float], list[float]]:
    """The elements of two lists where both are numbers."""
    both = [(a, b) for a, b in zip(items(x), items(y), strict=False) if finite(a) and finite(b)]
    return [a for a, _ in both], [b for _, b in both]


def trained(records: list[dict[str, Any]]) -> tuple[int, float]:
    """The images and the seconds of a training, of the records of its log; (0, 0.0) where none tells them."""
    train = [r for r in records if r.get("kind") == "train" and finite(r.get("seconds"))]
    return (train[-1]["images"], float(train[-1]["seconds"])) if train else (0, 0.0)


def series(records: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """The images seen and the value of a key, of the records that have it."""
    return pairs([r["images"] for r in records], [r.get(key) for r in records])


def median(values: list[float]) -> float | None:
    """The median; None of no values."""
    return float(np.median(values)) if values else None


def number(value: Any) -> str:
    """Three digits, or the whole number from a thousand on; a dash for anything that is no finite number."""
    if not finite(value):
        return "–"
    if 1e-6 < abs(value) < 1e-3:  # which "g" would write as a power of ten
        return f"{value:.6f}"
    return format_count(value) if abs(value) >= 1000 else format_number(value, 3)


def percent(value: Any) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %" if finite(value) else "–"


def signed(value: Any) -> str:
    """A number with its sign and one digit after the point."""
    return f"{value:+.1f}" if finite(value) else "–"


def bracketed(ends: Any) -> str | None:
    """Two numbers as "[0.48, 0.56]"; None for anything else."""
    shown = [number(end) for end in (ends if isinstance(ends, list | tuple) else ()) if finite(end)]
    return f"[{shown[0]}, {shown[1]}]" if len(shown) == 2 else None


def setting(value: Any) -> str:
    """A value of a recipe or an environment: ``ancestral (clamp = true)`` for a choice with settings.

    Settings that are None, which stands for "not given", are left out.
    """
    if isinstance(value, dict):
        rest = ", ".join(
            f"{key} = {setting(v)}" for key, v in value.items() if key != "name" and v is not None
        )
        name = str(value.get("name", ""))
        return f"{name} ({rest})" if name and rest else name or rest
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(setting, value))}]" if value else "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return format_count(value) if abs(value) >= 10_000 else str(value)
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """The rows of a table of nested mappings, such as ("runtime · device", "cpu")."""
    for key, value in values.items():
        if isinstance(value, dict) and value and "name" not in value:
            yield from flat(value, f"{prefix}{key} · ")
        else:
            yield f"{prefix}{key}", setting(value)
