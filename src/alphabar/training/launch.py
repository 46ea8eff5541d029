"""Starting or continuing a training from a few choices, as the commands train, finetune, distill and plan."""

import re
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from alphabar.codecs import build_codec
from alphabar.codecs.base import LearnedCodec, reader_of
from alphabar.codecs.image import ImageCodec
from alphabar.data.channels import choose_channels
from alphabar.data.dataset import Dataset, prepare
from alphabar.data.fit import suggest_fit
from alphabar.data.items import Source, skipped_files
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import fitting_name
from alphabar.formatting import format_duration
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.progress import Progress, staged
from alphabar.recipes.derive import distilled, finetuned, first_stage, with_autoencoder
from alphabar.recipes.overrides import named_keys, with_settings
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import Model, codec_of, load_model
from alphabar.runs.run import Run, check_free
from alphabar.runtime import Runtime, own_share, processes
from alphabar.training.budget import Plan, measure, plan
from alphabar.training.changes import changes_told, check_changes, check_shares
from alphabar.training.first_stage import (
    SHARE,
    check_autoencoder,
    needs_first_stage,
    seconds_of_first_stage,
    train_first_stage,
)
from alphabar.training.fitting import Smaller, check_memory
from alphabar.training.given_runtime import given_runtime
from alphabar.training.labels import Conditions, conditions_of
from alphabar.training.loop import begin, stopped_early, train
from alphabar.training.new_recipe import (
    LARGER,
    about_labels,
    about_patches,
    chooses,
    new_recipe,
    recipe_of_size,
)
from alphabar.training.probe import Stopped, check_runtime, unless_stopped
from alphabar.training.records import Limits, TrainingResult
from alphabar.training.signals import signals_of

T = TypeVar("T")

SIZED = (LARGER, "latent")  # recipes whose network the budget planner sizes where they are named
DISTILLED_STEPS = 4
FEW_PICTURES = 200  # below which a model mostly repeats what it has seen


def launch(
    data: str,
    *,
    run: str | Path | None = None,
    recipe: str | Recipe | None = None,
    finetune: str | Path | None = None,
    distill: str | Path | None = None,
    steps: int | None = None,
    autoencoder: str | Path | None = None,
    settings: Iterable[str] = (),
    condition: str | None = None,
    budget: float | None = None,
    images: int | None = None,
    checkpoint_every: float = 300.0,
    stop: threading.Event | None = None,
    runtime: Runtime | str | Path | None = None,
) -> Iterator[Progress[TrainingResult]]:
    """Trains on a data set: begins a run, or continues the one that is there.

    data: a folder of images, "toycars" or hf://datasets/owner/name.
    run: the run folder; by default runs/NAME of the data, with "-finetuned" or "-distilled" behind it.
    recipe: a name, the path of a recipe.toml, or a recipe; by default that of the run, or for a new run what
        the budget planner makes of ``lean`` (from 128 px on of ``patches``), or with ``images`` alone that
        recipe as it is. Where pictures have another shape than the signals, a named recipe takes the fit
        that suits them, unless data.fit is set.
    finetune: a trained model to continue on this data; distill: one to distill to ``steps`` network
        evaluations (default 4), on the data that it was trained on. Either takes the place of a recipe.
    autoencoder: a trained one for a recipe with latents, which decides data.codec, and the size of the
        pictures too where none is named; without it one is trained first, for as many images.
    settings: changes of the recipe, "key=value", as of `with_settings`. condition: what samples are
        conditioned on: class, attributes, text or clusters.
    budget: seconds to train in all since the beginning of the run, reading and measuring included; images:
        how many to see in all; by default the recipe's number.
    checkpoint_every: seconds between checkpoints. stop: set it to save and end.
    runtime: how to compute. None or "auto": as the run did before where this machine can, for a new run what
        is measured to be fastest (`probe`); "plain": float32, contiguous, eager; a path: what a file says,
        such as the runtime.json of any run; or a `Runtime`. The same one on the same machine, threads and
        versions gives the same bits on a CPU.

    Yields records of all stages; those of the training are `TrainingProgress`, and the last has the result. A
    record with a message is a sentence for the person; the budget planner's has the `Plan` as preview.
    Raises UsageError for choices that do not fit, before anything is written, and as `train` does.
    """
    began = monotonic()
    Limits(images, budget)  # raises for a limit that is not above zero
    settings = [*settings, *([f"condition.on={condition}"] if condition else [])]
    chosen = _choose(data, run, recipe, finetune, distill, steps, settings, budget, images)
    chosen = _with_autoencoder(chosen, autoencoder)
    from_file = runtime not in (None, "auto", "plain") and not isinstance(runtime, Runtime)
    runtime = given_runtime(runtime) if isinstance(runtime, str | Path) else runtime
    command = _Command(runtime, from_file, stop, began)
    with processes():
        try:
            begun = yield from _until_stopped(_begin(data, chosen, command), stop)
        except Stopped:
            yield stopped_early(Run(chosen.run))
            return
        with own_share():
            limits = {"images": images, "budget": budget, "checkpoint_every": checkpoint_every}
            yield from _train_stages(begun, chosen, command, limits)


