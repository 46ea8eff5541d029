"""The pinhole camera that a toy car is seen through."""

import math

import numpy as np

from alphabar.data.toycars.car import Car
from alphabar.data.toycars.catalog import Array
from alphabar.data.toycars.mesh import car_mesh

HORIZON = 0.43  # its height in the picture, from above
DISTANCE = 9.0  # metres from the car's middle


class Camera:
    """A pinhole that looks at the car's middle and has the horizon at HORIZON."""

    def __init__(self, car: Car) -> None:
        vertices = car_mesh(car.body).vertices
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
        """How far points (n, 3) are in front of the camera, metres (n,)."""
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
