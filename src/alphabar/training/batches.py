"""Training batches: a function of the images seen, made ready in threads while the network trains."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.diffusion.loss import drop_labels
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS, stratified
from alphabar.diffusion.random import Noise, Purpose, block_normal, stream_seed
from alphabar.diffusion.schedules import Schedule
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, channels_last
from alphabar.training.signals import ItemSignals, Signals

MAX_THREADS = 8  # that prepare data for an accelerator


class Batch(NamedTuple):
    """What one update learns from.

    x0: signals (n, ...). t: times (n,), float64. eps: standard normal, like x0. cond: condition rows (n,
    columns), NaN where unknown, or None for an unconditional model.
    """

    x0: Tensor
    t: Tensor
    eps: Tensor
    cond: Tensor | None


class TrainingBatches:
    """Batches as a function of positions in the endless shuffled sequence of training items.

    dataset: the items; index: (m,) which of them are for training; schedule: of the noise.
    cond: condition rows (n, columns) of all n items, NaN where unknown, or None; fields: how many columns
    each field has. signals: of the items; by default encoded when they are needed.
    """

    def __init__(
        self,
        dataset: Dataset,
        index: np.ndarray,
        recipe: Recipe,
        schedule: Schedule,
        cond: Tensor | None = None,
        fields: Sequence[int] = (),
        signals: Signals | None = None,
    ):
        self.dataset, self.index, self.recipe, self.schedule = dataset, index, recipe, schedule
        self.cond, self.fields = cond, list(fields)
        self.shape = build_codec(recipe.data).shape
        self.signals = signals or ItemSignals(dataset, build_codec(recipe.data))
        self.noise_distribution = NOISE_DISTRIBUTIONS.build(recipe.noise_distribution)
        self.permutation = lru_cache(2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        key = stream_seed(self.recipe.seed, Purpose.ITEM_ORDER, epoch)
        return torch.randperm(len(self.index), generator=torch.Generator().manual_seed(key)).numpy()

    def items_at(self, positions: range) -> np.ndarray:
        """Which item of the data set stands at each position: each epoch has an order of its own."""
        epochs, places = np.divmod(np.asarray(positions), len(self.index))
        return np.array(
            [self.index[self.permutation(int(e))[p]] for e, p in zip(epochs, places, strict=True)]
        )

    def batch(self, positions: range) -> Batch:
        """The batch of these positions; a range may be cut anywhere and gives the same rows."""
        recipe = self.recipe
        chosen = self.items_at(positions)
        mirrored = None
        if recipe.data.flip:
            mirrored = Noise(recipe.seed, positions, Purpose.MIRRORING).uniform(0) < 0.5
        u = Noise(recipe.seed, positions, Purpose.NOISE_LEVEL).uniform(0)
        if recipe.stratified:
            u = stratified(u, torch.tensor(positions), recipe.batch)
        return Batch(
            x0=self.signals(chosen, mirrored),
            t=self.noise_distribution(self.schedule, u),
            eps=channels_last(block_normal(recipe.seed, Purpose.BATCH_NOISE, positions, self.shape)),
            cond=None if self.cond is None else self._dropped(self.cond[chosen], positions),
        )

    def _dropped(self, cond: Tensor, positions: range) -> Tensor:
        """Condition rows with some labels hidden, as `ConditionSettings.drop` says."""
        drop, labels = self.recipe.condition.drop, Noise(self.recipe.seed, positions, Purpose.LABEL_DROPPING)
        cond = drop_labels(cond, labels.uniform(0), drop)
        if len(self.fields) > 1 and drop:
            # A model that saw all labels or none could not be conditioned on some of them.
            some = labels.uniform(1) < 0.5
            for i, field in enumerate(cond.split(self.fields, dim=1)):
                field[some & (labels.uniform(2 + i) < 0.5)] = torch.nan
        return cond


class BatchLoader:
    """One process's share of each batch on its device; the next one is prepared while the current one trains.

    threads: that prepare it; an accelerator leaves the processor free and outruns one thread.
    """

    def __init__(self, batches: TrainingBatches, runtime: Runtime, threads: int | None = None):
        self.batches, self.runtime = batches, runtime
        self.threads = threads or loading_threads(runtime.device)
        self._pool = ThreadPoolExecutor(self.threads)
        self._next: tuple[int, list[Future[Batch]]] | None = None

    def batch(self, images: int) -> Batch:
        """The batch after so many images, its signals on the device."""
        if self._next is None or self._next[0] != images:
            self._next = images, self._load(images)
        pieces = [piece.result() for piece in self._next[1]]
        after = images + self.batches.recipe.batch
        self._next = after, self._load(after)
        x0, eps = (
            torch.cat([self.runtime.put(signals) for signals in column])
            for column in zip(*((piece.x0, piece.eps) for piece in pieces), strict=True)
        )
        conds = [piece.cond for piece in pieces if piece.cond is not None]
        t = torch.cat([piece.t for piece in pieces])
        return Batch(x0, t, eps, torch.cat(conds) if conds else None)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _load(self, images: int) -> list[Future[Batch]]:
        """Begins to prepare the batch after so many images, in as many pieces as there are threads."""
        local = self.batches.recipe.batch // self.runtime.world_size
        first = images + self.runtime.rank * local
        piece = math.ceil(local / self.threads)
        positions = range(first, first + local)
        return [self._pool.submit(self._piece, positions[i : i + piece]) for i in range(0, local, piece)]

    def _piece(self, positions: range) -> Batch:
        """A part of a batch, in memory that a GPU can copy from while it computes."""
        batch = self.batches.batch(positions)
        if "cuda" not in self.runtime.device:
            return batch
        x0, t, eps = (part.pin_memory() for part in (batch.x0, batch.t, batch.eps))
        return Batch(x0, t, eps, None if batch.cond is None else batch.cond.pin_memory())


def loading_threads(device: str) -> int:
    """How many threads prepare data for a device."""
    return 1 if device == "cpu" else min(MAX_THREADS, os.cpu_count() or 1)
