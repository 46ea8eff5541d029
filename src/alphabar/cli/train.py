"""The commands ``train``, ``finetune``, ``distill`` and ``plan``."""

import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphabar.cli.console import aligned, localized, print_json, run_to_end, say, stop_on_signal
from alphabar.cli.options import DataArgument, JsonOption, ModelArgument
from alphabar.errors import UsageError
from alphabar.formatting import format_duration, parse_count, parse_duration
from alphabar.messages import message

if TYPE_CHECKING:
    from alphabar.training.records import TrainingResult

RunOption = Annotated[Path | None, typer.Option(metavar="DIR", help="cli.help.run")]
BudgetOption = Annotated[str | None, typer.Option(metavar="TIME", help="cli.help.budget")]
ImagesOption = Annotated[str | None, typer.Option(metavar="N", help="cli.help.images")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="cli.help.set")]
SizeOption = Annotated[int | None, typer.Option(metavar="PIXELS", help="cli.help.size")]
CheckpointOption = Annotated[str, typer.Option(metavar="TIME", help="cli.help.checkpoint_every")]
PatienceOption = Annotated[int | None, typer.Option(metavar="N", help="cli.help.patience")]
RuntimeOption = Annotated[str, typer.Option(metavar="plain|auto|FILE", help="cli.help.runtime")]


