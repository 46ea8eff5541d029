"""Times, counts and numbers as people write and read them."""

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from alphabar.errors import UsageError
from alphabar.messages import Message, message


def format_duration(seconds: float) -> str:
    """A time as "45s", "12m05s" or "1h30m"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def parse_duration(text: str) -> float:
    """The seconds in "45s", "90m", "2h", "1h30m" or a plain number of seconds.

    Raises UsageError where the text is no time, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError("formatting.no_duration", text=text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if math.isinf(total):
        raise UsageError("formatting.no_duration", text=text)
    if total <= 0:
        raise UsageError("formatting.zero_duration", text=text)
    return total


def format_count(number: float) -> str:
    """A whole number with separators, "1,234,567"."""
    return f"{number:,.0f}"


def format_short_count(number: float) -> str:
    """A number in few characters: "12", "1.5k", "240k", "3.2M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def parse_count(text: str) -> int:
    """The whole number above zero in "500k", "2M" or "12_000". Raises UsageError where there is none."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kM]?)", text.strip())
    if not match:
        raise UsageError("formatting.no_count", text=text)
    number = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]]
    if math.isinf(number):
        raise UsageError("formatting.no_count", text=text)
    value = round(number)
    if value <= 0:
        raise UsageError("formatting.zero_count", text=text)
    return value


def format_memory(count: float) -> str:
    """Bytes as "1.5 GiB", or below one as "200 MiB"."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def format_number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash where there is none or it is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def format_range(low: float, high: float) -> str:
    """Two numbers with one decimal, "58.1–61.2"; one of them where they are the same."""
    texts = dict.fromkeys(f"{value:.1f}" for value in (low, high))
    return "–".join(texts)


UNKNOWN_WORDS = frozenset({"nan", "-nan", "n/a", "#n/a", "<na>", "none", "null", "nat"})
"""How tables write that a value is missing, apart from leaving the cell blank; case does not matter."""

UNKNOWN_NUMBERS = frozenset(
    {"na", "n.a.", "#na", "-", "--", "–", "—", "?", ".", "unknown", "missing"}
    | {"desconocido", "#div/0!", "#value!", "#¡valor!", "#ref!", "#num!", "#name?"}
)
"""What says so too in a column of numbers, but may be a name in others; case does not matter."""

FEW_NUMBERS = 5  # distinct ones, which may be names as well: "1", "2", "3", "other"


def known_value(value: Any) -> Any:
    """A cell of a table, or None where it says that nothing is known: None, NaN, blank, "N/A", "null"."""
    if isinstance(value, str) and (not value.strip() or value.strip().casefold() in UNKNOWN_WORDS):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def is_infinite(value: Any) -> bool:
    """Whether a cell is infinite or a number beyond the range of floats, also where it is text."""
    if not isinstance(value, int | float | str):
        return False
    try:
        return math.isinf(float(value))
    except OverflowError:
        return True
    except ValueError:
        return False


def finite_number(value: Any) -> float | None:
    """The number that a value is or that its text writes; None where it is none."""
    try:
        x = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return x if math.isfinite(x) else None


def numbers_and_others(values: Iterable[Any]) -> tuple[list[float], list[Any]]:
    """The numbers of a column, and its other values, which are unknown numbers; no numbers if it is of names.

    values: the known ones. A column is of numbers where all values are, or more than one number and words
    of `UNKNOWN_NUMBERS`, or more than a few numbers and at most one other value in ten.
    """
    values = list(values)
    others = [value for value in values if finite_number(value) is None]
    numbers = [x for value in values if (x := finite_number(value)) is not None]
    words = [value for value in others if str(value).strip().casefold() not in UNKNOWN_NUMBERS]
    few = FEW_NUMBERS if words else min(1, len(others))
    if len(set(numbers)) > few and 10 * len(words) <= len(numbers) + len(words):
        return numbers, others
    return [], values


def unknown_numbers(name: str, values: Iterable[Any]) -> list[Message]:
    """The sentence about values of a column of numbers that are none, in a list; none where there are none.

    values: those of the column, None where unknown.
    """
    numbers, others = numbers_and_others(value for value in values if value is not None)
    if not numbers or not others:
        return []
    return [message("data.unknown_numbers", name=name, count=len(others), first=str(others[0])[:40])]


def composed(text: str) -> str:
    """A text in which each letter with its accents is one character (NFC), as most programs write it."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """A name in which case and Unicode normalization make no difference."""
    return composed(composed(text).casefold())
