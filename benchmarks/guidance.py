"""Is guidance computed correctly, and how much does it help a trained model?

    python benchmarks/guidance.py
    python benchmarks/guidance.py --model cars64 --data stanford_cars -n 200

Without a model prints section 1 of docs/results/guidance.md: the largest differences from closed forms, for a
mixture of Gaussians in two classes. With one prints section 2: distances, variety and met conditions of n
samples for each choice of guidances. Needs the development extras. The first part takes seconds; the second
generates and evaluates n samples per row.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

import alphabar
from alphabar.diffusion.denoiser import without_condition
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.guidance import Autoguidance, ClassifierGuidance, SelfAttentionGuidance, guidance_class, guided
from alphabar.metrics.condition_agreement import condition_agreement
from alphabar.metrics.distances import frechet_distance, kid, precision_recall
from alphabar.metrics.features import EXTRACTORS
from alphabar.networks.base import Network
from alphabar.progress import last
from alphabar.runs.model import Model, build_denoiser
from alphabar.sampling.settings import nfe_per_sample
from common import (
    argument_parser,
    compute_features,
    dataset_of,
    note,
    print_command,
    print_paragraph,
    print_section,
    print_table,
)
from exact import MixtureDenoiser
from test_guidance import CLASS_OF, MEANS, STD, WEIGHTS, Classes, bound, classifier_free, log_density, pag

Scales = Mapping[str, Any]
"""Name of a guidance -> its scale, or its settings."""

CHOICES: tuple[Scales, ...] = (
    {},
    *({"classifier_free": w} for w in (2.0, 3.0)),
    {"autoguidance": 2.0},
    {"sag": 0.5},
    *({"pag": s} for s in (3.0, 4.0)),
    {"pag": 3.0, "autoguidance": 2.0},
    *({"pag": 3.0, "classifier_free": w} for w in (2.0, 3.0, 5.0)),
)


# 1. Closed forms


def gap(a: Tensor, b: Tensor) -> str:
    return f"{(a - b).abs().max():.0e}"


def closed_forms() -> Iterator[tuple[str, ...]]:
    """The largest differences over six points and times and both classes, for three schedules."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, 0.8, 6, dtype=torch.float64)
    cond = torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)[:, None]
    of_class, w = cond.long() == CLASS_OF, 2.5
    for name in ("cosine", "variance_exploding", "rectified_flow"):
        D = Classes(SCHEDULES.build(name))
        conditional, unconditional = D(x, t, cond), D(x, t)
        bad = MixtureDenoiser(D.schedule, WEIGHTS, MEANS, 2 * STD)
        free = guided(D, [classifier_free(w)])(x, t, cond)
        away = guided(D, [bound(Autoguidance(scale=w), early=bad)])(x, t, cond)
        yield (
            name,
            gap(guided(D, [classifier_free(1.0)])(x, t, cond), conditional),
            gap(free, unconditional + w * (conditional - unconditional)),
            gap(guided(without_condition(D), [exact_classifier(D, of_class)])(x, t, cond), conditional),
            gap(away, bad(x, t) + w * (conditional - bad(x, t))),
        )


