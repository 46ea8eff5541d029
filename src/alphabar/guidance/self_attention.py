"""Self-attention guidance (SAG): away from what the network makes of a signal blurred where it attends."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.guidance.base import Denoised, Guidance, GuidedModel, LoadModel
from alphabar.messages import message
from alphabar.networks.layers import Attention


@dataclass(kw_only=True)
class SelfAttentionGuidance(Guidance):
    """s(Dhat - D(xbar)) (Hong et al. 2023, written for x0), of images (n, c, h, w).

    Dhat is D blurred where a position receives more than its share of the attention in the middle of the
    network, and xbar = alpha·Dhat + (x - alpha·D) is x with the same noise on it. It evaluates the denoiser
    after D is known, so its second evaluation shares no batch.

    scale: s. blur: standard deviation of the Gaussian in pixels; with 0 it adds nothing.
    """

    option: ClassVar[str] = "sag"
    scale_range: ClassVar[tuple[float, float]] = (0.0, 2.0)
    help: ClassVar[str] = message("guidance.sag_help")

    blur: Annotated[float, Field(ge=0, le=4096)] = 1.0
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

    def during(self, rows: Tensor) -> AbstractContextManager[Any]:
        assert self.attention is not None, "bind the guidance first"
        return self.attention.record_attention()

    def term(self, known: Denoised) -> Tensor:
        denoiser, x, t, cond, D, _, maps = known
        alpha = broadcast(denoiser.schedule(t).alpha, x)
        Dhat = torch.where(attended(maps[-1][: len(x)], x), blurred(D, self.blur), D)
        return self.scale * (Dhat - denoiser(alpha * Dhat + (x - alpha * D), t, cond))


def attended(received: Tensor, x: Tensor) -> Tensor:
    """Where positions (n, h, w) receive attention above 1: bool (n, 1, H, W), for x (n, c, H, W)."""
    return F.interpolate(received[:, None].to(x.dtype), size=x.shape[2:], mode="nearest") > 1


def blurred(x: Tensor, std: float) -> Tensor:
    """Signals (n, c, h, w) blurred by a Gaussian of that standard deviation in pixels, edges reflected."""
    if std == 0:
        return x
    radius = min(math.ceil(3 * std), min(x.shape[2:]) - 1)
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(at**2) / (2 * std**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernel[:, :, :, None], groups=x.shape[1])
    return F.conv2d(x, kernel[:, :, None, :], groups=x.shape[1])
