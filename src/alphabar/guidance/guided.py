"""Guidance: denoisers in, a denoiser out, that asks more of a picture than the model alone would.

Every guidance adds to the answer D what sets it apart from a worse one, and the sum of several is one guided
denoiser. Classifier-free guidance and autoguidance have a scale w, where **1 is none**; SAG, PAG and
classifier guidance have a scale s, where 0 is none. All evaluations of one network that do not wait for
another's answer share one batch.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.diffusion.schedules import broadcast

EVERYWHERE = (0.0, math.inf)


IdentityAttention = Callable[[Tensor], AbstractContextManager[None]]
"""rows (n,) bool -> while open, the network's middle attention is the identity for these pictures."""


RecordAttention = Callable[[], AbstractContextManager[list[Tensor]]]
"""While open, each pass of the network adds the attention that positions receive, (n, h, w), mean 1."""


class DenoiserInput(NamedTuple):
    """What is asked of the denoiser: x (n, ...), t (n,), cond (n, columns) or None."""

    x: Tensor
    t: Tensor
    cond: Condition | None


@dataclass(frozen=True)
class ClassifierFree:
    """(w - 1)(D_c - D_u), in all D_u + w(D_c - D_u) (Ho and Salimans 2022, eq. 6, with w - 1 for their w).

    Where nothing is asked, D_c is D_u and it adds nothing.

    negative: (columns,), what is asked for in D_u instead of nothing: what pictures are led away from.
    """

    scale: float
    negative: Condition | None = None


@dataclass(frozen=True)
class Autoguidance:
    """(w - 1)(D - D_bad), in all D_bad + w(D - D_bad), for a worse model of the same (Karras et al. 2024)."""

    bad: Denoiser
    scale: float


@dataclass(frozen=True)
class PerturbedAttention:
    """s(D - D_id), where the middle attention of D_id is the identity (PAG, Ahn et al. 2024).

    interval: noise levels lo < sigma/alpha <= hi of its own, within those at which guidances act at all.
    """

    each_alone: IdentityAttention
    scale: float
    interval: tuple[float, float] = EVERYWHERE


@dataclass(frozen=True)
class SelfAttentionGuidance:
    """s(Dhat - D(xbar)) (SAG, Hong et al. 2023, written for x0).

    Dhat is D blurred where a position receives more than its share of the middle attention, and
    xbar = alpha·Dhat + (x - alpha·D) is x with the same noise on it. blur: standard deviation of the Gaussian
    in pixels; 0 makes it no guidance at all. It asks again after D, so it costs a second pass.
    """

    recorded: RecordAttention
    scale: float
    blur: float = 1.0


@dataclass(frozen=True)
class ClassifierGuidance:
    """s·sigma²/alpha·grad log p(c | x_t) (Dhariwal and Nichol 2021, algorithm 2, written for x0).

    With s = 1, D the unconditional mean and the exact p, it is Bayes' rule. Undefined where alpha is 0.
    log_prob: (x, t, cond) -> (n,), differentiable, of a classifier that knows noisy pictures.
    """

    log_prob: Callable[[Tensor, Tensor, Condition | None], Tensor]
    scale: float


Guidance = ClassifierFree | Autoguidance | PerturbedAttention | SelfAttentionGuidance | ClassifierGuidance


def guided(
    denoiser: Denoiser, guidances: Sequence[Guidance], *, interval: tuple[float, float] = EVERYWHERE
) -> Denoiser:
    """The denoiser with guidances added to its answers, in any order.

    interval: the noise levels lo < sigma/alpha <= hi within which they act (Kynkäänniemi et al. 2024);
        elsewhere nothing but the denoiser itself is asked.
    """

    def acting(g: Guidance, ratio: Tensor) -> Tensor:
        inside = _within(interval, ratio)
        return inside & _within(g.interval, ratio) if isinstance(g, PerturbedAttention) else inside

    def answer(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        if not guidances:
            return denoiser(x, t, cond)
        level = denoiser.schedule(t)
        acts = torch.stack([acting(g, level.sigma / level.alpha) for g in guidances], 1)  # (n, guidances)
        out = torch.empty_like(x)
        for choice in acts.unique(dim=0):
            picked = (acts == choice).all(1)
            of = [g for g, on in zip(guidances, choice) if on]
            if picked.all():
                return _guided(denoiser, of, DenoiserInput(x, t, cond))
            rows = picked.to(x.device)
            asked = DenoiserInput(x[rows], t[picked], None if cond is None else cond[rows])
            out[rows] = _guided(denoiser, of, asked)
        return out

    return FunctionDenoiser(denoiser.schedule, answer)


def _within(interval: tuple[float, float], ratio: Tensor) -> Tensor:
    return (ratio > interval[0]) & (ratio <= interval[1])


def _guided(denoiser: Denoiser, guidances: Sequence[Guidance], asked: DenoiserInput) -> Tensor:
    x, t, cond = asked
    n = len(x)
    batch = [asked]
    weights: list[float] = []  # of the answers after the first
    alone = torch.zeros(n, dtype=torch.bool, device=x.device)
    for g in guidances:
        match g:
            case ClassifierFree(scale, negative) if cond is not None:
                away = torch.full_like(cond, math.nan) if negative is None else negative.expand_as(cond)
                batch.append(DenoiserInput(x, t, away))
                weights.append(scale - 1)
            case PerturbedAttention(_, scale):
                batch.append(asked)
                weights.append(scale)
            case _:
                continue
        alone = torch.cat([alone, torch.full_like(alone[:n], isinstance(g, PerturbedAttention))])

    with ExitStack() as stack:
        if alone.any():
            for g in guidances:
                if isinstance(g, PerturbedAttention):
                    stack.enter_context(g.each_alone(alone))
        maps: list[Tensor] = []
        for g in guidances:
            if isinstance(g, SelfAttentionGuidance):
                maps = stack.enter_context(g.recorded())
        D, *others = _together(denoiser, batch).split(n)

    total = D
    for weight, other in zip(weights, others, strict=True):
        total = total + weight * (D - other)
    for g in guidances:
        match g:
            case Autoguidance(bad, scale):
                total = total + (scale - 1) * (D - bad(x, t, cond))
            case SelfAttentionGuidance(_, scale, blur):
                alpha = broadcast(denoiser.schedule(t).alpha, x)
                Dhat = torch.where(_attended(maps[-1][:n], x), blurred(D, blur), D)
                total = total + scale * (Dhat - denoiser(alpha * Dhat + (x - alpha * D), t, cond))
            case ClassifierGuidance(log_prob, scale):
                level = denoiser.schedule(t)
                with torch.enable_grad():
                    moved = x.detach().requires_grad_()
                    (gradient,) = torch.autograd.grad(log_prob(moved, t, cond).sum(), moved)
                total = total + broadcast(scale * level.sigma**2 / level.alpha, x) * gradient
            case _:
                pass
    return total


def _together(denoiser: Denoiser, batch: Sequence[DenoiserInput]) -> Tensor:
    """The answers to several questions, asked as one."""
    if len(batch) == 1:
        return denoiser(*batch[0])
    conds = [q.cond for q in batch if q.cond is not None]
    cond = torch.cat(conds) if conds else None
    return denoiser(torch.cat([q.x for q in batch]), torch.cat([q.t for q in batch]), cond)


def _attended(received: Tensor, x: Tensor) -> Tensor:
    """Where positions (n, h, w) receive more than 1 of the attention, at the size of x (n, c, H, W)."""
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
