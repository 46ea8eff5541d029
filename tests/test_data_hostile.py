"""Odd pictures come out right, bad ones are named, nothing crashes, nothing floods the screen."""

import json
import warnings

import numpy as np
import pytest

import hostile
from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import prepare
from alphabar.data.inspect import inspect
from alphabar.data.items import Skipped
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError

CASES = hostile.cases()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "pictures"
    hostile.write(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """The dataset of the whole corpus, and whatever was warned about meanwhile."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        patch.setenv("ALPHABAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        *_, last = prepare(open_source(corpus), ImageCodec(hostile.SIZE))
    return last.result, warned


def test_the_corpus_is_large_enough():
    assert sum(case.expected is None and not case.ignored for case in CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: hostile.key(case.name))
def test_right_or_skipped_with_its_reason(case, prepared):
    dataset, _ = prepared
    key = hostile.key(case.name)
    reasons = {skip.key: skip.reason for skip in dataset.skipped}
    if case.ignored:
        assert key not in dataset.keys and key not in reasons
    elif case.expected is None:
        assert key not in dataset.keys
        assert case.reason in reasons[key]
        assert "\n" not in reasons[key]
        assert reasons[key].in_language("es") != reasons[key]
    else:
        assert key not in reasons, reasons.get(key)
        pixels = dataset.items[dataset.keys.index(key)].astype(float)
        assert np.abs(pixels - case.expected).mean() < case.tolerance
        # No single region may be wrong either: the middle of each quadrant, far from every edge.
        for y, x in ((8, 8), (8, 24), (24, 8), (24, 24)):
            assert np.abs(pixels[y, x] - case.expected[y, x]).max() < 16


def test_nothing_is_warned_about(prepared):
    assert [str(warning.message) for warning in prepared[1]] == []


def test_nothing_is_lost(prepared):
    dataset, _ = prepared
    listed = [*dataset.keys, *(skip.key for skip in dataset.skipped)]
    assert sorted(listed) == sorted(hostile.key(case.name) for case in CASES if not case.ignored)


def test_inspect_sees_what_training_would_see(corpus, prepared):
    dataset, _ = prepared
    *_, last = inspect(corpus)
    assert last.result.pictures == len(dataset.items)
    assert sorted(last.result.skipped, key=lambda skip: skip.key) == sorted(
        dataset.skipped, key=lambda skip: skip.key
    )
    assert any("2 files are not pictures" in note for note in last.result.notes)


def test_reasons_keep_their_languages_in_the_cache(prepared):
    dataset, _ = prepared
    stored = json.loads(json.dumps([skip.to_dict() for skip in dataset.skipped]))
    again = [Skipped.from_dict(skip) for skip in stored]
    assert again == list(dataset.skipped)
    assert [a.reason.in_language("es") for a in again] == [
        s.reason.in_language("es") for s in dataset.skipped
    ]


def test_a_file_that_vanishes_after_listing_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(hostile.JPEG)
    source = open_source(folder)
    (folder / "a.jpg").unlink()
    *_, last = prepare(source, ImageCodec(16))
    assert last.result.keys == ("b.jpg",)
    assert "vanished" in last.result.skipped[0].reason


def test_a_file_without_permission_is_skipped(tmp_path, monkeypatch, permissions_hold):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(hostile.JPEG)
    (tmp_path / "a.jpg").chmod(0)
    *_, last = prepare(open_source(tmp_path), ImageCodec(16))
    assert "permission" in last.result.skipped[0].reason


def test_every_error_of_reading_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(hostile.JPEG)
    source = open_source(folder)
    errors = {"a.jpg": PermissionError(13, "Permission denied"), "b.jpg": OSError(5, "Input/output error")}
    plain = source.read

    def read(item):
        if item.key in errors:
            raise errors[item.key]
        return plain(item)

    monkeypatch.setattr(source, "read", read)
    *_, last = prepare(source, ImageCodec(16))
    assert [skip.reason for skip in last.result.skipped] == [
        "no permission to read it",
        "cannot be read: Input/output error",
    ]
    # Nothing about the folder tells when they can be read again, so they are tried the next time.
    errors.clear()
    *_, last = prepare(source, ImageCodec(16))
    assert last.result.keys == ("a.jpg", "b.jpg", "c.jpg") and last.result.skipped == ()


def test_nothing_decodable_says_how_many_and_why(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        (folder / name).write_bytes(b"")
    source = open_source(folder)
    for attempt in (lambda: list(prepare(source, ImageCodec(16))), lambda: list(inspect(folder))):
        with pytest.raises(
            AlphabarError,
            match=r"There are no readable pictures in pictures: 2 files skipped, first: a.jpg: empty",
        ):
            attempt()
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []
