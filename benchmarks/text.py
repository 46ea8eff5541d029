"""Do samples follow captions that no training picture has?

    alphabar train toycars:6000 --recipe lean --condition text --set data.size=32 --set data.flip=false \\
        --run runs/text --budget 20m
    alphabar train toycars:20000 --recipe classifier --condition attributes --set data.size=32 \\
        --set data.flip=false --set noise_distribution.mean=-2.3 --set noise_distribution.std=0.7 \\
        --run runs/labels --budget 25m
    python benchmarks/text.py --model runs/text --label-classifier runs/labels --data toycars:6000 -n 500 \\
        --guidance 1 2 3

Samples for captions of held-out pictures, and asks a classifier, trained on the labels of other pictures,
what the samples show. Prints how often that is what the caption says (section 4 of docs/results/guidance.md).
The last row is what the classifier says about the held-out pictures themselves: samples can hardly reach
more.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

import alphabar
from alphabar.data.dataset import Dataset
from alphabar.methods.classifier import accuracy_by_field, noisy_inputs
from alphabar.metrics.intervals import wilson
from alphabar.progress import last
from alphabar.runs.model import Model
from common import argument_parser, dataset_of, print_command, print_section, print_table


class Labels:
    """The labels of the pictures of a data set, and a classifier that predicts them."""

    def __init__(self, classifier: Model, dataset: Dataset):
        if classifier.vocabulary is None:
            raise SystemExit(f"{classifier.path} is no classifier of labels")
        self.classifier, self.dataset, self.vocabulary = classifier, dataset, classifier.vocabulary
        self.names = [field.name for field in self.vocabulary.fields if field.kind == "classes"]

    def right(self, items: Tensor, index: Sequence[int]) -> Tensor:
        """Whether item i shows what picture index[i] is labelled with, by field: (n, fields)."""
        attributes = [self.dataset.attributes[i] for i in index]
        conditions = self.vocabulary.rows({
            field.name: [of[field.name] for of in attributes] for field in self.vocabulary.fields
        })  # fmt: skip
        found = []
        for x, t in noisy_inputs(self.classifier.denoiser, self.classifier.codec, items):
            rows, conditions = conditions[: len(x)], conditions[len(x) :]
            found.append(torch.stack(accuracy_by_field(self.classifier.denoiser, x, t, rows), dim=1))
        return torch.cat(found)


def share(right: Tensor) -> str:
    """The share of ones among zeros and ones (n,), with its 95 % interval."""
    low, high = wilson(int(right.sum()), len(right))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})"


def unseen_captions(dataset: Dataset, held_out: float) -> list[int]:
    """The held-out pictures whose caption no training picture has."""
    train, held = dataset.split(held_out)
    seen = {dataset.captions[i] for i in train}
    return [int(i) for i in held if dataset.captions[i] not in seen]


def rows(
    model: Model, labels: Labels, unseen: list[int], n: int, scales: list[float], pags: list[float]
) -> Iterator[list[str]]:
    """A row for each scale of classifier-free guidance and of PAG, and one for the held-out pictures."""
    chosen = [unseen[k % len(unseen)] for k in range(n)]

    def row(name: str, right: Tensor) -> list[str]:
        return [name, *(share(right[:, k]) for k in range(len(labels.names))), share(right.prod(1))]

    conditions = [{"caption": labels.dataset.captions[i] or ""} for i in chosen]
    for scale, pag in product(scales, pags):
        guidance = {"classifier_free": scale, "pag": pag}
        settings = alphabar.sampling_settings(model, conditions=conditions, guidance=guidance)
        samples = last(alphabar.sample(model, n, settings))
        yield row(f"{scale:g}" + f", PAG {pag:g}" * (pag > 0), labels.right(samples, chosen))
    real = torch.from_numpy(np.asarray(labels.dataset.items[np.array(unseen)]))
    yield row("held-out pictures", labels.right(real, unseen))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", required=True, help="a run that was trained with --condition text")
    parser.add_argument("--label-classifier", required=True, help="a run of the recipe classifier")
    parser.add_argument("--data", required=True, help="the pictures that the model was trained on")
    parser.add_argument("-n", type=int, default=500, help="samples in a row")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0], help="scales, 1 is none")
    parser.add_argument("--pag", type=float, nargs="+", default=[0.0], help="scales, with each of --guidance")
    args = parser.parse_args()
    model = alphabar.load_model(args.model)
    dataset = dataset_of(model, args.data)
    labels = Labels(alphabar.load_model(args.label_classifier), dataset)
    unseen = unseen_captions(dataset, model.recipe.data.held_out)
    print_section(
        "## 4. In words",
        "Do samples follow captions that no training picture has?",
        f"{model.path.name}, {model.images:,} images seen; {args.n} samples in a row for {len(unseen)}"
        " captions that no training picture has. A classifier trained on the labels of training pictures"
        " decides what a sample shows; the last row says how often it is right about held-out pictures."
        " Condition met, with 95 % intervals.",
    )
    head = ["guidance", *labels.names, f"all {len(labels.names)}"]
    print_table(head, rows(model, labels, unseen, args.n, args.guidance, args.pag))
    print_command()


if __name__ == "__main__":
    main()
