"""What is said of bytes that are no picture."""

import pytest

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import read_image


@pytest.mark.parametrize(
    ("data", "identifier", "values"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "codecs.heif", {}),
        (b"\0\0\0\x18ftypqt  \0\0\0\0" + bytes(100), "codecs.film", {"format": "qt"}),
        (b"once upon a time", "codecs.no_picture", {"beginning": "b'once upon a '"}),
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", "codecs.web_page", {}),
        (b"<HTML>", "codecs.web_page", {}),
        (b"%PDF-1.7", "codecs.pdf", {}),
        (b"<?xml version='1.0'?><svg>", "codecs.svg", {}),
        (b"version https://git-lfs.github.com/spec/v1", "codecs.git_lfs", {}),
        (b"", "codecs.empty_file", {}),
        (bytes(2000), "codecs.zeros", {}),
        (bytes(1100) + b"text", "codecs.zeros", {}),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "codecs.bad_header", {}),
    ],
)
def test_bytes_that_are_no_picture_are_told_apart(data, identifier, values):
    with pytest.raises(Unreadable) as refused:
        read_image(data, (8, 8))
    assert refused.value.message.identifier == identifier
    assert refused.value.message.values | values == refused.value.message.values
