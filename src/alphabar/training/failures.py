"""What a training says when the machine fails it: too little memory, or another process that is gone."""

import torch

from alphabar.errors import AlphabarError
from alphabar.memory import is_out_of_memory
from alphabar.messages import Message, message
from alphabar.recipes.schema import Recipe
from alphabar.runs.run import Run
from alphabar.runtime import distributed

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


def explained(error: Exception, recipe: Recipe, run: Run) -> AlphabarError | None:
    """The error that says what to do about a failure of the machine in a run; None for any other error."""
    text = str(error)
    if is_out_of_memory(error):
        return _out_of_memory(recipe, run)
    if isinstance(error, RuntimeError) and distributed() and any(sign in text for sign in LOST):
        return AlphabarError("training.process_lost", kept=kept(run))
    return None


def kept(run: Run, finite: bool = True) -> Message:
    """What a run continues from: a sentence that promises no checkpoint where there is none.

    finite: whether any update since the newest one was finite; where none was, its weights may be lost.
    """
    checkpoints = run.checkpoints.folders()
    if checkpoints and not finite:
        return message("training.checkpoint_not_finite", folder=checkpoints[-1])
    return message("training.checkpoint_kept" if checkpoints else "training.no_checkpoint_yet")


def _out_of_memory(recipe: Recipe, run: Run) -> AlphabarError:
    """Advises the least number of pieces, of equal size, that is more than now."""
    left, outer = kept(run), Run(run.path.parent)
    world = torch.distributed.get_world_size() if distributed() else 1
    local = recipe.batch // world
    pieces = [n for n in range(recipe.accumulate + 1, local + 1) if local % n == 0]
    if not pieces:
        return AlphabarError("training.out_of_memory_for_one", size=recipe.data.size, kept=left)
    # The settings of the run are not those of the autoencoder that is trained inside it.
    inside = outer.exists and run.path == outer.first_stage
    return AlphabarError(
        "training.out_of_memory_of_autoencoder" if inside else "training.out_of_memory",
        at_once=local // recipe.accumulate,
        batch=recipe.batch,
        pieces=pieces[0],
        kept=left,
    )
