"""TODO-DOC from cli"""

import re
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, mention_skipped, print_json, progress_bar, say, stop_on_signal
from alphabar.cli.options import DataArgument, JsonOption
from alphabar.cli.parse import parse_count, parse_duration
from alphabar.errors import UsageError
from alphabar.formatting import format_duration

if TYPE_CHECKING:
    from alphabar.data.dataset import Dataset
    from alphabar.recipes.schema import Recipe
    from alphabar.training import loop as trainer_room
    from alphabar.training.budget import Plan


@app.command()
def train(
    data: DataArgument,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The run folder, runs/DATA by default; where it holds a run, go on with it."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="classic, ddpm, edm, lean, classifier, gan, vae, or the path of a recipe.toml; with --budget"
            " alone, see alphabar plan.",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time to train in all, for example 90m or 2h.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="N", help="Images to see in all, for example 500k or 2M.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe, e.g. data.size=32."),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="What the model may be asked for: class, attributes, text or clusters."
        ),
    ] = None,
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Instead of a recipe: go on from a trained model, cars64 for example, on DATA; with larger"
            " --set network.widths in a wider network, for recipe edm. In batches of 32 at most.",
        ),
    ] = None,
    shorten: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Instead of a recipe: tune a copy of a model trained on DATA to draw in --steps evaluations"
            " of the network; some variety is lost.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Of a model made by --shorten.", show_default="4")
    ] = None,
    checkpoint_every: Annotated[str, typer.Option(metavar="TIME", help="Time between checkpoints.")] = "5m",
    as_json: JsonOption = False,
) -> None:
    """Train a model. The same command again goes on where it was stopped or killed."""

    from alphabar.training.labels import conditions_of
    from alphabar.training.loop import begin
    from alphabar.training.loop import train as loop_train

    seconds = None if budget is None else parse_duration(budget)
    wanted = None if images is None else parse_count(images)
    every = parse_duration(checkpoint_every)

    from alphabar.codecs import build_codec
    from alphabar.data.dataset import prepare
    from alphabar.data.sources import open_source
    from alphabar.recipes.derive import distilled, finetuned
    from alphabar.recipes.overrides import with_settings
    from alphabar.recipes.presets import named_recipe
    from alphabar.recipes.schema import read_recipe
    from alphabar.runs.model import load_model
    from alphabar.runs.run import Run
    from alphabar.runtime import Runtime, processes

    source = open_source(data)
    name = re.sub(r"[^\w.-]+", "-", Path(data).resolve().name) + "-short" * bool(shorten)
    run = run or Path("runs") / name
    if sum(map(bool, (recipe, origin, shorten))) > 1:
        raise UsageError("give one of --recipe, --from and --shorten: the last two take their model's recipe")
    if steps is not None and not shorten:
        raise UsageError("--steps is for --shorten: how many a model takes is chosen when it draws")
    start = origin or shorten
    model = load_model(start) if start else None
    chosen, planning = None, False
    if model is not None and shorten:
        chosen = distilled(model.recipe, 4 if steps is None else steps)
    elif model is not None:
        chosen = finetuned(model.recipe, model.path.name)
    elif recipe is not None:
        chosen = read_recipe(Path(recipe)) if recipe.endswith(".toml") else named_recipe(recipe)
    elif Run(run).exists:
        chosen = Run(run).recipe
    if chosen is None:
        if seconds is None:
            raise UsageError(
                f"there is no run at {run} yet: say which recipe, for example --recipe classic,"
                " or how long to train, for example --budget 2h"
            )
        chosen, planning = named_recipe("lean"), True
    changes = [*(settings or []), *([f"condition.on={condition}"] if condition else [])]
    chosen = with_settings(chosen, changes)
    if Run(run).exists:
        begin(run, chosen)
    stop = threading.Event()
    with processes(), stop_on_signal(stop):
        main = Runtime().is_main
        pictures = prepare(source, build_codec(chosen.data), chosen.data.fit)
        dataset = last_with_bar(pictures, "reading pictures", quiet=not main).result
        asked = conditions_of(dataset, chosen)  # fails before anything is written
        if shorten and model and (asked and asked[0]) != model.vocabulary:
            raise UsageError(
                f"{shorten} was trained on other labels than those of {data}: give the same pictures"
            )
        if planning:
            planned = measure_and_plan(dataset, chosen, seconds or 0.0, quiet=not main)
            chosen = with_settings(planned.recipe, changes)
        opened = begin(run, chosen, start=model) if main else Run(run)
        if main:
            opened.remember_data(data)
            mention_skipped(dataset)
        Runtime().barrier()
        records = loop_train(
            dataset, opened, images=wanted, budget=seconds, checkpoint_every=every, stop=stop
        )
        finished = _show_training(records, quiet=not main)
    if main:
        say(f"{finished.reason}: {finished.images:,} images in {format_duration(finished.seconds)}, in {run}")
        print_json(as_json, {"run": str(run), **asdict(finished)})


