"""Small rendered cars: a data set that needs no download, has no licence, and whose truth is known.

A car is a stack of rounded outlines (a hull), lit and seen through a pinhole camera; wheels, lamps and
lines are laid on its surface; the scenery is painted flat behind it. Picture i depends on (seed, i)
alone. Its five names (body, color, view, background, time) and its numbers are independent random variables.

Lengths are metres: x points to the nose, y to the driver's left, z up. Points of a picture run from 0
to 1, right and down. Colours are sRGB from 0 to 255.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from alphabar.data.items import Item, Skipped
from alphabar.data.toycars.car import Car
from alphabar.data.toycars.catalog import VALUES, VERSION, Array
from alphabar.data.toycars.render import box, render
from alphabar.errors import UsageError, unknown
from alphabar.messages import Message

MOST = 1_000_000
"""Cars in one set: what is known of each is held in memory."""


class ToyCars:
    """A Source of n rendered cars, size x size pixels.

    weights: for an attribute, how often each of its values occurs, relative to the others; a value left
        out never occurs. An attribute left out is uniform. Whatever the weights, the attributes are
        independent of each other, azimuth is uniform within 12 degrees of the view's, and scale is
        uniform in [0.86, 1.04].
    Picture i is a function of (seed, i, weights): a larger n only adds pictures, and changing the weights of
    one attribute leaves the others as they were. Raises UsageError for a number or a name it cannot take.
    """

    name = "toycars"
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[Message, ...] = ()

    def __init__(
        self,
        n: int = 2000,
        seed: int = 0,
        size: int = 128,
        weights: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        if not 1 <= n <= MOST:
            raise UsageError("data.toycars_count", n=n, most=MOST)
        if size < 16:
            raise UsageError("data.toycars_size", size=size)
        self.n, self.seed, self.size = n, seed, size
        self._cumulative = _cumulative(weights or {})
        known = [VERSION, n, seed, size, {attribute: list(p) for attribute, p in self._cumulative.items()}]
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()

    def car(self, i: int) -> Car:
        """The i-th car."""
        key = blake2b(f"toycars/{self.seed}/{i}".encode(), digest_size=8).digest()
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
        u = dict(zip((*VALUES, "turn", "scale", "shift"), rng.random(8).tolist()))
        names = {a: VALUES[a][int(np.searchsorted(self._cumulative[a], u[a], "right"))] for a in VALUES}
        return Car(
            **names,
            turn=round(24 * u["turn"] - 12, 2),
            scale=round(0.86 + 0.18 * u["scale"], 3),
            shift=round(0.06 * u["shift"] - 0.03, 3),
            scenery=int(rng.integers(2**63)),
        )

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """One item for each car, with its attributes, caption and box."""
        return tuple(self._item(i) for i in range(self.n))

    def _item(self, i: int) -> Item:
        car = self.car(i)
        attributes = {
            **{attribute: getattr(car, attribute) for attribute in VALUES},
            "azimuth": round(car.azimuth, 2),
            "scale": car.scale,
        }
        return Item(f"toycars/{i:06d}.png", car.body, car.caption, attributes, box(car, self.size))

    def read(self, item: Item) -> Image.Image:
        """The picture of an item, rendered now."""
        return render(self.car(int(PurePosixPath(item.key).stem)), self.size)


def _cumulative(weights: Mapping[str, Mapping[str, float]]) -> dict[str, Array]:
    """For each attribute, the cumulative probabilities of its values."""
    for attribute, values in weights.items():
        if attribute not in VALUES:
            raise unknown("attribute", attribute, VALUES)
        for value, weight in values.items():
            if value not in VALUES[attribute]:
                raise unknown(attribute, value, VALUES[attribute])
            if not 0 <= weight < math.inf:
                raise UsageError("data.toycars_weight", attribute=attribute, value=value, weight=weight)
        if not sum(values.values()) > 0:
            raise UsageError("data.toycars_no_weight", attribute=attribute)
    cumulative = {}
    for attribute, known in VALUES.items():
        given = weights.get(attribute, dict.fromkeys(known, 1.0))
        total = np.cumsum([given.get(value, 0.0) for value in known])
        cumulative[attribute] = total / total[-1]
    return cumulative
