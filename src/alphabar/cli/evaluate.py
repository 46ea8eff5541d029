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
from alphabar.messages import message

SHOWN_FOR_EMA = ("frechet", "kid", "precision", "recall")


@with_sampling_options()
def evaluate(
    what: Annotated[Path, typer.Argument(metavar="MODEL|FOLDER", help="cli.help.evaluate_what")],
    against: Annotated[str, typer.Option(metavar="DATA", help="cli.help.against")],
    sampling: SamplingOptions,
    n: Annotated[int, typer.Option("-n", metavar="N", help="cli.help.evaluate_n")] = 2000,
    features: Annotated[str, typer.Option(metavar="NAME", help="cli.help.features")] = "lite0",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="cli.help.weights")] = None,
    label_classifier: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="cli.help.label_classifier")
    ] = None,
    ema: Annotated[str | None, typer.Option(metavar="A,B,…", help="cli.help.emas")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure how good samples are: distances with protocol and baseline, copies, attribute frequencies."""
    from alphabar.runs.model import holds_model

    if features.casefold() in ("fid", "kid"):
        raise UsageError("cli.fid_is_no_network", name=features)
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

    with told_when_stopped(lambda: message("cli.evaluation_kept")):
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
    head = (message("cli.ema_length"), message("cli.profile_error"))
    print_table((*map(localized, head), *map(localized, names)), rows)
    print(localized(message("cli.n_of_one_noise", n=first.n, reference=first.reference)))
    print(localized(message("cli.protocol", protocol=first.protocol)))
    print(localized(message("cli.profile_error_means")))
    records = [
        {"length": length, "profile_error": error, **result.to_dict()}
        for length, error, result in zip(lengths, errors, results, strict=True)
    ]
    print_json(as_json, {"ema": records})


def _with_error(metric: Any) -> str:
    return f"{metric.value:.4g}" + (f" ± {metric.error:.2g}" if metric.error else "")


def _print_evaluation(result: Any) -> None:
    _print_report(result.report)
    _print(message("cli.protocol", protocol=result.report.protocol))
    for warning in (*result.report.warnings, message("metrics.no_interval")):
        _print(message("cli.note", note=warning))
    if result.held_out:
        print()
        _print(message("cli.against_held_out"))
        _print_report(result.held_out)
    if result.memorization:
        print()
        _print(message("cli.copies", sentence=result.memorization.sentence))
    print()
    _print_attributes(result)
    for note in result.notes:
        _print(message("cli.note", note=note))
    _print(message("cli.evaluation_hint"))


def _print(text: str) -> None:
    print(localized(text))


def _print_report(report: Any) -> None:
    head = ("", message("cli.value"), message("cli.baseline"), message("cli.better"))
    print_table([localized(cell) for cell in head], [list(map(localized, row)) for row in report.rows()])
    _print(message("cli.n_and_reference", n=report.n, reference=report.reference))
    if report.baseline_n:
        _print(message("cli.baseline_means", real=report.baseline_n, others=report.baseline_reference_n))


def _print_attributes(result: Any) -> None:
    """How often attribute values are generated, appearance, and how often samples have their condition."""
    for each in result.attribute_frequencies:
        wrong = "; ".join(
            localized(
                message(
                    f"cli.produced_{f.verdict}",
                    value=f.value, samples=f.samples, low=f.low, high=f.high, data=f.data,
                )
            )
            for f in each.frequencies
            if f.verdict
        )  # fmt: skip
        found = wrong or message("cli.frequencies_right")
        _print(message("cli.frequencies", attribute=each.attribute, accuracy=each.accuracy, found=found))
    for shift in result.appearance:
        _print(
            message(
                "cli.appearance", statistic=shift.statistic, difference=shift.difference,
                low=shift.low, high=shift.high, data=shift.data,
            )
        )  # fmt: skip
    for a in result.condition_agreement:
        _print(
            message(
                "cli.agreement", attribute=a.attribute, agreed=a.agreed, low=a.low, high=a.high, n=a.n,
                accuracy=a.accuracy,
            )
        )  # fmt: skip
        if a.distances:
            _print_distances(a.attribute, a.distances)


def _print_distances(attribute: str, distances: Sequence[Any]) -> None:
    rows = [
        (d.value, f"{d.kid:.3f} [{d.low:.3f}, {d.high:.3f}]", str(d.n), str(d.reference_n)) for d in distances
    ]
    head = (message("cli.distance_from_own"), "n", message("cli.reference"))
    print_table((f"  {attribute}", *map(localized, head)), rows)
