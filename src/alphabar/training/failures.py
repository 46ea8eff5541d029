"""What a training says when the machine fails it: too little memory, or another process that is gone."""

import torch

from alphabar.errors import AlphabarError
from alphabar.memory import is_out_of_memory
from alphabar.recipes.schema import Recipe
from alphabar.runtime import distributed

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


def explained(error: Exception, recipe: Recipe) -> AlphabarError | None:
    """The error that says what to do about a failure of the machine; None for any other error."""
    text = str(error)
    if is_out_of_memory(error):
        return _out_of_memory(recipe)
    if isinstance(error, RuntimeError) and distributed() and any(sign in text for sign in LOST):
        return AlphabarError("training.process_lost")
    return None


def _out_of_memory(recipe: Recipe) -> AlphabarError:
    """Advises the least number of pieces, of equal size, that is more than now."""
    world = torch.distributed.get_world_size() if distributed() else 1
    local = recipe.batch // world
    pieces = [n for n in range(recipe.accumulate + 1, local + 1) if local % n == 0]
    if not pieces:
        return AlphabarError("training.out_of_memory_for_one", size=recipe.data.size)
    return AlphabarError(
        "training.out_of_memory", at_once=local // recipe.accumulate, batch=recipe.batch, pieces=pieces[0]
    )
