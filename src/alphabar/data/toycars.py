"""Small drawn cars: a data set that needs no download, has no licence, and whose truth is known.

A car is a stack of rounded outlines (a hull), lit and seen through a pinhole camera; wheels, lamps and
lines are laid on its surface; the scenery is painted flat behind it. Picture i depends on (seed, i)
alone. Its five names (body, color, view, background, time) and its numbers are drawn independently.

Lengths are metres: x points to the nose, y to the driver's left, z up. Points of a picture run from 0
to 1, right and down. Colours are sRGB from 0 to 255.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b, sha256
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alphabar.data.source import Item, Skipped
from alphabar.errors import UsageError, unknown

Array = NDArray[np.float64]
Color = tuple[float, float, float]
Point2 = tuple[float, float]
Point3 = tuple[float, float, float]

VERSION = 1  # part of the fingerprint: raise it whenever a picture changes

# ---------------------------------------------------------------- the words

COLORS: dict[str, Color] = {
    "red": (206, 22, 30),
    "orange": (246, 118, 14),
    "yellow": (252, 206, 30),
    "green": (30, 136, 60),
    "turquoise": (34, 190, 184),
    "blue": (26, 76, 204),
    "purple": (126, 46, 172),
    "white": (244, 244, 242),
    "silver": (146, 152, 160),
    "black": (24, 25, 30),
}

# Where the camera stands: degrees from the car's nose towards its left side.
VIEWS: dict[str, int] = {
    "front": 0,
    "front left": 45,
    "left": 90,
    "rear left": 135,
    "rear": 180,
    "rear right": 225,
    "right": 270,
    "front right": 315,
}


class Light(NamedTuple):
    """What a time of day does: the sky's colours, and factors on scenery, shade and lit side."""

    phrase: str
    zenith: Color
    horizon: Color
    scenery: Color
    shade: Color
    key: Color
    lamps: bool


TIMES: dict[str, Light] = {
    "dawn": Light("at dawn", (132, 166, 220), (255, 208, 190), (0.88, 0.82, 0.88), (0.66, 0.63, 0.72),
                  (0.50, 0.43, 0.36), False),
    "day": Light("by day", (40, 118, 214), (190, 224, 248), (1, 1, 1), (0.76, 0.77, 0.80),
                 (0.50, 0.48, 0.45), False),
    "dusk": Light("at dusk", (70, 58, 140), (255, 146, 78), (0.66, 0.52, 0.58), (0.54, 0.49, 0.56),
                  (0.46, 0.38, 0.28), True),
    "night": Light("at night", (7, 12, 40), (46, 62, 116), (0.25, 0.29, 0.44), (0.42, 0.43, 0.52),
                   (0.32, 0.32, 0.34), True),
}  # fmt: skip

# ---------------------------------------------------------------- bodies

Layer = tuple[float, float, float, float]  # height, rear end, front end, half width
Span = tuple[float, float]


class Body(NamedTuple):
    """A lower body and what stands on it, each a stack of outlines from the lowest up.

    lower_p, cabin_p: the outlines are |x|^p + |y|^p = 1, stretched: 2 is an ellipse, more is boxier.
    windows: the glass of the cabin's sides, as spans from -1 (rear corner) to 1 (front corner). The glass
        lies between the cabin's second and third layer, all across its front and rear.
    axles, wheel: where the wheels stand, and their radius. lamps: the heights between which the lamps lie.
    doors: where the gaps are. mirror: where the left one is. opening: an uncovered bed or cockpit.
    """

    lower: tuple[Layer, ...]
    cabin: tuple[Layer, ...]
    windows: tuple[Span, ...]
    axles: Span
    wheel: float
    lamps: Span
    doors: tuple[float, ...]
    mirror: Point3
    lower_p: float = 5.0
    cabin_p: float = 5.0
    round_lamps: bool = False
    opening: Span | None = None
    seats: float | None = None


