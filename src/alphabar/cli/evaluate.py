"""TODO-DOC from cli"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, print_json, print_numbers, print_table
from alphabar.cli.options import (
    AskOption,
    AutoguidanceOption,
    ClassifierOption,
    ClassifierScaleOption,
    ClassOption,
    GridOption,
    GuidanceOption,
    IntervalOption,
    JsonOption,
    NegativeOption,
    PagOption,
    PromptOption,
    SagOption,
    SamplerOption,
    SeedOption,
    StartOption,
    StepsOption,
    UnconditionalOption,
)
from alphabar.cli.parse import all_or_nothing, parse_conditions, parse_interval, parse_lengths
from alphabar.errors import UsageError


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="MODEL|FOLDER", help="A run or model folder, or a folder of samples.")
    ],
    against: Annotated[str, typer.Option(metavar="DATA", help="The real pictures, as for training.")],
    n: Annotated[int, typer.Option("-n", metavar="N", help="How many samples.")] = 2000,
    features: Annotated[
        str, typer.Option(metavar="NAME", help="lite0 (offline), inception (FID, Inception Score) or dinov2.")
    ] = "lite0",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the feature network, where it takes a file."),
    ] = None,
    classes: ClassOption = None,
    conditions: AskOption = None,
    prompts: PromptOption = None,
    unconditional: UnconditionalOption = False,
    teller: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="Who tells the kinds of pictures: a run of --recipe classifier on DATA."
        ),
    ] = None,
    negative: NegativeOption = None,
    guidance: GuidanceOption = 1.0,
    guidance_interval: IntervalOption = None,
    sag: SagOption = 0.0,
    pag: PagOption = None,
    autoguidance: AutoguidanceOption = 1.0,
    classifier: ClassifierOption = None,
    classifier_scale: ClassifierScaleOption = 1.0,
    sampler: SamplerOption = None,
    timesteps: GridOption = None,
    steps: StepsOption = None,
    initial_noise: StartOption = None,
    ema: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Other lengths of the average of the weights, as shares of the training, e.g. 0.03,0.1,0.2;"
            " of several, a table.",
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge samples: how far from real pictures, each number with its protocol; copies; who is left out."""

    from alphabar.evaluation.evaluate import evaluate as library_evaluate
    from alphabar.evaluation.record import add_to_run
    from alphabar.sampling.settings import sampling_settings

    asked = all_or_nothing(parse_conditions(classes or [], conditions or [], prompts or []), unconditional)
    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    from alphabar.images import nearest_panel
    from alphabar.runs.model import holds_model, load_model
    from alphabar.runs.run import Run

    drawing = (asked is not None, guidance != 1, guidance_interval, sag, pag is not None, autoguidance != 1)
    if not holds_model(what) and any(
        (*drawing, negative, classifier, sampler, timesteps, steps, initial_noise, ema)
    ):
        raise UsageError(
            f"{what} is a folder of pictures: leave out how a model is to draw or what it is asked for"
        )
    results = []
    for length in parse_lengths(ema) if ema else [None]:
        settings = None
        judged: Any = what
        if holds_model(what):
            judged = load_model(what, ema=length)
            settings = sampling_settings(
                judged,
                seed=seed,
                sampler=sampler,
                timesteps=timesteps,
                steps=steps,
                initial_noise=initial_noise,
                conditions=asked,
                guidance=guidance,
                guidance_interval=interval,
                sag=sag,
                pag=pag,
                autoguidance=autoguidance,
                negative=negative,
                classifier=None if classifier is None else str(classifier),
                classifier_scale=classifier_scale,
            )
        judging = library_evaluate(
            judged,
            against,
            n=n,
            features=features,
            settings=settings,
            weights=weights,
            teller=load_model(teller) if teller else None,
        )
        results.append((length, last_with_bar(judging, None).result))
    if len(results) > 1:
        _print_lengths(results)
        print_json(as_json, {"ema": [{"length": length, **r.to_dict()} for length, r in results]})
        return
    ((length, result),) = results
    _print_evaluation(result)
    if settings and length is None and Run(what).exists:
        add_to_run(Run(what), result)
        if result.twins:
            nearest_panel(result.twins.samples, result.twins.originals[:, None]).save(what / "copies.png")
    print_json(as_json, result.to_dict())


def _print_evaluation(result: Any) -> None:
    _print_judgement(result.judgement)
    if result.held_out:
        print("\npictures that the model never saw; they are fewer: only kernel distances compare")
        print_numbers(result.held_out)
    if result.memorization:
        print(f"\ncopies: {result.memorization.sentence}")
    print()
    for kind in result.shares:
        wrong = [s for s in kind.shares if s.verdict]
        told = "; ".join(
            f"{s.value} {s.verdict}-produced: {s.samples:.1%} [{s.low:.1%}, {s.high:.1%}], data {s.data:.1%}"
            for s in wrong
        )
        print(f"{kind.attribute} (told apart with accuracy {kind.accuracy:.0%}): {told or 'as in the data'}")
    for d in result.drift:
        print(f"{d.look}: {d.difference:+.1f} [{d.low:+.1f}, {d.high:+.1f}] of 255, data {d.data:.1f}")
    for a in result.agreements:
        print(
            f"{a.attribute} as asked: {a.agreed:.0%} [{a.low:.0%}, {a.high:.0%}] of {a.n} samples;"
            f" of real pictures the classifier knows {a.accuracy:.0%}"
        )
        if a.distances:
            rows = [
                (d.value, f"{d.kid:.3f} [{d.low:.3f}, {d.high:.3f}]", str(d.n), str(d.reference_n))
                for d in a.distances
            ]
            print_table((f"  {a.attribute} asked", "kernel distance from its own", "n", "reference"), rows)
    for note in result.notes:
        print(f"note: {note}")


def _print_lengths(results: Sequence[tuple[float | None, Any]]) -> None:
    shown = ("frechet", "kid", "precision", "recall")
    first = results[0][1].judgement
    names = [m.name for m in first.measures if m.key in shown]
    rows = [
        (
            f"{length:g}",
            *(
                f"{m.value:.4g}" + (f" ± {m.error:.2g}" if m.error else "")
                for m in result.judgement.measures
                if m.key in shown
            ),
        )
        for length, result in results
    ]
    print_table(("ema", *names), rows)
    print(f"n = {first.n} samples from the same noise; reference: {first.reference}")
    print(f"protocol: {first.protocol}")


def _print_judgement(judgement: Any) -> None:
    print_numbers(judgement)
    print(f"protocol: {judgement.protocol}")
    for warning in judgement.warnings:
        print(f"note: {warning}")
