"""Schedules: the path from a clean signal (t = 0) to noise (t = 1), x_t = alpha·x0 + sigma·eps.

Times are float64 tensors on the CPU: a level is a handful of numbers, float32 is too coarse for their
differences, and some accelerators have no float64. What multiplies a signal is cast last, by `broadcast`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from alphabar.errors import UsageError
from alphabar.messages import Message, message
from alphabar.registry import Registry


class Level(NamedTuple):
    """A noise level: x_t = alpha·x0 + sigma·eps. Both (n,), float64."""

    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """ln(alpha² / sigma²): +inf for a clean signal, -inf for pure noise."""
        return 2 * (self.alpha.log() - self.sigma.log())


class Schedule(Protocol):
    """A path through noise levels. Clean at t = 0 (alpha = 1, sigma = 0); log SNR falls strictly with t."""

    def __call__(self, t: Tensor) -> Level:
        """The level at times t (n,) in [0, 1]."""
        ...

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the times (n,) in [0, 1] of log SNRs (n,); t = 1 for those beyond the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearBeta:
    """The schedule of DDPM (Ho et al. 2020): beta_i linear in i = 1..steps, alpha_bar_i = prod (1 - beta_j).

    Exact at t = i / steps; between two steps ln alpha_bar is interpolated linearly, which keeps
    beta constant there. Variance preserving: alpha² = alpha_bar, sigma² = 1 - alpha_bar.
    """

    steps: Annotated[int, Field(le=1_000_000)] = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError("diffusion.linear_beta_steps", steps=self.steps)
        if not 0 < self.beta_min <= self.beta_max < 1:
            raise UsageError("diffusion.linear_beta_range", beta_min=self.beta_min, beta_max=self.beta_max)

    @cached_property
    def log_alpha_bar(self) -> Tensor:
        """ln alpha_bar_i for i = 0..steps, shape (steps + 1,)."""
        beta = torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)
        return torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])

    def __call__(self, t: Tensor) -> Level:
        table = self.log_alpha_bar.to(t.device)
        position = t.double() * self.steps
        i = position.long().clamp(max=self.steps - 1)
        return _variance_preserving(torch.lerp(table[i], table[i + 1], position - i))

    def time(self, log_snr: Tensor) -> Tensor:
        """The times (n,) of log SNRs (n,)."""
        table = self.log_alpha_bar.to(log_snr.device)
        # alpha_bar = sigmoid(log SNR) wherever variance is preserved.
        log_alpha_bar = logsigmoid(log_snr.double()).clamp(min=table[-1])
        i = (torch.searchsorted(-table, -log_alpha_bar) - 1).clamp(0, self.steps - 1)
        return (i + (log_alpha_bar - table[i]) / (table[i + 1] - table[i])) / self.steps


LOG_CAP = math.log(1 - 0.999)
"""ln(1 - beta) at the cosine schedule's largest beta, 0.999."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """The cosine schedule of Nichol & Dhariwal (2021), eq. 17: alpha_bar = cos²(a) / cos²(a0).

    a = pi/2 · (t + offset) / (1 + offset), and a0 is its value at t = 0. The paper caps beta at 0.999,
    which concerns the last of its ``steps`` alone: there ln alpha_bar falls linearly by ln 1000
    instead of to minus infinity. At t = i / steps this is the paper's discrete schedule.
    """

    offset: Annotated[float, Field(le=10)] = 0.008
    steps: Annotated[int, Field(le=1_000_000)] = 1000

    def __post_init__(self) -> None:
        if self.offset <= 0 or self.steps < 2:
            raise UsageError("diffusion.cosine_settings", offset=self.offset, steps=self.steps)

    def __call__(self, t: Tensor) -> Level:
        t = t.double()
        knee = 1 - 1 / self.steps
        log_alpha_bar = self._uncapped(t.clamp(max=knee))
        return _variance_preserving(log_alpha_bar + (t - knee).clamp(min=0) * self.steps * LOG_CAP)

    def _uncapped(self, t: Tensor) -> Tensor:
        a0 = math.pi / 2 * self.offset / (1 + self.offset)
        rise = math.pi / 2 * t / (1 + self.offset)  # a - a0
        # cos²(a0) - cos²(a) = sin(a - a0)·sin(a + a0): exactly 0 at t = 0 and precise beside it.
        return torch.log1p(-torch.sin(rise) * torch.sin(rise + 2 * a0) / math.cos(a0) ** 2)

    def time(self, log_snr: Tensor) -> Tensor:
        """The times (n,) of log SNRs (n,)."""
        log_alpha_bar = logsigmoid(log_snr.double())
        knee = log_snr.new_tensor(1 - 1 / self.steps, dtype=torch.float64)
        below_knee = (log_alpha_bar - self._uncapped(knee)).clamp(max=0)
        a0 = math.pi / 2 * self.offset / (1 + self.offset)
        # sin²(a) - sin²(a0), then sin(a) - sin(a0) = 2 cos((a + a0)/2) sin((a - a0)/2): precise beside t = 0.
        rise = -torch.expm1(log_alpha_bar - below_knee) * math.cos(a0) ** 2
        sin = (math.sin(a0) ** 2 + rise).sqrt()
        half = rise / (sin + math.sin(a0)) / (2 * torch.cos((torch.asin(sin) + a0) / 2))
        t = 2 * torch.asin(half) * 2 / math.pi * (1 + self.offset)
        return (t + below_knee / LOG_CAP / self.steps).clamp(0, 1)


@dataclass(frozen=True)
class RectifiedFlow:
    """The straight path of rectified flow and flow matching (Liu et al. 2022, Lipman et al. 2022).

    alpha = 1 - t, sigma = t. It ends at pure noise.
    """

    def __call__(self, t: Tensor) -> Level:
        return Level(1 - t.double(), t.double())

    def time(self, log_snr: Tensor) -> Tensor:
        """The times (n,) of log SNRs (n,)."""
        return torch.sigmoid(-log_snr.double() / 2)


@dataclass(frozen=True, kw_only=True)
class VarianceExploding:
    """The signal keeps its scale and the noise grows (Song et al. 2021; Karras et al. 2022): alpha = 1.

    sigma = sigma_min·((1 + sigma_max / sigma_min)^t - 1): geometric above sigma_min as in Song et al.,
    yet 0 at t = 0. sigma = sigma_max at t = 1.
    """

    sigma_min: float = 0.002
    sigma_max: Annotated[float, Field(le=1e6)] = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise UsageError(
                "diffusion.variance_exploding_range", sigma_min=self.sigma_min, sigma_max=self.sigma_max
            )

    @property
    def _log_growth(self) -> float:
        return math.log1p(self.sigma_max / self.sigma_min)

    def __call__(self, t: Tensor) -> Level:
        sigma = self.sigma_min * torch.expm1(t.double() * self._log_growth)
        return Level(torch.ones_like(sigma), sigma)

    def time(self, log_snr: Tensor) -> Tensor:
        """The times (n,) of log SNRs (n,)."""
        sigma = torch.exp(-log_snr.double() / 2)
        return (torch.log1p(sigma / self.sigma_min) / self._log_growth).clamp(max=1)


def _variance_preserving(log_alpha_bar: Tensor) -> Level:
    return Level(torch.exp(log_alpha_bar / 2), torch.expm1(log_alpha_bar).abs().sqrt())


def broadcast(values: Tensor, x: Tensor) -> Tensor:
    """One number for each signal, (n,) or (), shaped to multiply x (n, ...), in its type, on its device."""
    return values.to(x.dtype).to(x.device).reshape(-1, *[1] * (x.ndim - 1))


def terminal_snr(schedule: Schedule) -> float:
    """alpha² / sigma² at t = 1. Sampling starts from noise, so it should be near zero."""
    alpha, sigma = schedule(torch.ones(1, dtype=torch.float64))
    return (alpha / sigma).square().item()


def terminal_warning(schedule: Schedule) -> Message | None:
    """A sentence where a schedule ends with too much signal left (SNR above 0.001), else None.

    Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed".
    """
    snr = terminal_snr(schedule)
    if snr <= 1e-3:
        return None
    return message("diffusion.terminal_snr", alpha_bar=f"{snr / (1 + snr):.3f}", snr=f"{snr:.2g}")


SCHEDULES = Registry(
    "schedule",
    {
        "linear_beta": LinearBeta,
        "cosine": Cosine,
        "rectified_flow": RectifiedFlow,
        "variance_exploding": VarianceExploding,
    },
)