BODIES: dict[str, Body] = {
    "sedan": Body(
        lower=((0.18, -1.86, 1.84, 0.80), (0.28, -2.00, 1.98, 0.89), (0.48, -2.06, 2.05, 0.92),
               (0.68, -2.06, 2.03, 0.92), (0.80, -2.04, 1.94, 0.90), (0.89, -1.96, 1.66, 0.86),
               (0.96, -1.50, 0.84, 0.81)),
        cabin=((0.93, -1.60, 0.96, 0.82), (0.98, -1.50, 0.86, 0.80), (1.38, -0.92, 0.20, 0.67),
               (1.45, -0.76, 0.04, 0.61), (1.49, -0.54, -0.16, 0.47)),
        windows=((-0.88, -0.12), (-0.05, 0.90)), axles=(-1.24, 1.25), wheel=0.35, lamps=(0.64, 0.80),
        doors=(-0.84, -0.10, 0.76), mirror=(0.56, 0.94, 0.95),
    ),
    "hatchback": Body(
        lower=((0.19, -1.52, 1.54, 0.78), (0.29, -1.68, 1.70, 0.86), (0.50, -1.74, 1.77, 0.90),
               (0.70, -1.75, 1.74, 0.90), (0.84, -1.73, 1.66, 0.88), (0.92, -1.69, 1.42, 0.85),
               (1.00, -1.62, 0.80, 0.81)),
        cabin=((0.97, -1.66, 0.92, 0.82), (1.02, -1.62, 0.83, 0.80), (1.43, -1.34, 0.28, 0.69),
               (1.51, -1.23, 0.12, 0.64), (1.55, -1.00, -0.12, 0.50)),
        windows=((-0.80, -0.10), (-0.02, 0.90)), axles=(-1.08, 1.10), wheel=0.35, lamps=(0.68, 0.86),
        doors=(-0.74, -0.02, 0.76), mirror=(0.54, 0.92, 0.99),
    ),
    "wagon": Body(
        lower=((0.18, -1.96, 1.84, 0.80), (0.28, -2.14, 1.98, 0.89), (0.48, -2.20, 2.05, 0.92),
               (0.68, -2.20, 2.03, 0.92), (0.80, -2.19, 1.94, 0.90), (0.89, -2.16, 1.66, 0.86),
               (0.96, -2.10, 0.84, 0.82)),
        cabin=((0.93, -2.14, 0.96, 0.83), (0.98, -2.10, 0.86, 0.81), (1.39, -1.80, 0.20, 0.69),
               (1.47, -1.70, 0.04, 0.64), (1.51, -1.42, -0.16, 0.50)),
        windows=((-0.93, -0.46), (-0.40, 0.12), (0.18, 0.91)), axles=(-1.28, 1.25), wheel=0.35,
        lamps=(0.64, 0.80), doors=(-0.92, -0.10, 0.76), mirror=(0.56, 0.94, 0.95),
    ),
    "coupe": Body(
        lower=((0.15, -1.76, 1.80, 0.82), (0.25, -1.92, 1.98, 0.91), (0.42, -1.98, 2.06, 0.95),
               (0.58, -1.98, 2.01, 0.96), (0.71, -1.97, 1.88, 0.95), (0.81, -1.90, 1.56, 0.91),
               (0.88, -1.60, 0.62, 0.82)),
        cabin=((0.85, -1.78, 0.78, 0.82), (0.90, -1.66, 0.68, 0.79), (1.20, -0.72, 0.00, 0.64),
               (1.26, -0.54, -0.14, 0.57), (1.29, -0.42, -0.26, 0.42)),
        windows=((-0.58, 0.91),), axles=(-1.20, 1.24), wheel=0.35, lamps=(0.55, 0.68),
        doors=(-0.60, 0.62), mirror=(0.40, 0.95, 0.86), lower_p=5.0, cabin_p=4.5,
    ),
    "convertible": Body(
        lower=((0.17, -1.66, 1.68, 0.78), (0.27, -1.80, 1.84, 0.87), (0.44, -1.86, 1.91, 0.91),
               (0.62, -1.86, 1.87, 0.91), (0.75, -1.82, 1.74, 0.89), (0.84, -1.70, 1.50, 0.86),
               (0.92, -1.34, 0.72, 0.81)),
        cabin=((0.90, 0.54, 0.74, 0.78), (0.94, 0.50, 0.70, 0.77), (1.27, 0.16, 0.29, 0.66),
               (1.32, 0.09, 0.21, 0.62)),
        windows=(), axles=(-1.12, 1.16), wheel=0.35, lamps=(0.58, 0.73), doors=(-0.52, 0.58),
        mirror=(0.46, 0.92, 0.90), lower_p=4.6, opening=(-1.16, 0.60), seats=-0.42,
    ),
    "SUV": Body(
        lower=((0.32, -1.84, 1.80, 0.86), (0.42, -1.98, 1.96, 0.95), (0.64, -2.04, 2.04, 0.98),
               (0.86, -2.04, 2.03, 0.98), (1.03, -2.03, 1.96, 0.96), (1.12, -2.01, 1.74, 0.93),
               (1.19, -1.98, 0.98, 0.88)),
        cabin=((1.16, -1.99, 1.06, 0.90), (1.21, -1.97, 0.98, 0.88), (1.66, -1.80, 0.50, 0.79),
               (1.76, -1.72, 0.32, 0.74), (1.80, -1.50, 0.08, 0.62)),
        windows=((-0.92, -0.48), (-0.42, 0.12), (0.18, 0.91)), axles=(-1.22, 1.24), wheel=0.42,
        lamps=(0.86, 1.04), doors=(-0.90, -0.06, 0.84), mirror=(0.68, 1.02, 1.18), lower_p=6.0, cabin_p=7.0,
    ),
    "pickup": Body(
        lower=((0.34, -2.24, 2.04, 0.86), (0.44, -2.34, 2.20, 0.95), (0.66, -2.37, 2.28, 0.98),
               (0.86, -2.37, 2.27, 0.98), (1.03, -2.36, 2.20, 0.96), (1.11, -2.35, 1.98, 0.95),
               (1.16, -2.34, 1.10, 0.93)),
        cabin=((1.13, -0.64, 1.28, 0.90), (1.18, -0.63, 1.19, 0.88), (1.62, -0.53, 0.68, 0.78),
               (1.72, -0.48, 0.52, 0.73), (1.76, -0.34, 0.30, 0.60)),
        windows=((-0.86, -0.02), (0.08, 0.91)), axles=(-1.44, 1.46), wheel=0.42, lamps=(0.86, 1.03),
        doors=(-0.54, 0.30, 1.08), mirror=(0.90, 1.02, 1.16), lower_p=7.0, cabin_p=7.0,
        opening=(-2.25, -0.68),
    ),
    "van": Body(
        lower=((0.26, -1.98, 1.86, 0.84), (0.36, -2.10, 2.02, 0.94), (0.58, -2.14, 2.12, 0.97),
               (0.80, -2.14, 2.11, 0.98), (0.98, -2.14, 2.05, 0.98), (1.12, -2.14, 1.88, 0.97),
               (1.24, -2.13, 1.56, 0.96)),
        cabin=((1.22, -2.13, 1.60, 0.96), (1.28, -2.13, 1.52, 0.95), (1.80, -2.09, 0.92, 0.89),
               (2.00, -2.05, 0.66, 0.84), (2.08, -1.88, 0.38, 0.70)),
        windows=((0.34, 0.58), (0.64, 0.92)), axles=(-1.30, 1.36), wheel=0.38, lamps=(0.84, 1.06),
        doors=(-0.84, 0.46, 1.32), mirror=(1.26, 1.04, 1.28), lower_p=7.0, cabin_p=9.0,
    ),
    "bus": Body(
        lower=((0.30, -2.70, 2.70, 1.00), (0.42, -2.80, 2.82, 1.08), (0.70, -2.84, 2.87, 1.10),
               (1.00, -2.84, 2.87, 1.10), (1.34, -2.84, 2.85, 1.10)),
        cabin=((1.32, -2.84, 2.85, 1.10), (1.36, -2.84, 2.84, 1.09), (2.20, -2.80, 2.70, 1.03),
               (2.50, -2.74, 2.58, 0.98), (2.62, -2.52, 2.32, 0.84)),
        windows=((-0.95, -0.66), (-0.60, -0.32), (-0.26, 0.02), (0.08, 0.36), (0.42, 0.66), (0.72, 0.96)),
        axles=(-1.74, 1.76), wheel=0.47, lamps=(0.66, 0.86), doors=(1.34, 2.36), mirror=(2.74, 1.17, 1.56),
        lower_p=9.0, cabin_p=9.0,
    ),
    "beetle": Body(
        lower=((0.20, -1.60, 1.58, 0.76), (0.30, -1.72, 1.72, 0.83), (0.48, -1.75, 1.78, 0.87),
               (0.64, -1.71, 1.76, 0.88), (0.80, -1.62, 1.66, 0.86), (0.93, -1.48, 1.42, 0.82),
               (1.01, -1.34, 1.10, 0.79), (1.07, -1.22, 0.74, 0.75)),
        cabin=((1.02, -1.28, 0.86, 0.77), (1.08, -1.18, 0.72, 0.75), (1.42, -0.80, 0.36, 0.64),
               (1.53, -0.58, 0.16, 0.55), (1.59, -0.34, -0.08, 0.38)),
        windows=((-0.74, -0.20), (-0.10, 0.88)), axles=(-1.06, 1.10), wheel=0.36, lamps=(0.60, 0.86),
        doors=(-0.34, 0.56), mirror=(0.46, 0.86, 1.03), lower_p=3.4, cabin_p=3.4, round_lamps=True,
    ),
}  # fmt: skip

