"""What toy cars are made of: colours, views, times of day, bodies, materials and backgrounds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = tuple[float, float, float]
Point2 = tuple[float, float]
Point3 = tuple[float, float, float]

VERSION = 1  # part of the fingerprint: raise it whenever a picture changes

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


class Material(NamedTuple):
    """The colour and gloss of a part."""

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

BACKGROUND_PHRASES = {
    "city": "in the city",
    "countryside": "in the countryside",
    "sea": "by the sea",
    "desert": "in the desert",
    "mountains": "in the mountains",
    "forest": "in the forest",
    "snow": "in the snow",
    "studio": "in a studio",
}

VALUES: dict[str, list[str]] = {
    "body": list(BODIES),
    "color": list(COLORS),
    "view": list(VIEWS),
    "background": list(BACKGROUND_PHRASES),
    "time": list(TIMES),
}