def train(
    data: DataArgument,
    run: RunOption = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.recipe")] = None,
    size: SizeOption = None,
    autoencoder: Annotated[str | None, typer.Option(metavar="MODEL", help="cli.help.autoencoder")] = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    condition: Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.condition")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="cli.help.seeds")] = None,
    checkpoint_every: CheckpointOption = "5m",
    patience: PatienceOption = None,
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model on a data set. The same command continues a training that was stopped or killed."""
    chosen: dict[str, Any] = {"recipe": recipe, "condition": condition, "autoencoder": autoencoder}
    settings = with_shorthands(settings, patience, size)
    launched = (data, as_json, budget, images, checkpoint_every)
    if seeds is None:
        train_to_end(*launched, run=run, settings=settings, runtime=runtime, **chosen)
    else:
        _train_seeds(seeds, *launched, run, settings, chosen, runtime)


def finetune(
    model: ModelArgument,
    data: DataArgument,
    run: RunOption = None,
    size: SizeOption = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    checkpoint_every: CheckpointOption = "5m",
    patience: PatienceOption = None,
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model on a data set, starting from the weights of a trained model."""
    train_to_end(
        data, as_json, budget, images, checkpoint_every,
        run=run, finetune=model, settings=with_shorthands(settings, patience, size), runtime=runtime,
    )  # fmt: skip


def distill(
    model: ModelArgument,
    data: DataArgument,
    steps: Annotated[int, typer.Option(metavar="N", help="cli.help.distill_steps")] = 4,
    run: RunOption = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    checkpoint_every: CheckpointOption = "5m",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Teach a copy of a trained model to sample in a few steps, on the data that it was trained on."""
    train_to_end(
        data, as_json, budget, images, checkpoint_every,
        run=run, distill=model, steps=steps, settings=settings or [], runtime=runtime,
    )  # fmt: skip


def plan(
    data: DataArgument,
    budget: Annotated[str, typer.Option(metavar="TIME", help="cli.help.plan_budget")],
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.plan_recipe")] = None,
    size: SizeOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine for about half a minute and choose what to train on it in a given time."""
    from alphabar.training.launch import plan_training

    settings = with_shorthands(settings, size=size)
    records = plan_training(data, budget=parse_duration(budget), recipe=recipe, settings=settings)
    planned = run_to_end(records)
    for line in aligned(planned.rows(), right=True):
        say(line)
    for note in planned.notes:
        say(message("cli.note", note=note))
    changed = [part for setting in settings for part in ("--set", setting)]
    changed = [*(["--recipe", recipe] if recipe else []), *changed]
    command = shlex.join(["alphabar", "train", data, "--budget", budget, *changed])
    say(message("cli.to_train", command=command))
    print_json(as_json, planned.to_dict())


def with_shorthands(
    settings: list[str] | None, patience: int | None = None, size: int | None = None
) -> list[str]:
    """The settings, and those that have an option of their own, where it is given.

    Raises UsageError where a setting and its option have different values; of two settings the last counts.
    """
    options = {"monitor.patience": ("--patience", patience), "data.size": ("--size", size)}
    given = [*(settings or [])]
    values = {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in given)}
    for key, (option, value) in options.items():
        if value is None:
            continue
        if values.get(key, str(value)) != str(value):
            raise UsageError("cli.two_values", option=option, value=value, setting=f"{key}={values[key]}")
        given.append(f"{key}={value}")
    return given


def _train_seeds(
    seeds: int,
    data: str,
    as_json: bool,
    budget: str | None,
    images: str | None,
    checkpoint_every: str,
    run: Path | None,
    settings: list[str],
    chosen: dict[str, Any],
    runtime: str,
) -> None:
    """Train one recipe with several seeds and compare the runs. Seeds that are trained already are kept."""
    from alphabar.cli.report import write_and_print_comparison
    from alphabar.reporting.pages import files_folder
    from alphabar.runtime import Runtime, processes
    from alphabar.training.launch import default_run

    if seeds < 2:
        raise UsageError("cli.bad_seeds", n=seeds)
    if any(setting.partition("=")[0].strip() == "seed" for setting in settings):
        raise UsageError("cli.seeds_and_seed")
    base, runs = run or default_run(data), []
    page = base.with_name(f"{base.name}-seeds.html")
    files_folder(page)  # refuses a name that is too long before the work begins
    with processes():
        main = Runtime().is_main
        for seed in range(seeds):
            runs.append(base.with_name(f"{base.name}-seed{seed}"))
            if main:
                say(message("cli.seed_begins", seed=seed, i=seed + 1, n=seeds, run=runs[-1]))
            result = train_to_end(
                data, False, budget, images, checkpoint_every,
                run=runs[-1], settings=[*settings, f"seed={seed}"], runtime=runtime, **chosen,
            )  # fmt: skip
            if result.stopped:
                return
            # What was planned for the first seed, and what followed from the data, holds for all.
            chosen = {"recipe": str(runs[0] / "recipe.toml"), "autoencoder": chosen.get("autoencoder")}
    if not main:
        return
    compared = write_and_print_comparison(runs, page)
    print_json(as_json, {"page": str(page), **compared.to_dict()})


def train_to_end(
    data: str, as_json: bool, budget: str | None, images: str | None, checkpoint_every: str, **chosen: Any
) -> "TrainingResult":
    """Train behind a progress bar until the end or a signal, and say what came of it.

    chosen: what `launch` takes besides.
    """
    chosen["budget"] = None if budget is None else parse_duration(budget)
    chosen["images"] = None if images is None else parse_count(images)
    chosen["checkpoint_every"] = parse_duration(checkpoint_every)

    from alphabar.runtime import Runtime, processes
    from alphabar.training.launch import launch

    stop = threading.Event()
    with processes(), stop_on_signal(stop):
        main = Runtime().is_main
        records = launch(data, stop=stop, **chosen)
        result = run_to_end(records, quiet=not main, detail=_detail)
    if main and result.reason.identifier in ("training.stopped_before", "training.stopped_between"):
        again = result.reason.identifier == "training.stopped_before"
        say(message("cli.stopped_before", reason=result.reason) if again else result.reason)
        print_json(as_json, result.to_dict())
    elif main:
        command = shlex.join(["alphabar", "report", str(result.run)])
        say(
            message(
                "cli.trained", reason=result.reason, images=result.images,
                duration=format_duration(result.seconds), run=result.run, command=command,
            )
        )  # fmt: skip
        if (samples := result.run / "samples").is_dir():  # not where it was stopped before the first ones
            say(message("cli.last_samples", samples=samples))
        print_json(as_json, result.to_dict())
    return result


def _detail(record: Any) -> str:
    if getattr(record, "loss", None) is None:
        return ""
    return localized(message("cli.training_detail", images=record.images, loss=record.loss, rate=record.rate))
