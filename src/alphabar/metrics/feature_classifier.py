"""A classifier trained on the features of real images, which says what samples show."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

MIN_IMAGES = 20
"""Real images of a value that it takes: with fewer its confusion with other values is not known."""

FOLDS = 5

COMPONENTS = 128  # principal components of the features that the classifier takes

ROWS = 4096  # of features that are converted at a time

DECAY = 1e-3  # of the classifier's weights, so that those of separable classes stay finite


def class_probabilities(
    real: Tensor, labels: Tensor, fake: Tensor, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Probabilities (m, classes) for reals (m, d) with labels (m,), and (n, classes) for fakes (n, d).

    The classifier is softmax regression on principal components, fitted five times, each without a fifth of
    the reals: a real is classified by the fit that never saw it, a fake by all five, averaged.
    """
    real = real.double()
    mean = real.mean(dim=0)
    centered = real - mean
    values, axes = torch.linalg.eigh(centered.T @ centered / len(real))
    kept = min(COMPONENTS, max(len(real) // 10, 2), int((values > 1e-9 * values[-1]).sum()))
    axes = axes[:, -kept:] / values[-kept:].sqrt()
    x = centered @ axes
    z = torch.cat([(rows.double() - mean) @ axes for rows in fake.split(ROWS)])
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    # one value after the other, in turns, so that every fold gets its part of each value
    fold = torch.empty(len(real), dtype=torch.long)
    for j in range(classes):
        of_value = order[labels[order] == j]
        fold[of_value] = torch.arange(len(of_value)) % FOLDS
    of_real = torch.empty(len(real), classes, dtype=torch.float64)
    of_fake = torch.zeros(len(fake), classes, dtype=torch.float64)
    for f in range(FOLDS):
        weight = _fit(x[fold != f], labels[fold != f], classes)
        of_real[fold == f] = _predict(x[fold == f], weight)
        of_fake += _predict(z, weight) / FOLDS
    return of_real, of_fake


def _fit(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Weights (1 + d, classes) of least cross-entropy with weight decay. The problem is convex: no seed."""
    with torch.enable_grad():
        weight = torch.zeros(1 + x.shape[1], classes, dtype=torch.float64, requires_grad=True)
        descent = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            descent.zero_grad()
            value = cross_entropy(weight[0] + x @ weight[1:], labels) + DECAY * weight[1:].square().sum()
            value.backward()
            return value

        descent.step(loss)  # type: ignore[arg-type]
    return weight.detach()


def _predict(x: Tensor, weight: Tensor) -> Tensor:
    return (weight[0] + x @ weight[1:]).softmax(dim=1)
