"""Training steps of a recipe on noise, to be timed and to compare their gradients between runtimes."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alphabar.codecs import build_codec
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS
from alphabar.methods.base import Method
from alphabar.methods.registry import METHODS
from alphabar.networks.layers import BatchNorm2d
from alphabar.networks.resample import recompute_blocks
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.runtime import Runtime, compiled, synchronize
from alphabar.training.labels import Conditions

# How near to those of eager float32 the gradients of each parameter must be: least cosine, largest ratio of
# norms either way. A network with ReLUs and batch normalisation has cosines down to 0.93 in eager bf16, which
# is rounding; where code is compiled wrongly, single parameters have 0.
EXACT, ROUNDED = (0.9, 1.25), (0.5, 2.0)
# In eager bf16, of biases and gains: the many terms of their gradients cancel all but wholly in the critic of
# a GAN, which scores real against generated samples, and rounding is what is left.
SUMMED = (-1.0, 10.0)
NO_WORSE = 0.05  # by so much a compiled gradient may be worse than an eager one beyond those bounds
BATCHES = 3  # of noise, which steps take in turn: in a single one the gradient of a gain can all but cancel
FP16_SCALE = 2.0**16  # of the loss, as in training: gradients in fp16 would vanish


class Trial:
    """Training steps with the loss of the recipe's method, on noise in place of data.

    conditions: of the data set; None for a recipe without. Weights are random, those that begin at zero too:
    what lies behind a branch that is switched off would have no gradient to compare.
    Nothing here waits for other processes.
    """

    def __init__(self, recipe: Recipe, conditions: Conditions | None = None):
        self.recipe = recipe
        self.denoiser = build_denoiser(recipe, conditions.vocabulary if conditions else None)
        self.network = self.denoiser.network.train()
        self.rows = conditions.rows if conditions else None
        if recipe.recompute:
            recompute_blocks(self.network)
        self._method: Method | None = None
        self._scale = 1.0
        _disturb(self.network.parameters())
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # eager and compiled steps must be comparable
            if isinstance(module, BatchNorm2d):
                module.over_processes = False

    def method(self, runtime: Runtime) -> Method:
        """The method of the recipe, which trains the network of this trial. Raises UsageError as it does."""
        network = compiled(self.network) if runtime.compile else self.network
        denoiser = self.denoiser.with_network(network)
        method = METHODS.build(self.recipe.method, denoiser=denoiser, recipe=self.recipe, runtime=runtime)
        _disturb(method.prepared_parameters().values())
        return method

    def step(self, runtime: Runtime, n: int, *, by_the_clock: bool = False) -> Callable[[], float]:
        """A training step on n samples, to be called for the seconds that it takes. Weights stay.

        Each call takes the next of `BATCHES` batches of noise, and the first again after the last.
        On a CPU they are those that this thread was at work, which other programs hardly change, unless they
        are to be counted by the clock.
        """
        clock = time.perf_counter if by_the_clock or runtime.device != "cpu" else time.thread_time
        runtime.place(self.network)
        method = self.method(runtime)
        generator = torch.Generator().manual_seed(0)
        signals = torch.randn(BATCHES, 2, n, *build_codec(self.recipe.data).shape, generator=generator)
        batches = itertools.cycle([(runtime.put(x0.clamp(-1, 1)), runtime.put(eps)) for x0, eps in signals])
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        t = NOISE_DISTRIBUTIONS.build(self.recipe.noise_distribution)(self.denoiser.schedule, u)
        cond = None
        if self.rows is not None:
            cond = self.rows[torch.arange(n) % len(self.rows)].to(runtime.device)
        scale = FP16_SCALE if runtime.dtype is torch.float16 else 1.0

        def seconds() -> float:
            runtime.place(self.network)  # another step may have placed it elsewhere
            self.network.zero_grad()
            torch.manual_seed(0)  # of augmentation
            x0, eps = next(batches)
            synchronize(runtime.device)
            began = clock()
            method.prepare(x0, eps, 0, 0.0, 0.0)
            with runtime.autocast():
                losses = method.losses(x0, t, eps, cond)
            (scale * losses.mean()).backward()
            synchronize(runtime.device)
            self._method, self._scale = method, scale
            return clock() - began

        return seconds

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by parameter, in float32; zeros where there is none."""
        assert self._method is not None
        found = {
            name: torch.zeros_like(p) if p.grad is None else p.grad.float() / self._scale
            for name, p in self.network.named_parameters()
            if p.requires_grad
        }
        return found | {
            name: torch.zeros_like(p) if p.grad is None else p.grad.float().clone()
            for name, p in self._method.prepared_parameters().items()
        }

    def gradients_in(self, runtime: Runtime, n: int) -> dict[str, Tensor]:
        """The gradients of steps on n samples in a runtime, those of all `BATCHES` one above the other."""
        step = self.step(runtime, n)
        found = []
        for _ in range(BATCHES):
            step()
            found.append(self.gradients())
        return {name: torch.stack([gradients[name] for gradients in found]) for name in found[0]}


def _disturb(parameters: Iterable[nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)


class Difference(NamedTuple):
    """How the gradient of a parameter differs from the right one: cosine, and ratio of the norms."""

    parameter: str
    cosine: float
    norms: float

    def within(self, bounds: tuple[float, float]) -> bool:
        """Whether it is no larger than (least cosine, largest ratio either way); never, where not finite."""
        return self.cosine >= bounds[0] and 1 / bounds[1] <= self.norms <= bounds[1]


def wrong_gradient(
    found: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    eager: Mapping[str, Tensor] | None = None,
    rounded: bool = False,
) -> Difference | None:
    """The parameter whose gradient is farthest from the right one, if any is out of bounds; else None.

    found, right: gradients by parameter, of several batches one above the other, the latter of eager float32;
    where those are zero throughout there is nothing to compare.
    eager: of an eager step in found's precision. Where it is out of bounds too, found must be no worse.
    rounded: whether found is itself of an eager step in a lower precision.
    """
    wrong = []
    for name, wanted in right.items():
        if not wanted.any():
            continue
        difference = _difference(name, found[name], wanted)
        bounds = (ROUNDED if wanted.ndim > 2 else SUMMED) if rounded else EXACT
        allowed = bounds
        if eager is not None:
            rounding = _difference(name, eager[name], wanted)
            if not rounding.within(bounds) and rounding.norms > 0:
                ratio = max(rounding.norms, 1 / rounding.norms)
                allowed = (rounding.cosine - NO_WORSE, ratio * (1 + NO_WORSE))
        if not difference.within(allowed):
            wrong.append(difference)
    return min(wrong, key=lambda difference: difference.cosine, default=None)


def _difference(name: str, found: Tensor, right: Tensor) -> Difference:
    a, b = found.double().flatten(), right.double().flatten()
    norms = (a.norm() / b.norm()).item()
    return Difference(name, (a @ b / (b.norm() * a.norm())).item() if norms else 0.0, norms)
