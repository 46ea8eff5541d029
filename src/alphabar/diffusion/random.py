"""Randomness as a function of (seed, purpose, position, step), with no state to restore.

Sample 7 gets the same noise in a batch of 8 and in one of 64, on one process and on many, and a resumed
training draws the numbers that the uninterrupted one would have drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


class Purpose:
    """What random numbers are for. Each value is part of the seed: changing one changes results."""

    # Training (positions: the number of items seen before)
    BATCH_NOISE = "train"  # eps of the training batches, in blocks
    ITEM_ORDER = "order"  # the order of the items in each epoch
    MIRRORING = "flip"
    NOISE_LEVEL = "level"
    LABEL_DROPPING = "label"
    DROPOUT = "dropout"
    LABEL_FREQUENCIES = "seen"  # which items' labels are kept with the model
    TEACHER = "distillation"

    # Measuring (positions: the number of the sample or of the held-out item)
    MONITOR_CONDITIONS = "asked"  # of which items the training monitor's samples take their condition
    HELD_OUT_ERROR = "held-out"
    CLASSIFIER_INPUT = "classifier"
    TRAINING_CONDITIONS = "as data"  # of which items evaluated samples take their condition
    FORWARD_PROCESS = "forward"  # the figure of the forward process in a report
    PROCESS_TAB = "process"  # the studio's view of one noisy item

    # Sampling (positions: the number of the sample)
    INITIAL_NOISE = "start"
    SAMPLER = "sample"
    INTERPOLATION = "interpolation"
    EDIT = "edit"
    COUNT = "count"  # a dry run that counts evaluations

    # Restoration (positions: the number of the restoration and of its tile)
    DEGRADATION = "degrade"
    MASK = "mask"
    RESTORATION = "restore"
    NEXT_SIZE = "finer"  # appended for each further size at which an image is restored


def stream_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one named stream of random numbers.

    Hashing keeps streams apart where adding numbers would not: seed 1 at sample 2 must have nothing to do
    with seed 2 at sample 1.
    """
    key = f"{seed}/{purpose}/{'/'.join(map(str, numbers))}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest()) >> 1


@dataclass(frozen=True)
class Noise:
    """The random numbers of a batch: one independent stream for each sample and step.

    seed: of the run or of the set of samples.
    positions: for each sample of the batch its number in the whole set (sampling), or the number of items
        seen before it (training).
    purpose: keeps apart what must not be correlated, see `Purpose`; a part of a piece of work may add a
        suffix.
    """

    seed: int
    positions: Sequence[int]
    purpose: str

    def normal(self, step: int, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type, device and memory format of ``like`` (n, ...).

        They are drawn on the CPU in float32, so that they are the same for every type and device.
        """
        eps = torch.empty_like(like, device="cpu")
        for row, position in zip(eps, self.positions, strict=True):
            key = stream_seed(self.seed, f"{self.purpose}/normal", position, step)
            generator = torch.Generator().manual_seed(key)
            row.copy_(torch.randn(row.shape, generator=generator, dtype=torch.float32))
        return eps.to(like.device)

    def uniform(self, step: int) -> Tensor:
        """Numbers uniform in [0, 1), shape (n,), float64, on the CPU.

        The hash of a position is its number, SplitMix64 (Steele et al. 2014): generators made for one number
        each would be slower than an accelerator trains.
        """
        key = stream_seed(self.seed, f"{self.purpose}/uniform", step)
        with np.errstate(over="ignore"):
            z = np.uint64(key) + np.asarray(self.positions, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


BLOCK = 8  # positions whose numbers `block_normal` takes from one generator


def block_normal(seed: int, purpose: str, positions: range, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (n, *shape), float32, on the CPU, for n consecutive positions.

    Those of a position are the same in every range that contains it. Eight positions share a generator,
    because an accelerator outruns generators that are made for one sample each; so they are not those of
    `Noise.normal`.
    """
    blocks = range(positions[0] // BLOCK, positions[-1] // BLOCK + 1)
    numbers = []
    for block in blocks:
        generator = torch.Generator().manual_seed(stream_seed(seed, purpose, block))
        numbers.append(torch.randn(BLOCK, *shape, generator=generator))
    first = blocks[0] * BLOCK
    return torch.cat(numbers)[positions[0] - first : positions[-1] + 1 - first]
