"""What guidance does: exact on mixtures of Gaussians, and measured along its scale on a model.

    python benchmarks/guidance.py > docs/results/guidance.md
    python benchmarks/guidance.py --model cars64 --data DIR -n 500 --classifier RUN > docs/results/guidance.md

Needs the development extras. The first part takes seconds; the second draws and judges n pictures a line.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alphabar.guidance.guided import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from torch import Tensor

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import cache_root
from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.errors import UsageError
from alphabar.metrics.condition_agreement import condition_agreement
from alphabar.metrics.distances import frechet_distance, kid, precision_recall
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.sampling.settings import nfe_per_sample

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_diffusion_guidance import CLASS_OF, MEANS, STD, WEIGHTS, Classes, log_density

from exact import MixtureDenoiser

LINES: tuple[dict[str, Any], ...] = (
    {},
    *({"guidance": w} for w in (2.0, 3.0)),
    {"autoguidance": 2.0},
    {"sag": 0.5},
    *({"pag": s} for s in (3.0, 4.0)),
    {"pag": 3.0, "autoguidance": 2.0},
    *({"pag": 3.0, "guidance": w} for w in (2.0, 3.0, 5.0)),
)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    for row in chain((head, tuple("---" for _ in head)), rows):
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def apart(a: Tensor, b: Tensor) -> str:
    return f"{(a - b).abs().max():.0e}"


def exact() -> Iterator[tuple[str, ...]]:
    """The largest differences from closed forms, over three schedules, six places and both classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, 0.8, 6, dtype=torch.float64)
    cond = torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)[:, None]
    mine = cond.long() == CLASS_OF
    for name in ("cosine", "variance_exploding", "rectified_flow"):
        D = Classes(SCHEDULES.build(name))
        conditional, unconditional = D(x, t, cond), D(x, t)
        bad = MixtureDenoiser(D.schedule, WEIGHTS, MEANS, 2 * STD)
        free = FunctionDenoiser(D.schedule, lambda x, t, _, D=D: D(x, t))

        def log_prob(x: Tensor, t: Tensor, cond: Tensor | None, D: Any = D) -> Tensor:
            return log_density(D.schedule, x, t, mine) - log_density(D.schedule, x, t, mine | True)

        w = 2.5
        yield (
            name,
            apart(guided(D, [ClassifierFree(1.0)])(x, t, cond), conditional),
            apart(
                guided(D, [ClassifierFree(w)])(x, t, cond), unconditional + w * (conditional - unconditional)
            ),
            apart(guided(free, [ClassifierGuidance(log_prob, 1.0)])(x, t, cond), conditional),
            apart(guided(D, [Autoguidance(bad, w)])(x, t, cond), bad(x, t) + w * (conditional - bad(x, t))),
        )


def shared() -> Iterator[tuple[str, ...]]:
    """A network: questions asked in one batch against questions asked apart, and SAG that blurs nothing."""
    torch.manual_seed(0)
    recipe = alphabar.with_settings(
        alphabar.named_recipe("lean"), ["data.size=16", "network.widths=[8,64]", "network.head_dim=64"]
    )
    from alphabar.runs.model import build_denoiser

    D = build_denoiser(recipe).eval()
    for parameter in D.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    attention = D.network.middle_attention()
    x, t = torch.randn(4, 3, 16, 16), torch.linspace(0.3, 0.6, 4, dtype=torch.float64)
    with torch.no_grad():
        plain = D(x, t)
        one = guided(D, [PerturbedAttention(attention.each_alone, 2.0)])(x, t, None)
        with attention.each_alone(torch.ones(4, dtype=torch.bool)):
            perturbed = D(x, t)
        yield "PAG in one batch, and apart", apart(one, plain + 2.0 * (plain - perturbed))
        nothing = guided(D, [SelfAttentionGuidance(attention.recorded, 1.0, 0.0)])(x, t, None)
        yield "SAG with a blur of 0, and none", apart(nothing, plain)


def curve(model: Any, data: str, n: int, attribute: str, classifier: str | None) -> Iterator[tuple[str, ...]]:
    recipe = model.recipe.data
    *_, prepared = alphabar.prepare(alphabar.open_source(data), ImageCodec(recipe.size), recipe.fit)
    dataset = prepared.result
    train, _ = dataset.split(recipe.held_out)
    train = np.sort(train)
    extractor = EXTRACTORS.build("lite0", device="cpu")

    def features(pictures: Any) -> Tensor:
        *_, done = extract(extractor, torch.as_tensor(pictures), cache=cache_root() / "features")
        return done.result.features

    real = features(np.asarray(dataset.items[train]))
    values = [dataset.attributes[i].get(attribute) for i in train]
    asked = [values[int(i)] for i in np.linspace(0, len(train) - 1, n)]
    by_classifier = ({"classifier": classifier, "classifier_scale": s} for s in (1.0, 3.0) if classifier)
    for line in (*LINES, *by_classifier):
        try:
            conditions = [{attribute: value} if value else {} for value in asked]
            settings = alphabar.sampling_settings(model, conditions=conditions, **{"pag": 0.0} | line)
            *_, drawn = alphabar.sample(model, n, settings)
        except UsageError as problem:
            print(f"left out {line}: {problem}", file=sys.stderr)
            continue
        fake = features(drawn.pictures)
        distance, found = kid(fake, real), precision_recall(real, fake)
        as_asked = condition_agreement(attribute, values, real, asked, fake)
        yield (
            ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in line.items() if k != "classifier") or "none",
            f"{nfe_per_sample(model, settings)}",
            f"{frechet_distance(fake, real):.1f}",
            f"{distance.value:.3f} ± {distance.standard_error:.3f}",
            f"{found.precision:.2f}, {found.recall:.2f}",
            f"{as_asked.agreed:.0%} ({as_asked.low:.0%} to {as_asked.high:.0%}) of {as_asked.accuracy:.0%}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run, a model folder or a shipped model")
    parser.add_argument("--data", help="the pictures it was trained on")
    parser.add_argument("--classifier", help="a run of the recipe classifier on the same labels")
    parser.add_argument("--attribute", default="body", help="what is asked for")
    parser.add_argument("-n", type=int, default=500, help="samples a line")
    args = parser.parse_args()
    print(
        f"# Guidance\n\n```\npython benchmarks/guidance.py {shlex.join(sys.argv[1:])}\n```\n".replace(
            " \n", "\n"
        )
    )
    print("## Against closed forms\n")
    print(
        "A mixture of three Gaussians in two classes, whose denoisers are known: the largest difference over"
        " six points and times, in float64.\n"
    )
    table(
        (
            "schedule",
            "CFG, w = 1: the conditional",
            "CFG, w = 2.5",
            "classifier: Bayes' rule",
            "autoguidance",
        ),
        exact(),
    )
    print("A network with attention, in float32:\n")
    table(("", "largest difference"), shared())
    if args.model:
        model = alphabar.load_model(args.model)
        settings = alphabar.sampling_settings(model)
        print(f"## Along the scale: {Path(args.model).name}, {model.images:,} images seen\n")
        print(
            f"{args.n} samples a line, asked for {args.attribute} alone, as often as the data has each,"
            f" {settings.sampler['name']} in {settings.steps} steps unless others are given, the same seed. *As"
            " asked* is how many samples a classifier on features says are of the kind asked for, and what it"
            " says of real pictures that are new to it.\n"
        )
        table(
            ("guidance", "evaluations", "Fréchet", "KID", "precision, recall", "as asked"),
            curve(model, args.data, args.n, args.attribute, args.classifier),
        )


if __name__ == "__main__":
    main()
