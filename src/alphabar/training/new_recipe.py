"""The recipe of a new training: the named one, or where none is named the one that suits the size."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from alphabar.codecs import build_codec
from alphabar.errors import UsageError
from alphabar.messages import Message, message
from alphabar.networks import NETWORKS
from alphabar.networks.base import without_memory
from alphabar.recipes.overrides import enlarged, named_keys, with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe, read_recipe

PLANNED = "lean"  # the recipe that is trained where none is named
LARGER, LARGER_FROM = "nested", 128  # px: for larger pictures it is this one (docs/results/larger_images.md)


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
        with suppress(UsageError):  # where its network does not divide the size, that of PLANNED may
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


def about_size(recipe: str | Recipe | None, made: Recipe, settings: list[str]) -> list[Message]:
    """A sentence where the network is one for smaller pictures, because that for their size does not fit.

    recipe, settings: as of `new_recipe`, which made ``made`` of them. The sentence names sizes near by.
    """
    sides = build_codec(made.data).spatial
    times = min(sides) // LARGER_FROM
    wanted = named_recipe(LARGER).network["times"] * times
    network = NETWORKS[made.network["name"]]
    if recipe not in (None, LARGER) or not times or getattr(network, "enlarged", None) is None:
        return []
    own = made.network.get("times", 1)
    if own >= wanted:
        return []
    with without_memory():
        built = NETWORKS.build(made.network, channels=build_codec(made.data).channels)
    fitting = []
    for height, width in _near(sides, built.reduction // own * wanted, LARGER_FROM * (times + 1)):
        size = json.dumps(height if height == width else [height, width], separators=(",", ":"))
        with suppress(UsageError):
            if new_recipe(recipe, [*settings, f"data.size={size}"]).network.get("times", 1) >= wanted:
                fitting.append(f"data.size={size}")
    if not fitting:  # something else than the size is in the way
        return []
    size = "×".join(map(str, reversed(sides)))
    return [message("training.smaller_network", recipe=made.name, size=size, offered=" / ".join(fitting))]


def _near(sides: tuple[int, ...], multiple: int, next_step: int) -> Iterator[tuple[int, int]]:
    """The nearest smaller size whose sides are multiples, and of squares the nearest larger one.

    next_step: the side from which on another network is wanted, which is a multiple of what that needs.
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
