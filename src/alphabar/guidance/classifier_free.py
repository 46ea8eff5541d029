"""Classifier-free guidance: away from what the same network generates without the condition."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from alphabar.conditioning.fields import CAPTION
from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.guidance.base import Denoised, DenoiserInput, Guidance, GuidedModel, LoadModel, Worse
from alphabar.messages import message


@dataclass(kw_only=True)
class ClassifierFree(Guidance):
    """(w - 1)(D_c - D_u), in all D_u + w(D_c - D_u) (Ho and Salimans 2022, eq. 6, with w - 1 for their w).

    D_c has the condition and D_u has none (every field unknown), or has the condition ``negative``. Where no
    condition is given D_c is D_u, and it adds nothing.

    scale: w. negative: a sentence or a class that samples are led away from, instead of from no condition.
    """

    option: ClassVar[str] = "guidance"
    neutral: ClassVar[float] = 1.0
    needs_condition: ClassVar[bool] = True
    scale_range: ClassVar[tuple[float, float]] = (1.0, 8.0)
    help: ClassVar[str] = message("guidance.guidance_help")
    setting_options: ClassVar[Mapping[str, tuple[str, str]]] = {
        "negative": ("negative", message("guidance.negative_help"))
    }

    scale: float = 1.0
    negative: str | None = None
    away: Condition | None = field(default=None, init=False, repr=False)  # (columns,), of ``negative``

    @classmethod
    def available(cls, model: GuidedModel) -> bool:
        return model.vocabulary is not None

    def bind(self, model: GuidedModel, *, conditioned: bool, load_model: LoadModel | None = None) -> Self:
        """Raises UsageError where samples have no condition, and for a negative without a scale."""
        if self.scale == self.neutral and self.negative is not None:
            raise UsageError("guidance.negative_without_scale")
        if model.vocabulary is None or not conditioned:
            raise UsageError("guidance.needs_condition", option=self.option)
        if self.negative is not None:
            first = model.vocabulary.fields[0].name if model.vocabulary.fields else CAPTION
            name = first if first in ("class", CAPTION) else CAPTION
            self.away = model.vocabulary.row({name: self.negative})
        return self

    def extra_input(self, x: Tensor, t: Tensor, cond: Condition | None) -> DenoiserInput | None:
        if cond is None:
            return None
        away = torch.full_like(cond, math.nan) if self.away is None else self.away.to(cond).expand_as(cond)
        return DenoiserInput(x, t, away)

    def worse(self) -> Worse:
        return Worse(condition=torch.tensor(math.nan) if self.away is None else self.away)

    def term(self, known: Denoised) -> Tensor:
        if known.extra is None:
            return torch.zeros_like(known.D)
        return (self.scale - 1) * (known.D - known.extra)
