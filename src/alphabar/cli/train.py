"""The commands ``train``, ``finetune``, ``distill`` and ``plan``."""

import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import aligned, localized, print_json, run_to_end, say, stop_on_signal
from alphabar.cli.options import DataArgument, JsonOption, ModelArgument
from alphabar.formatting import format_duration, parse_count, parse_duration
from alphabar.recipes.presets import RECIPES

RunOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The run folder, by default runs/DATA; a run that is there already goes on."
    ),
]
BudgetOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Total training time, for example 90m or 2h.")
]
ImagesOption = Annotated[
    str | None, typer.Option(metavar="N", help="Images to see in total, for example 500k or 2M.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a recipe setting, e.g. data.size=32. Repeat for several."
    ),
]
RuntimeOption = Annotated[
    str,
    typer.Option(
        metavar="plain|auto|FILE",
        help="How to compute: plain is float32, eager; auto is as the run did before, for a new run what is"
        " measured to be fastest; FILE is like the runtime.json in every run folder. On a CPU the same"
        " runtime, machine, threads and versions give the same bits; what is measured anew may differ.",
    ),
]
CheckpointOption = Annotated[str, typer.Option(metavar="TIME", help="Time between checkpoints.")]


def train(
    data: DataArgument,
    run: RunOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(RECIPES)}, or the path of a recipe.toml; by default the planner sizes 'lean'.",
        ),
    ] = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    condition: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Condition the model on class, attributes, text or clusters."),
    ] = None,
    checkpoint_every: CheckpointOption = "5m",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model on a data set. The same command continues a training that was stopped or killed.

    For example: alphabar train my_pictures --run runs/mine --budget 2h
    """
    _launch(
        data, as_json, budget, images, checkpoint_every,
        run=run, recipe=recipe, settings=settings or [], condition=condition, runtime=runtime,
    )  # fmt: skip


def finetune(
    model: ModelArgument,
    data: DataArgument,
    run: RunOption = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    checkpoint_every: CheckpointOption = "5m",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model on a data set, starting from the weights of a trained model.

    For example: alphabar finetune cars64 my_pictures --run runs/mine --budget 20m
    """
    _launch(
        data, as_json, budget, images, checkpoint_every,
        run=run, finetune=model, settings=settings or [], runtime=runtime,
    )  # fmt: skip


def distill(
    model: ModelArgument,
    data: DataArgument,
    steps: Annotated[int, typer.Option(metavar="N", help="Network evaluations for one sample.")] = 4,
    run: RunOption = None,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    settings: SetOption = None,
    checkpoint_every: CheckpointOption = "5m",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Teach a copy of a trained model to sample in a few steps, on the data that it was trained on.

    For example: alphabar distill cars64 stanford_cars --steps 4 --run runs/fast
    """
    _launch(
        data, as_json, budget, images, checkpoint_every,
        run=run, distill=model, steps=steps, settings=settings or [], runtime=runtime,
    )  # fmt: skip


def plan(
    data: DataArgument,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Training time, for example 90m or 2h.")],
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine for about a minute and choose what to train on it in a given time.

    For example: alphabar plan my_pictures --budget 2h
    """
    from alphabar.training.launch import plan_training

    planned = run_to_end(plan_training(data, budget=parse_duration(budget), settings=settings or []))
    for line in aligned(planned.rows(), right=True):
        say(line)
    for note in planned.notes:
        say(f"Note: {localized(note)}")
    more = "".join(f" --set {setting}" for setting in settings or [])
    say(f"To train it: alphabar train {data} --budget {budget}{more}")
    print_json(as_json, planned.to_dict())


def _launch(
    data: str, as_json: bool, budget: str | None, images: str | None, checkpoint_every: str, **chosen: Any
) -> None:
    """Train behind a progress bar until the end or a signal. chosen: what `launch` takes besides."""
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
    if main:
        duration = format_duration(result.seconds)
        say(f"{localized(result.reason)}: {result.images:,} images in {duration}; the run is in {result.run}")
        print_json(as_json, result.to_dict())


def _detail(record: Any) -> str:
    if getattr(record, "loss", None) is None:
        return ""
    return f"{record.images:,} images  loss {record.loss:.4f}  {record.rate:.1f} images/s"