def exact_classifier(D: Any, of_class: Tensor) -> ClassifierGuidance:
    """Guidance by the true probability of each class.

    of_class: which components (n, k) belong to the class of each sample.
    """

    def log_probability(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        every = torch.ones_like(of_class)
        return log_density(D.schedule, x, t, of_class) - log_density(D.schedule, x, t, every)

    guidance = ClassifierGuidance(scale=1.0)
    guidance.log_probability = log_probability
    return guidance


def two_computations() -> Iterator[tuple[str, ...]]:
    """The largest differences between two ways to compute the same with a network."""
    torch.manual_seed(0)
    recipe = alphabar.with_settings(
        alphabar.named_recipe("lean"), ["data.size=16", "network.widths=[8,64]", "network.head_dim=64"]
    )
    D = build_denoiser(recipe).eval()
    assert isinstance(D.network, Network)
    attention = D.network.middle_attention()
    assert attention is not None
    for parameter in D.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    x, t = torch.randn(4, 3, 16, 16), torch.linspace(0.3, 0.6, 4, dtype=torch.float64)
    with torch.no_grad():
        plain = D(x, t)
        together = guided(D, [pag(2.0, attention)])(x, t, None)
        with attention.identity_attention(torch.ones(4, dtype=torch.bool)):
            perturbed = D(x, t)
        yield "PAG in one batch, and in two", gap(together, plain + 2.0 * (plain - perturbed))
        without_blur = bound(SelfAttentionGuidance(scale=1.0, blur=0.0), attention=attention)
        yield "SAG with a blur of 0, and no guidance", gap(guided(D, [without_blur])(x, t, None), plain)


def print_closed_forms() -> None:
    print_section(
        "## 1. Is the arithmetic right?",
        "Do the guidance methods agree with closed forms?",
        "A mixture of three Gaussians in two classes, whose denoisers are known exactly; six points and"
        " times, float64. The second table uses a network with attention, in float32.",
    )
    print("The largest absolute difference:\n")
    head = (
        "schedule",
        "classifier-free, w = 1: the conditional denoiser",
        "classifier-free, w = 2.5",
        "classifier: Bayes' rule",
        "autoguidance",
    )
    print_table(head, closed_forms())
    print_table(("two computations", "largest difference"), two_computations())


# 2. A trained model


def described(choice: Scales) -> str:
    """The options that give these guidances, as the command line calls them."""
    scales = {name: s["scale"] if isinstance(s, Mapping) else s for name, s in choice.items()}
    return ", ".join(f"{guidance_class(name).option} {scale}" for name, scale in scales.items()) or "none"


class Samples:
    """Evaluates samples that are conditioned on one attribute, as often on each value as the data has it."""

    def __init__(self, model: Model, data: str, n: int, attribute: str):
        self.model, self.n, self.attribute = model, n, attribute
        self.extractor = EXTRACTORS.build("lite0", device="cpu")
        dataset = dataset_of(model, data)
        train = np.sort(dataset.split(model.recipe.data.held_out)[0])
        self.real = compute_features(self.extractor, np.asarray(dataset.items[train]), cached=True)
        self.values = [dataset.attributes[i].get(attribute) for i in train]
        self.conditions = [self.values[int(i)] for i in np.linspace(0, len(train) - 1, n)]
        self.accuracy = 0.0  # of the classifier of values, on real pictures

    def row(self, choice: Scales) -> tuple[str, ...]:
        """Samples with these guidances and no others."""
        settings = alphabar.sampling_settings(
            self.model,
            conditions=[{self.attribute: value} if value else {} for value in self.conditions],
            guidance={"pag": 0.0} | dict(choice),
        )
        samples = last(alphabar.sample(self.model, self.n, settings))
        fake = compute_features(self.extractor, samples)
        distance, found = kid(fake, self.real), precision_recall(self.real, fake)
        met = condition_agreement(self.attribute, self.values, self.real, self.conditions, fake)
        self.accuracy = met.accuracy
        return (
            described(choice),
            str(nfe_per_sample(self.model, settings)),
            f"{frechet_distance(fake, self.real):.1f}",
            f"{distance.value:.3f} ± {distance.standard_error:.3f}",
            f"{found.precision:.2f}, {found.recall:.2f}",
            f"{met.agreed:.0%} ({met.low:.0%} to {met.high:.0%})",
        )

    def rows(self, choices: Iterable[Scales]) -> Iterator[tuple[str, ...]]:
        """A row for each choice that the model has the means for."""
        for choice in choices:
            if all(guidance_class(name).available(self.model) for name in choice):
                yield self.row(choice)
            else:
                note(f"left out, since the model has not the means: {described(choice)}")


def print_model(args: Any) -> None:
    model = alphabar.load_model(args.model)
    settings = alphabar.sampling_settings(model)
    samples = Samples(model, args.data, args.n, args.attribute)
    print_section(
        f"## 2. How much does guidance help `{model.path.name}`?",
        "How do distance, variety and agreement with the condition depend on the guidance scale?",
        f"{model.images:,} images seen. {args.n} samples per row, conditioned on `{args.attribute}` alone"
        f" with the frequencies of the data, {settings.sampler['name']} in {settings.steps} steps, the same"
        " seed. The model's own PAG is switched off unless the row names it. Condition met is given with its"
        " 95 % interval.",
    )
    by_classifier = (
        {"classifier": {"scale": scale, "model": args.guidance_classifier}}
        for scale in (1.0, 3.0)
        if args.guidance_classifier
    )
    head = ("guidance", "NFE", "Fréchet", "kernel distance", "precision, recall", "condition met")
    print_table(head, samples.rows(chain(CHOICES, by_classifier)))
    print_paragraph(f"On real pictures the classifier agrees with {samples.accuracy:.0%} of the labels.")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", help="a run, a model folder or a shipped model")
    parser.add_argument("--data", help="the pictures that the model was trained on")
    parser.add_argument("--guidance-classifier", help="a run of the recipe classifier on the same labels")
    parser.add_argument("--attribute", default="body", help="what samples are conditioned on")
    parser.add_argument("-n", type=int, default=500, help="samples in a row")
    args = parser.parse_args()
    if args.model and not args.data:
        parser.error("--model needs --data")
    if args.model:
        print_model(args)
    else:
        print_closed_forms()
    print_command()


if __name__ == "__main__":
    main()
