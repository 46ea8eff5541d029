"""Pictures of toy cars, and what is known about each pixel of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from alphabar.data.toycars.camera import Camera
from alphabar.data.toycars.car import Car
from alphabar.data.toycars.catalog import BODIES, COLORS, MATERIAL_INDEX, MATERIALS, TIMES, Array
from alphabar.data.toycars.mesh import Mesh, car_mesh
from alphabar.data.toycars.scenery import BACKGROUNDS, Scenery
from alphabar.errors import unknown


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


def _supersampling(size: int) -> int:
    return 4 if size < 96 else 3


def render(car: Car, size: int = 128) -> Image.Image:
    """The picture of a car, RGB, size x size."""
    mesh, camera = car_mesh(car.body), Camera(car)
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
    mesh, fine = car_mesh(car.body), _supersampling(size)
    picture = Image.new("L", (fine * size, fine * size))
    wanted = [material is None or m == MATERIAL_INDEX[material] for m in mesh.materials.tolist()]
    _paint_faces(picture, mesh, Camera(car), [255 * w for w in wanted])
    return picture.reduce(fine)


def box(car: Car, size: int = 128) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels around the car, including what it hides of itself (a mirror).

    (x0, y0, x1, y1), x1 and y1 exclusive, inside the picture for what ToyCars draws.
    """
    xy = Camera(car).project(car_mesh(car.body).vertices) * size
    (x0, y0), (x1, y1) = np.floor(xy.min(axis=0)), np.ceil(xy.max(axis=0))
    return int(x0), int(y0), int(x1), int(y1)


def _paint_faces(picture: Image.Image, mesh: Mesh, camera: Camera, colors: Sequence[Any]) -> None:
    pen = ImageDraw.Draw(picture)
    xy = [(x, y) for x, y in (camera.project(mesh.vertices) * picture.width).tolist()]
    for f in _visible(mesh, camera):
        pen.polygon([xy[v] for v in mesh.faces[f]], colors[f])
