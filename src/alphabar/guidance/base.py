"""Guidance: what is added to the denoised signal so that samples are better or fit their condition better.

Every guidance adds to the denoised signal D a multiple of what sets D apart from a worse estimate; the sum of
several is one guided denoiser. With w for a scale whose neutral value is 1 and s for one whose neutral value
is 0,

    D_guided = D + (w - 1)·(D - D_worse)   or   D_guided = D + s·(D - D_worse).

All evaluations of one network that do not wait for another's result share one batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.errors import UsageError
from alphabar.networks.layers import Attention

Interval = tuple[float, float]
"""Noise levels lo < sigma/alpha <= hi, with 0 <= lo < hi."""

EVERYWHERE: Interval = (0.0, math.inf)


class GuidedModel(Protocol):
    """What a guidance may use of a model."""

    @property
    def denoiser(self) -> Denoiser:
        """The model without guidance."""
        ...

    @property
    def attention(self) -> Attention | None:
        """The self-attention in the middle of the network, where there is one."""

    @property
    def early(self) -> Denoiser | None:
        """The model as it was early in its training, where that was kept."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What the model can be conditioned on; None where its network takes no condition."""

    @property
    def path(self) -> Path:
        """Where the model lies, for messages."""


LoadModel = Callable[[str], Any]
"""(path of a run or model folder) -> the model in it, on the device of the model that is guided."""


class DenoiserInput(NamedTuple):
    """What the denoiser is evaluated at: x (n, ...), t (n,), cond (n, columns) or None."""

    x: Tensor
    t: Tensor
    cond: Condition | None


class Worse(NamedTuple):
    """The evaluation that a guidance leads away from, where it is one: D_guided = D + factor·(D - D_worse).

    early: of the model as it was early in its training. identity: with the identity as the middle attention.
    condition: with this condition (columns,) or (), NaN where unknown, in place of the sample's own.
    """

    early: bool = False
    identity: bool = False
    condition: Condition | None = None


class Denoised(NamedTuple):
    """What is known when a guidance computes its term.

    denoiser: the denoiser without guidance. x, t, cond: its input. D: its estimate (n, ...).
    extra: its estimate at the guidance's `extra_input`, (n, ...); None where there was none.
    seen: what the guidance's context `during` the evaluation gave.
    """

    denoiser: Denoiser
    x: Tensor
    t: Tensor
    cond: Condition | None
    D: Tensor
    extra: Tensor | None
    seen: Any


