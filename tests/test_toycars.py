"""The drawn cars are what their attributes say, and depend on (seed, i) alone."""

from collections import Counter
from dataclasses import replace
from hashlib import sha256
from itertools import product

import numpy as np
import pytest
from PIL import Image

from alphabar.data.items import Source
from alphabar.data.sources import open_source
from alphabar.data.toycars.camera import Camera
from alphabar.data.toycars.car import Car
from alphabar.data.toycars.catalog import BODIES, COLORS, TIMES, VALUES, VIEWS
from alphabar.data.toycars.render import box, mask, render
from alphabar.data.toycars.scenery import BACKGROUNDS
from alphabar.data.toycars.source import ToyCars
from alphabar.errors import UsageError

CAR = Car("sedan", "red", "left", "city", "day")


def _digest(picture: Image.Image) -> str:
    return sha256(picture.tobytes()).hexdigest()


def _mean(picture: Image.Image, weight: Image.Image | None = None) -> np.ndarray:
    pixels = np.asarray(picture, dtype=float)
    w = np.ones(pixels.shape[:2]) if weight is None else np.asarray(weight) >= 250
    return (pixels * w[..., None]).sum((0, 1)) / w.sum()


def test_is_a_source():
    source: Source = open_source("toycars:3")
    assert source.name == "toycars" and len(source.items) == 3 and not source.skipped
    item = source.items[2]
    picture = source.read(item)
    assert item.key == "toycars/000002.png" and isinstance(picture, Image.Image)
    assert picture.mode == "RGB" and picture.size == (128, 128)
    assert item.label == item.attributes["body"] and item.label in item.caption


def test_a_picture_depends_on_seed_and_number_alone():
    small, large = ToyCars(5, size=32), ToyCars(50, size=32)
    forward = [_digest(small.read(item)) for item in small.items]
    backward = [_digest(large.read(large.items[i])) for i in (4, 3, 2, 1, 0)]
    assert forward == backward[::-1]
    assert list(small.items) == list(large.items[:5])
    assert len(set(forward)) == 5
    other = ToyCars(5, seed=1, size=32)
    assert {_digest(other.read(item)) for item in other.items}.isdisjoint(forward)  # not even shifted


def test_fingerprint_changes_with_whatever_changes_the_pictures():
    plain = {"n": 5, "seed": 0, "size": 32}
    changes = [{"n": 6}, {"seed": 1}, {"size": 64}, {"weights": {"color": {"red": 1}}}]
    prints = [ToyCars(**(plain | change)).fingerprint for change in [{}, {}, *changes]]
    assert prints[0] == prints[1] and len(set(prints)) == 1 + len(changes)


def test_attributes_are_uniform_and_independent():
    source = ToyCars()
    cars = [source.car(i) for i in range(3000)]
    for attribute, values in VALUES.items():
        counts = Counter(getattr(car, attribute) for car in cars)
        expected = len(cars) / len(values)
        chi2 = sum((counts[value] - expected) ** 2 / expected for value in values)
        assert chi2 < 40, attribute  # 9 degrees of freedom at most: p < 1e-5
    for a, b in (("body", "color"), ("color", "time"), ("view", "background"), ("body", "view")):
        joint = Counter((getattr(car, a), getattr(car, b)) for car in cars)
        cells = list(product(VALUES[a], VALUES[b]))
        expected = len(cars) / len(cells)
        chi2 = sum((joint[cell] - expected) ** 2 / expected for cell in cells)
        freedom = len(cells) - 1
        assert chi2 < freedom + 5 * (2 * freedom) ** 0.5, (a, b)