def plan_training(
    data: str, *, budget: float, recipe: str | None = None, settings: Iterable[str] = ()
) -> Iterator[Progress[Plan]]:
    """Measures this machine for about half a minute and chooses what to train on it in a budget of seconds.

    recipe: of `SIZED`; by default ``lean``, from 128 px on ``patches``. settings: changes of it, "key=value";
    network.widths or network.blocks among them keep the network as it is. Yields records; the last has the
    plan, which `launch` carries out when it is given only a budget and that recipe. Raises UsageError for
    another recipe, and as `measure` and `plan` do.
    """
    if recipe not in (None, *SIZED):
        raise UsageError("training.not_planned", recipe=recipe, data=data, planned=", ".join(SIZED))
    source = open_source(data)
    settings = [*settings]
    made = new_recipe(recipe, settings)
    for note in about_patches(recipe, made, settings):
        yield _note(note)
    made = yield from _with_channels(source, made)
    if not chooses(settings, "data.fit"):
        made = yield from _with_fit(source, made)
    smaller = partial(recipe_of_size, recipe, settings)
    chosen = _Chosen(Path(), made, None, settings, budget, planned=True, smaller=smaller)
    yield from _about_memory(made, chosen, _Command(), Run(chosen.run))
    dataset = yield from _prepared(source, made)
    planned = yield from _planned(dataset, chosen, made, conditions_of(dataset, made), _Command())
    yield Progress(message("training.stage_planning"), 1, 1, planned)


def _train_stages(
    begun: "_Begun", chosen: "_Chosen", command: "_Command", limits: Mapping[str, Any]
) -> Iterator[Progress[TrainingResult]]:
    """Trains what has begun; with a learned codec its autoencoder first. limits: of `train`."""
    run, stop, began = begun.run, command.stop, command.began
    options = {**limits, "runtime": command.runtime, "stop": stop}
    # Also where a kill came after the autoencoder and before the first checkpoint; later ones know of it.
    began = None if began is None else began - seconds_of_first_stage(run)
    if needs_first_stage(run):
        yield from train_first_stage(begun.dataset, run, model=chosen.autoencoder or chosen.model, **options)
        if needs_first_stage(run):
            yield stopped_early(run)
            return
    try:  # the training finds the stored signals again
        yield from _until_stopped(staged(signals_of(begun.dataset, codec_of(run))), stop)
    except Stopped:
        yield stopped_early(run)
        return
    yield from train(
        begun.dataset, run, conditions=begun.conditions, began=began, planned=begun.planned, **options
    )


@dataclass(frozen=True)
class _Chosen:
    """What is to be trained: the run folder, the recipe, and the model that the training begins with.

    settings: "key=value", which the recipe has taken on. budget: seconds in all. planned: whether the budget
    planner still sizes the recipe. open_fit: whether the data decides the fit; open_size, open_channels:
    whether an autoencoder decides those. autoencoder: a trained one. notes: on the recipe. smaller: the
    recipe for another size, where there is a choice.
    """

    run: Path
    recipe: Recipe
    model: Model | None
    settings: Iterable[str] = ()
    budget: float | None = None
    planned: bool = False
    open_fit: bool = False
    open_size: bool = False
    open_channels: bool = False
    autoencoder: Model | None = None
    notes: Iterable[Message] = ()
    smaller: Smaller | None = None

    @property
    def own_size(self) -> bool:
        """Whether the person chose the size of the network."""
        return not named_keys(self.settings).isdisjoint(("network.widths", "network.blocks"))