@app.command()
def plan(
    data: DataArgument,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time to train, for example 90m or 2h.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe lean, e.g. data.size=32."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine, about a minute, and say what to train on it in a budget, and how far it goes."""
    seconds = parse_duration(budget)

    from alphabar.codecs import build_codec
    from alphabar.data.dataset import prepare
    from alphabar.data.sources import open_source
    from alphabar.recipes.overrides import with_settings
    from alphabar.recipes.presets import named_recipe

    recipe = with_settings(named_recipe("lean"), settings or [])
    pictures = prepare(open_source(data), build_codec(recipe.data), recipe.data.fit)
    planned = measure_and_plan(last_with_bar(pictures, "reading pictures").result, recipe, seconds)
    more = "".join(f" --set {setting}" for setting in settings or [])
    say(f"to train it: alphabar train {data} --budget {budget}{more}")
    print_json(as_json, planned.to_dict())


def _show_training(records: "Iterable[trainer_room.Record]", quiet: bool) -> "trainer_room.Finished":
    """Draw a training's records; where stderr is no terminal, a line every half minute."""

    from time import monotonic

    from alphabar.training.records import Finished, Monitored, Note, Progress

    spoken = monotonic()
    finished = None
    with progress_bar(quiet) as progress:
        task = progress.add_task("training", total=1.0, detail="starting")

        def tell(text: str) -> None:
            if not quiet:
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        for record in records:
            match record:
                case Note():
                    tell(record.text)
                case Progress():
                    detail = f"{record.images:,} images  loss {record.loss:.4f}  {record.rate:.1f} images/s"
                    progress.update(task, completed=record.share, detail=detail)
                    if progress.disable and monotonic() - spoken > 30:
                        spoken = monotonic()
                        tell(f"{record.share:4.0%}  {detail}  left {format_duration(record.eta)}")
                case Monitored():
                    distance = record.distance
                    told = f", {distance['features']} KID {distance['kid']:.4f}" if distance else ""
                    if record.accuracy:
                        tell(f"{record.images:,} images: {accuracy_text(record.accuracy)}")
                    else:
                        tell(f"{record.images:,} images: samples in {record.grid}{told}")
                case Finished():
                    finished = record
    assert finished is not None
    return finished


def accuracy_text(accuracy: dict[str, Any]) -> str:
    """How many held-out labels a classifier tells, at each noise level that it was asked at."""
    at = zip(accuracy["sigma"], accuracy["accuracy"], strict=False)
    shares = [f"{share:.0%} at sigma {sigma:g}" for sigma, share in at if share is not None]
    return "held-out labels told: " + (", ".join(shares) or "none are known")


def measure_and_plan(dataset: "Dataset", recipe: "Recipe", seconds: float, quiet: bool = False) -> "Plan":
    """Measure, choose, and show the choice."""
    from datetime import datetime, timedelta

    from alphabar.training.budget import measure, plan

    machine = last_with_bar(measure(dataset, recipe), None, quiet).result
    train_index, _ = dataset.split(recipe.data.held_out)
    planned = plan(machine, recipe, len(train_index), seconds)
    if quiet:
        return planned
    rows = planned.rows()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    finish = datetime.now() + timedelta(seconds=seconds)
    say(f"of {len(train_index):,} pictures, in {format_duration(seconds)}: until {finish:%d %b %H:%M}")
    for note in planned.notes:
        say(f"note: {note}")
    return planned
