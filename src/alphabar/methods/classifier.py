"""TODO-DOC from training.methods"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alphabar.codecs.image import to_signal
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.diffusion.schedules import broadcast
from alphabar.methods.base import require_single_process
from alphabar.methods.diffusion import Diffusion
from alphabar.networks.classifier import Classifier
from alphabar.runtime import Runtime


class NoisyClassifier(Diffusion):
    """-log p(c | x_t), at the noise levels that the density draws (Dhariwal and Nichol 2021, 4)."""

    denoises = False
    samples = False
    classifies = True
    needs_condition = True
    networks = ("classifier",)

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        require_single_process("classifier", runtime)
        self.classifier = denoiser

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        assert cond is not None
        return -log_prob(self.classifier, diffuse(self.classifier.schedule, x0, t, eps), t, cond)


def log_prob(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
    """log p(cond | x_t) (n,) of pictures x (n, c, h, w) at times t (n,), of what is known in cond."""
    return _classifier(classifier).log_prob(*_seen(classifier, x, t), cond)


def accuracy_by_field(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Condition) -> list[Tensor]:
    """For each field of classes, of which pictures the likeliest is the one in cond: (n,), NaN if unknown."""
    return _classifier(classifier).correct(*_seen(classifier, x, t), cond)


def noisy_inputs(classifier: NetworkDenoiser, pictures: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (n, h, w, 3) uint8 as a classifier likes to see them, batch by batch: (x_t, t).

    It has seen few without noise: they have a little, sigma/alpha = 0.1, the same whatever the batch.
    """
    device = next(classifier.parameters()).device
    for at in range(0, len(pictures), 64):
        x0 = to_signal(pictures[at : at + 64]).to(device)
        t = classifier.schedule.time(torch.full((len(x0),), -2 * math.log(0.1), dtype=torch.float64))
        eps = Noise(0, range(at, at + len(x0)), "classifier").normal(0, x0)
        yield diffuse(classifier.schedule, x0, t, eps), t


@torch.no_grad()
def classifier_features(classifier: NetworkDenoiser, pictures: Tensor) -> Tensor:
    """What a classifier decides by for pictures (n, h, w, 3) uint8, (n, d)."""
    found = []
    for x, t in noisy_inputs(classifier, pictures):
        found.append(_classifier(classifier).features(*_seen(classifier, x, t)).cpu())
    return torch.cat(found)


def _classifier(classifier: NetworkDenoiser) -> Classifier:
    assert isinstance(classifier.network, Classifier)
    return classifier.network


def _seen(classifier: NetworkDenoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    coeffs = classifier.coeffs(t)
    return broadcast(coeffs.c_in, x) * x, coeffs.c_noise.to(x.dtype).to(x.device)
