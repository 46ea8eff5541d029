"""TODO-DOC from sampling"""

from torch import Tensor

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.guidance.guided import (
    EVERYWHERE,
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from alphabar.methods.classifier import log_prob
from alphabar.runs.model import Model, load_model
from alphabar.sampling.conditions import negative_condition
from alphabar.sampling.settings import SamplingSettings


def guided_denoiser(model: Model, settings: SamplingSettings) -> Denoiser:
    """The model's denoiser with the guidances that are asked for.

    Raises UsageError for one that the model lacks the means for, or an interval that is none.
    """
    interval, own = settings.guidance_interval or EVERYWHERE, settings.pag_interval or EVERYWHERE
    for name, (lo, hi) in (("--guidance-interval", interval), ("sampling.pag_interval", own)):
        if not 0 <= lo < hi:
            raise UsageError(f"{name} {lo:g},{hi:g}: the first must be below the second, from 0 up")
    guidances: list[Guidance] = []
    if settings.guidance != 1:
        if not settings.conditions or model.vocabulary is None:
            raise UsageError(
                "--guidance strengthens what is asked for: say what, with --class, --set or --prompt"
            )
        guidances.append(ClassifierFree(settings.guidance, negative_condition(model, settings)))
    elif settings.negative is not None:
        raise UsageError("--negative says what guidance leads away from: give --guidance above 1 too")
    if settings.autoguidance != 1:
        if model.early is None:
            raise UsageError(f"--autoguidance needs an early snapshot, which {model.path} does not hold")
        guidances.append(Autoguidance(without_condition(model, model.early), settings.autoguidance))
    if settings.sag or settings.pag:
        if model.attention is None:
            raise UsageError(
                f"--{'sag' if settings.sag else 'pag'} needs self-attention in the middle of the network:"
                f" that of {model.path} has none"
            )
        if settings.pag:
            guidances.append(PerturbedAttention(model.attention.each_alone, settings.pag, own))
        if settings.sag:
            guidances.append(SelfAttentionGuidance(model.attention.recorded, settings.sag))
    if settings.classifier:
        guidances.append(_classifier_guidance(model, settings))
    return guided(without_condition(model, model.denoiser), guidances, interval=interval)


def without_condition(model: Model, denoiser: Denoiser) -> Denoiser:
    """The denoiser; of a model without conditions one that only its guides hear what is asked of."""
    if model.vocabulary is not None:
        return denoiser
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t))


def _classifier_guidance(model: Model, settings: SamplingSettings) -> ClassifierGuidance:
    """Raises UsageError for no classifier, one of other labels, and where nothing is asked."""
    assert settings.classifier is not None
    if not settings.conditions:
        raise UsageError(
            "--classifier guides towards what is asked: say what, with --class, --set or --prompt"
        )
    device = next(model.denoiser.parameters()).device
    classifier = load_model(settings.classifier, device)
    if classifier.recipe.method["name"] != "classifier":
        raise UsageError(
            f"--classifier {settings.classifier}: a model of method {classifier.recipe.method['name']!r};"
            " train one with --recipe classifier --condition class or attributes"
        )
    if model.vocabulary is not None and model.vocabulary != classifier.vocabulary:
        raise UsageError(
            f"{settings.classifier} tells other labels than {model.path} takes: train both on the same"
        )

    def log_p(x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        assert cond is not None
        # The same picture with the same noise on it, at the time and scale of the classifier's schedule.
        level, own = model.denoiser.schedule(t), classifier.denoiser.schedule
        s = own.time(level.log_snr)
        return log_prob(classifier.denoiser, broadcast(own(s).alpha / level.alpha, x) * x, s, cond)

    return ClassifierGuidance(log_p, settings.classifier_scale)
