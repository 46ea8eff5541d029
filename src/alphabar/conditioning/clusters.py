"""Labels for data without labels: pictures that look alike, found by k-means."""

import math

import torch
from torch import Tensor

MOST = 64  # clusters, whatever the number of pictures


ROUNDS = 100  # of Lloyd's algorithm, at most


def number_of_clusters(n: int) -> int:
    """The root of half the number of pictures, a rule of thumb, from 2 to `MOST`."""
    return max(2, min(MOST, round(math.sqrt(n / 2))))


def clusters(features: Tensor, k: int, seed: int = 0) -> Tensor:
    """The number (n,) of each row's cluster, by k-means on standardised features (n, d).

    Begins with k-means++ (Arthur & Vassilvitskii 2007); clusters are numbered from the largest down. The same
    features and seed give the same clusters.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-9)
    generator = torch.Generator().manual_seed(seed)
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    while len(centres) < k:
        far = torch.cdist(x, centres).square().amin(1)
        if not far.any():  # fewer kinds of pictures than clusters
            break
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    own = torch.cdist(x, centres).argmin(1)
    for _ in range(ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, own, x)
        sizes = own.bincount(minlength=len(centres))[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        before, own = own, torch.cdist(x, centres).argmin(1)
        if torch.equal(own, before):
            break
    order = own.bincount(minlength=len(centres)).argsort(descending=True, stable=True)
    return order.argsort()[own]
