"""Which settings a run may take on when it continues: those that change no weights, and a few on request."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alphabar.errors import UsageError
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.recipes.overrides import changed, differences, named_keys
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime

# Against too little memory and a loss that is not finite. They change the weights from here on, so the person
# must name them.
ON_REQUEST = ("batch", "accumulate", "optimizer.learning_rate", "optimizer.clip")
SHOWN = 3  # differences of recipes


def check_changes(path: str | Path, before: Recipe, recipe: Recipe, settings: Iterable[str] = ()) -> None:
    """Raises UsageError, naming what differs, where the run at a path cannot continue with a recipe.

    Settings of the monitor may change freely, and those of sampling where the method does not learn them;
    those of `ON_REQUEST` where ``settings``, "key=value", name them.
    """
    free = ("monitor.",) if method_of(before).fixed_sampling else ("monitor.", "sampling.")
    named = named_keys(settings)
    fixed = {
        key: values
        for key, values in changed(before, recipe).items()
        if not key.startswith(free) and not (key in ON_REQUEST and key in named)
    }
    if not fixed:
        return
    if set(fixed) <= {*ON_REQUEST}:  # the person named them once, and gives the first command again
        own = " ".join(f"--set {key}={_as_setting(value)}" for key, (value, _) in fixed.items())
        raise UsageError("training.unnamed_settings", path=path, differences=_shown(fixed), own=own)
    raise UsageError("training.other_recipe", path=path, differences=_shown(fixed))


def _shown(found: Mapping[str, tuple[Any, Any]]) -> str:
    entries = [f"{key}: {a} → {b}" for key, (a, b) in found.items()]
    return "; ".join(entries[:SHOWN]) + ("; …" if len(entries) > SHOWN else "")


def _as_setting(value: Any) -> str:
    return "none" if value is None else str(value)


def check_shares(recipe: Recipe, runtime: Runtime) -> None:
    """Raises UsageError where a batch cannot be shared evenly by the processes and their pieces."""
    processes, pieces = runtime.world_size, recipe.accumulate
    if recipe.batch % (processes * pieces):
        raise UsageError("training.batch_shares", batch=recipe.batch, processes=processes, pieces=pieces)


def changes_told(before: Recipe, recipe: Recipe) -> Iterator[Message]:
    """Sentences about what is different from here on, and about how many images an update sees."""
    found = differences(before, recipe)
    if not found:
        return
    yield message("training.changed_settings", differences="; ".join(found))
    at_once = recipe.batch // (recipe.accumulate * Runtime().world_size)
    if recipe.batch != before.batch:
        pieces = before.batch // at_once if at_once and before.batch % at_once == 0 else before.accumulate
        yield message(
            "training.other_batch", batch=recipe.batch, at_once=at_once, before=before.batch, pieces=pieces
        )
    elif recipe.accumulate != before.accumulate:
        yield message("training.same_batch", batch=recipe.batch, at_once=at_once)
