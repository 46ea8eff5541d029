"""Whether a training fits into the free memory: said before anything is written, with what would fit."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from alphabar.codecs import build_codec
from alphabar.codecs.base import reader_of
from alphabar.data.fit import SIZES
from alphabar.errors import UsageError
from alphabar.formatting import format_memory
from alphabar.memory import PLENTY, free_memory
from alphabar.messages import Message, message
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, default_device
from alphabar.training.model_sizes import BYTES_PER_PARAMETER, MEMORY_SHARE, Size, parameters_of, size_of

Smaller = Callable[[int], Recipe]
"""The recipe for samples of another size in pixels. Raises UsageError where there is none."""


def check_memory(
    recipe: Recipe,
    runtime: Runtime | None,
    *,
    smaller: Smaller | None = None,
    new: bool = True,
    first_stage: bool = False,
) -> Message | None:
    """A warning where a training may need more memory than is free; None where it fits.

    runtime: the given one; None where it is measured later. new: whether settings besides ``accumulate`` may
    still change. first_stage: whether the recipe is that of an autoencoder that is trained inside a run,
    where only another size changes what it needs.
    Raises UsageError where the memory is clearly too little.
    """
    device = runtime.device if runtime else default_device()
    # Processes on one machine share its memory, and each has a GPU of its own.
    sharing = 1 if device.startswith("cuda") else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = free_memory(device) // sharing
    at_once = max(1, recipe.batch // Runtime().world_size // recipe.accumulate)
    values = math.prod(build_codec(recipe.data).shape)
    try:
        if 4 * at_once * values * PLENTY + BYTES_PER_PARAMETER * parameters_of(recipe) < MEMORY_SHARE * free:
            return None
        size = size_of(recipe)
    except Exception:  # a network of a person's own may need numbers where only shapes are counted
        return None
    needed = size.memory(at_once, recipe.recompute)
    if needed <= MEMORY_SHARE * free:
        return None
    remedies = _remedies(recipe, size, MEMORY_SHARE * free, smaller if new else None, new, first_stage)
    told = {
        "what": message("training.of_autoencoder" if first_stage else "training.of_training"),
        "needed": format_memory(needed),
        "free": format_memory(free),
        "remedy": next(remedies, None) or message("training.fits_nothing"),
    }
    # The peaks of trainings in float32 were 1.3 to 2.2 times this estimate (docs/results/larger_images.md):
    # one above all free memory cannot run. In half precision, which may be chosen where no runtime is given,
    # half of what is kept is enough.
    float32 = runtime is not None and runtime.dtype is None
    if (needed if float32 else size.memory(at_once / 2, recipe.recompute)) > free:
        raise UsageError("training.too_little_memory", **told)
    return message("training.little_memory", **told)


def _remedies(
    recipe: Recipe, size: Size, room: float, smaller: Smaller | None, new: bool, first_stage: bool
) -> Iterator[Message]:
    """What makes the training fit into so many bytes, the best first."""
    local = recipe.batch // Runtime().world_size
    pieces = [n for n in range(recipe.accumulate, local + 1) if local % n == 0]
    for recompute in (recipe.recompute,) if recipe.recompute or not new else (False, True):
        for n in pieces if not first_stage else ():
            if size.memory(local // n, recompute) <= room:
                changed = recompute and not recipe.recompute
                yield message(f"training.fits_{'recomputed' if changed else 'pieces'}", pieces=n)
                break
    if smaller:
        yield from fitting_sizes(recipe, smaller, lambda made: _needed(made) <= room)


def _needed(recipe: Recipe) -> int:
    at_once = recipe.batch // Runtime().world_size // recipe.accumulate
    return size_of(recipe).memory(max(1, at_once), recipe.recompute)


def fitting_sizes(recipe: Recipe, smaller: Smaller, fits: Callable[[Recipe], bool]) -> Iterator[Message]:
    """The advice to choose a smaller size, for each that fits, the largest first."""
    sides = set(reader_of(build_codec(recipe.data)).spatial)
    for side in sorted(SIZES, reverse=True):
        with suppress(UsageError):  # of a size that does not suit the network
            if len(sides) == 1 and side < max(sides) and fits(smaller(side)):
                yield message("training.fits_size", size=side)