# ---------------------------------------------------------------- meshes


class Material(NamedTuple):
    color: Color
    gloss: float  # how much of the sky it mirrors


MATERIALS: dict[str, Material] = {
    "paint": Material((0, 0, 0), 0.9),  # the car's colour, as "gap" is, darkened
    "gap": Material((0, 0, 0), 0.0),
    "glass": Material((20, 28, 38), 1.6),
    "glint": Material((74, 90, 108), 1.6),
    "dark": Material((36, 37, 41), 0.2),
    "black": Material((13, 13, 16), 0.0),
    "seat": Material((150, 92, 58), 0.1),
    "tyre": Material((30, 30, 33), 0.1),
    "rim": Material((200, 204, 210), 0.3),
    "plate": Material((238, 238, 230), 0.1),
    "headlamp": Material((248, 250, 252), 0.2),
    "taillamp": Material((178, 10, 18), 0.3),
}
MATERIAL_INDEX = {name: i for i, name in enumerate(MATERIALS)}


class Mesh(NamedTuple):
    vertices: Array  # (v, 3)
    faces: list[list[int]]
    normals: Array  # (f, 3), outward
    centers: Array  # (f, 3)
    materials: NDArray[np.int64]  # (f,)
    parts: list[tuple[range, Array]]  # the first is painted first, the others from far to near


class _Builder:
    def __init__(self) -> None:
        self.points: list[Point3] = []
        self.faces: list[list[int]] = []
        self.materials: list[int] = []
        self.parts: list[tuple[range, Array]] = []

    def add(self, points: Sequence[Point3]) -> list[int]:
        self.points.extend(points)
        return list(range(len(self.points) - len(points), len(self.points)))

    def face(self, vertices: Sequence[int], material: str) -> None:
        """One polygon, counterclockwise seen from outside."""
        self.faces.append(list(vertices))
        self.materials.append(MATERIAL_INDEX[material])

    def end_part(self) -> None:
        faces = range(self.parts[-1][0].stop if self.parts else 0, len(self.faces))
        self.parts.append((faces, np.mean([self.points[v] for f in faces for v in self.faces[f]], axis=0)))

    def mesh(self) -> Mesh:
        vertices = np.array(self.points)
        normals = []
        for face in self.faces:
            p = vertices[face]
            area = np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0)
            normals.append(area / np.linalg.norm(area))
        centers = np.array([vertices[face].mean(axis=0) for face in self.faces])
        return Mesh(vertices, self.faces, np.array(normals), centers, np.array(self.materials), self.parts)


def _superellipse(a: float, p: float) -> float:
    return (1 - abs(a) ** p) ** (1 / p)


def _add_hull(
    b: _Builder,
    layers: Sequence[Layer],
    p: float,
    material: str = "paint",
    *,
    y: float = 0.0,
    windows: Sequence[Span] | None = None,
    trim: str | None = None,
) -> None:
    """A stack of superellipses around ``y``; with ``windows`` glazed between its second and third layer."""
    corner = 0.5 ** (1 / p)
    across = [-0.94, -0.7, -0.35, 0.0, 0.35, 0.7, 0.94]
    along = sorted({-0.97, 0.97, *(edge for span in windows or [(-0.5, 0.5)] for edge in span)})
    glazed = "glass" if windows is not None else material
    sides = ["glass" if (lo, hi) in (windows or ()) else material for lo, hi in pairwise(along)]
    ends = [glazed] * (len(across) - 1)
    frame = [material, material]  # the two faces around a corner: the pillars

    unit = [(_superellipse(corner * a, p), corner * a) for a in across] + [(corner, corner)]
    unit += [(corner * a, _superellipse(corner * a, p)) for a in along[::-1]] + [(-corner, corner)]
    unit += [(-u, -v) for u, v in unit[: len(across) + 1]]
    unit += [(corner * a, -_superellipse(corner * a, p)) for a in along] + [(corner, -corner)]
    kinds = [*ends, *frame, *sides[::-1], *frame, *ends, *frame, *sides, *frame]
    rings = [
        b.add([((front + rear) / 2 + (front - rear) / 2 * u, y + width * v, z) for u, v in unit])
        for z, rear, front, width in layers
    ]
    for k, (low, high) in enumerate(pairwise(rings)):
        for i, kind in enumerate(kinds):
            j = (i + 1) % len(unit)
            look = kind if k == 1 else trim if trim and k == 0 else material
            b.face((low[i], low[j], high[j], high[i]), look)
    if windows is not None:
        starts = [i for i, kind in enumerate(kinds) if kind == "glass" != kinds[i - 1]]
        for i in starts:
            j = next(j for j in range(i, len(kinds)) if kinds[j] != "glass")
            pane = np.array([[b.points[rings[k][v]] for v in (i, j)] for k in (1, 2)])
            streak = [
                pane[t, 0] + s * (pane[t, 1] - pane[t, 0])
                for s, t in ((0.3, 0), (0.5, 0), (0.8, 1), (0.6, 1))
            ]
            b.face(b.add([(float(x), float(y_), float(z)) for x, y_, z in streak]), "glint")
    b.face(rings[-1], material)


def _rounded(layers: Sequence[Layer]) -> list[Layer]:
    """Chaikin's corner cutting, once: every edge between two layers becomes two softer ones."""
    a = np.array(layers)
    cut = np.stack([0.75 * a[:-1] + 0.25 * a[1:], 0.25 * a[:-1] + 0.75 * a[1:]], axis=1).reshape(-1, 4)
    return [(float(z), float(r), float(f), float(w)) for z, r, f, w in [a[0], *cut, a[-1]]]


def _circle(x: float, z: float, r: float, n: int) -> list[Point2]:
    return [(x + r * math.cos(2 * math.pi * k / n), z + r * math.sin(2 * math.pi * k / n)) for k in range(n)]


