"""Labels for data without labels: groups of images that look alike, found by k-means."""

import math

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

MAX_CLUSTERS = 64

ITERATIONS = 30  # of Lloyd's algorithm


def number_of_clusters(n: int) -> int:
    """The square root of half the number of images, a rule of thumb, from 2 to `MAX_CLUSTERS`."""
    return max(2, min(MAX_CLUSTERS, round(math.sqrt(n / 2))))


def clusters(features: Tensor, k: int, seed: int = 0) -> Tensor:
    """The cluster (n,) of each row, by k-means on standardized features (n, d); the largest cluster is 0.

    It starts with k-means++ (Arthur & Vassilvitskii 2007). The same features and seed give the same clusters;
    there are fewer than k where fewer rows differ.
    """
    x = features.double()
    rows = ((x - x.mean(0)) / x.std(0).clamp(min=1e-9)).numpy()
    distinct = len({hash(row.tobytes()) for row in rows})
    _, found = kmeans2(rows, min(k, distinct), iter=ITERATIONS, minit="++", seed=seed)
    _, own = torch.from_numpy(found).long().unique(return_inverse=True)  # without numbers that no row has
    order = own.bincount().argsort(descending=True, stable=True)
    return order.argsort()[own]
