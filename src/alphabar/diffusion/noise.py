"""Randomness as a function of (seed, purpose, position, step), with no state to restore.

Picture 7 gets the same noise in a batch of 8 and in one of 64, on one process and on many, and a
resumed training draws what the uninterrupted one would have drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

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

    def _generators(self, kind: str, step: int) -> Iterator[torch.Generator]:
        for position in self.positions:
            key = stream_seed(self.seed, f"{self.purpose}/{kind}", position, step)
            yield torch.Generator().manual_seed(key)

    def normal(self, step: int, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type, device and memory format of ``like`` (n, ...).

        Drawn on the CPU in float32, so that they are the same for every type and device.
        """
        eps = torch.empty_like(like, device="cpu")
        for row, generator in zip(eps, self._generators("normal", step), strict=True):
            row.copy_(torch.randn(row.shape, generator=generator, dtype=torch.float32))
        return eps.to(like.device)

    def uniform(self, step: int) -> Tensor:
        """Numbers uniform in [0, 1), shape (n,), float64, on the CPU."""
        return torch.stack(
            [torch.rand((), generator=g, dtype=torch.float64) for g in self._generators("uniform", step)]
        )