@dataclass(frozen=True)
class _Command:
    """What a command says besides: the given runtime and whether it must be checked against this machine.

    stop: set, the person stops it. began: when the command was given, as of ``time.monotonic``.
    """

    runtime: Runtime | None = None
    checked: bool = False
    stop: threading.Event | None = None
    began: float | None = None


@dataclass(frozen=True)
class _Begun:
    """What a training needs: data, the run, the conditions, and the plan where there is one."""

    dataset: Dataset
    run: Run
    conditions: Conditions | None
    planned: Plan | None


def _choose(
    data: str,
    run: str | Path | None,
    recipe: str | Recipe | None,
    finetune: str | Path | None,
    distill: str | Path | None,
    steps: int | None,
    settings: list[str],
    budget: float | None,
    images: int | None,
) -> _Chosen:
    if "images" in named_keys(settings) and (images is not None or budget is not None):
        raise UsageError("training.two_lengths")
    if sum(choice is not None for choice in (recipe, finetune, distill)) > 1:
        raise UsageError("training.one_origin")
    if steps is not None and distill is None:
        raise UsageError("training.steps_without_distill")
    path = Path(run) if run is not None else default_run(data, finetune is not None, distill is not None)
    if distill is not None:
        model = load_model(distill)
        made = distilled(model.recipe, DISTILLED_STEPS if steps is None else steps, settings)
        return _Chosen(path, made, model, settings)
    if finetune is not None:
        model = load_model(finetune)
        smaller = partial(_finetuned, model, settings)
        return _Chosen(path, smaller(), model, settings, smaller=smaller)
    # What the budget planner made of a recipe is in the run: a second plan may be another.
    if Run(path).exists and (recipe is None or (recipe in SIZED and Run(path).recipe.name == recipe)):
        return _Chosen(path, with_settings(Run(path).recipe, settings), None, settings)
    if recipe is None and budget is None and images is None:
        raise UsageError("training.no_recipe", path=path, data=data)
    made = new_recipe(recipe, settings)
    if method_of(made).needs_trained_weights and not Run(path).exists:
        raise UsageError("training.needs_model", method=made.method["name"], data=data)
    named = not isinstance(recipe, Recipe) and not (recipe or "").endswith(".toml")
    return _Chosen(
        path,
        made,
        None,
        settings,
        budget,
        planned=recipe in (None, *SIZED) and budget is not None,
        open_fit=named and not chooses(settings, "data.fit"),
        open_size=named and not chooses(settings, "data.size"),
        open_channels=made.data.channels is None,
        notes=about_patches(recipe, made, settings),
        smaller=partial(recipe_of_size, recipe, settings),
    )


def _finetuned(model: Model, settings: list[str], size: int | None = None) -> Recipe:
    return finetuned(model.recipe, model.path.name, [*settings, *([f"data.size={size}"] if size else [])])


def _with_autoencoder(chosen: _Chosen, path: str | Path | None) -> _Chosen:
    """The choice with a trained autoencoder, where a person names one."""
    if path is None:
        return chosen
    if chosen.model is not None:
        raise UsageError("training.own_autoencoder", model=chosen.model.path)
    if Run(path).exists and Run(inner := Run(path).first_stage).exists:
        raise UsageError("training.inner_autoencoder", path=path, inner=inner)
    model = load_model(path)
    recipe = with_autoencoder(
        chosen.recipe, model.recipe, model.path, chosen.settings, open_size=chosen.open_size
    )
    return replace(chosen, recipe=recipe, autoencoder=model)


