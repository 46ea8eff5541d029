"""The command ``evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import localized, print_json, print_table, run_to_end, say, told_when_stopped
from alphabar.cli.options import (
    JsonOption,
    SamplingOptions,
    SeedOption,
    parse_ema_lengths,
    with_sampling_options,
)
from alphabar.errors import UsageError
from alphabar.metrics.features import EXTRACTORS

SHOWN_FOR_EMA = ("frechet", "kid", "precision", "recall")


@with_sampling_options()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="MODEL|FOLDER", help="A run or model folder, or a folder of samples.")
    ],
    against: Annotated[str, typer.Option(metavar="DATA", help="The real data, as for training.")],
    sampling: SamplingOptions,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Number of samples.")] = 2000,
    features: Annotated[
        str, typer.Option(metavar="NAME", help=f"Feature network: {', '.join(EXTRACTORS)}.")
    ] = "lite0",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the feature network, if it needs a file.")
    ] = None,
    label_classifier: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Predict labels with this run of the recipe classifier on DATA."),
    ] = None,
    ema: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Other EMA lengths, as shares of the training; for several, a table. E.g. 0.03,0.1.",
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure how good samples are: distances with protocol and baseline, copies, attribute frequencies.

    For example: alphabar evaluate runs/mine --against my_pictures -n 2000
    """
    from alphabar.runs.model import holds_model

    options = {"n": n, "features": features, "weights": weights, "label_classifier": _model(label_classifier)}
    if not holds_model(what):
        given = [*sampling.given, *(["ema"] if ema else [])]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError("cli.samples_take_no_options", path=what, options=names)
        result, keeps = _evaluate(what, against, **options), False
    elif ema and len(lengths := parse_ema_lengths(ema)) > 1:
        _evaluate_ema_lengths(what, against, lengths, sampling, seed, as_json, **options)
        return
    else:
        length = parse_ema_lengths(ema)[0] if ema else None
        model = _model(what, ema=length)
        result = _evaluate(model, against, settings=sampling.settings(model, seed), **options)
        keeps = length is None
    _print_evaluation(result)
    for note in _keep(what, result) if keeps else []:
        say(note)
    print_json(as_json, result.to_dict())


def _model(path: Path | None, **options: Any) -> Any:
    from alphabar.runs.model import load_model

    return None if path is None else load_model(path, **options)


def _evaluate(what: Any, against: str, **options: Any) -> Any:
    from alphabar.evaluation.evaluate import evaluate as evaluate_samples

    with told_when_stopped(lambda: "what is finished is kept; give the same command again to go on"):
        return run_to_end(evaluate_samples(what, against, **options))


def _keep(path: Path, result: Any) -> Sequence[str]:
    """Append the evaluation to the run's own, which its report shows; a model folder keeps none.

    Returns sentences about what went wrong with that.
    """
    from alphabar.evaluation.record import add_to_run
    from alphabar.runs.run import Run

    return add_to_run(Run(path), result) if Run(path).exists else []


def _evaluate_ema_lengths(
    path: Path,
    against: str,
    lengths: list[float],
    sampling: SamplingOptions,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate a run with several EMA lengths and print a table of them."""
    from alphabar.runs.run import Run

    results, errors = [], [Run(path).snapshots.weights(length).error for length in lengths]
    for length in lengths:
        model = _model(path, ema=length)
        results.append(_evaluate(model, against, settings=sampling.settings(model, seed), **options))
    first = results[0].report
    names = [m.name for m in first.metrics if m.key in SHOWN_FOR_EMA]
    rows = [
        (
            f"{length:g}",
            f"{error:.1%}",
            *(_with_error(m) for m in result.report.metrics if m.key in SHOWN_FOR_EMA),
        )
        for length, error, result in zip(lengths, errors, results, strict=True)
    ]
    print_table(("EMA length", "profile error", *names), rows)
    print(f"n = {first.n} samples from the same noise; reference: {first.reference}")
    print(f"protocol: {first.protocol}")
    print("profile error: of the average that the saved ones make, relative to one of this length")
    records = [
        {"length": length, "profile_error": error, **result.to_dict()}
        for length, error, result in zip(lengths, errors, results, strict=True)
    ]
    print_json(as_json, {"ema": records})


def _with_error(metric: Any) -> str:
    return f"{metric.value:.4g}" + (f" ± {metric.error:.2g}" if metric.error else "")


def _print_evaluation(result: Any) -> None:
    _print_report(result.report)
    print(f"protocol: {result.report.protocol}")
    for warning in result.report.warnings:
        print(f"Note: {localized(warning)}")
    if result.held_out:
        print("\nAgainst pictures that the model never saw. They are fewer: only kernel distances compare.")
        _print_report(result.held_out)
    if result.memorization:
        print(f"\nCopies: {localized(result.memorization.sentence)}")
    print()
    _print_attributes(result)
    for note in result.notes:
        print(f"Note: {localized(note)}")


def _print_report(report: Any) -> None:
    print_table(("", "value [95 % interval]", "baseline", "better"), report.rows())
    print(f"n = {report.n} samples; reference: {report.reference}")
    if report.baseline_n:
        others = report.baseline_reference_n
        print(f"baseline: {report.baseline_n} real pictures against {others} other real pictures")


def _print_attributes(result: Any) -> None:
    """How often attribute values are generated, appearance, and how often samples have their condition."""
    for each in result.attribute_frequencies:
        wrong = "; ".join(
            f"{f.value} {f.verdict}-produced: {f.samples:.1%} [{f.low:.1%}, {f.high:.1%}], data {f.data:.1%}"
            for f in each.frequencies
            if f.verdict
        )
        accuracy = f"classified with accuracy {each.accuracy:.0%}"
        print(f"{each.attribute} ({accuracy}): {wrong or 'as frequent as in the data'}")
    for shift in result.appearance:
        interval = f"[{shift.low:+.1f}, {shift.high:+.1f}]"
        print(f"{shift.statistic}: {shift.difference:+.1f} {interval} of 255, data {shift.data:.1f}")
    for a in result.condition_agreement:
        print(
            f"{a.attribute}: {a.agreed:.0%} [{a.low:.0%}, {a.high:.0%}] of {a.n} samples have the value of"
            f" their condition; the classifier is right for {a.accuracy:.0%} of real pictures"
        )
        if a.distances:
            _print_distances(a.attribute, a.distances)


def _print_distances(attribute: str, distances: Sequence[Any]) -> None:
    rows = [
        (d.value, f"{d.kid:.3f} [{d.low:.3f}, {d.high:.3f}]", str(d.n), str(d.reference_n)) for d in distances
    ]
    print_table((f"  {attribute}", "kernel distance from its own", "n", "reference"), rows)
