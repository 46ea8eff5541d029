"""Classifier guidance: along the gradient of a classifier of noisy samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.schedules import Schedule, broadcast
from alphabar.errors import UsageError
from alphabar.guidance.base import Denoised, Guidance, GuidedModel, LoadModel
from alphabar.messages import message
from alphabar.networks.classifier import Classifier

LogProbability = Callable[[Tensor, Tensor, Condition], Tensor]
"""(x, t, cond) -> log p(cond | x_t), (n,), differentiable in x (n, ...)."""


@dataclass(kw_only=True)
class ClassifierGuidance(Guidance):
    """s·sigma²/alpha·grad log p(c | x_t) (Dhariwal and Nichol 2021, algorithm 2, written for x0).

    With s = 1, D the unconditional mean and the exact p, it is Bayes' rule. Undefined where alpha is 0. It
    needs a gradient of the classifier and no evaluation of a denoiser, and guides models that take no
    condition too.

    scale: s. model: the run or model folder of a classifier (recipe classifier) of the model's own labels.
    """

    option: ClassVar[str] = "guidance-classifier-scale"
    help: ClassVar[str] = message("guidance.classifier_scale_help")
    extra_evaluations: ClassVar[int] = 0
    needs_condition: ClassVar[bool] = True
    required_settings: ClassVar[tuple[str, ...]] = ("model",)
    setting_options: ClassVar[Mapping[str, tuple[str, str]]] = {
        "model": (
            "guidance-classifier",
            message("guidance.classifier_help"),
        )
    }

    scale: float = 1.0
    model: str | None = None
    log_probability: LogProbability | None = field(default=None, init=False, repr=False)
    labels: Vocabulary | None = field(default=None, init=False, repr=False)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The labels that the classifier predicts."""
        return self.labels

    def bind(self, model: GuidedModel, *, conditioned: bool, load_model: LoadModel | None = None) -> Self:
        """Loads the classifier.

        Raises UsageError where none is named, for a model that is no classifier or predicts other labels, and
        where samples have no condition.
        """
        if self.model is None or load_model is None:
            raise UsageError("guidance.needs_classifier")
        if not conditioned:
            raise UsageError("guidance.needs_condition", option="guidance-classifier")
        classifier = load_model(self.model)
        if not classifier.method.classifies:
            raise UsageError(
                "guidance.not_a_classifier", path=self.model, method=classifier.recipe.method["name"]
            )
        if model.vocabulary is not None and model.vocabulary != classifier.vocabulary:
            raise UsageError("guidance.other_labels", path=self.model, model=model.path)
        self.labels = classifier.vocabulary
        self.log_probability = on_schedule(classifier.denoiser, model.denoiser.schedule)
        return self

    def term(self, known: Denoised) -> Tensor:
        assert self.log_probability is not None and known.cond is not None
        level = known.denoiser.schedule(known.t)
        with torch.enable_grad():
            x = known.x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_probability(x, known.t, known.cond).sum(), x)
        return broadcast(self.scale * level.sigma**2 / level.alpha, known.x) * gradient


def on_schedule(classifier: NetworkDenoiser, schedule: Schedule) -> LogProbability:
    """The classifier's log p(cond | x_t) for x and t of another schedule than the one it was trained on.

    It is evaluated at the same sample with the same noise, at the time and scale of its own schedule.
    """
    network = classifier.network
    assert isinstance(network, Classifier)

    def log_probability(x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        level = schedule(t)
        own_t = classifier.schedule.time(level.log_snr)
        own_x = broadcast(classifier.schedule(own_t).alpha / level.alpha, x) * x
        return network.log_prob(*classifier.network_input(own_x, classifier.coeffs(own_t)), cond)

    return log_probability
