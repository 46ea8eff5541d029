"""What the scenery of a toy car is painted with: flat shapes in the light of a time of day."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from alphabar.data.toycars.camera import Camera
from alphabar.data.toycars.car import Car
from alphabar.data.toycars.catalog import TIMES, Array, Color, Point2
from alphabar.data.toycars.mesh import circle


class Brush:
    """Paints shapes on a picture in the light of the car's time of day.

    Points and lengths are those of the picture (0 to 1, right and down), colours sRGB. haze (0 to 1) takes a
    colour towards the horizon's, alpha (0 to 1) says how much it covers.
    """

    def __init__(self, car: Car, camera: Camera, picture: Image.Image) -> None:
        self.light = TIMES[car.time]
        self.camera = camera
        self.picture = picture
        self.size = picture.width
        self.pen = ImageDraw.Draw(picture, "RGBA")
        self.rng = np.random.Generator(np.random.Philox(key=car.scenery))

    def tone(self, color: Color, haze: float = 0.0) -> tuple[int, int, int]:
        """The colour as levels, in this light and haze."""
        r, g, b = (
            round(c * s * (1 - haze) + h * haze)
            for c, s, h in zip(color, self.light.scenery, self.light.horizon)
        )
        return r, g, b

    def fill(
        self, points: Array | Sequence[Point2], color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        """A polygon of points (n, 2)."""
        flat = (np.asarray(points) * self.size).ravel().tolist()
        self.pen.polygon(flat, (*self.tone(color, haze), round(255 * alpha)))

    def block(
        self, x0: float, y0: float, x1: float, y1: float, color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        """A rectangle."""
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, haze, alpha)

    def glow(self, points: Array, color: Color, alpha: float) -> None:
        """A polygon of light, (n, 2): not darkened by the hour."""
        if len(points) > 2:
            r, g, b = (round(c) for c in color)
            self.pen.polygon((points * self.size).ravel().tolist(), (r, g, b, round(255 * alpha)))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, color: Color, haze: float = 0.0, alpha: float = 1.0
    ) -> None:
        """An ellipse about (x, y)."""
        box = [self.size * c for c in (x - rx, y - ry, x + rx, y + ry)]
        self.pen.ellipse(box, (*self.tone(color, haze), round(255 * alpha)))

    def gradient(self, top: float, bottom: float, colors: Sequence[Color]) -> None:
        """All across the picture, evenly spaced colours from the height top to the height bottom."""
        y0, y1 = round(top * self.size), round(bottom * self.size)
        t = np.linspace(0, len(colors) - 1, y1 - y0)
        rows = np.stack([np.interp(t, np.arange(len(colors)), c) for c in zip(*colors)], axis=1)
        strip = Image.fromarray(rows.round().astype(np.uint8)[:, None])
        self.picture.paste(strip.resize((self.size, y1 - y0), Image.Resampling.NEAREST), (0, y0))

    def disc(self, x: float, y: float, r: float, color: Color, alpha: float) -> None:
        """A disc of light about (x, y)."""
        self.glow(np.array(circle(x, y, r, 40)), color, alpha)