@dataclass(kw_only=True)
class Guidance(ABC):
    """One guidance and its settings. A subclass is a dataclass; its fields are settings with a default.

    scale: how strongly it acts. interval: the noise levels sigma/alpha within which it acts; None: all.

    option: its name on the command line. neutral: the scale that changes nothing.
    scale_range: the scales that are worth trying. help: what it does, in one line.
    extra_evaluations: how many evaluations of a denoiser it adds to the one that every step makes.
    needs_condition: whether it leads towards a condition and so does nothing for samples without one.
    required_settings: further settings without which it cannot act.
    setting_options: for each further setting its name on the command line and one line of help.

    Raises UsageError for a scale that is not finite and for an interval that is empty.
    """

    option: ClassVar[str]
    neutral: ClassVar[float] = 0.0
    scale_range: ClassVar[tuple[float, float]] = (0.0, 5.0)
    help: ClassVar[str] = ""
    extra_evaluations: ClassVar[int] = 1
    needs_condition: ClassVar[bool] = False
    required_settings: ClassVar[tuple[str, ...]] = ()
    setting_options: ClassVar[Mapping[str, tuple[str, str]]] = {}

    scale: float = 0.0
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise UsageError("guidance.scale_not_finite", option=self.option, scale=self.scale)
        check_interval(self.interval)

    @classmethod
    def available(cls, model: GuidedModel) -> bool:
        """Whether the model has what this guidance needs."""
        return True

    @property
    def idle(self) -> bool:
        """Whether it changes nothing and says nothing else: a neutral scale and no further setting given."""
        rest = [f for f in fields(self) if f.init and f.name not in ("scale", "interval")]
        given = any(f.default is MISSING or getattr(self, f.name) != f.default for f in rest)
        return self.scale == self.neutral and not given

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What it lets a model be conditioned on whose own network takes no condition."""
        return None

    def bind(self, model: GuidedModel, *, conditioned: bool, load_model: LoadModel | None = None) -> Self:
        """Takes from the model what this guidance needs, once, before the first evaluation. Returns itself.

        conditioned: whether the samples have a condition. load_model: loads another model.
        Raises UsageError naming what is missing.
        """
        return self

    def acts_at(self, ratio: Tensor) -> Tensor:
        """At which of the noise levels sigma/alpha (n,) it acts: bool (n,)."""
        return within(self.interval or EVERYWHERE, ratio)

    def extra_input(self, x: Tensor, t: Tensor, cond: Condition | None) -> DenoiserInput | None:
        """The input that the denoiser is to be evaluated at in the same batch; None where there is none."""
        return None

    def during(self, rows: Tensor) -> AbstractContextManager[Any]:
        """What is open while the batch is evaluated.

        rows (m,) bool: the rows of the batch that are this guidance's `extra_input`, or where it has none
        those of the plain input, which come first.
        """
        return nullcontext()

    def worse(self) -> Worse | None:
        """The evaluation that it leads away from, by scale - neutral; None for a guidance that does more."""
        return None

    @abstractmethod
    def term(self, known: Denoised) -> Tensor:
        """What is added to D, (n, ...)."""


def guided(
    denoiser: Denoiser, guidances: Sequence[Guidance], *, interval: Interval | None = None
) -> Denoiser:
    """The denoiser with the terms of guidances added to what it estimates, in their order.

    guidances: already bound to their model (`Guidance.bind`); those of a neutral scale are left out.
    interval: the noise levels within which any guidance acts (Kynkäänniemi et al. 2024), None for all; at
        others only the denoiser itself is evaluated.
    """
    everywhere = interval or EVERYWHERE
    strong = [g for g in guidances if g.scale != g.neutral]

    def denoise(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        if not strong:
            return denoiser(x, t, cond)
        level = denoiser.schedule(t)
        ratio = level.sigma / level.alpha
        acts = torch.stack([within(everywhere, ratio) & g.acts_at(ratio) for g in strong], 1)
        out = torch.empty_like(x)
        for choice in acts.unique(dim=0):  # acts: (n, guidances); rows on which the same guidances act
            picked = (acts == choice).all(1)
            active = [g for g, on in zip(strong, choice) if on]
            if picked.all():
                return _guided_batch(denoiser, active, DenoiserInput(x, t, cond))
            rows = picked.to(x.device)
            part = DenoiserInput(x[rows], t[picked], None if cond is None else cond[rows])
            out[rows] = _guided_batch(denoiser, active, part)
        return out

    return FunctionDenoiser(denoiser.schedule, denoise)


def _guided_batch(denoiser: Denoiser, guidances: Sequence[Guidance], plain: DenoiserInput) -> Tensor:
    """D and the terms of guidances that all act on every row of the input."""
    n = len(plain.x)
    batch = [plain]
    places: list[int] = []  # of each guidance's own input in the batch; 0 where it has none
    for guidance in guidances:
        own = guidance.extra_input(*plain)
        places.append(0 if own is None else len(batch))
        batch += [] if own is None else [own]
    input_of_row = torch.arange(len(batch), device=plain.x.device).repeat_interleave(n)
    with ExitStack() as stack:
        seen = [stack.enter_context(g.during(input_of_row == place)) for g, place in zip(guidances, places)]
        estimates = _evaluate_together(denoiser, batch).split(n)
    D = total = estimates[0]
    for guidance, place, what in zip(guidances, places, seen, strict=True):
        extra = estimates[place] if place else None
        total = total + guidance.term(Denoised(denoiser, *plain, D, extra, what))
    return total


def _evaluate_together(denoiser: Denoiser, batch: Sequence[DenoiserInput]) -> Tensor:
    """The denoiser's estimates at several inputs, one behind the other, from one evaluation."""
    if len(batch) == 1:
        return denoiser(*batch[0])
    conds = [part.cond for part in batch if part.cond is not None]
    cond = torch.cat(conds) if conds else None
    return denoiser(torch.cat([part.x for part in batch]), torch.cat([part.t for part in batch]), cond)


def within(interval: Interval, ratio: Tensor) -> Tensor:
    """Where the noise levels sigma/alpha (n,) lie within an interval: bool (n,)."""
    return (ratio > interval[0]) & (ratio <= interval[1])


def check_interval(interval: Interval | None) -> None:
    """Raises UsageError for an interval of noise levels that is none; None, for all levels, is one."""
    lo, hi = interval or EVERYWHERE
    if not 0 <= lo < hi:
        raise UsageError("guidance.empty_interval", lo=lo, hi=hi)


def evaluations_at(ratio: float, guidances: Iterable[Guidance], interval: Interval | None = None) -> int:
    """How many evaluations a guided denoiser makes for a sample at the noise level sigma/alpha.

    The network of classifier guidance does not count: it is no denoiser.
    """
    at = torch.tensor(ratio, dtype=torch.float64)
    if not within(interval or EVERYWHERE, at):
        return 1
    return 1 + sum(g.extra_evaluations for g in guidances if g.scale != g.neutral and g.acts_at(at))