def test_weights_bias_one_attribute_and_leave_the_others():
    plain = ToyCars()
    biased = ToyCars(weights={"color": {"red": 3, "blue": 1}})
    cars = [biased.car(i) for i in range(1000)]
    share = sum(car.color == "red" for car in cars) / len(cars)
    assert {car.color for car in cars} == {"red", "blue"} and abs(share - 0.75) < 0.05
    assert all(replace(car, color="red") == replace(plain.car(i), color="red") for i, car in enumerate(cars))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 0}, "n = 0"),
        ({"size": 4}, "size = 4"),
        ({"weights": {"colour": {"red": 1}}}, "color"),
        ({"weights": {"color": {"rad": 1}}}, "red"),
        ({"weights": {"color": {"red": -1}}}, "'red' is -1"),
        ({"weights": {"color": {"red": 0}}}, "all 0"),
        ({"weights": {"color": {}}}, "all 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(arguments, said):
    with pytest.raises(UsageError, match=said):
        ToyCars(**arguments)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'sedan'"):
        replace(CAR, body="sedam")


@pytest.mark.parametrize("body", BODIES)
def test_box_is_tight_around_the_car_and_inside_the_frame(body):
    for view, turn in product(VIEWS, (-12, 12)):
        car = replace(CAR, body=body, view=view, turn=turn, scale=1.04, shift=0.03)
        x0, y0, x1, y1 = box(car, 64)
        rows, columns = np.nonzero(np.asarray(mask(car, 64)))
        assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
        slack = np.subtract((columns.min(), rows.min(), x1, y1), (x0, y0, columns.max() + 1, rows.max() + 1))
        assert slack.min() >= -1  # a pen draws the pixels that a line touches
        assert max(slack[1], slack[3]) <= 1, view
        assert max(slack[0], slack[2]) <= (1 if view in ("left", "right") else 3), (
            view
        )  # a mirror may be hidden


def test_mask_is_where_the_car_is():
    """Two cars in one scenery differ inside their masks, and the ground's shadow aside nowhere else."""
    red, blue = CAR, replace(CAR, color="blue")
    differs = np.abs(np.asarray(render(red), dtype=int) - np.asarray(render(blue), dtype=int)).max(2) > 0
    covered = np.asarray(mask(red))
    assert not (differs & (covered == 0)).any()
    assert differs[np.asarray(mask(red, material="paint")) == 255].all()
    assert (np.asarray(mask(red, material="paint")) <= covered).all()


GREYS = ("black", "silver", "white")


def _chroma(rgb) -> np.ndarray:
    centered = np.asarray(rgb, dtype=float) - np.mean(rgb)
    return centered / np.linalg.norm(centered)


@pytest.mark.parametrize("color", COLORS)
def test_paint_has_the_hue_of_its_name(color):
    """By day the nearest of all; tinted light may at most bring one neighbour nearer. Greys by brightness."""
    for (body, view), time in zip(zip(BODIES, [*VIEWS, *VIEWS]), ["day", "day", "dusk"] * 4):
        car = replace(CAR, body=body, view=view, color=color, time=time)
        mean = _mean(render(car, 48), mask(car, 48, "paint"))
        saturation = np.ptp(mean) / mean.max()
        if color not in GREYS:
            ranked = sorted(set(COLORS) - set(GREYS), key=lambda name: -_chroma(mean) @ _chroma(COLORS[name]))
            assert color in ranked[: 1 if time == "day" else 2], (body, view, mean)
            assert saturation > 0.4, (body, view, mean)
        elif time == "day":
            assert saturation < 0.35, (body, view, mean)
            low, high = {"black": (0, 80), "silver": (100, 170), "white": (180, 256)}[color]
            assert low <= mean.mean() < high, (body, view, mean)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_hours_are_ordered_by_brightness(background):
    brightness = {
        time: np.mean(
            [_mean(render(replace(CAR, background=background, time=time, scenery=k), 32)) for k in range(3)]
        )
        for time in TIMES
    }
    assert brightness["night"] < 0.75 * brightness["dusk"] < 0.75 * brightness["day"]
    assert brightness["dusk"] < brightness["dawn"] < brightness["day"] * 1.05
    dusk, day = (_mean(render(replace(CAR, background=background, time=t), 32)) for t in ("dusk", "day"))
    assert dusk[0] / dusk[2] > day[0] / day[2] + 0.1  # dusk is redder


def test_lamps_shine_at_dusk_and_night_only():
    for time, light in TIMES.items():
        car = replace(CAR, view="front", time=time, background="forest", color="black")
        lamps = _mean(render(car, 64), mask(car, 64, "headlamp"))
        paint = _mean(render(car, 64), mask(car, 64, "paint"))
        assert light.lamps == (time in ("dusk", "night"))
        assert lamps.min() > (200 if light.lamps else 100) > paint.max()


@pytest.mark.parametrize("body", BODIES)
def test_left_and_right_are_mirror_images(body):
    for left, right in (("left", "right"), ("front left", "front right"), ("rear left", "rear right")):
        a = np.asarray(mask(replace(CAR, body=body, view=left, turn=5), 64), dtype=int)
        b = np.asarray(mask(replace(CAR, body=body, view=right, turn=-5), 64), dtype=int)
        covered = (a > 127).mean()
        assert ((a > 127) != (b[:, ::-1] > 127)).mean() < 0.03 * covered


def test_the_camera_stands_where_the_view_says():
    nose, tail, left = np.array([[2.0, 0, 0.5], [-2.0, 0, 0.5], [0, 0.9, 0.5]])
    for view in VIEWS:
        camera = Camera(replace(CAR, view=view))
        ends = [camera.depth(end[None])[0] for end in (nose, tail)]
        if "front" in view:
            assert ends[0] < ends[1] - 1
        if "rear" in view:
            assert ends[1] < ends[0] - 1
        if "left" in view:
            assert camera.depth(left[None])[0] < camera.depth(-left[None] + [0, 0, 1])[0]
    # Seen from its left side, a car drives to the left of the picture.
    xy = Camera(replace(CAR, view="left")).project(np.array([nose, tail]))
    assert xy[0, 0] < 0.5 < xy[1, 0]


def test_headlamps_from_the_front_and_taillamps_from_the_rear():
    for body, view in product(BODIES, VIEWS):
        car = replace(CAR, body=body, view=view)
        head, tail = (np.asarray(mask(car, 32, lamp)).any() for lamp in ("headlamp", "taillamp"))
        if "front" in view:
            assert head and not tail, (body, view)
        if "rear" in view:
            assert tail and not head, (body, view)


def test_bodies_have_different_shapes():
    """At 64 pixels, no two bodies share a silhouette from the side."""
    masks = {b: np.asarray(mask(replace(CAR, body=b), 64)) > 127 for b in BODIES}
    names = list(BODIES)
    for i, a in enumerate(names):
        for b in names[:i]:
            either, both = (masks[a] | masks[b]).sum(), (masks[a] & masks[b]).sum()
            assert both / either < 0.95, (a, b, both / either)


def test_captions_read_naturally():
    car = Car("pickup", "red", "left", "desert", "night")
    assert car.caption == "a red pickup seen from the left in the desert at night"
    orange = Car("SUV", "orange", "front right", "sea", "day")
    assert orange.caption == "an orange SUV seen from the front right by the sea by day"
    source = ToyCars()
    for car in (source.car(i) for i in range(100)):
        assert all(word in car.caption for word in (car.body, car.color, car.view, car.background))


def test_numbers_in_the_attributes_are_those_of_the_drawing():
    source = ToyCars(40, size=32)
    for i, item in enumerate(source.items):
        car = source.car(i)
        offset = (item.attributes["azimuth"] - VIEWS[car.view] + 180) % 360 - 180
        assert abs(offset) <= 12.01 and abs(offset - car.turn) < 0.011
        assert 0.86 <= item.attributes["scale"] <= 1.04
        assert item.box == box(car, 32)
        assert all(item.attributes[name] == getattr(car, name) for name in VALUES)
