"""What guidance does: exact on mixtures of Gaussians, and measured along its scale on a model.

    python benchmarks/guidance.py > docs/results/guidance.md
    python benchmarks/guidance.py --model cars64 --data DIR -n 500 --classifier RUN > docs/results/guidance.md

Needs the development extras. The first part takes seconds; the second draws and judges n pictures a line.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import alphabar
from alphabar.diffusion import (
    SCHEDULES,
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    FunctionDenoiser,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from alphabar.diffusion.samplers import evaluations
from alphabar.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from exact import MixtureDenoiser
from test_diffusion_guidance import CLASS_OF, MEANS, STD, WEIGHTS, Classes, log_density

LINES: tuple[dict[str, Any], ...] = (
    {},
    *({"guidance": w} for w in (1.25, 1.5, 2.0, 3.0)),
    *({"guidance": w, "guidance_interval": (0.2, 5.0)} for w in (1.5, 2.0, 3.0)),
    *({"autoguidance": w} for w in (1.25, 1.5, 2.0)),
    *({"sag": s} for s in (0.2, 0.6)),
    *({"pag": s} for s in (0.5, 1.5)),
)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    for row in (head, tuple("---" for _ in head), *rows):
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
    from alphabar.training.run import build_denoiser

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


def curve(model: Any, data: str, n: int, classifier: str | None) -> Iterator[tuple[str, ...]]:
    by_classifier = ({"classifier": classifier, "classifier_scale": s} for s in (1.0, 3.0) if classifier)
    for line in (*LINES, *by_classifier):
        try:
            how = alphabar.settings(model, **line)
            *_, last = alphabar.evaluate(model, data, n=n, how=how, as_data=model.conditioning is not None)
        except UsageError as problem:
            print(f"left out {line}: {problem}", file=sys.stderr)
            continue
        result = last.result
        value = {m.key: m for m in result.judgement.measures}
        body = next((a for a in result.agreements if a.attribute in ("body", "class")), None)
        yield (
            ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in line.items() if k != "classifier") or "none",
            f"{value['frechet'].value:.1f}",
            f"{value['kid'].value:.3f} ± {value['kid'].error or math.nan:.3f}",
            f"{value['precision'].value:.2f}",
            f"{value['recall'].value:.2f}",
            f"{body.agreed:.0%} of {body.accuracy:.0%}" if body else "",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run, a model folder or a shipped model")
    parser.add_argument("--data", help="the pictures it was trained on")
    parser.add_argument("--classifier", help="a run of the recipe classifier on the same labels")
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
        how = alphabar.settings(model)
        from alphabar.diffusion import GRIDS, SAMPLERS

        times = GRIDS.build(how.grid)(model.denoiser.schedule, how.steps)
        count = evaluations(SAMPLERS.build(how.sampler), model.denoiser.schedule, times)
        print(f"## Along the scale: {Path(args.model).name}, {model.images:,} images seen\n")
        print(
            f"{args.n} samples a line, of the kinds of the data as often as it has them,"
            f" {how.sampler['name']} with {count} evaluations (twice as many where guidance asks twice), the"
            " same seed. *As asked* is how many samples a classifier on features says are of the body asked"
            " for, and what it says of real pictures that are new to it.\n"
        )
        table(
            ("guidance", "Fréchet", "KID", "precision", "recall", "as asked"),
            curve(model, args.data, args.n, args.classifier),
        )


if __name__ == "__main__":
    main()
