"""Captions in text files beside pictures."""

import re
from collections.abc import Mapping
from pathlib import Path

from alphabar.data.names import stem
from alphabar.data.table_files import CODE_PAGE, read_text
from alphabar.formatting import folded
from alphabar.messages import Message, message

CAPTION_SUFFIXES = (".txt", ".caption")

LARGEST_CAPTION = 64 * 2**10  # bytes

NUMBER = re.compile(r"[-+]?\.?\d[\d.e+-]*")

NUMBERS_OF_A_BOX = 5  # in a line of YOLO's: a class and a box


class Captions:
    """The captions in files beside pictures: "a.txt" or "a.caption", also "a.jpg.txt", for "a.jpg".

    files: those that may hold one, by their keys. Case and Unicode normalization make no difference, unless
    there are two files. Files of nothing but numbers, such as those of object detectors, are no captions.
    """

    def __init__(self, files: Mapping[str, Path]):
        self._files = dict(files)
        self._folded: dict[str, str] = {}
        for key in files:
            self._folded.setdefault(folded(key), key)
        self._used: set[str] = set()
        self._code_page: list[str] = []
        self._numbers: list[str] = []

    def take(self, key: str) -> str | None:
        """The caption beside the picture of a key, None where there is none.

        Pictures that differ in their suffix, such as a raw file and its JPEG, share a caption.
        """
        exact = [f"{start}{suffix}" for start in (stem(key), key) for suffix in CAPTION_SUFFIXES]
        other = [self._folded.get(folded(name), "") for name in exact]
        for beside in dict.fromkeys((*exact, *other)):
            path = self._files.get(beside)
            if path is None:
                continue
            text = self._read(path, key)
            if text is not None:
                self._used.add(beside)  # and it stays: "a.cr2" and "a.jpg" have one "a.txt"
                return text or None
        return None

    def _read(self, path: Path, key: str) -> str | None:
        """The text of a caption; None where the file holds none."""
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST_CAPTION)
            text, encoding = read_text(data, cut=len(data) == LARGEST_CAPTION)
        except (OSError, UnicodeDecodeError):
            return None
        lines = [line.split() for line in text.split("\n") if line.strip()]
        if lines and all(len(ws) >= NUMBERS_OF_A_BOX and all(map(NUMBER.fullmatch, ws)) for ws in lines):
            self._numbers.append(key)
            return None
        if encoding == CODE_PAGE:
            self._code_page.append(key)
        return text.strip()

    @property
    def unused(self) -> dict[str, Path]:
        """The files that no picture took for its caption, by their keys."""
        return {key: path for key, path in self._files.items() if key not in self._used}

    @property
    def notes(self) -> list[Message]:
        """What a person should know about how captions were read."""
        kinds = {"data.captions_code_page": self._code_page, "data.captions_numbers": self._numbers}
        return [message(kind, count=len(keys), first=keys[0]) for kind, keys in kinds.items() if keys]
