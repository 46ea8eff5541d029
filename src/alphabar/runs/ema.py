"""The exponential moving average (EMA) of the weights, and post-hoc EMA: a length chosen afterwards."""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import Damaged, interpreting, read_folder, remove_folder, write_folder
from alphabar.runs.checkpoints import numbered
from alphabar.tensor_files import unpack_tensors

# Post-hoc EMA (Karras et al. 2024, section 3 and appendix C): averages of two lengths are saved at some
# moments of the training; afterwards a weighted sum of them is very nearly the average of any other length.
SIGMA_RELS = (0.05, 0.10)
LENGTHS = np.arange(10, 251) / 1000  # that may be made of them, where the averages that were saved allow
MAX_ERROR = 0.25  # relative, of the profile of a length that is made of them


class EMA:
    """A copy of a network that follows it with a half-life counted in images.

    A fixed half-life longer than the run would average over the random initial weights, so it is at most a
    share of the images seen so far (Karras et al. 2022, "EMA warm-up").

    half_life: images after which the share of a weight has halved.
    ramp: the largest half-life as a share of the images seen.
    """

    def __init__(self, network: nn.Module, *, half_life: int, ramp: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.follow = _follower(self.network, network)
        self.half_life = half_life
        self.ramp = ramp

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Moves toward the network after an update with ``batch`` images, ``images`` seen in all."""
        half_life = max(min(self.half_life, self.ramp * images), 1e-9)
        self.follow(0.5 ** (batch / half_life))


class PowerFunctionEMA:
    """An average of the weights up to time t of the training; those at tau < t have the weight tau^gamma.

    sigma_rel: the length of the average, the standard deviation of this profile as a share of the training.
    """

    def __init__(self, network: nn.Module, sigma_rel: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.follow = _follower(self.network, network)
        self.gamma = gamma_of(sigma_rel)

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Moves toward the network after an update (EDM2 eq. 127); arguments as of `EMA.update`."""
        self.follow((1 - batch / images) ** (self.gamma + 1))


def gamma_of(sigma_rel: float) -> float:
    """gamma of the profile tau^gamma whose relative standard deviation is sigma_rel (EDM2 eq. 123)."""
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return float(roots.real.max())


class PostHocWeights(NamedTuple):
    """How an average of another length is made of k saved ones.

    weights: of the saved averages (k,), with the sum 1. error: of the profile that they make, relative to
    the wanted one: ‖sum_i c_i p_i − p‖ / ‖p‖.
    """

    weights: NDArray
    error: float


def post_hoc_weights(
    times: Sequence[float], sigma_rels: Sequence[float], time: float, sigma_rel: float
) -> PostHocWeights:
    """The weights with which saved averages come nearest to one of another length.

    EDM2's algorithm 3, least squares over the profiles, constrained by a Lagrange multiplier to weights of
    the sum 1: what did not change in training is the same in every average, and in what is made of them.

    times, sigma_rels: of each average that was saved; time, sigma_rel: of the one that is wanted.
    """
    t, g = np.asarray(times, float), np.array([gamma_of(each) for each in sigma_rels])
    end, gamma = float(time), gamma_of(sigma_rel)
    overlaps = _overlap(t[:, None], g[:, None], t[None], g[None])
    wanted = _overlap(t, g, end, gamma)
    scale = np.abs(overlaps).max()  # so that the constraint weighs as much as the rest
    system = np.pad(overlaps / scale, (0, 1), constant_values=1.0)
    system[-1, -1] = 0.0
    weights = np.linalg.solve(system, np.append(wanted / scale, 1.0))[:-1]
    squared = weights @ overlaps @ weights - 2 * weights @ wanted + _overlap(end, gamma, end, gamma)
    return PostHocWeights(weights, math.sqrt(max(squared / _overlap(end, gamma, end, gamma), 0.0)))


class EmaSnapshots:
    """The folder in which a run saves averages for post-hoc EMA.

    There is a checksummed folder for each moment, named by the images seen. Its file holds tensors named
    "SIGMA_REL/PARAMETER".
    """

    FILE = "averages.safetensors"

    def __init__(self, path: Path):
        self.path = path

    def folders(self) -> dict[int, Path]:
        """The folders by the images seen until then, ascending."""
        return {int(path.name): path for path in numbered(self.path)}

    def save(self, images: int, averages: bytes) -> None:
        """Saves the averages as they are now. Raises AlphabarError where they cannot be written."""
        write_folder(self.path / f"{images:09d}", {self.FILE: averages})

    def rewind(self, images: int) -> None:
        """Removes what was saved after so many images."""
        for at, path in self.folders().items():
            if at > images:
                remove_folder(path)

    def weights(self, sigma_rel: float) -> PostHocWeights:
        """How the average of another length, at the last moment that was saved, is made of `moments`.

        sigma_rel: the length as a share of the training.
        Raises UsageError, naming the lengths that can be made, where nothing was saved and where the error
        of the profile would exceed 0.25.
        """
        if not self.folders():
            raise UsageError("runs.no_snapshots", path=self.path.parent)
        times, sigma_rels = zip(*self.moments(), strict=True)

        def made(length: float) -> PostHocWeights:
            return post_hoc_weights(times, sigma_rels, max(times), length)

        if LENGTHS[0] <= sigma_rel <= LENGTHS[-1] and (found := made(sigma_rel)).error <= MAX_ERROR:
            return found
        possible = [length for length in LENGTHS if made(length).error <= MAX_ERROR]
        raise UsageError(
            "runs.ema_length", length=sigma_rel, error=MAX_ERROR, shortest=possible[0], longest=possible[-1]
        )

    def moments(self) -> list[tuple[int, float]]:
        """Images seen and length of each average that was saved."""
        return list(product(self.folders(), SIGMA_RELS))

    def average(self, sigma_rel: float) -> dict[str, Tensor]:
        """The parameters averaged with another length, at the last moment that was saved: name → tensor.

        The argument and the errors are those of `weights`; AlphabarError names averages that are damaged.
        """
        weight_of = dict(zip(self.moments(), self.weights(sigma_rel).weights, strict=True))
        total: dict[str, Tensor] = {}
        for images, path in self.folders().items():
            for name, value in self._read(path).items():
                length, _, key = name.partition("/")
                total[key] = total.get(key, 0) + weight_of[images, float(length)] * value.double()
        return {key: value.float() for key, value in total.items()}

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            with interpreting(path):
                return unpack_tensors(read_folder(path)[self.FILE])
        except Damaged as problem:
            raise AlphabarError("runs.damaged_averages", problem=problem.message, path=path) from None


def _overlap(t1: Any, g1: Any, t2: Any, g2: Any) -> Any:
    """The inner product of two profiles, one of them up to time t1, the other up to t2."""
    ratio = (t1 / t2) ** np.where(t1 < t2, g2, -np.asarray(g1))
    return (g1 + 1) * (g2 + 1) * ratio / ((g1 + g2 + 1) * np.maximum(t1, t2))


def _follower(mean: nn.Module, network: nn.Module) -> Callable[[float], None]:
    """A function that moves the parameters of ``mean`` toward those of ``network`` and copies the buffers."""
    # Looked up once: at every update that would take as long as moving them.
    averages: list[Tensor] = list(mean.parameters())
    values = list(network.parameters())
    own, buffers = list(mean.buffers()), list(network.buffers())

    def follow(beta: float) -> None:
        torch._foreach_lerp_(
            averages, [v.to(a.dtype) for a, v in zip(averages, values, strict=True)], 1 - beta
        )
        for mine, buffer in zip(own, buffers, strict=True):
            mine.copy_(buffer)

    return follow