def _add_surface(b: _Builder, body: Body) -> None:
    """Lamps, grille, plates, handles, door gaps and wheel arches, laid on the lower body."""
    layers = np.array(_rounded(body.lower)).T
    low, high = body.lamps
    floor, top = body.lower[1][0], body.lower[-1][0]
    p = body.lower_p

    def ends(z: float) -> tuple[float, float, float]:
        rear, front, width = (float(np.interp(z, layers[0], column)) for column in layers[1:])
        return (front + rear) / 2, (front - rear) / 2, width

    def on_side(sign: int, outline: Sequence[Point2], material: str) -> None:
        """outline: (x, z), counterclockwise."""
        points = []
        for x, z in outline:
            middle, half, width = ends(z)
            points.append((x, sign * width * _superellipse(min(abs(x - middle) / half, 1.0), p), z))
        b.face(b.add(points if sign < 0 else points[::-1]), material)

    def on_end(sign: int, outline: Sequence[Point2], material: str) -> None:
        """outline: (across in half widths, z), counterclockwise; sign 1 is the nose, -1 the tail."""
        points = []
        for v, z in outline:
            middle, half, width = ends(z)
            points.append((middle + sign * half * _superellipse(v, p), v * width, z))
        b.face(b.add(points if sign > 0 else points[::-1]), material)

    def bar(v: float, z0: float, z1: float) -> list[Point2]:
        run = [v * t for t in (-1, -0.5, 0, 0.5, 1)]
        return [(a, z0) for a in run] + [(a, z1) for a in run[::-1]]

    on_end(1, bar(0.62, floor + 0.02, floor + 0.13), "black")
    on_end(1, bar(0.44, low - 0.03, high - 0.04), "black")
    on_end(-1, bar(0.72, floor - 0.02, floor + 0.08), "black")
    plate = (floor + low) / 2 - 0.01
    for sign, lamp in ((1, "headlamp"), (-1, "taillamp")):
        on_end(sign, bar(0.27, plate, plate + 0.13), "plate")
        for flip in (1, -1):
            if body.round_lamps:
                middle, radius = (low + high) / 2, (high - low) / 2
                v = 0.64 * flip
                on_end(sign, [(v + a / ends(middle)[2], z) for a, z in _circle(0, middle, radius, 14)], lamp)
            else:
                reach = _superellipse(0.78, p)  # a lamp wraps around the corner, for 0.22 of the half length
                run = [reach * v for v in (0.58, 0.74, 0.86, 0.94, 1.0)]
                lower, upper = [(v, low + 0.03 * (v < 0.6)) for v in run], [(v, high) for v in run[::-1]]
                outline = [(flip * v, z) for v, z in lower + upper]
                on_end(sign, outline[::flip], lamp)
    for sign in (1, -1):
        for x in body.doors:
            gap = [(x - 0.013, floor), (x + 0.013, floor), (x + 0.013, top - 0.02), (x - 0.013, top - 0.02)]
            on_side(sign, gap, "gap")
        for x in body.doors[:-1]:
            z = body.lower[-2][0] - 0.07
            handle = [(x + 0.08, z), (x + 0.26, z), (x + 0.26, z + 0.035), (x + 0.08, z + 0.035)]
            on_side(sign, handle, "dark")
        for x in body.axles:
            arch = _circle(x, body.wheel, 1.18 * body.wheel, 24)
            on_side(sign, [(a, max(z, floor)) for a, z in arch], "black")


def _disc(b: _Builder, outline: Sequence[Point2], y: float, material: str) -> None:
    """A flat polygon (x, z) at y, facing away from the car."""
    points = [(x, y, z) for x, z in outline]  # counterclockwise in (x, z) faces the right, which is -y
    b.face(b.add(points if y < 0 else points[::-1]), material)


def _add_treads(b: _Builder, body: Body, outer: float) -> None:
    for x in body.axles:
        rim = _circle(x, body.wheel, body.wheel, 20)
        for sign in (1, -1):
            near, far = (b.add([(px, sign * y, pz) for px, pz in rim]) for y in (outer, outer - 0.22))
            for k in range(len(rim)):
                quad = [far[k], far[k - 1], near[k - 1], near[k]]
                b.face(quad if sign < 0 else quad[::-1], "tyre")


def _add_wheels(b: _Builder, body: Body, outer: float) -> None:
    r = body.wheel
    # Between two spokes: (radius, angle) from their middle.
    gap = ((0.26, -0.34), (0.58, -0.44), (0.62, 0.0), (0.58, 0.44), (0.26, 0.34))
    for x in body.axles:
        for y in (outer, -outer):
            _disc(b, _circle(x, r, r, 24), y, "tyre")
            _disc(b, _circle(x, r, 0.70 * r, 20), y, "rim")
            for k in range(5):
                turn = math.pi * (0.3 + 0.4 * k)
                spoke = [(x + r * q * math.cos(turn + a), r + r * q * math.sin(turn + a)) for q, a in gap]
                _disc(b, spoke, y, "black")
            _disc(b, _circle(x, r, 0.10 * r, 8), y, "tyre")


@cache
def _mesh(name: str) -> Mesh:
    body = BODIES[name]
    outer = body.lower[2][3] - 0.03
    b = _Builder()
    _add_treads(b, body, outer)
    _add_hull(b, _rounded(body.lower), body.lower_p, trim="dark")
    if body.opening:
        rear, front = body.opening
        y, z = body.lower[-1][3] - 0.09, body.lower[-1][0]
        b.face(b.add([(rear, -y, z), (front, -y, z), (front, y, z), (rear, y, z)]), "black")
    _add_surface(b, body)
    _add_wheels(b, body, outer)
    b.end_part()
    _add_hull(b, body.cabin, body.cabin_p, "dark" if body.seats else "paint", windows=body.windows)
    b.end_part()
    x, y, z = body.mirror
    for sign in (1, -1):
        mirror = (z, x - 0.07, x + 0.05, 0.10), (z + 0.13, x - 0.07, x + 0.03, 0.10)
        _add_hull(b, mirror, 3, "dark", y=sign * y)
        b.end_part()
        if body.seats:
            x0 = body.seats
            seat = (
                (0.80, x0 - 0.16, x0 + 0.2, 0.25),
                (1.08, x0 - 0.2, x0, 0.25),
                (1.2, x0 - 0.2, x0 - 0.06, 0.15),
            )
            _add_hull(b, seat, 5, "seat", y=0.37 * sign)
            b.end_part()
    return b.mesh()


# ---------------------------------------------------------------- one car


@dataclass(frozen=True)
class Car:
    """Everything that decides a picture.

    turn: degrees added to the view's angle. scale: 1 fills the frame well. shift: of the car's middle, in
    frame widths. scenery: the seed of what is accidental in the background.
    """

    body: str
    color: str
    view: str
    background: str
    time: str
    turn: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    scenery: int = 0

    def __post_init__(self) -> None:
        for attribute, known in VALUES.items():
            if getattr(self, attribute) not in known:
                raise unknown(attribute, getattr(self, attribute), known)

    @property
    def azimuth(self) -> float:
        """Where the camera stands, in degrees from the nose towards the car's left side, in [0, 360)."""
        return (VIEWS[self.view] + self.turn) % 360

    @property
    def caption(self) -> str:
        """One English phrase, such as "a red pickup seen from the left in the desert at night"."""
        article = "an" if self.color[0] in "aeiou" else "a"
        place, time = BACKGROUNDS[self.background].phrase, TIMES[self.time].phrase
        return f"{article} {self.color} {self.body} seen from the {self.view} {place} {time}"


