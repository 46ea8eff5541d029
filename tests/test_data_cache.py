"""The decoded cache: right pixels, rebuilt when it must be, never used when it is not whole."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.codecs.base import Codec, Reading, Unreadable
from alphabar.codecs.image import ImageCodec
from alphabar.data import dataset as cache
from alphabar.data.channels import choose_channels
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.folder import Folder
from alphabar.data.items import Item
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import DamagedFile
from alphabar.progress import last


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of one colour each, in two classes."""
    root = tmp_path / "pictures"
    for i in range(9):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (25 * i, 10, 200)).save(path)
    return root


def dataset_of(source, size=8, fit="squash") -> Dataset:
    return last(prepare(source, ImageCodec(size), fit))


class Arrays:
    """Pictures in memory as a source."""

    name = "arrays"
    skipped = ()
    notes = ()
    fingerprint = "arrays"

    def __init__(self, pictures, boxes=None):
        self.pictures = pictures
        boxes = boxes or [None] * len(pictures)
        self.items = [Item(str(i), box=box) for i, box in enumerate(boxes)]

    def read(self, item):
        return Image.fromarray(self.pictures[int(item.key)])


# ---------------------------------------------------------------- what is in the dataset


def test_pictures_keys_labels(folder):
    dataset = dataset_of(open_source(folder))
    assert dataset.keys == tuple(sorted(dataset.keys)) and len(dataset.keys) == 9
    assert dataset.classes == ("cats", "dogs")
    assert dataset.items.shape == (9, 8, 8, 3) and dataset.items.dtype == np.uint8
    for key, label, picture in zip(dataset.keys, dataset.labels, dataset.items, strict=True):
        assert dataset.classes[label] == key.split("/")[0]
        assert (picture == (25 * int(key[-5]), 10, 200)).all()


def test_a_picture_of_the_right_size_is_kept_to_the_bit():
    exact = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (3, 16, 16, 3), np.uint8)
    assert (dataset_of(Arrays(exact), 16).items == exact).all()


def test_progress_counts_up_to_the_total(folder, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 4)
    records = list(prepare(open_source(folder), ImageCodec(8)))
    assert [(r.done, r.total) for r in records] == [(0, 9), (4, 9), (8, 9), (9, 9)]
    assert [r.result is None for r in records] == [True, True, True, False]


def test_resizing_antialiases():
    """A one-pixel checkerboard is grey from afar; without antialiasing it is black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    pictures = dataset_of(Arrays([board]), 8).items
    assert np.abs(pictures.astype(int) - 128).max() < 8


# ---------------------------------------------------------------- fits


def ramps(height, width):
    """Red rises from left to right by 1 a pixel, green from top to bottom."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x, y, np.zeros_like(x)], axis=-1)


def seen(pictures):
    """(left, top, right, bottom) of what a decoded ramp shows, in pixels of the original."""
    red, green = pictures[0, ..., 0].astype(float), pictures[0, ..., 1].astype(float)
    return red[:, 0].mean(), green[0].mean(), red[:, -1].mean() + 1, green[-1].mean() + 1


@pytest.mark.parametrize(
    ("fit", "box", "expected"),
    [
        ("squash", None, (0, 0, 200, 100)),
        ("crop", None, (50, 0, 150, 100)),
        ("box", None, (50, 0, 150, 100)),  # nothing annotated: the middle
        ("box", (100, 40, 120, 60), (100, 40, 120, 60)),  # square already
        ("box", (100, 40, 140, 60), (100, 30, 140, 70)),  # grown to a square
        ("box", (100, 0, 140, 20), (100, 0, 140, 40)),  # grown inwards at an edge
        ("box", (180, 10, 200, 90), (120, 10, 200, 90)),
        ("box", (20, 0, 180, 100), (20, 0, 180, 100)),  # cannot grow: squashed
        ("box", (-10, -10, 50, 50), (0, 0, 50, 50)),  # reaches outside: cut
    ],
)
def test_fit_shows_the_right_part(fit, box, expected):
    other = (0, 0, 10, 10)  # so that the source has a box at all
    pictures = dataset_of(Arrays([ramps(100, 200)] * 2, [box, other]), 20, fit).items
    width, height = expected[2] - expected[0], expected[3] - expected[1]
    tolerance = max(width, height) / 20  # one pixel of the result
    assert np.abs(np.subtract(seen(pictures), expected)).max() <= tolerance


def test_a_reduced_jpeg_shows_the_same_part(tmp_path):
    """Large JPEGs are decoded at a reduced scale: the box must be reduced with them."""
    picture = Image.fromarray(ramps(100, 200)).resize((3200, 1600), Image.Resampling.BILINEAR)
    picture.save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    pixels = ImageCodec(20).read(data, "box", (1600, 640, 1920, 960)).item
    assert np.abs(np.subtract(seen(pixels[None]), (100, 40, 120, 60))).max() <= 2


