"""Randomness as a function of (seed, purpose, position, step), with no state to restore.

Picture 7 gets the same noise in a batch of 8 and in one of 64, on one process and on many, and a
resumed training draws what the uninterrupted one would have drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one named stream of random numbers.

    Hashing keeps streams apart where adding numbers would not: seed 1 at picture 2 must have
    nothing to do with seed 2 at picture 1.
    """
    key = f"{seed}/{purpose}/{'/'.join(map(str, numbers))}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest()) >> 1


@dataclass(frozen=True)
class Noise:
    """The random numbers of a batch: one independent stream a picture and step.

    seed: the seed of the run or of the sample set.
    positions: for each picture of the batch, its number in the whole set (sampling) or the count
        of pictures seen before it (training).
    purpose: keeps apart what must not be correlated ("train", "held-out", "sample", ...).
    """

    seed: int
    positions: Sequence[int]
    purpose: str

    def normal(self, step: int, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type, device and memory format of ``like`` (n, ...).

        Drawn on the CPU in float32, so that they are the same for every type and device.
        """
        eps = torch.empty_like(like, device="cpu")
        for row, position in zip(eps, self.positions, strict=True):
            key = stream_seed(self.seed, f"{self.purpose}/normal", position, step)
            generator = torch.Generator().manual_seed(key)
            row.copy_(torch.randn(row.shape, generator=generator, dtype=torch.float32))
        return eps.to(like.device)

    def uniform(self, step: int) -> Tensor:
        """Numbers uniform in [0, 1), shape (n,), float64, on the CPU.

        The hash of a position is its number, SplitMix64 (Steele et al. 2014): an accelerator outruns
        generators that are made for one number each.
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
