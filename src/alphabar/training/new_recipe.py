"""The recipe of a new training: the named one, or where none is named the one that suits the size."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from alphabar.codecs import build_codec
from alphabar.errors import UsageError
from alphabar.messages import Message, message
from alphabar.methods.registry import method_of
from alphabar.networks import NETWORKS
from alphabar.networks.base import without_memory
from alphabar.recipes.overrides import enlarged, named_keys, with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe, read_recipe
from alphabar.runs.model import Model
from alphabar.training.labels import Conditions

PLANNED = "lean"  # the recipe that is trained where none is named
LARGER, LARGER_FROM = "patches", 128  # px: for larger pictures it is this one (docs/results/larger_images.md)


def new_recipe(recipe: str | Recipe | None, settings: list[str]) -> Recipe:
    """The recipe of a new training, with a person's settings; where none is named, it depends on the size.

    recipe: a name, the path of a recipe.toml, or a recipe. Raises UsageError for a network that learns only
    the detail, and as `with_settings` and `read_recipe` do.
    """
    made = with_settings(_named(recipe or PLANNED), settings)
    if made.network.get("only_detail"):
        raise UsageError("training.only_detail")
    times = min(build_codec(made.data).spatial) // LARGER_FROM
    own = {"data.codec", "network", "network.name"}
    if recipe is None and times and named_keys(settings).isdisjoint(own):
        with suppress(UsageError):  # where its patches do not divide the size, PLANNED has smaller ones
            return new_recipe(LARGER, settings)
    if recipe == LARGER:
        for n in range(times, 1, -1):
            with suppress(UsageError):
                return enlarged(made, n, settings)
    return made


def recipe_of_size(recipe: str | Recipe | None, settings: list[str], size: int) -> Recipe:
    """As `new_recipe`, for pictures of another size."""
    return new_recipe(recipe, [*settings, f"data.size={size}"])


def chooses(settings: Iterable[str], key: str) -> bool:
    """Whether "key=value" settings name this setting of the data."""
    return not named_keys(settings).isdisjoint(("data", key))


def about_patches(recipe: str | Recipe | None, made: Recipe, settings: list[str]) -> list[Message]:
    """A sentence where pictures have smaller patches than their size calls for, which larger do not divide.

    recipe, settings: as of `new_recipe`, which made ``made`` of them. The sentence names sizes near by whose
    patches are large enough.
    """
    patch, sides = made.network.get("patch"), build_codec(made.data).spatial
    times = min(sides) // LARGER_FROM
    wanted = named_recipe(LARGER).network["patch"] * times
    if recipe not in (None, LARGER) or not times or patch is None or patch >= wanted:
        return []
    with without_memory():
        network = NETWORKS.build(made.network, channels=build_codec(made.data).channels)
    fitting = []
    for height, width in _near(sides, network.reduction // patch * wanted, LARGER_FROM * (times + 1)):
        size = json.dumps(height if height == width else [height, width], separators=(",", ":"))
        with suppress(UsageError):
            if new_recipe(recipe, [*settings, f"data.size={size}"]).network.get("patch", 0) >= wanted:
                fitting.append(f"data.size={size}")
    if not fitting:  # something else than the size is in the way
        return []
    size = "×".join(map(str, reversed(sides)))
    offered = " / ".join(fitting)
    return [
        message(
            "training.smaller_patches",
            recipe=made.name,
            patch=patch,
            wanted=wanted,
            size=size,
            offered=offered,
        )
    ]


def about_labels(
    recipe: Recipe, model: Model | None, conditions: Conditions | None, data: str
) -> list[Message]:
    """A sentence where a model goes on with larger pictures and its labels, and could learn the detail alone.

    model: what the training begins with. Raises UsageError for other labels than a model has that is
    distilled, or stays as it is in part.
    """
    if model is None:
        return []
    only_detail = recipe.network.get("only_detail")
    if (conditions.vocabulary if conditions else None) != model.vocabulary:
        if method_of(recipe).needs_trained_weights:
            raise UsageError("training.distill_other_labels", model=model.path, data=data)
        if only_detail:
            raise UsageError("training.detail_other_labels", model=model.path, data=data)
        return []
    if only_detail is not False or recipe.coarse == model.recipe.coarse:
        return []
    return [message("training.detail_alone", model=model.path.name, data=data)]


def _near(sides: tuple[int, ...], multiple: int, next_step: int) -> Iterator[tuple[int, int]]:
    """The nearest smaller size whose sides are multiples, and of squares the nearest larger one.

    next_step: the side from which on patches are larger again, which is a multiple of theirs.
    """
    height, width = (side // multiple * multiple for side in sides)
    yield height, width
    if sides[0] == sides[1]:
        above = min(height + multiple, next_step)
        yield above, above


def _named(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return read_recipe(Path(recipe)) if recipe.endswith(".toml") else named_recipe(recipe)