def test_a_box_outside_its_picture_is_skipped():
    dataset = dataset_of(Arrays([ramps(50, 50)] * 2, [(60, 0, 70, 10), (0, 0, 50, 50)]), 8, "box")
    assert dataset.keys == ("1",)
    assert dataset.skipped[0].reason == "its box (60, 0, 70, 10) lies outside the picture of 50×50"


def test_wrong_arguments_are_named(folder):
    source = open_source(folder)
    with pytest.raises(UsageError, match=r"unknown fit 'sqash': did you mean 'squash'"):
        next(prepare(source, ImageCodec(8), "sqash"))
    with pytest.raises(UsageError, match=r"pictures has no annotated boxes.*squash or crop"):
        next(prepare(source, ImageCodec(8), "box"))
    with pytest.raises(UsageError, match=r"size = 0"):
        next(prepare(source, ImageCodec(0)))


# ---------------------------------------------------------------- grey and transparent pictures


def grey_picture(i):
    return np.random.Generator(np.random.PCG64(i)).integers(0, 256, (20, 30, 1), np.uint8).repeat(3, 2)


def channels_of(source) -> int:
    return last(choose_channels(source))


class TestChannels:
    def test_grey_is_found_however_it_is_stored(self, tmp_path):
        for i, (name, mode) in enumerate(
            [("a.png", "RGB"), ("b.png", "L"), ("c.jpg", "RGB"), ("d.png", "RGBA")]
        ):
            Image.fromarray(grey_picture(i)).convert(mode).save(tmp_path / name)
        (tmp_path / "broken.png").write_bytes(b"")
        assert channels_of(open_source(tmp_path)) == 1
        Image.new("RGB", (9, 9), (200, 100, 0)).save(tmp_path / "e.png")
        assert channels_of(open_source(tmp_path)) == 3

    def test_the_answer_is_kept(self, folder, monkeypatch):
        assert channels_of(open_source(folder)) == 3
        monkeypatch.setattr(Folder, "read", lambda *_: pytest.fail("looked again"))
        assert channels_of(open_source(folder)) == 3

    def test_the_search_ends_at_the_first_colours(self, monkeypatch):
        monkeypatch.setattr("alphabar.data.channels.CHUNK", 2)
        source = Arrays([grey_picture(0), ramps(20, 20), *map(grey_picture, range(6))])
        assert [(r.done, r.result) for r in choose_channels(source)] == [(0, None), (8, 3)]

    def test_nothing_readable_is_no_reason_for_grey(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        assert channels_of(open_source(tmp_path)) == 3


def test_notes_say_what_reading_changed():
    source = Arrays([ramps(20, 20), grey_picture(0)])
    dataset = last(prepare(source, ImageCodec(8, 1)))
    assert dataset.items.shape == (2, 8, 8, 1)
    (note,) = dataset.notes
    assert note.startswith("1 of 2 pictures has colours and is converted to grey")
    assert "data.channels=3" in note.in_language("es") and "grises" not in note
    (again,) = last(prepare(source, ImageCodec(8, 1))).notes
    assert again == note and dataset_of(source).notes == []


def test_notes_name_the_option_for_transparency(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
    (note,) = dataset_of(open_source(tmp_path)).notes
    assert note.startswith("1 of 2 pictures is transparent") and "--set data.channels=4" in note
    dataset = last(prepare(open_source(tmp_path), ImageCodec(8, 4)))
    assert dataset.items.shape == (2, 8, 8, 4) and dataset.notes == []
    assert dataset.items[..., 3].mean((1, 2)).tolist() == [0, 255]


def test_each_shape_has_a_cache_of_its_own_and_its_bits_are_pinned(folder):
    codecs = [ImageCodec(8), ImageCodec(8, 1), ImageCodec(8, 4), ImageCodec((8, 12)), ImageCodec((12, 8))]
    datasets = [last(prepare(open_source(folder), codec)) for codec in codecs]
    assert len(list((cache_root() / "datasets").iterdir())) == len(codecs)
    for codec, dataset in zip(codecs, datasets, strict=True):
        assert dataset.items.shape == (9, *codec.item_shape) and dataset.items.dtype == np.uint8


def test_a_codec_that_breaks_its_promise_is_refused(folder):
    class Lossy(ImageCodec):
        name = "lossy"

        def decode(self, signals):
            return super().decode(signals) & 0xF0

    with pytest.raises(UsageError, match="'lossy' does not decode what it encodes"):
        list(prepare(open_source(folder), Lossy(8)))


def test_another_kind_of_item_needs_a_codec_alone(tmp_path):
    """Data knows no pictures: text files as waves of 16-bit numbers."""

    class Waves(Codec):
        name, shape, item_shape, item_dtype = "waves", (1, 32), (32,), np.dtype("<i2")
        bounds, fits, suffix, tolerance = None, ("cut",), ".txt", 1.0

        def read(self, data, fit, box=None):
            if len(data) < 32:
                raise Unreadable.because("too short")
            return Reading(np.frombuffer(data[:32], np.uint8).astype(np.int16))

        def encode(self, items):
            return items[:, None].float() / 1000

        def decode(self, signals):
            return (signals[:, 0] * 1000).to(torch.int16)

        def preview(self, items):
            raise NotImplementedError

        write = coarsen = refine = preview

    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(bytes([i]) * (40 if i else 1))
    dataset = last(prepare(open_source(tmp_path), Waves(), "cut"))
    assert dataset.items.tolist() == [[1] * 32, [2] * 32] and dataset.items.dtype == np.int16
    assert [str(skip.reason) for skip in dataset.skipped] == ["too short"]


# ---------------------------------------------------------------- the split


def test_split_covers_all_and_follows_the_share():
    hashes = np.random.Generator(np.random.PCG64(1)).random(20_000)
    dataset = Dataset("", np.empty(0), (), np.empty(0), (), (), (), (), "", hashes)
    for share in (0.0, 0.1, 0.5):
        train, held = dataset.split(share)
        assert sorted([*train, *held]) == list(range(20_000))
        assert abs(len(held) / 20_000 - share) < 0.01
        assert train.dtype == held.dtype == np.int64
    smaller, larger = dataset.split(0.1)[1], dataset.split(0.2)[1]
    assert set(smaller) < set(larger)
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match=r"held_out"):
            dataset.split(wrong)


def test_hashes_are_spread_evenly_and_follow_the_bytes(folder):
    first = dataset_of(open_source(folder))
    assert ((first.hashes >= 0) & (first.hashes < 1)).all()
    assert len(set(first.hashes)) == 9
    (folder / "dogs" / "0.png").rename(folder / "cats" / "renamed.png")
    (folder / "cats" / "copy.png").write_bytes((folder / "dogs" / "2.png").read_bytes())
    second = dataset_of(open_source(folder))
    at = dict(zip(second.keys, second.hashes, strict=True))
    before = dict(zip(first.keys, first.hashes, strict=True))
    assert at["cats/renamed.png"] == before["dogs/0.png"]
    assert at["cats/copy.png"] == at["dogs/2.png"]


# ---------------------------------------------------------------- cached, rebuilt, never half


def test_decoded_once(folder, monkeypatch):
    first = dataset_of(open_source(folder))
    monkeypatch.setattr(ImageCodec, "read", lambda *_: pytest.fail("decoded again"))
    second = dataset_of(open_source(folder))
    assert second.fingerprint == first.fingerprint
    assert (second.items == first.items).all()
    assert (second.keys, second.classes, second.captions, second.attributes, second.skipped) == (
        first.keys, first.classes, first.captions, first.attributes, first.skipped,
    )  # fmt: skip
    assert (second.hashes == first.hashes).all() and (second.labels == first.labels).all()


def test_moving_the_folder_keeps_the_cache(folder, monkeypatch):
    first = dataset_of(open_source(folder))
    moved = folder.rename(folder.with_name("elsewhere"))
    monkeypatch.setattr(ImageCodec, "read", lambda *_: pytest.fail("decoded again"))
    second = dataset_of(open_source(moved))
    assert second.fingerprint == first.fingerprint and second.name == "elsewhere"


def touch_later(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: Image.new("RGB", (20, 10), (1, 2, 3)).save(root / "dogs" / "new.png"),
        lambda root: (root / "dogs" / "0.png").unlink(),
        lambda root: (root / "dogs" / "0.png").rename(root / "dogs" / "00.png"),
        lambda root: touch_later(root / "dogs" / "0.png"),
        lambda root: (root / "dogs" / "0.txt").write_text("a dog"),
    ],
    ids=["added", "removed", "renamed", "edited", "captioned"],
)
def test_a_change_is_noticed(folder, change):
    before = open_source(folder).fingerprint
    assert open_source(folder).fingerprint == before
    change(folder)
    assert open_source(folder).fingerprint != before


