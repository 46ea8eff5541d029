"""TODO-DOC from restoring"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alphabar.errors import UsageError, unknown
from alphabar.restoration.operators.base import Operator, Shape
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.convolution import Convolution
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS
from alphabar.restoration.operators.separable import Separable
from alphabar.restoration.photo import read_photo
from alphabar.restoration.solvers.direct import is_identity


def grammar() -> str:
    """How to write a degradation, in one line."""
    known = []
    for name in OPERATORS:
        values = OPERATORS.settings(name)
        known.append(name + (":" + ",".join(key.upper() for key in values) if values else ""))
    return (
        "write parts joined by +, applied from left to right, such as blur:1.5+noise:0.05; parts are "
        + " ".join([*known, "mask:FILE", "kernel:FILE", "noise:STD or noise:auto (last, in [-1, 1])"])
    )


@dataclass(frozen=True)
class Degradation:
    """What was done to a picture: parts in their order, then noise of std sigma; None is to be estimated."""

    text: str
    parts: tuple[dict[str, Any], ...]
    sigma: float | None

    def operator(self, shape: Shape) -> Operator:
        """A for pictures of shape (c, h, w). Raises UsageError where it does not fit them."""
        operator: Operator = Separable(shape)
        for part in self.parts:
            following = _build(part, operator.measured)  # type: ignore[arg-type]
            operator = following if is_identity(operator) else compose(operator, following)
        return operator

    @property
    def factor(self) -> int:
        """How many times wider the picture was before."""
        return math.prod(part["factor"] for part in self.parts if "factor" in part)


def parse_degradation(text: str) -> Degradation:
    """A degradation such as "down:4", "blur:1.5+noise:0.05" or "jpeg:10" (`grammar`).

    Values follow the order of the operator's settings; those left out have their defaults. Raises
    UsageError, with the grammar, for what does not parse.
    """
    parts: list[dict[str, Any]] = []
    sigma: float | None = 0.0
    words = text.split("+")
    try:
        for i, word in enumerate(words):
            name, _, rest = word.strip().partition(":")
            if name == "noise":
                if i < len(words) - 1:
                    raise UsageError("noise comes last")
                sigma = _sigma(rest)
            elif name in ("mask", "kernel"):
                if not rest:
                    raise UsageError(f"{name} needs a file, {name}:FILE")
                parts.append({"name": name, "file": rest})
            elif name not in OPERATORS:
                raise unknown("degradation", name, [*OPERATORS, "noise", "mask", "kernel"])
            else:
                keys, values = list(OPERATORS.settings(name)), rest.split(",") if rest else []
                if len(values) > len(keys):
                    raise UsageError(f"{name} takes {len(keys)} values, not {len(values)}")
                parts.append(OPERATORS.resolve({"name": name, **dict(zip(keys, values))}))
    except UsageError as error:
        raise UsageError(f"degradation {text!r}: {error}; {grammar()}") from None
    return Degradation(text, tuple(parts), sigma)


def _sigma(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        raise UsageError(f"noise {text!r} is neither auto nor a standard deviation from 0, such as 0.05")
    return sigma


def _build(part: dict[str, Any], shape: Shape) -> Operator:
    if part["name"] == "mask":
        # White is missing, as painting programs and most inpainting tools have it.
        return Mask(1 - (_grey_file(part["file"]) >= 0.5).double()[None], shape)
    if part["name"] == "kernel":
        return Convolution(_grey_file(part["file"]), shape)
    return OPERATORS.build(part, shape=shape)()


def _grey_file(file: str) -> Tensor:
    photo = read_photo(Path(file))
    return (photo.signal(1)[0, 0].double() + 1) / 2
