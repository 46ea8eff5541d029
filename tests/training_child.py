"""A small training, for tests to start as a process of its own and to kill.

    python training_child.py PICTURES RUN IMAGES [CHECKPOINT_SECONDS] [key=value …]

It prints the loss of every update as a JSON list.
"""

import json
import sys
from pathlib import Path

import torch

from alphabar import Run, begin, named_recipe, open_source, prepare, train, with_settings
from alphabar.codecs.image import ImageCodec
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, processes


def tiny_recipe(*settings: str) -> Recipe:
    """Seconds, not minutes: 16×16, a small U-Net with dropout and EMA, monitored at the end only.

    settings: applied after these, so that another network may have other settings.
    """
    small = with_settings(
        named_recipe("ddpm"),
        [
            "data.size=16",
            "network.widths=[16,32]",
            "network.attention=1",
            "network.head_dim=16",
            "network.dropout=0.1",
            "batch=8",
            "ema.half_life=64",
            "optimizer.warm_up=32",
            "monitor.share=0",
            "monitor.samples=1",
            "monitor.steps=2",
            "monitor.levels=0",
            "monitor.distance=0",
        ],
    )
    return with_settings(small, list(settings))


def tiny_dataset(folder: str | Path, size: int = 16):
    *_, done = prepare(open_source(folder), ImageCodec(size), "squash")
    return done.result


def main() -> None:
    torch.set_num_threads(1)
    folder, run, images, *rest = sys.argv[1:]
    every = float(rest.pop(0)) if rest and "=" not in rest[0] else 300.0
    with processes():
        runtime = Runtime()
        if runtime.is_main:
            begin(run, tiny_recipe(*rest))
        runtime.barrier()
        dataset = tiny_dataset(folder)
        records = train(dataset, Run(run), images=int(images), runtime=runtime, checkpoint_every=every)
        losses = [record.loss for record in records if record.loss is not None]
        if runtime.is_main:
            print(json.dumps(losses))


if __name__ == "__main__":
    main()