def test_size_and_fit_have_caches_of_their_own(folder):
    source = open_source(folder)
    assert dataset_of(source, 8).items.shape[1] == 8
    assert dataset_of(source, 4).items.shape[1] == 4
    assert dataset_of(source, 8, "crop").fingerprint is not None
    assert len(list((cache_root() / "datasets").iterdir())) == 3


def only_cache():
    (folder,) = (cache_root() / "datasets").iterdir()
    return folder


def flipped(name, place):
    """Damage of one bit, by its place in the file as a share of it."""

    def harm(at):
        data = bytearray((at / name).read_bytes())
        data[int(place * len(data))] ^= 1
        (at / name).write_bytes(data)

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        *(flipped("items.npy", place) for place in (0.0, 0.3, 0.9, 0.999)),
        *(flipped("index.json", place) for place in (0.01, 0.2, 0.5, 0.8, 0.97)),
        flipped("sums.json", 0.5),
        lambda at: (at / "sums.json").unlink(),
        lambda at: (at / "index.json").unlink(),
        lambda at: (at / "index.json").write_text("{"),
        lambda at: (at / "index.json").write_text("[]"),
        lambda at: (at / "items.npy").unlink(),
        lambda at: (at / "items.npy").write_bytes(b""),
        lambda at: os.truncate(at / "items.npy", (at / "items.npy").stat().st_size - 1),
        lambda at: os.truncate(at / "items.npy", (at / "items.npy").stat().st_size + 1),
        lambda at: np.save(at / "items.npy", np.zeros((8, 8, 8, 3), np.uint8)),
        lambda at: np.save(at / "items.npy", np.zeros((9, 8, 8, 3), np.float32)),
        lambda at: (at / "index.json").write_text(
            json.dumps(json.loads((at / "index.json").read_text()) | {"labels": [0]})
        ),
    ],
)
def test_a_damaged_cache_is_rebuilt(folder, harm):
    good = dataset_of(open_source(folder))
    pictures, labels = np.array(good.items), good.labels
    del good
    harm(only_cache())
    with pytest.warns(DamagedFile, match="made again"):
        again = dataset_of(open_source(folder))
    assert (again.items == pictures).all()
    assert again.labels.tolist() == labels.tolist()
    assert sorted(path.name for path in only_cache().iterdir()) == ["index.json", "items.npy", "sums.json"]


