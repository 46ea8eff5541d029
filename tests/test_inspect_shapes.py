"""What counts as grey, as a wide picture and as annotated, and the pictures that metrics see."""

import numpy as np
import pytest
from PIL import Image

from alphabar.codecs.image import ImageCodec
from alphabar.codecs.image_files import is_grey
from alphabar.data.items import Item
from alphabar.metrics.pictures import metric_pictures, picture_protocol
from test_data_inspect import Files, encoded, report_of


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_of_opposite_colours_are_not_grey(axis):
    stripes = np.zeros((30, 30, 3), np.uint8)
    red, cyan = np.arange(30) % 2 == 0, np.arange(30) % 2 == 1
    stripes.swapaxes(0, axis)[red] = (255, 0, 0)
    stripes.swapaxes(0, axis)[cyan] = (0, 255, 255)
    assert not is_grey(stripes) and is_grey(np.full_like(stripes, 128))


@pytest.mark.parametrize(
    ("size", "name"), [((220, 100), "over 2:1"), ((190, 100), "4:3 to 2:1"), ((100, 220), "under 1:2")]
)
def test_a_shape_is_named_and_boxes_are_counted(size, name):
    files = {"a": encoded(Image.new("RGB", size, (9, 90, 200)))}
    report = report_of(Files(files))
    assert {name: n for name, n in report.aspects.items() if n} == {name: 1}
    assert not any(line.startswith("annotated boxes") for line in report.lines())
    boxed = report_of(Files(files, items=[Item("a", box=(10, 10, 80, 80))]))
    assert "annotated boxes: 1 of 1 picture" in boxed.lines()


def test_metrics_see_colour_pictures_as_they_are():
    items = np.zeros((2, 8, 8, 3), np.uint8)
    assert metric_pictures(ImageCodec(8), items) is items
    assert picture_protocol(ImageCodec(8), "features") == "features"
