"""The grammar of degradations: a person writes "blur:1.5+noise:0.05", and it means an operator and noise."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.files import read_given_file
from alphabar.messages import Message, message
from alphabar.restoration.mask_files import read_mask
from alphabar.restoration.operators.base import Operator, Shape
from alphabar.restoration.operators.compose import compose
from alphabar.restoration.operators.convolution import Convolution
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.operators.registry import OPERATORS, build_operator
from alphabar.restoration.operators.separable import denoise
from alphabar.restoration.photo import read_photo

FILES = ("mask", "kernel")
"""Parts whose value is an image file."""

GENERATED = ("box", "random", "strokes")
"""Parts that make a mask without a file."""


def grammar() -> Message:
    """How to write a degradation, with the names of all parts."""
    parts = []
    for name in OPERATORS:
        values = OPERATORS.settings(name)
        parts.append(name + (":" + ",".join(key.upper() for key in values) if values else ""))
    return message("restoration.grammar", parts=" ".join([*parts, "mask:FILE", "kernel:FILE"]))


@dataclass(frozen=True)
class Degradation:
    """What happened to an image: parts in their order, then noise.

    text: as a person writes it.
    parts: specs of operators, or {"name": "mask" or "kernel", "file": path}.
    sigma: the standard deviation of the noise in the units of [-1, 1]; None: to be estimated.
    """

    text: str
    parts: tuple[dict[str, Any], ...]
    sigma: float | None

    def operator(self, shape: Shape) -> Operator:
        """A for images of shape (c, h, w). Raises UsageError where it does not fit them."""
        operator: Operator = denoise(shape)
        for part in self.parts:
            operator = compose(operator, _build(part, operator.measurement_shape))
        return operator

    @property
    def factor(self) -> int:
        """How many times wider and higher the image was: the product of the parts' settings ``factor``."""
        return math.prod(part["factor"] for part in self.parts if "factor" in part)

    @property
    def needs_files(self) -> bool:
        """Whether one of its parts names a file."""
        return any(part["name"] in FILES for part in self.parts)

    @property
    def contents(self) -> list[str]:
        """The SHA-256 of each file that its parts name. Raises AlphabarError where one cannot be read."""
        return [file_hash(Path(part["file"])) for part in self.parts if part["name"] in FILES]


def file_hash(path: Path) -> str:
    """The SHA-256 of an image file. Raises AlphabarError where it cannot be read."""
    try:
        return hashlib.sha256(read_given_file(path)).hexdigest()
    except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise AlphabarError("restoration.cannot_read", path=path, reason=reason) from None


def parse_degradation(text: str) -> Degradation:
    """A degradation such as "downsample:4", "blur:1.5+noise:0.05" or "jpeg:10" (`grammar`).

    Values follow the order of the operator's settings; those left out have their defaults. The name of a
    file may have a + in it, unless the name of a part follows. Raises UsageError, with the grammar, for what
    does not parse.
    """
    parts: list[dict[str, Any]] = []
    sigma: float | None = 0.0
    words = _split(text)
    try:
        for i, word in enumerate(words):
            name, _, values = word.strip().partition(":")
            if name == "noise":
                if i < len(words) - 1:
                    raise UsageError("restoration.noise_last")
                sigma = parse_noise(values)
            else:
                parts.append(_parse_part(name, values))
    except UsageError as error:
        raise UsageError(
            "restoration.bad_degradation", text=text, problem=error.message, grammar=grammar()
        ) from None
    return Degradation(text, tuple(parts), sigma)


def inpainting(mask: str, noise: str) -> Degradation:
    """What `inpaint` undoes. mask: a generated one ("box", "random:0.7", …), else a file of any name."""
    if mask.partition(":")[0] in GENERATED:
        return parse_degradation(f"{mask}+noise:{noise}")
    return Degradation(f"mask:{mask}+noise:{noise}", ({"name": "mask", "file": mask},), parse_noise(noise))


def parse_noise(text: str) -> float | None:
    """A standard deviation from 0, or None for "auto". Raises UsageError for anything else."""
    if text == "auto":
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        raise UsageError("restoration.bad_noise", text=text)
    return sigma


def _split(text: str) -> list[str]:
    """The parts of a degradation, each as it is written."""
    words: list[str] = []
    for word in text.split("+"):
        in_file = bool(words) and words[-1].strip().startswith(tuple(f"{name}:" for name in FILES))
        if in_file and word.strip().partition(":")[0] not in (*OPERATORS, "noise", *FILES):
            words[-1] += f"+{word}"
        else:
            words.append(word)
    return words


def _parse_part(name: str, values: str) -> dict[str, Any]:
    if name in FILES:
        if not values:
            raise UsageError("restoration.needs_file", name=name)
        return {"name": name, "file": values}
    if name not in OPERATORS:
        raise unknown("degradation", name, [*OPERATORS, "noise", *FILES])
    keys, given = list(OPERATORS.settings(name)), values.split(",") if values else []
    if len(given) > len(keys):
        raise UsageError("restoration.too_many_values", name=name, known=len(keys), given=len(given))
    return OPERATORS.resolve({"name": name, **dict(zip(keys, given))})


def _build(part: dict[str, Any], shape: Shape) -> Operator:
    if part["name"] == "mask":
        return Mask(torch.from_numpy(~read_mask(Path(part["file"])))[None].double(), shape)
    if part["name"] == "kernel":
        return Convolution(_grey_file(part["file"]), shape)
    return build_operator(part, shape)


def _grey_file(file: str) -> Tensor:
    """An image file as grey (h, w) from 0 to 1, float64."""
    return (read_photo(Path(file)).signal(1)[0, 0].double() + 1) / 2
