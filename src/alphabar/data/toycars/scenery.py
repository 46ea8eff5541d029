"""The scenery behind a toy car, by the name of its background."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from alphabar.data.toycars.brush import Brush
from alphabar.data.toycars.camera import HORIZON
from alphabar.data.toycars.catalog import TIMES, Array, Color


class Scenery(Brush):
    """Paints landscapes: what several backgrounds have in common."""

    def sky(self) -> None:
        """The sky above the horizon, with what the time of day puts there."""
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

    def clouds(self) -> None:
        """Two clouds."""
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
        """The plain below the horizon, from its far colour to its near one."""
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
        """A fir of that height whose foot is at (x, base)."""
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
    """How a background is painted, and whether the sky is seen above it."""

    paint: Callable[[Scenery], None]
    sky: bool = True


BACKGROUNDS: dict[str, Background] = {
    "city": Background(_city),
    "countryside": Background(_countryside),
    "sea": Background(_sea),
    "desert": Background(_desert),
    "mountains": Background(_mountains),
    "forest": Background(_forest),
    "snow": Background(_snow),
    "studio": Background(_studio, sky=False),
}
