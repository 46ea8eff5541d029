"""Perturbed-attention guidance (PAG): away from what the network generates without its attention."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.guidance.base import Denoised, DenoiserInput, Guidance, GuidedModel, LoadModel, Worse
from alphabar.messages import message
from alphabar.networks.layers import Attention


@dataclass(kw_only=True)
class PerturbedAttention(Guidance):
    """s(D - D_id), where the middle attention of D_id's network is the identity matrix (Ahn et al. 2024).

    scale: s.
    """

    option: ClassVar[str] = "pag"
    scale_range: ClassVar[tuple[float, float]] = (0.0, 6.0)
    help: ClassVar[str] = message("guidance.pag_help")

    attention: Attention | None = field(default=None, init=False, repr=False)

    @classmethod
    def available(cls, model: GuidedModel) -> bool:
        return model.attention is not None

    def bind(self, model: GuidedModel, *, conditioned: bool, load_model: LoadModel | None = None) -> Self:
        """Raises UsageError where the network has no attention in its middle."""
        if model.attention is None:
            raise UsageError("guidance.needs_attention", option=self.option, model=model.path)
        self.attention = model.attention
        return self

    def extra_input(self, x: Tensor, t: Tensor, cond: Condition | None) -> DenoiserInput:
        return DenoiserInput(x, t, cond)

    def during(self, rows: Tensor) -> AbstractContextManager[Any]:
        assert self.attention is not None, "bind the guidance first"
        return self.attention.identity_attention(rows)

    def worse(self) -> Worse:
        return Worse(identity=True)

    def term(self, known: Denoised) -> Tensor:
        assert known.extra is not None
        return self.scale * (known.D - known.extra)
