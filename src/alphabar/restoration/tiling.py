"""TODO-DOC from restoring"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser, clipped
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Step
from alphabar.diffusion.schedules import broadcast
from alphabar.guidance import PerturbedAttention, guided
from alphabar.restoration.operators.base import Linear, Operator, Shape
from alphabar.restoration.operators.compose import PerSampleOperator, compose
from alphabar.restoration.operators.mask import Mask, crop
from alphabar.restoration.operators.separable import Separable
from alphabar.restoration.settings import GUIDED, RestorationSettings, _times
from alphabar.restoration.solvers.base import Observation
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.runs.model import Model

WINDOWS = 64
"""Of a larger picture that are seen in one call: they take some GiB where a solver goes back through them."""


AGAIN = 0.3
"""The noise, sigma / alpha, from which an answer is made anew at a larger size."""


def _walk(
    model: Model,
    known: Observation,
    settings: RestorationSettings,
    times: Tensor,
    noise: Noise,
    coarse: Tensor | None,
) -> Iterator[Step]:
    """Answers at one size. coarse: those at the size before, to begin with instead of the mean picture."""
    size, y, (h, w) = model.recipe.data.size, known.y, known.operator.shape[1:]
    guides = []
    if settings.pag and model.attention:
        guides = [PerturbedAttention(scale=settings.pag, interval=GUIDED).bind(model, conditioned=False)]
    # A mean of pictures lies in their range. A network's answer may not, and what leaves it is amplified.
    denoiser = clipped(guided(model.denoiser, guides), model.codec.bounds)
    large = (3, max(h, size), max(w, size))
    margin = (0, large[2] - w, 0, large[1] - h)
    if large != (3, size, size):
        holes = _holes(known.operator, known.sigma_y, size)
        exact = isinstance(known.operator, Mask) and known.sigma_y == 0
        denoiser = windowed(denoiser, size, holes, F.pad(y, margin) if exact else None)
    A = _in(known.operator, large)
    # Where the schedule does not reach noise the start matters: noise around what y and the mean tell.
    guess = F.interpolate(model.statistics.mean[None].to(y), large[1:], mode="bilinear")
    guess = guess.expand(len(y), *large)
    if coarse is not None:
        guess = F.pad(F.interpolate(coarse, (h, w), mode="bicubic").clamp(-1, 1), margin, mode="replicate")
    guess = A.prox(guess, y, known.sigma_y**2 / 0.25) if isinstance(A, Linear) else A.pinv(y)
    level = denoiser.schedule(times[0])
    eps = replace(noise, purpose=noise.purpose + "/start").normal(0, guess)
    x = broadcast(level.alpha, guess) * guess + broadcast(level.sigma, guess) * eps
    yield from SOLVERS.build(settings.solver)(denoiser, x, times, noise, known._replace(operator=A), None)


def _walks(
    model: Model, operator: Operator, settings: RestorationSettings
) -> list[tuple[tuple[int, int], Tensor]]:
    """The sizes at which a picture is restored, and on which times.

    Where a region is missing, or all colour, the whole tells what belongs there, and windows of a larger
    picture do not. It is found at the model's size, or the first at which it is more than a speck, then in
    steps of at most two from the answer before with noise of `AGAIN`. Of all else y tells what is where.
    """
    h, w = operator.shape[1:]
    size, times = model.recipe.data.size, _times(model, settings.steps)
    scale = size / max(size, min(h, w))
    whole = (size, size) if model.recipe.data.fit == "squash" else (round(h * scale), round(w * scale))
    doublings = math.ceil(math.log2(max(h / whole[0], w / whole[1], 1)))
    shares = [i / doublings for i in range(doublings)]
    sizes = [(round(whole[0] ** (1 - s) * h**s), round(whole[1] ** (1 - s) * w**s)) for s in shares]
    least = max(8, size // 8)  # pixels of a hole that what is around it does not fill
    smaller = [(a, b) for a, b in sizes if _lacks(operator, least * h // a, least * w // b)]
    level = model.denoiser.schedule(times)
    late = times[min(int((level.sigma > AGAIN * level.alpha).sum()), len(times) - 2) :]
    return [(at, late if i else times) for i, at in enumerate([*smaller, (h, w)])]


def _shrunk(known: Observation, size: tuple[int, int]) -> Observation:
    """What is known of a picture at a smaller size: each pixel the mean of the known ones under it."""
    A = known.operator
    if isinstance(A, Separable):
        smaller = Separable((3, *size), colours=A.matrices[0])
        return known._replace(operator=smaller, y=F.interpolate(known.y, size, mode="area"))
    s = known.operator.s.to(known.y).expand(known.y.shape)  # type: ignore[attr-defined]
    share = F.interpolate(s, size, mode="area")
    y = F.interpolate(s * known.y, size, mode="area") / torch.where(share > 0, share, 1)
    return known._replace(operator=Mask((share > 0).cpu(), (3, *size)), y=y)


def _lacks(operator: Operator, rows: int, columns: int) -> bool:
    """Whether a region of a picture so large is missing, or the colour of all of it."""
    if isinstance(operator, Mask):
        known = (operator.s > 0).flatten(0, -3).float()
        known = F.max_pool2d(known, (min(rows, known.shape[1]), 1), stride=1)
        return not F.max_pool2d(known, (1, min(columns, known.shape[2])), stride=1).all()
    if isinstance(operator, Separable):
        colours, *sides = operator.matrices
        return colours is not None and sides == [None, None]
    return False


def _holes(operator: Operator, sigma_y: float, size: int) -> Tensor:
    """The pixels that are to be found, of one or of another picture: bool, at least size × size."""
    h, w = operator.shape[1:]
    holes = torch.ones(h, w, dtype=torch.bool)
    if isinstance(operator, Mask) and sigma_y == 0:
        holes = (operator.s == 0).flatten(0, -3).any(0)
    return F.pad(holes, (0, max(0, size - w), 0, max(0, size - h)))


def _in(operator: Operator, large: Shape) -> Operator:
    """The operator for a picture that lies at the top left of a larger one."""
    if operator.shape == large:
        return operator
    if isinstance(operator, PerSampleOperator):
        return PerSampleOperator([_in(one, large) for one in operator.operators])  # type: ignore[misc]
    return compose(crop(large, *operator.shape[1:]), operator)


def windowed(
    denoiser: Denoiser, size: int, holes: Tensor | None = None, known: Tensor | None = None
) -> Denoiser:
    """The denoiser for pictures at least as large: the mean of what it says in overlapping windows.

    Windows are size × size and overlap by at least a quarter; each counts most in its middle and fades to its
    border, so that pictures have no seams. All of them walk together (Bar-Tal et al. 2023, MultiDiffusion).
    holes: (h, w) bool, the pixels that matter: windows without any are left out, and where there is none
        the answer is ``known``, a picture (n, c, h, w).
    """
    ramp = torch.minimum(torch.arange(size) + 0.5, size - torch.arange(size) - 0.5)
    weight = ramp[:, None] * ramp

    def function(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        corners = _corners(torch.ones(x.shape[2:]) if holes is None else holes, size)
        shares = weight.to(x)
        total, mass = torch.zeros_like(x), x.new_zeros(x.shape[2:])
        for a, b in corners:
            mass[a : a + size, b : b + size] += shares
        per_call = max(1, WINDOWS // len(x))
        for i in range(0, len(corners), per_call):
            some = corners[i : i + per_call]
            windows = torch.cat([x[:, :, a : a + size, b : b + size] for a, b in some])
            conds = None if cond is None else cond.repeat(len(some), *[1] * (cond.ndim - 1))
            asked = (windows, t.repeat(len(some)), conds)
            # All that a backward pass needs of many windows is more than memory holds: it asks them again.
            many = len(corners) > per_call and torch.is_grad_enabled()
            said = checkpoint(denoiser, *asked, use_reentrant=False) if many else denoiser(*asked)
            for (a, b), D in zip(some, said.split(len(x))):
                total[:, :, a : a + size, b : b + size] += shares * D
        return total / mass if known is None else torch.where(mass > 0, total / mass.clamp(min=0.25), known)

    return FunctionDenoiser(denoiser.schedule, function)


def _corners(holes: Tensor, size: int) -> list[tuple[int, int]]:
    """The top left corners of the windows that show every hole, one at least."""
    spans = [torch.nonzero(holes.any(axis)).flatten().tolist() for axis in (1, 0)]
    if not spans[0]:
        return [(0, 0)]
    rows, columns = (_starts(n, size, span[0], span[-1] + 1) for n, span in zip(holes.shape, spans))
    return [(a, b) for a in rows for b in columns if holes[a : a + size, b : b + size].any()]


def _starts(length: int, size: int, begin: int, end: int) -> list[int]:
    """Where windows begin that cover [begin, end) and an eighth of their size around it, as far as there is.

    Evenly, at most three quarters of the size apart.
    """
    begin, end = max(0, begin - size // 8), min(length, end + size // 8)
    short = max(0, size - (end - begin))  # by what one window is wider
    begin = min(max(0, begin - short // 2), length - size)
    end = max(end, begin + size)
    count = 1 + math.ceil((end - begin - size) / (size * 3 // 4))
    return [round(i) for i in np.linspace(begin, end - size, count)]


def spread(x: Tensor) -> Tensor:
    """How far n answers (n, b, c, h, w) lie apart at each pixel: (b, h, w), standard deviations."""
    return x.std(0, correction=1).square().mean(1).sqrt()
