"""The classifier of noisy samples: its loss, and what guidance and evaluation ask of it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.schedules import broadcast
from alphabar.methods.base import Choices, Method, require_single_process
from alphabar.networks.classifier import Classifier
from alphabar.parts import Rows
from alphabar.runtime import Runtime

LOW_NOISE = 0.1  # sigma/alpha at which nearly clean samples are classified
SAMPLES_AT_ONCE = 64


class NoisyClassifier(Method):
    """-log p(c | x_t), at noise levels of the recipe's noise distribution (Dhariwal and Nichol 2021, 4)."""

    name = "classifier"
    samples = False
    classifies = True
    needs_condition = True
    networks = ("classifier",)

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Choices, runtime: Runtime):
        require_single_process(NoisyClassifier, runtime)
        self.classifier = denoiser

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        assert cond is not None
        return -log_prob(self.classifier, diffuse(self.classifier.schedule, x0, t, eps), t, cond)


def log_prob(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
    """log p(cond | x_t) (n,) of noisy signals x (n, ...) at times t (n,), of what is known in cond."""
    return _network(classifier).log_prob(*_inputs(classifier, x, t), cond)


def accuracy_by_field(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Condition) -> list[Tensor]:
    """For each field of classes (n,): 1 where the likeliest class is that of cond, else 0; NaN if unknown."""
    return _network(classifier).correct(*_inputs(classifier, x, t), cond)


def noisy_inputs(
    classifier: NetworkDenoiser, codec: Codec, items: Tensor | Rows
) -> Iterator[tuple[Tensor, Tensor]]:
    """Items (n, *item_shape) as signals with a little noise, batch by batch: (x_t, t).

    The classifier has seen few samples without any noise. Here sigma/alpha = 0.1, with noise that depends on
    the position of the item alone.
    """
    device = next(classifier.parameters()).device
    for first in range(0, len(items), SAMPLES_AT_ONCE):
        x0 = codec.encode(items[first : first + SAMPLES_AT_ONCE]).to(device)
        t = classifier.schedule.time(torch.full((len(x0),), -2 * math.log(LOW_NOISE), dtype=torch.float64))
        eps = Noise(0, range(first, first + len(x0)), Purpose.CLASSIFIER_INPUT).normal(0, x0)
        yield diffuse(classifier.schedule, x0, t, eps), t


@torch.no_grad()
def classifier_features(classifier: NetworkDenoiser, codec: Codec, items: Tensor | Rows) -> Tensor:
    """The features (n, d) that a classifier decides by, of items (n, *item_shape) with a little noise."""
    return torch.cat(
        [
            _network(classifier).features(*_inputs(classifier, x, t)).cpu()
            for x, t in noisy_inputs(classifier, codec, items)
        ]
    )


def _network(classifier: NetworkDenoiser) -> Classifier:
    assert isinstance(classifier.network, Classifier)
    return classifier.network


def _inputs(classifier: NetworkDenoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What the network takes for signals x (n, ...) at times t (n,): c_in·x and c_noise."""
    coeffs = classifier.coeffs(t)
    return broadcast(coeffs.c_in, x) * x, coeffs.c_noise.to(x.dtype).to(x.device)