def _begin(data: str, chosen: _Chosen, command: _Command) -> Generator[Progress[Any], None, _Begun]:
    """What a training needs. What does not fit fails before anything is written, and before time is spent."""
    source, run = open_source(data), Run(chosen.run)
    check_free(run)
    check_autoencoder(run, chosen.autoencoder or chosen.model)
    yield from _check_colours(source, chosen, data)
    recipe = yield from _with_channels(source, chosen.recipe, chosen.model, run)
    if chosen.open_fit:
        recipe = yield from _with_fit(source, recipe, run)
    before = run.recipe if run.exists else None
    if before:
        check_changes(run.path, before, recipe, chosen.settings)
    yield from _about_memory(recipe, chosen, command, run)
    dataset = yield from _prepared(source, recipe)
    conditions = conditions_of(dataset, recipe)
    notes = [*about_labels(recipe, chosen.model, conditions, data), *chosen.notes]
    few = len(dataset.split(recipe.data.held_out)[0])
    if few < FEW_PICTURES and not run.exists and method_of(recipe).denoises:  # whose advice it is
        yield _note(message("training.few_pictures", n=few))
    for note in notes:
        yield _note(note)
    planned = None
    if chosen.planned:
        # What compiled code does depends on the sizes: that is checked once they are chosen.
        _check_runtime(command, recipe, conditions, compiled=False)
        planned = yield from _planned(dataset, chosen, recipe, conditions, command)
        # What was named of the data has been applied, and an autoencoder may have decided more of it.
        own = [s for s in chosen.settings if not s.strip().startswith("data")]
        recipe = with_settings(planned.recipe, own)
    check_shares(recipe, Runtime())
    _check_runtime(command, recipe, conditions)
    _check_unchanged(run, dataset)
    if Runtime().is_main:
        begin(chosen.run, recipe, initial_model=chosen.model, settings=chosen.settings)
        run.remember_data(data, _about_data(source, dataset))
    Runtime().barrier()
    for told in changes_told(before or recipe, recipe):
        yield _note(told)
    return _Begun(dataset, run, conditions, planned)


def _about_memory(
    recipe: Recipe, chosen: _Chosen, command: _Command, run: Run
) -> Generator[Progress[Any], None, None]:
    """Warnings where memory may not be enough. Raises UsageError where it is clearly too little.

    Of a planned training only the autoencoder is looked at: the planner sizes the rest to the memory.
    """
    new, smaller = not run.exists, chosen.smaller if chosen.autoencoder is None else None
    if not chosen.planned and (told := check_memory(recipe, command.runtime, smaller=smaller, new=new)):
        yield _note(told)
    learned = isinstance(build_codec(recipe.data), LearnedCodec)
    if not learned or chosen.autoencoder or chosen.model or run.codec.exists():
        return
    sized = (lambda size: first_stage(smaller(size))) if smaller else None
    if told := check_memory(first_stage(recipe), command.runtime, smaller=sized, new=new, first_stage=True):
        yield _note(told)


def _check_runtime(
    command: _Command, recipe: Recipe, conditions: Conditions | None, compiled: bool = True
) -> None:
    """Raises UsageError where this machine cannot train a recipe in the given runtime."""
    if command.runtime and command.checked:
        check_runtime(command.runtime, recipe, conditions, compiled=compiled)


def _until_stopped(
    records: Generator[Progress[Any], None, T], stop: threading.Event | None
) -> Generator[Progress[Any], None, T]:
    """The records of what comes before a training. Raises `Stopped` between two of them, once it is wished.

    Of several processes none leaves alone: they hear it where all of them do.
    """
    while True:
        if Runtime().world_size == 1:
            unless_stopped(stop)
        try:
            record = next(records)
        except StopIteration as end:
            return end.value
        yield record


def _check_unchanged(run: Run, dataset: Dataset) -> None:
    """Raises AlphabarError where another process trains in the run, or where it was trained on other data.

    So a training that is refused leaves the run's recipe, and what it remembers of its data, as they are.
    """
    if not run.exists:
        return
    with run.lock() if Runtime().is_main else nullcontext():
        if run.checkpoints.folders() and run.data_fingerprint not in (None, dataset.fingerprint):
            raise AlphabarError("training.other_data", path=run.path)


def default_run(data: str, finetune: bool = False, distill: bool = False) -> Path:
    """The run folder of a data set, where a person names none."""
    name = re.sub(r"[^\w.-]+", "-", Path(data).resolve().name)
    return Path("runs") / fitting_name(name, "-finetuned" * finetune + "-distilled" * distill)


