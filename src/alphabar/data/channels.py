"""How many channels a picture model needs for its data: one where every picture is grey, else three."""

import hashlib
import json
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from alphabar.codecs.base import Unreadable, quietly
from alphabar.codecs.image_files import GREY_SIDE, is_grey, read_image
from alphabar.data.dataset import CHUNK, cache_root
from alphabar.data.items import Item, Source, read
from alphabar.files import Damaged, read_document, warn_of_cache, write_document, writing
from alphabar.messages import message
from alphabar.progress import Progress

VERSION = 1  # raise it when the same files give another answer


def choose_channels(source: Source) -> Iterator[Progress[int]]:
    """Look for colour; the last record has 1 where every readable picture is grey, else 3.

    A picture is grey where ``is_grey`` says so of its thumbnail, however it is stored. Alpha is never chosen
    by itself (``data.channels=4`` asks for it): grey and colour are judged on white.
    The search ends at the first pictures with colour, and its result is kept in the cache folder.
    Raises AlphabarError where the cache folder cannot be written.
    """
    key = hashlib.sha256(json.dumps([source.fingerprint, VERSION]).encode()).hexdigest()[:32]
    path = cache_root() / "channels" / f"{key}.json"
    total = len(source.items)
    try:
        channels = int(read_document(path)["channels"])
    except (FileNotFoundError, Damaged, KeyError) as problem:
        if isinstance(problem, Damaged):
            warn_of_cache(path)
        channels = yield from _search(source)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_document(path, {"channels": channels})
    yield Progress(message("data.stage_color"), total, total, channels)


def _search(source: Source) -> Generator[Progress[int], None, int]:
    total, seen = len(source.items), 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, total, CHUNK):
            yield Progress(message("data.stage_color"), start, total)
            with quietly():
                answers = list(
                    pool.map(lambda item: _grey(source, item), source.items[start : start + CHUNK])
                )
            if False in answers:
                return 3
            seen += answers.count(True)
    return 1 if seen else 3


def _grey(source: Source, item: Item) -> bool | None:
    """Whether an item is grey; None where it cannot be read."""
    try:
        return is_grey(read_image(read(source, item), (GREY_SIDE, GREY_SIDE)).pixels)
    except Unreadable:
        return None