def test_writing_to_the_pictures_does_not_reach_the_file(folder):
    dataset = dataset_of(open_source(folder))
    torch.from_numpy(dataset.items).zero_()
    assert (dataset_of(open_source(folder)).items != 0).any()


def test_closing_midway_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 2)
    records = prepare(open_source(folder), ImageCodec(8))
    next(records)
    next(records)
    records.close()
    assert list((cache_root() / "datasets").iterdir()) == []


def _prepare_slowly(folder, started):
    plain = ImageCodec.read

    def slow(*arguments):
        started.set()
        time.sleep(0.2)
        return plain(*arguments)

    ImageCodec.read = slow
    dataset_of(open_source(folder))


def test_kill_9_leaves_no_half_cache(folder):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_prepare_slowly, args=(folder, started))
    process.start()
    assert started.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (partial,) = (cache_root() / "datasets").iterdir()
    assert ".partial-" in partial.name
    assert len(dataset_of(open_source(folder)).items) == 9
    os.utime(partial, (0, 0))
    dataset_of(open_source(folder), 4)  # the next one to write clears away what is older than a day
    assert not partial.exists()


def _prepare_and_hash(folder, out):
    out.put(dataset_of(open_source(folder)).fingerprint)


def test_two_processes_at_once(folder):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=_prepare_and_hash, args=(folder, out)) for _ in range(3)]
    for process in processes:
        process.start()
    assert len({out.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join()
    assert only_cache().is_dir()


def test_an_unwritable_cache_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "file"))
    with pytest.raises(AlphabarError, match=r"cache .* cannot be written.*ALPHABAR_CACHE"):
        dataset_of(open_source(folder))


def test_a_full_disk_is_named_and_leaves_nothing(folder, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AlphabarError, match=r"cache .* cannot be written: No space left on device"):
        dataset_of(open_source(folder))
    assert list((cache_root() / "datasets").iterdir()) == []


def test_cache_root(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "cache"  # ALPHABAR_CACHE wins
    monkeypatch.delenv("ALPHABAR_CACHE")
    assert cache_root() == tmp_path / "alphabar"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "alphabar"


def test_the_fingerprint_is_pinned():
    """It names trainings' data on every machine: a change of its recipe must be deliberate."""
    pictures = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert dataset_of(Arrays(pictures), 4).fingerprint == (
        "b2fab9cc896cb89992752a2bfc1b63df5b593f84a7eb508424def6b76a0dd793"
    )


def test_the_fingerprint_follows_pixels_keys_and_labels(folder):
    first = dataset_of(open_source(folder)).fingerprint
    touch_later(folder / "dogs" / "0.png")
    assert dataset_of(open_source(folder)).fingerprint == first
    (folder / "dogs").rename(folder / "wolves")
    second = dataset_of(open_source(folder)).fingerprint
    Image.new("RGB", (20, 10), (9, 9, 9)).save(folder / "wolves" / "0.png")
    assert len({first, second, dataset_of(open_source(folder)).fingerprint}) == 3