def _with_channels(
    source: Source, recipe: Recipe, model: Model | None = None, run: Run | None = None
) -> Generator[Progress[Any], None, Recipe]:
    """The recipe with its number of channels: its own, those of its run or model, or what the data needs."""
    if recipe.data.channels is not None or not _of_pictures(recipe):
        return recipe
    channels: int | None
    if run and run.exists:
        channels = run.recipe.data.channels
    elif model:
        channels = reader_of(model.codec).channels
    else:
        channels = yield from staged(choose_channels(source))
        if channels == 1:
            yield _note(message("data.all_grey"))
    return recipe if channels is None else with_settings(recipe, [f"data.channels={channels}"])


def _check_colours(source: Source, chosen: _Chosen, data: str) -> Generator[Progress[Any], None, None]:
    """Raises UsageError for a grey autoencoder and pictures with colour, unless a person chose grey."""
    new = chosen.open_channels and not Run(chosen.run).exists
    if chosen.autoencoder and new and chosen.recipe.data.channels == 1:
        channels = yield from staged(choose_channels(source))
        if channels != 1:
            raise UsageError("training.grey_autoencoder", path=chosen.autoencoder.path, data=data)


def _of_pictures(recipe: Recipe) -> bool:
    return isinstance(reader_of(build_codec(recipe.data)), ImageCodec)


def _with_fit(
    source: Source, recipe: Recipe, run: Run | None = None
) -> Generator[Progress[Any], None, Recipe]:
    """The recipe with the fit of its run, or the one that suits the data, as ``inspect`` says."""
    if not _of_pictures(recipe):
        return recipe
    fit: str
    if run and run.exists:
        fit = run.recipe.data.fit
    else:
        suggested = yield from staged(suggest_fit(source))
        fit = suggested.name
        yield _note(message("training.fit", reason=suggested.reason))
        size = max(reader_of(build_codec(recipe.data)).spatial)
        if suggested.enough and suggested.enough < size:
            yield _note(message("training.size_beyond", pixels=suggested.most, smaller=suggested.enough))
    return with_settings(recipe, [f"data.fit={fit}"])


def _prepared(source: Source, recipe: Recipe) -> Generator[Progress[Any], None, Dataset]:
    """The data set of a source, with sentences about files that are left out or were changed."""
    dataset = yield from staged(prepare(source, build_codec(recipe.data), recipe.data.fit))
    for note in _about_data(source, dataset):
        yield _note(note)
    return dataset


def _about_data(source: Source, dataset: Dataset) -> list[Message]:
    return [*skipped_files(dataset.skipped), *source.notes, *dataset.notes]


def _planned(
    dataset: Dataset, chosen: _Chosen, recipe: Recipe, conditions: Conditions | None, command: _Command
) -> Generator[Progress[Any], None, Plan]:
    """The plan for what is left of the budget, after measuring this machine, with sentences about it."""
    measuring = measure(
        dataset, recipe, conditions,
        budget=chosen.budget or 0.0, own_size=chosen.own_size, runtime=command.runtime, stop=command.stop,
    )  # fmt: skip
    machine = yield from staged(measuring)
    passed = 0.0 if command.began is None else monotonic() - command.began
    left = Limits(None, chosen.budget, passed).budget or 0.0
    learned = isinstance(build_codec(recipe.data), LearnedCodec)
    if learned and chosen.autoencoder is None:
        left *= 1 - SHARE
    train_index, _ = dataset.split(recipe.data.held_out)
    planned = plan(machine, recipe, len(train_index), left, own_size=chosen.own_size, smaller=chosen.smaller)
    finish = datetime.now() + timedelta(seconds=left)
    summary = message(
        "training.planned",
        widths=planned.chosen.size.shape,
        fewest=planned.fewest,
        images=planned.chosen.images,
        pictures=planned.pictures,
        duration=format_duration(left),
        finish=f"{finish:%Y-%m-%d %H:%M}",
    )
    yield _note(summary, planned)
    for note in planned.notes:
        yield _note(note)
    return planned


def _note(text: Message, preview: Plan | None = None) -> Progress[Any]:
    return Progress(message("training.stage_planning"), 1, 1, None, preview, text)
