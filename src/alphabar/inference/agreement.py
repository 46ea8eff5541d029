"""Whether a model that computes in another way still gives what it gives in float32."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser, without_condition
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.preconditioning import Preconditioning
from alphabar.diffusion.samplers import SAMPLERS, generate
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError
from alphabar.guidance import build_guidances, guided
from alphabar.inference.runtime import InferenceRuntime
from alphabar.messages import Message, message
from alphabar.networks.base import Network
from alphabar.runs.model import Model

PICTURES = 4
"""Samples that are generated both ways."""

MOST_APART, MOST_APART_GRADIENT, MOST_APART_LEVELS = 0.02, 0.05, 1.0
"""Relative error of the network's output F, and of its vector-Jacobian products, at any noise level; and the
mean difference of finished pictures, of 255.

The denoised signal D = c_skip·x + c_out·F would hide errors of F at low noise, where c_out is small.
"""


class Evaluation(NamedTuple):
    """An evaluation of the network on the way of a sampling: its input, and F (n, channels, *spatial).

    identity: the rows (n,) bool whose middle attention was the identity (perturbed-attention guidance).
    """

    x: Tensor
    coeffs: Preconditioning
    cond: Condition | None
    identity: Tensor | None
    F: Tensor


class Reference(NamedTuple):
    """What a model computes in float32: the evaluations of a sampling, and its pictures (n, h, w, c)."""

    evaluations: list[Evaluation]
    pictures: Tensor


class _Recorder(NetworkDenoiser):
    """A denoiser that keeps what its network is given and answers."""

    def __init__(self, denoiser: NetworkDenoiser):
        super().__init__(denoiser.network, denoiser.parameterization, denoiser.schedule, denoiser.coarse)
        self.seen: list[Evaluation] = []
        self._attention = self.network.middle_attention() if isinstance(self.network, Network) else None

    def predict(self, x: Tensor, coeffs: Preconditioning, cond: Condition | None = None) -> Tensor:
        """F, as the network gives it."""
        F = super().predict(x, coeffs, cond)
        rows = self._attention.identity_rows if self._attention else None
        self.seen.append(Evaluation(x, coeffs, cond, rows, F))
        return F


def reference(model: Model) -> Reference:
    """What a model that computes the plain way gives at every noise level of its own sampling."""
    recorder = _Recorder(model.denoiser).eval()
    pictures = _pictures(model, recorder)
    return Reference(recorder.seen, pictures)


def disagreement(
    model: Model, plain: Model, right: Reference, runtime: InferenceRuntime, gradients: bool
) -> Message | None:
    """A sentence about where a model is too far from what it computes in float32; None where it is nowhere.

    model, plain: the same in its runtime, and the plain way. gradients: whether they must agree too.
    """
    for seen in right.evaluations:
        found = _evaluate(model.denoiser, seen, seen.x)
        if not (apart := relative_error(found, seen.F)) <= MOST_APART:
            return _refusal(runtime, _too_far("inference.output_differs", seen, apart))
        if model.early is not None and plain.early is not None:
            early, wanted = (_evaluate(m.early, seen, seen.x, False) for m in (model, plain) if m.early)
            if not (apart := relative_error(early, wanted)) <= MOST_APART:
                return _refusal(runtime, _too_far("inference.output_differs", seen, apart))
        if gradients:
            apart = relative_error(_product(model.denoiser, seen), _product(plain.denoiser, seen))
            if not apart <= MOST_APART_GRADIENT:
                return _refusal(runtime, _too_far("inference.gradient_differs", seen, apart))
    pictures = _pictures(model, model.denoiser)
    if not (levels := (pictures.float() - right.pictures.float()).abs().mean().item()) <= MOST_APART_LEVELS:
        return _refusal(runtime, message("inference.pictures_differ", levels=levels))
    return None


def relative_error(found: Tensor, right: Tensor) -> float:
    """The norm of the difference as a share of that of what is right; not finite where something is not."""
    return ((found - right).norm() / right.norm().clamp(min=1e-30)).item()


def _refusal(runtime: InferenceRuntime, reason: Message) -> Message:
    return message("inference.refused", runtime=runtime.name, reason=reason)


def _too_far(identifier: str, seen: Evaluation, apart: float) -> Message:
    c_noise = seen.coeffs.c_noise.flatten()[0].item()
    if not math.isfinite(apart):
        return message("inference.not_finite", c_noise=c_noise)
    return message(identifier, c_noise=c_noise, apart=apart)


def _evaluate(denoiser: NetworkDenoiser, seen: Evaluation, x: Tensor, perturbed: bool = True) -> Tensor:
    """F of a denoiser at a recorded input, with the attention as it was then."""
    network = denoiser.network
    attention = network.middle_attention() if isinstance(network, Network) else None
    if attention is None or seen.identity is None or not perturbed:
        return denoiser.predict(x, seen.coeffs, seen.cond)
    with attention.identity_attention(seen.identity):
        return denoiser.predict(x, seen.coeffs, seen.cond)


def _product(denoiser: NetworkDenoiser, seen: Evaluation) -> Tensor:
    """Jᵀv of the network at a recorded input, for the same random v every time."""
    v = torch.randn(seen.F.shape, generator=torch.Generator().manual_seed(0)).to(seen.F)
    with torch.enable_grad():
        x = seen.x.detach().requires_grad_()
        (product,) = torch.autograd.grad(_evaluate(denoiser, seen, x), x, v)
    return product


def _pictures(model: Model, denoiser: NetworkDenoiser) -> Tensor:
    """Pictures (n, h, w, channels) uint8 from the recipe's own sampling, guidance included."""
    sampling, codec = model.recipe.sampling, model.codec
    cond = _conditions(model)
    inner: Denoiser = denoiser if model.vocabulary is not None else without_condition(denoiser)
    times = TIMESTEPS.build(sampling.timesteps)(denoiser.schedule, sampling.steps)
    steps: Iterator = generate(
        guided(inner, list(_guidances(model, cond is not None))),
        shape=model.shape,
        positions=range(PICTURES),
        seed=0,
        sampler=SAMPLERS.build(sampling.sampler),
        times=times,
        initial_noise=INITIAL_NOISES.build(sampling.initial_noise, statistics=model.statistics, codec=codec),
        cond=cond,
        device=model.device,
    )
    *_, end = steps
    return codec.preview(codec.decode(end.x.cpu()))


def _guidances(model: Model, conditioned: bool) -> Iterator:
    """The recipe's guidances that the model has the means for."""
    for guidance in build_guidances(model.recipe.sampling.guidance):
        if type(guidance).available(model) and (conditioned or not guidance.needs_condition):
            with suppress(AlphabarError):  # one that needs another model, which is not part of this one
                yield guidance.bind(model, conditioned=conditioned)


def _conditions(model: Model) -> Condition | None:
    """Conditions (n, columns) of training samples; None where the model has none."""
    if model.vocabulary is None or not model.label_frequencies:
        return None
    known = model.label_frequencies
    chosen = [known[i * len(known) // PICTURES] for i in range(PICTURES)]
    try:
        return torch.stack([model.vocabulary.row(labels) for labels in chosen]).to(model.device)
    except AlphabarError:  # sentences need a package that may be missing
        return None
