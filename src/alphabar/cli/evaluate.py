"""The command ``evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import (
    Estimate,
    localized,
    print_json,
    print_table,
    run_to_end,
    say,
    shared_work,
    speaks,
    told_when_stopped,
)
from alphabar.cli.options import (
    JsonOption,
    SamplingOptions,
    SeedOption,
    YesOption,
    parse_ema_lengths,
    with_sampling_options,
)
from alphabar.errors import UsageError
from alphabar.files import exists
from alphabar.messages import Message, message

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
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how good samples are: distances with protocol and baseline, copies, attribute frequencies."""
    with shared_work():
        _evaluate_and_print(
            what, against, sampling, ema, seed, as_json,
            n=n, features=features, weights=weights, label_classifier=_model(label_classifier), yes=yes,
        )  # fmt: skip


def _evaluate_and_print(
    what: Path,
    against: str,
    sampling: SamplingOptions,
    ema: str | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    from alphabar.runs.model import holds_model

    if not holds_model(what):
        if not exists(what):
            _model(what)  # raises
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
        result = _evaluate(model, against, **_sampling(sampling, model, seed), **options)
        keeps = length is None
    if not speaks():  # one process has the result
        return
    notes = _keep(what, result) if keeps else []  # before anything is printed, which may fail
    _print_evaluation(result)
    for note in notes:
        say(note)
    print_json(as_json, result.to_dict())


def _model(path: Path | None, **options: Any) -> Any:
    from alphabar.runs.model import load_model

    return None if path is None else load_model(path, **options)


def _sampling(sampling: SamplingOptions, model: Any, seed: int) -> dict[str, Any]:
    """What `evaluate` takes about how a model generates."""
    return {
        "settings": sampling.settings(model, seed),
        "precision": sampling.values.get("precision") or "auto",
    }


def _evaluate(what: Any, against: str, *, yes: bool, **options: Any) -> Any:
    from alphabar.evaluation.evaluate import evaluate as evaluate_samples
    from alphabar.sampling.settings import nfe_per_sample

    def left() -> str:
        return message("cli.evaluation_kept")

    estimate = None
    if settings := options.get("settings"):  # samples are generated
        estimate = Estimate(options["n"], options["n"] * nfe_per_sample(what, settings), yes, left)
    with told_when_stopped(left):
        return run_to_end(evaluate_samples(what, against, **options), estimate=estimate)


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
        results.append(_evaluate(model, against, **_sampling(sampling, model, seed), **options))
    if not speaks():  # one process has the results
        return
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
    head = (message("cli.ema_length"), message("cli.profile_error"), *names)
    print_table([localized(cell) for cell in head], rows)
    _print_about(first)
    _tell(message("cli.protocol", protocol=first.protocol))
    _tell(message("cli.about_profile_error"))
    records = [
        {"length": length, "profile_error": error, **result.to_dict()}
        for length, error, result in zip(lengths, errors, results, strict=True)
    ]
    print_json(as_json, {"ema": records})


def _with_error(metric: Any) -> str:
    return f"{metric.value:.4g}" + (f" ± {metric.error:.2g}" if metric.error else "")


def _print_evaluation(result: Any) -> None:
    _print_report(result.report)
    _tell(message("cli.protocol", protocol=result.report.protocol))
    for note in (*result.report.warnings, message("metrics.no_interval")):
        _tell(message("cli.note", note=note))
    if result.held_out:
        print()
        _tell(message("reporting.against_title", reference=result.held_out.reference))
        _tell(message("reporting.against_caption"))
        _print_report(result.held_out)
    if result.memorization:
        print()
        _tell(message("cli.copies", finding=result.memorization.sentence))
    print()
    _print_attributes(result)
    for note in result.notes:
        _tell(message("cli.note", note=note))
    _tell(message("cli.evaluation_hint"))


def _tell(text: str) -> None:
    """Print a result on stdout, in the reader's language."""
    print(localized(text))


def _print_report(report: Any) -> None:
    head = ("metric", "value", "baseline", "better")
    rows = [tuple(map(localized, row)) for row in report.rows()]
    print_table([localized(message(f"reporting.column_{name}")) for name in head], rows)
    _print_about(report)


def _print_about(report: Any) -> None:
    """How many samples, against what, and of what the baseline is."""
    _tell(message("reporting.against", n=report.n, reference=report.reference))
    if report.baseline_n:
        others = report.baseline_reference_n
        _tell(message("reporting.baseline_of", n=report.baseline_n, others=others))


def _print_attributes(result: Any) -> None:
    """How often attribute values are generated, appearance, and how often samples have their condition."""
    for each in result.attribute_frequencies:
        wrong = [f for f in each.frequencies if f.verdict]
        found: Message = message("reporting.frequencies_equal")
        if wrong:
            found = message("reporting.frequencies_differ", wrong=len(wrong), of=len(each.frequencies))
        accuracy, imbalance = f"{each.accuracy:.0%}", f"{each.imbalance:.3g}"
        values = {"attribute": each.attribute, "accuracy": accuracy, "imbalance": imbalance}
        _tell(message("reporting.frequencies", finding=found, **values))
        for f in wrong:
            shares = {"samples": f"{f.samples:.1%} [{f.low:.1%}, {f.high:.1%}]", "data": f"{f.data:.1%}"}
            verdict = message("reporting.too_rare" if f.verdict == "under" else "reporting.too_frequent")
            _tell(message("cli.frequency", value=f.value, verdict=verdict, **shares))
    for shift in result.appearance:
        name = message(f"reporting.row_{shift.statistic}")
        difference = f"{shift.difference:+.1f} [{shift.low:+.1f}, {shift.high:+.1f}]"
        _tell(message("cli.appearance", name=name, difference=difference, data=f"{shift.data:.1f}"))
    for a in result.condition_agreement:
        shares = {"agreed": f"{a.agreed:.0%}", "interval": f"[{a.low:.0%}, {a.high:.0%}]"}
        about = {"attribute": a.attribute, "n": a.n, "accuracy": f"{a.accuracy:.0%}"}
        _tell(message("reporting.agreement", **shares, **about))
        if a.distances:
            _print_distances(a.attribute, a.distances)


def _print_distances(attribute: str, distances: Sequence[Any]) -> None:
    rows = [
        (d.value, f"{d.kid:.3f} [{d.low:.3f}, {d.high:.3f}]", str(d.n), str(d.reference_n)) for d in distances
    ]
    head = (message(f"reporting.column_{name}") for name in ("own_distance", "samples", "images"))
    print_table((f"  {attribute}", *map(localized, head)), rows)