HORIZON = 0.43
DISTANCE = 9.0


class Camera:
    """A pinhole that looks at the car's middle and has the horizon at HORIZON."""

    def __init__(self, car: Car) -> None:
        vertices = _mesh(car.body).vertices
        azimuth, middle = math.radians(car.azimuth), 0.63
        self.target = np.array([0.0, 0.0, vertices[:, 2].max() / 2])
        self.center = np.array([0.5, middle])
        self.focal, elevation = 1.0, 0.12
        for _ in range(2):  # the focal length and the elevation depend on each other, weakly
            c, s = math.cos(azimuth), math.sin(azimuth)
            ce, se = math.cos(elevation), math.sin(elevation)
            self.right = np.array([-s, c, 0.0])
            self.up = np.array([-se * c, -se * s, ce])
            self.back = np.array([ce * c, ce * s, se])  # from the target to the camera
            self.position = self.target + DISTANCE * self.back
            width, height = np.ptp(self.project(vertices), axis=0)
            self.focal *= car.scale * min(0.84 / width, 0.58 / height)
            elevation = math.atan((middle - HORIZON) / self.focal)
        x = self.project(vertices)[:, 0]
        self.center[0] += 0.5 + car.shift - (x.max() + x.min()) / 2

    def depth(self, points: Array) -> Array:
        return (self.position - points) @ self.back

    def project(self, points: Array) -> Array:
        """Metres (n, 3) -> the picture (n, 2)."""
        p = points - self.target
        flat = np.stack([p @ self.right, p @ -self.up], axis=1)
        return self.center + self.focal * flat / self.depth(points)[:, None]

    def on_ground(self, points: Array) -> Array:
        """The ground (n, 2), of which only what lies in front of the camera -> the picture (m, 2)."""
        p = np.column_stack([points, np.zeros(len(points))])
        return self.project(p[self.depth(p) > 0.3])


def _shade(car: Car, mesh: Mesh, camera: Camera) -> Array:
    """The colour of every face, (f, 3): sky and sun on it, and what its gloss mirrors."""
    light = TIMES[car.time]
    base = np.array([m.color for m in MATERIALS.values()], dtype=float)
    base[MATERIAL_INDEX["paint"]] = COLORS[car.color]
    base[MATERIAL_INDEX["gap"]] = 0.35 * np.array(COLORS[car.color])
    gloss = np.array([m.gloss for m in MATERIALS.values()])[mesh.materials, None]
    n = mesh.normals
    view = camera.position - mesh.centers
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    sun = np.array([0, 0, 0.75]) - 0.5 * camera.right + 0.5 * camera.back
    sun /= np.linalg.norm(sun)
    half = view + sun
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    facing = np.clip((n * view).sum(1, keepdims=True), 0, 1)
    mirrored_z = 2 * facing * n[:, 2:] - view[:, 2:]
    horizon, zenith = np.array(light.horizon), np.array(light.zenith)
    sky = horizon + (zenith - horizon) * np.clip(1.2 * mirrored_z, 0, 1)
    mirrored = np.where(mirrored_z > 0, sky, 70.0 * np.array(light.scenery))
    diffuse = np.array(light.shade) * (0.85 + 0.15 * n[:, 2:])
    diffuse = diffuse + np.array(light.key) * np.maximum(n @ sun, 0)[:, None]
    color = base[mesh.materials] * diffuse
    color += (mirrored - color) * np.clip(gloss * (0.07 + 0.55 * (1 - facing) ** 4), 0, 1)
    color += 200 * gloss * np.array(light.key) * np.maximum((n * half).sum(1, keepdims=True), 0) ** 50
    if light.lamps:
        color[mesh.materials == MATERIAL_INDEX["headlamp"]] = (255, 250, 214)
        color[mesh.materials == MATERIAL_INDEX["taillamp"]] = (255, 44, 34)
    return np.clip(color, 0, 255)


def _visible(mesh: Mesh, camera: Camera) -> list[int]:
    """The faces towards the camera, in the order to paint them.

    Of two points on one line of sight that goes down, the nearer is the higher: painting a stack from
    the ground up needs no depth test.
    """
    view = camera.position - mesh.centers
    # What is laid flat on the round body would stick out where it is seen edge-on.
    least = np.where(mesh.materials == MATERIAL_INDEX["black"], 0.12, 0.0)
    facing = (view * mesh.normals).sum(1) > least * np.linalg.norm(view, axis=1)
    (first, _), *rest = mesh.parts
    rest.sort(key=lambda part: -float(camera.depth(part[1][None])[0]))
    return [f for faces in (first, *(faces for faces, _ in rest)) for f in faces if facing[f]]


# ---------------------------------------------------------------- scenery


