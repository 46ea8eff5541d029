"""The bodies of the toy cars as polygons in space, from the outlines in the catalogue."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alphabar.data.toycars.catalog import BODIES, MATERIAL_INDEX, Array, Body, Layer, Point2, Point3, Span


class Mesh(NamedTuple):
    """A car's surface. A part is a range of faces and its middle: cabin, mirrors and seats stand apart."""

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
    around = [*ends, *frame, *sides[::-1], *frame, *ends, *frame, *sides, *frame]
    rings = [
        b.add([((front + rear) / 2 + (front - rear) / 2 * u, y + width * v, z) for u, v in unit])
        for z, rear, front, width in layers
    ]
    for k, (low, high) in enumerate(pairwise(rings)):
        for i, each in enumerate(around):
            j = (i + 1) % len(unit)
            shown = each if k == 1 else trim if trim and k == 0 else material
            b.face((low[i], low[j], high[j], high[i]), shown)
    if windows is not None:
        starts = [i for i, each in enumerate(around) if each == "glass" != around[i - 1]]
        for i in starts:
            j = next(j for j in range(i, len(around)) if around[j] != "glass")
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


def circle(x: float, z: float, r: float, n: int) -> list[Point2]:
    """n points on the circle of radius r about (x, z), counterclockwise."""
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
                on_end(sign, [(v + a / ends(middle)[2], z) for a, z in circle(0, middle, radius, 14)], lamp)
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
            arch = circle(x, body.wheel, 1.18 * body.wheel, 24)
            on_side(sign, [(a, max(z, floor)) for a, z in arch], "black")


def _disc(b: _Builder, outline: Sequence[Point2], y: float, material: str) -> None:
    """A flat polygon (x, z) at y, facing away from the car."""
    points = [(x, y, z) for x, z in outline]  # counterclockwise in (x, z) faces the right, which is -y
    b.face(b.add(points if y < 0 else points[::-1]), material)


def _add_treads(b: _Builder, body: Body, outer: float) -> None:
    for x in body.axles:
        rim = circle(x, body.wheel, body.wheel, 20)
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
            _disc(b, circle(x, r, r, 24), y, "tyre")
            _disc(b, circle(x, r, 0.70 * r, 20), y, "rim")
            for k in range(5):
                turn = math.pi * (0.3 + 0.4 * k)
                spoke = [(x + r * q * math.cos(turn + a), r + r * q * math.sin(turn + a)) for q, a in gap]
                _disc(b, spoke, y, "black")
            _disc(b, circle(x, r, 0.10 * r, 8), y, "tyre")


@cache
def car_mesh(name: str) -> Mesh:
    """The mesh of a body, by its name in `catalog.BODIES`."""
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
