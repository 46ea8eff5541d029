"""Autoguidance: away from a worse model of the same data."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import Tensor

from alphabar.diffusion.denoiser import Denoiser, without_condition
from alphabar.errors import UsageError
from alphabar.guidance.base import Denoised, Guidance, GuidedModel, LoadModel, Worse
from alphabar.messages import message


@dataclass(kw_only=True)
class Autoguidance(Guidance):
    """(w - 1)(D - D_bad), in all D_bad + w(D - D_bad) (Karras et al. 2024).

    D_bad is the model as it was early in its training, which the run has kept. scale: w.
    """

    option: ClassVar[str] = "autoguidance"
    neutral: ClassVar[float] = 1.0
    scale_range: ClassVar[tuple[float, float]] = (1.0, 4.0)
    help: ClassVar[str] = message("guidance.autoguidance_help")

    scale: float = 1.0
    bad: Denoiser | None = field(default=None, init=False, repr=False)

    @classmethod
    def available(cls, model: GuidedModel) -> bool:
        return model.early is not None

    def bind(self, model: GuidedModel, *, conditioned: bool, load_model: LoadModel | None = None) -> Self:
        """Raises UsageError where the model holds no early snapshot."""
        if model.early is None:
            raise UsageError("guidance.needs_early_snapshot", option=self.option, model=model.path)
        self.bad = without_condition(model.early) if model.vocabulary is None else model.early
        return self

    def worse(self) -> Worse:
        return Worse(early=True)

    def term(self, known: Denoised) -> Tensor:
        assert self.bad is not None, "bind the guidance first"
        return (self.scale - 1) * (known.D - self.bad(known.x, known.t, known.cond))
