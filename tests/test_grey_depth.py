"""Which level is white: of 16 bits, of 32 bits and of floating point."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from alphabar.codecs.image_files import full_pixels

RAMP = np.linspace(0, 1, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("kind", "values", "white"),
    [
        ("PNG", (RAMP * 65535).astype(np.uint16), 65535),
        ("PNG", (RAMP * 1000).astype(np.uint16), 65535),
        ("TIFF", (RAMP * 300).astype(np.uint16), 65535),
        ("TIFF", (RAMP * 65535).astype(np.int32), 65535),
        ("TIFF", (RAMP * 256).astype(np.int32), 65535),
        ("TIFF", (RAMP * 255).astype(np.int32), 255),
        ("TIFF", (RAMP > 0.5).astype(np.int32), 255),
        ("TIFF", RAMP.astype(np.float32), 1),
        ("TIFF", (RAMP * 2).astype(np.float32), 255),
        ("TIFF", (0.2 + RAMP / 2).astype(np.float32), 1),
    ],
)
def test_white_is_what_the_kind_of_numbers_means(kind, values, white):
    data = BytesIO()
    Image.fromarray(values).save(data, kind)
    shown = np.rint(values * (255 / white))
    assert np.array_equal(full_pixels(data.getvalue()), np.repeat(shown[..., None], 3, axis=2))


@pytest.mark.parametrize("values", [RAMP * 4 - 1, RAMP * 1e6])
def test_numbers_without_an_agreed_white_are_stretched(values):
    data = BytesIO()
    Image.fromarray(values.astype(np.float32)).save(data, "TIFF")
    found = full_pixels(data.getvalue())[..., 0]
    assert np.abs(found - RAMP * 255).max() <= 0.5 + 1e-3
