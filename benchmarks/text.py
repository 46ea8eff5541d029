"""Whether a model that was trained on captions draws what it is asked, in words it has never read.

    alphabar train toycars:6000 --recipe edm --condition text --set data.size=32 --set data.flip=false \\
        --run runs/text
    alphabar train toycars:20000 --recipe classifier --condition attributes --set data.size=32 \\
        --set data.flip=false --set density.mean=-2.3 --set density.std=0.7 --run runs/judge
    python benchmarks/text.py --model runs/text --knower runs/judge --data toycars:6000 -n 500 --guidance 1 2

Asks for the captions of held-out pictures that no training picture has, and lets a classifier trained
on the labels of training pictures say what was drawn. What it says of the held-out pictures themselves
stands beside it: a sample can hardly be told better than a picture.
"""

import argparse
from itertools import product

import numpy as np
import torch
from torch import Tensor

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.methods.classifier import accuracy_by_field, noisy_inputs
from alphabar.metrics.intervals import wilson
from alphabar.runs.model import Model


def told(knower: Model, pictures: Tensor, cond: Tensor) -> Tensor:
    """Of which pictures (n, h, w, 3) each field of classes is told as cond has it, (n, fields)."""
    rights = []
    for x, t in noisy_inputs(knower.denoiser, pictures):
        rows, cond = cond[: len(x)], cond[len(x) :]
        rights.append(torch.stack(accuracy_by_field(knower.denoiser, x, t, rows), dim=1))
    return torch.cat(rights)


def shown(right: Tensor) -> str:
    low, high = wilson(int(right.sum()), len(right))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--knower", required=True, help="a run of the recipe classifier on the attributes")
    parser.add_argument("--data", required=True)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--pag", type=float, nargs="+", default=[0.0], help="each with each guidance")
    given = parser.parse_args()
    model, knower = alphabar.load_model(given.model), alphabar.load_model(given.knower)
    recipe = model.recipe.data
    *_, prepared = alphabar.prepare(alphabar.open_source(given.data), ImageCodec(recipe.size), recipe.fit)
    data = prepared.result
    train, held_out = data.split(recipe.held_out)
    read = {data.captions[i] for i in train}
    new = [i for i in held_out if data.captions[i] not in read]
    chosen = [new[k % len(new)] for k in range(given.n)]
    fields = knower.vocabulary.fields
    names = [field.name for field in fields if field.kind == "classes"]

    def rows(index: list[int]) -> Tensor:
        return knower.vocabulary.rows({f.name: [data.attributes[i][f.name] for i in index] for f in fields})

    print(
        f"{model.images:,} images seen; {given.n} samples; {len(new)} captions that no training picture has\n"
    )
    print("| " + " | ".join(["guidance", *names, "all of them"]) + " |")
    print("| --- " * (len(names) + 2) + "|")

    def line(name: str, right: Tensor) -> None:
        cells = [shown(right[:, k]) for k in range(len(names))]
        print("| " + " | ".join([name, *cells, shown(right.prod(1))]) + " |", flush=True)

    conditions = [{"caption": data.captions[i]} for i in chosen]
    for scale, pag in product(given.guidance, given.pag):
        settings = alphabar.sampling_settings(model, conditions=conditions, guidance=scale, pag=pag)
        *_, drawn = alphabar.sample(model, given.n, settings)
        line(f"{scale:g}" + f", PAG {pag:g}" * (pag > 0), told(knower, drawn.pictures, rows(chosen)))
    real = torch.from_numpy(np.asarray(data.items[np.array(new)]))
    line("held-out pictures", told(knower, real, rows(new)))


if __name__ == "__main__":
    main()
