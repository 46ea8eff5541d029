"""TODO-DOC from training.trainer"""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs.image import flip, to_signal
from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.loss import drop_labels
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS, stratified
from alphabar.diffusion.random import Noise, stream_seed
from alphabar.recipes.schema import Recipe

BLOCK = 8  # pictures whose noise is drawn together


LOADERS = 8  # threads that make pictures ready for an accelerator, at most


class Batch(NamedTuple):
    x0: Tensor  # (n, 3, size, size) in [-1, 1]
    t: Tensor  # (n,) float64
    eps: Tensor  # like x0
    cond: Tensor  # (n, columns), NaN where unknown; no column where the model is unconditional


class TrainingBatches:
    """Training batches as a function of the images seen, over any number of processes.

    dataset: the decoded pictures; index: (m,) which of them are for training; cond: (n, columns), what is
    known about each picture of the data set, NaN where unknown; fields: how many columns each field has.
    """

    def __init__(
        self,
        dataset: Dataset,
        index: np.ndarray,
        recipe: Recipe,
        denoiser: NetworkDenoiser,
        cond: Tensor | None = None,
        fields: Sequence[int] = (),
    ):
        self.dataset, self.index, self.recipe, self.fields = dataset, index, recipe, fields
        self.cond = torch.empty(len(dataset.items), 0) if cond is None else cond
        self.schedule = denoiser.schedule
        self.noise_distribution = NOISE_DISTRIBUTIONS.build(recipe.noise_distribution)
        self.permutation = lru_cache(2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        key = stream_seed(self.recipe.seed, "order", epoch)
        return torch.randperm(len(self.index), generator=torch.Generator().manual_seed(key)).numpy()

    def pictures(self, positions: range) -> np.ndarray:
        """Which picture of the data set stands at each position of the endless shuffled sequence."""
        epochs, places = np.divmod(np.asarray(positions), len(self.index))
        return np.array(
            [self.index[self.permutation(int(e))[p]] for e, p in zip(epochs, places, strict=True)]
        )

    def noise(self, positions: range) -> Tensor:
        """Standard normal numbers, a picture each, drawn by the block: an accelerator outruns single ones."""
        size = self.recipe.data.size
        blocks = range(positions[0] // BLOCK, positions[-1] // BLOCK + 1)
        drawn = []
        for block in blocks:
            generator = torch.Generator().manual_seed(stream_seed(self.recipe.seed, "train", block))
            drawn.append(torch.randn(BLOCK, 3, size, size, generator=generator))
        first = blocks[0] * BLOCK
        return torch.cat(drawn)[positions[0] - first : positions[-1] + 1 - first]

    def batch(self, positions: range) -> Batch:
        seed = self.recipe.seed
        pictures = self.pictures(positions)
        chosen = torch.from_numpy(self.dataset.items[pictures])
        if self.recipe.data.flip:
            chosen = flip(chosen, Noise(seed, positions, "flip").uniform(0) < 0.5)
        x0 = to_signal(chosen)
        u = Noise(seed, positions, "level").uniform(0)
        if self.recipe.stratified:
            u = stratified(u, torch.tensor(positions), self.recipe.batch)
        eps = self.noise(positions).to(memory_format=torch.channels_last)
        labels = Noise(seed, positions, "label")
        cond = drop_labels(self.cond[pictures], labels.uniform(0), self.recipe.condition.drop)
        if len(self.fields) > 1 and self.recipe.condition.drop:
            # A model that only ever saw all labels or none could not be asked for some of them.
            parted = labels.uniform(1) < 0.5
            for i, part in enumerate(cond.split(list(self.fields), dim=1)):
                part[parted & (labels.uniform(2 + i) < 0.5)] = torch.nan
        return Batch(x0, self.noise_distribution(self.schedule, u), eps, cond)


def loading_threads(device: str) -> int:
    """How many threads make pictures ready: an accelerator leaves the processor free, and outruns one."""
    return 1 if device == "cpu" else min(LOADERS, os.cpu_count() or 1)