class Scenery:
    """A brush that knows the light, the distance haze and the camera."""

    def __init__(self, car: Car, camera: Camera, picture: Image.Image) -> None:
        self.light = TIMES[car.time]
        self.camera = camera
        self.picture = picture
        self.size = picture.width
        self.pen = ImageDraw.Draw(picture, "RGBA")
        self.rng = np.random.Generator(np.random.Philox(key=car.scenery))

    def tone(self, color: Color, haze: float = 0.0) -> tuple[int, int, int]:
        """The colour in this light; haze, from 0 to 1, takes it towards the horizon's."""
        r, g, b = (
            round(c * s * (1 - haze) + h * haze)
            for c, s, h in zip(color, self.light.scenery, self.light.horizon)
        )
        return r, g, b

    def fill(
        self, points: Array | Sequence[Point2], color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        flat = (np.asarray(points) * self.size).ravel().tolist()
        self.pen.polygon(flat, (*self.tone(color, haze), round(255 * alpha)))

    def block(
        self, x0: float, y0: float, x1: float, y1: float, color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, haze, alpha)

    def glow(self, points: Array, color: Color, alpha: float) -> None:
        """Light: not darkened by the hour."""
        if len(points) > 2:
            r, g, b = (round(c) for c in color)
            self.pen.polygon((points * self.size).ravel().tolist(), (r, g, b, round(255 * alpha)))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        box = [self.size * c for c in (x - rx, y - ry, x + rx, y + ry)]
        self.pen.ellipse(box, (*self.tone(color, haze), round(255 * alpha)))

    def gradient(self, top: float, bottom: float, colors: Sequence[Color]) -> None:
        """Evenly spaced colours, from top to bottom."""
        y0, y1 = round(top * self.size), round(bottom * self.size)
        t = np.linspace(0, len(colors) - 1, y1 - y0)
        rows = np.stack([np.interp(t, np.arange(len(colors)), c) for c in zip(*colors)], axis=1)
        strip = Image.fromarray(rows.round().astype(np.uint8)[:, None])
        self.picture.paste(strip.resize((self.size, y1 - y0), Image.Resampling.NEAREST), (0, y0))

    def sky(self) -> None:
        light, u = self.light, self.rng.random
        (r0, g0, b0), (r1, g1, b1) = light.zenith, light.horizon
        mid = ((r0 + 2 * r1) / 3, (g0 + 2 * g1) / 3, (b0 + 2 * b1) / 3)
        self.gradient(0, HORIZON + 0.02, [light.zenith, mid, light.horizon])
        x = 0.12 + 0.76 * u()
        if light is TIMES["night"]:
            for sx, sy, brightness in u((40, 3)) * (1, HORIZON, 1):
                self.pen.ellipse(
                    [self.size * c for c in (sx - 0.004, sy - 0.004, sx + 0.004, sy + 0.004)],
                    (235, 238, 255, round(60 + 190 * brightness**2)),
                )
            for r, alpha in ((0.10, 0.05), (0.075, 0.08), (0.055, 1.0)):
                self.disc(x, 0.13, r, (238, 236, 214), alpha)
        elif light is TIMES["day"]:
            for r, alpha in ((0.13, 0.10), (0.095, 0.14), (0.06, 1.0)):
                self.disc(x, 0.11, r, (255, 250, 214), alpha)
            self.clouds()
        else:
            y = HORIZON - 0.07 - 0.04 * u()
            warm: Color = (255, 236, 180) if light is TIMES["dawn"] else (255, 214, 120)
            for r in (0.30, 0.24, 0.19, 0.15, 0.12):
                self.disc(x, y, r, warm, 0.10)
            self.disc(x, y, 0.085, warm, 1.0)
            self.clouds()

    def disc(self, x: float, y: float, r: float, color: Color, alpha: float) -> None:
        self.glow(np.array(_circle(x, y, r, 40)), color, alpha)

    def clouds(self) -> None:
        for _ in range(2):
            x, y = self.rng.random(2) * (1.0, 0.20) + (0, 0.06)
            for dx, dy, r in (
                (-0.10, 0.01, 0.035),
                (-0.04, -0.012, 0.05),
                (0.035, -0.004, 0.045),
                (0.10, 0.012, 0.03),
            ):
                self.ellipse(x + dx, y + dy, 1.5 * r, 0.62 * r, (255, 255, 255), haze=0.25, alpha=0.85)

    def ridge(
        self, base: float, height: float, waves: float, color: Color, haze: float, jagged: bool = False
    ) -> Array:
        """A line of hills that ends ``height`` above ``base`` at most; returns its crest."""
        x = np.linspace(0, 1, 33)
        phase = self.rng.random(3) * 2 * np.pi
        y = sum(np.sin(2 * np.pi * waves * f * x + p) / f for f, p in zip((1, 2.3, 5.1), phase))
        if jagged:
            y = y + self.rng.random(33) * 0.9
        crest = base - height * (y - y.min()) / np.ptp(y)
        points = np.column_stack([x, crest])
        self.fill([*points, (1, HORIZON + 0.03), (0, HORIZON + 0.03)], color, haze)
        return points

    def ground(self, far: Color, near: Color) -> None:
        self.gradient(HORIZON, 1.0, [self.tone(far, 0.25), self.tone(near)])

    def road(self, color: Color, line: Color | None) -> None:
        """A straight road along the car's axis, on the true ground."""
        x = np.concatenate([[-80, -40, -20], np.arange(-12, 12.1, 0.5), [20, 40, 80]])

        def strip(y0: float, y1: float, color: Color, alpha: float = 1.0) -> None:
            edges = [np.column_stack([x, np.full(len(x), y)]) for y in (y0, y1)]
            points = self.camera.on_ground(np.concatenate([edges[0], edges[1][::-1]]))
            self.fill(points, color, alpha=alpha)

        strip(-3.4, 3.4, color)
        if line:
            for y in (-2.6, 2.6):
                strip(y - 0.07, y + 0.07, line, 0.8)

    def fir(
        self, x: float, base: float, height: float, color: Color, haze: float, snow: bool = False
    ) -> None:
        for k in (2, 1, 0):
            top, bottom = base - height * (1 - 0.26 * k), base - height * (0.54 - 0.24 * k)
            half = height * (0.15 + 0.07 * k)
            self.fill([(x, top), (x + half, bottom), (x - half, bottom)], color, haze)
            if snow:
                cap = 0.5
                y = top + cap * (bottom - top)
                self.fill([(x, top), (x + half * cap, y), (x - half * cap, y)], (244, 248, 255), haze)


def _city(s: Scenery) -> None:
    for haze, lowest, highest, tone in ((0.62, 0.12, 0.32, 120), (0.22, 0.06, 0.22, 104)):
        x = -0.03
        while x < 1:
            u = s.rng.random(4)
            width, height = 0.09 + 0.08 * u[0], lowest + (highest - lowest) * u[1]
            color = (tone + 40 * u[2], tone + 20 * u[3], tone + 14)
            top = HORIZON - height
            s.block(x, top, x + width, HORIZON + 0.02, color, haze)
            if haze < 0.5:
                for wy in np.arange(top + 0.02, HORIZON - 0.03, 0.042):
                    for wx in np.arange(x + 0.016, x + width - 0.024, 0.032):
                        box = [s.size * c for c in (wx, wy, wx + 0.017, wy + 0.022)]
                        lit = s.light.lamps and s.rng.random() < 0.45
                        s.pen.rectangle(box, (255, 214, 128) if lit else s.tone((70, 84, 104), 0.3))
            x += width + 0.012 * u[3]
    s.ground((150, 150, 152), (176, 174, 170))
    s.road((84, 86, 92), (236, 230, 200))


def _countryside(s: Scenery) -> None:
    s.ridge(HORIZON, 0.16, 0.9, (104, 150, 92), 0.45)
    s.ridge(HORIZON + 0.02, 0.09, 1.4, (92, 158, 68), 0.15)
    for u in s.rng.random((5, 2)):
        x, r = u[0], 0.035 + 0.03 * u[1]
        s.block(x - 0.008, HORIZON, x + 0.008, HORIZON + 0.04, (92, 64, 44))
        s.ellipse(x, HORIZON - 0.5 * r, r, 1.15 * r, (52, 112, 48))
        s.ellipse(x - 0.25 * r, HORIZON - 0.8 * r, 0.6 * r, 0.65 * r, (78, 142, 62))
    s.ground((120, 178, 74), (86, 148, 56))
    s.road((104, 102, 104), (240, 240, 232))


def _sea(s: Scenery) -> None:
    s.gradient(HORIZON, HORIZON + 0.13, [s.tone((56, 132, 190), 0.35), s.tone((38, 150, 186))])
    for x, y, w in s.rng.random((14, 3)) * (1, 0.11, 0.06) + (0, HORIZON + 0.012, 0.02):
        s.block(x - w, y, x + w, y + 0.005, (226, 246, 255), 0.3, 0.55)
    x, y = 0.1 + 0.8 * s.rng.random(), HORIZON
    s.fill([(x, y - 0.13), (x, y - 0.015), (x + 0.065, y - 0.015)], (250, 250, 246), 0.1)
    s.fill([(x - 0.01, y - 0.10), (x - 0.01, y - 0.015), (x - 0.05, y - 0.015)], (244, 236, 226), 0.1)
    s.fill([(x - 0.06, y), (x + 0.075, y), (x + 0.05, y + 0.02), (x - 0.045, y + 0.02)], (150, 60, 48), 0.1)
    s.gradient(HORIZON + 0.13, 1.0, [s.tone((236, 214, 164)), s.tone((216, 186, 130))])
    s.block(0, HORIZON + 0.122, 1, HORIZON + 0.14, (250, 252, 250), 0.1, 0.8)


def _desert(s: Scenery) -> None:
    for u in s.rng.random((2, 3)):
        x, w, h = u[0], 0.10 + 0.08 * u[1], 0.10 + 0.09 * u[2]
        y = HORIZON + 0.01
        s.fill([(x - w, y), (x - 0.68 * w, y - h), (x + 0.62 * w, y - h), (x + w, y)], (188, 96, 62), 0.35)
        s.fill(
            [(x - w, y), (x - 0.68 * w, y - h), (x - 0.3 * w, y - h), (x - 0.45 * w, y)], (222, 128, 84), 0.35
        )
    s.ridge(HORIZON + 0.02, 0.05, 1.1, (232, 178, 108), 0.15)
    s.ground((240, 196, 126), (222, 166, 94))
    s.road((196, 150, 96), None)
    for u in s.rng.random((3, 2)):
        x, h = (0.04 + 0.2 * u[0]) if u[1] < 0.5 else (0.96 - 0.2 * u[0]), 0.10 + 0.05 * u[1]
        y, green = HORIZON + 0.05, (64, 124, 68)
        for x0, x1, y0, y1 in ((-0.1, 0.1, -1, 0), (-0.38, -0.22, -0.78, -0.4), (-0.38, 0, -0.5, -0.38),
                               (0.22, 0.38, -0.88, -0.5), (0, 0.38, -0.6, -0.48)):  # fmt: skip
            box = [x + x0 * h, y + y0 * h, x + x1 * h, y + y1 * h]
            s.pen.rounded_rectangle([s.size * c for c in box], 0.05 * h * s.size, s.tone(green))


def _mountains(s: Scenery) -> None:
    crest = s.ridge(HORIZON, 0.30, 1.1, (104, 116, 146), 0.35, jagged=True)
    snow_line = crest[:, 1].min() + 0.09
    zigzag = np.where(np.arange(len(crest)) % 2, 0.028, 0.0)
    lower = np.maximum(np.minimum(crest[:, 1] + 0.05 + zigzag, snow_line + zigzag), crest[:, 1])
    s.fill([*crest, *np.column_stack([crest[:, 0], lower])[::-1]], (246, 249, 255), 0.15)
    s.ridge(HORIZON + 0.02, 0.12, 1.6, (66, 104, 84), 0.25)
    s.ground((122, 164, 88), (96, 140, 66))
    s.road((112, 110, 110), (236, 236, 230))


def _forest(s: Scenery) -> None:
    rows = (
        (15, 0.01, 0.22, 0.55, (50, 96, 70)),
        (11, 0.03, 0.27, 0.2, (34, 92, 56)),
        (7, 0.05, 0.32, 0.0, (28, 76, 44)),
    )
    for n, base, height, haze, color in rows:
        for k, u in enumerate(s.rng.random((n, 2))):
            s.fir((k + 0.8 * u[0]) / n, HORIZON + base, height * (0.7 + 0.4 * u[1]), color, haze)
    s.ground((96, 124, 62), (74, 104, 48))
    s.road((122, 100, 78), None)


def _snow(s: Scenery) -> None:
    s.ridge(HORIZON, 0.17, 0.9, (188, 208, 236), 0.25)
    s.ridge(HORIZON + 0.02, 0.08, 1.5, (212, 224, 244), 0.1)
    for k, u in enumerate(s.rng.random((6, 2))):
        s.fir((k + u[0]) / 6, HORIZON + 0.05, 0.18 + 0.12 * u[1], (42, 86, 80), 0.08, snow=True)
    s.ground((236, 242, 250), (216, 228, 244))
    s.road((178, 190, 208), None)
    for x, y, r in s.rng.random((36, 3)):
        s.ellipse(x, y, 0.004 + 0.004 * r, 0.004 + 0.004 * r, (255, 255, 255), 0.0, 0.9)


def _studio(s: Scenery) -> None:
    hue = s.rng.random(3)
    wall = tuple(160 + 70 * h for h in hue)
    dark, pale = tuple(0.55 * w for w in wall), tuple(0.5 * w + 126 for w in wall)
    low = [s.tone(c, 0.15) for c in (dark, wall, pale, wall, dark)]
    s.gradient(0, 1, low)
    for r, alpha in ((0.52, 0.10), (0.44, 0.12), (0.36, 0.14)):
        s.ellipse(0.5, 0.78, r, 0.36 * r, (255, 255, 255), 0.0, alpha)


class Background(NamedTuple):
    phrase: str
    paint: Callable[[Scenery], None]
    sky: bool = True


BACKGROUNDS: dict[str, Background] = {
    "city": Background("in the city", _city),
    "countryside": Background("in the countryside", _countryside),
    "sea": Background("by the sea", _sea),
    "desert": Background("in the desert", _desert),
    "mountains": Background("in the mountains", _mountains),
    "forest": Background("in the forest", _forest),
    "snow": Background("in the snow", _snow),
    "studio": Background("in a studio", _studio, sky=False),
}

VALUES: dict[str, list[str]] = {
    "body": list(BODIES),
    "color": list(COLORS),
    "view": list(VIEWS),
    "background": list(BACKGROUNDS),
    "time": list(TIMES),
}


def _paint_ground_light(s: Scenery, car: Car) -> None:
    """What the car does to the ground: the shadow, the lamps' beams; and a street lamp's pool of light."""
    rear, front, half = (BODIES[car.body].lower[2][k] for k in (1, 2, 3))
    middle, length = (front + rear) / 2, (front - rear) / 2
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    outline = np.sign(circle) * np.abs(circle) ** 0.45
    if s.light.lamps:
        for r in (1.35, 1.2, 1.05):
            pool = circle * (length * r + 0.8, half * r + 1.6) + (middle, 0)
            s.glow(s.camera.on_ground(pool), (255, 226, 176), 0.07)
        for reach in (5.0, 4.2, 3.4, 2.6, 1.8):
            spread = half * (0.9 + 0.16 * reach)
            left = [(front, 0.9 * half), (front + reach, spread), (front + 1.12 * reach, 0.6 * spread)]
            beam = np.array(left + [(x, -y) for x, y in left[::-1]])
            s.glow(s.camera.on_ground(beam), (255, 240, 196), 0.06)
    lean = 0.25 * s.camera.right[:2]
    for grow, alpha in ((0.34, 0.08), (0.24, 0.10), (0.14, 0.14), (0.04, 0.22), (-0.06, 0.35)):
        shadow = outline * (length + grow, half + grow) + (middle, 0) + lean * (grow + 0.3)
        s.glow(s.camera.on_ground(shadow), (6, 7, 14), alpha)


def _glow_lamps(mesh: Mesh, camera: Camera, picture: Image.Image) -> Image.Image:
    """Halos around the lamps that the camera sees."""
    pixels = np.asarray(picture).astype(np.float32)
    place = (np.arange(picture.width, dtype=np.float32) + 0.5) / picture.width
    for name, color in (("headlamp", (190, 176, 134)), ("taillamp", (190, 30, 22))):
        for f in np.flatnonzero(mesh.materials == MATERIAL_INDEX[name]):
            view = camera.position - mesh.centers[f]
            facing = float(view @ mesh.normals[f] / np.linalg.norm(view))
            if facing > 0:
                center = camera.project(mesh.centers[f][None])[0]
                x, y = np.exp(-(((place - center[:, None]) / 0.055) ** 2))
                pixels += (math.sqrt(facing) * np.outer(y, x))[..., None] * np.array(color, dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# ---------------------------------------------------------------- pictures


def _supersampling(size: int) -> int:
    return 4 if size < 96 else 3


def draw(car: Car, size: int = 128) -> Image.Image:
    """The picture of a car, RGB, size x size."""
    mesh, camera = _mesh(car.body), Camera(car)
    fine = _supersampling(size)
    picture = Image.new("RGB", (fine * size, fine * size))
    scenery, background = Scenery(car, camera, picture), BACKGROUNDS[car.background]
    if background.sky:
        scenery.sky()
    background.paint(scenery)
    _paint_ground_light(scenery, car)
    colors = [tuple(color) for color in _shade(car, mesh, camera).round().astype(int).tolist()]
    _paint_faces(picture, mesh, camera, colors)
    picture = picture.reduce(fine)
    return _glow_lamps(mesh, camera, picture) if TIMES[car.time].lamps else picture


def mask(car: Car, size: int = 128, material: str | None = None) -> Image.Image:
    """How much of each pixel the car covers, or its parts of one material, 0 to 255 (mode L, size x size)."""
    if material is not None and material not in MATERIALS:
        raise unknown("material", material, MATERIALS)
    mesh, fine = _mesh(car.body), _supersampling(size)
    picture = Image.new("L", (fine * size, fine * size))
    wanted = [material is None or m == MATERIAL_INDEX[material] for m in mesh.materials.tolist()]
    _paint_faces(picture, mesh, Camera(car), [255 * w for w in wanted])
    return picture.reduce(fine)


def box(car: Car, size: int = 128) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels around the car, including what it hides of itself (a mirror).

    (x0, y0, x1, y1), x1 and y1 exclusive, inside the picture for what ToyCars draws.
    """
    xy = Camera(car).project(_mesh(car.body).vertices) * size
    (x0, y0), (x1, y1) = np.floor(xy.min(axis=0)), np.ceil(xy.max(axis=0))
    return int(x0), int(y0), int(x1), int(y1)


def _paint_faces(picture: Image.Image, mesh: Mesh, camera: Camera, colors: Sequence[Any]) -> None:
    pen = ImageDraw.Draw(picture)
    xy = [(x, y) for x, y in (camera.project(mesh.vertices) * picture.width).tolist()]
    for f in _visible(mesh, camera):
        pen.polygon([xy[v] for v in mesh.faces[f]], colors[f])


# ---------------------------------------------------------------- the source


class ToyCars:
    """A Source of n drawn cars, size x size pixels.

    weights: for an attribute, how often each of its values is drawn, relative to the others; a value left
        out is never drawn. An attribute left out is uniform. Whatever the weights, the attributes are
        independent of each other, azimuth is uniform within 12 degrees of the view's, and scale is
        uniform in [0.86, 1.04].
    Picture i is a function of (seed, i, weights): a larger n only adds pictures, and changing the weights of
    one attribute leaves the others as they were. Raises UsageError for a number or a name it cannot take.
    """

    name = "toycars"
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        n: int = 2000,
        seed: int = 0,
        size: int = 128,
        weights: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        if n < 1:
            raise UsageError(f"toycars: n = {n}: it must be at least 1")
        if size < 16:
            raise UsageError(f"toycars: size = {size}: it must be at least 16 pixels")
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
        return draw(self.car(int(PurePosixPath(item.key).stem)), self.size)


def _cumulative(weights: Mapping[str, Mapping[str, float]]) -> dict[str, Array]:
    """For each attribute, the cumulative probabilities of its values."""
    for attribute, values in weights.items():
        if attribute not in VALUES:
            raise unknown("attribute", attribute, VALUES)
        for value, weight in values.items():
            if value not in VALUES[attribute]:
                raise unknown(attribute, value, VALUES[attribute])
            if not 0 <= weight < math.inf:
                raise UsageError(f"toycars: the weight of {attribute} {value!r} is {weight}: give 0 or more")
        if not sum(values.values()) > 0:
            raise UsageError(f"toycars: the weights of {attribute} are all 0: give one value more than that")
    cumulative = {}
    for attribute, known in VALUES.items():
        given = weights.get(attribute, dict.fromkeys(known, 1.0))
        total = np.cumsum([given.get(value, 0.0) for value in known])
        cumulative[attribute] = total / total[-1]
    return cumulative
