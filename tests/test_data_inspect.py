"""What inspect says is true of data made for the purpose."""

import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from alphabar.data.inspect import inspect
from alphabar.data.items import Item
from alphabar.data.near_duplicates import near_duplicates

CARS = Path(os.environ.get("ALPHABAR_STANFORD_CARS", "../shared/data/stanford_cars"))


class Files:
    """Encoded pictures in memory as a source."""

    name = "files"
    skipped = ()
    notes = ("a note",)
    fingerprint = "files"

    def __init__(self, files, **items):
        self.files = files
        self.items = items.get("items") or [Item(key) for key in files]

    def read(self, item):
        return self.files[item.key]


def scene(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture: as different from another seed's as two photographs are."""
    small = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def report_of(source, **options):
    *_, last = inspect(source, **options)
    return last.result


# ---------------------------------------------------------------- copies


def altered():
    """One scene, altered as copies in the wild are."""
    image = scene(1)
    return {
        "compressed": encoded(image, "JPEG", quality=30),
        "smaller": encoded(image.resize((48, 32), Image.Resampling.BICUBIC)),
        "larger": encoded(image.resize((300, 200), Image.Resampling.BICUBIC)),
        "brighter": encoded(ImageEnhance.Brightness(image).enhance(1.1)),
        "flatter": encoded(ImageEnhance.Contrast(image).enhance(0.7)),
        "mirrored": encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "trimmed": encoded(image.crop((1, 1, 95, 63))),
    }


@pytest.mark.parametrize("settings", altered())
def test_near_duplicates_are_found_among_others(settings):
    files = {f"{i}": encoded(scene(i)) for i in range(40)} | {settings: altered()[settings]}
    (copies,) = report_of(Files(files)).copies
    assert (copies.kind, copies.keys) == ("near", ("1", settings))


def test_different_pictures_are_not_duplicates():
    assert report_of(Files({f"{i}": encoded(scene(i)) for i in range(300)})).copies == ()


def test_the_same_shapes_in_other_colours_are_no_duplicate():
    image = scene(1)
    recoloured = Image.merge("RGB", image.split()[::-1])
    assert report_of(Files({"a": encoded(image), "b": encoded(recoloured)})).copies == ()


def test_nearly_flat_pictures_are_not_duplicates_of_each_other():
    """One level of difference between two halves is a rounding, not a motif."""
    files = {}
    for value in range(0, 250, 50):
        pixels = np.full((20, 20, 3), value, np.uint8)
        pixels[:, 10:] += 1
        files[str(value)] = encoded(Image.fromarray(pixels))
    assert report_of(Files(files)).copies == ()


def test_flat_pictures_are_not_duplicates_of_each_other():
    files = {f"{v}": encoded(Image.new("RGB", (20, 20), (v, v, v))) for v in range(0, 250, 10)}
    assert report_of(Files(files)).copies == ()


def test_copies_by_bytes_pixels_and_likeness():
    image = encoded(scene(1))
    files = {
        "a": image,
        "b": image,
        "other": encoded(scene(2)),
        "repacked": encoded(scene(1), compress_level=0),
        "c": image,
        "resized": encoded(scene(1).resize((48, 32), Image.Resampling.BICUBIC)),
    }
    found = {(copies.kind, copies.keys) for copies in report_of(Files(files)).copies}
    assert found == {("bytes", ("a", "b", "c")), ("pixels", ("a", "repacked")), ("near", ("a", "resized"))}


def test_copies_across_the_split_are_flagged():
    """Byte copies never are: the split follows the bytes. Others are, for some share held out."""
    files = {
        "a": encoded(scene(1)),
        "a again": encoded(scene(1)),
        "repacked": encoded(scene(1), compress_level=0),
    }
    flags = {kind: set() for kind in ("bytes", "pixels")}
    for share in np.linspace(0, 0.99, 25):
        for copies in report_of(Files(files), held_out=share).copies:
            flags[copies.kind].add(copies.across_split)
    assert flags == {"bytes": {False}, "pixels": {False, True}}


def test_a_file_that_has_vanished_meanwhile_is_no_equal_copy():
    class Vanishing(Files):
        reads = 0

        def read(self, item):
            self.reads += 1
            return super().read(item) if self.reads <= len(self.files) else b""

    files = {"first": encoded(scene(1)), "repacked": encoded(scene(1), compress_level=0)}
    assert [copies.kind for copies in report_of(Files(files)).copies] == ["pixels"]
    assert [copies.kind for copies in report_of(Vanishing(files)).copies] == ["near"]


def test_the_search_does_not_depend_on_its_blocks(monkeypatch):
    thumbnails = np.stack([np.asarray(scene(i % 37, 32, 32)) for i in range(100)])
    whole = near_duplicates(thumbnails)
    assert whole == [[i, *range(i + 37, 100, 37)] for i in range(37)]
    monkeypatch.setattr("alphabar.data.near_duplicates.BLOCK", 7)
    assert near_duplicates(thumbnails) == whole


# ---------------------------------------------------------------- counts and the suggestion


def test_sizes_classes_and_shapes():
    sizes = [(100, 100), (200, 100), (100, 300), (120, 100)]
    files = {f"{i}": encoded(scene(i, *size)) for i, size in enumerate(sizes)} | {"bad": b"no"}
    items = [
        Item("0", label="a", caption="one"), Item("1", label="a"), Item("2", label="b"), Item("3"),
        Item("bad", label="c"),
    ]  # fmt: skip
    report = report_of(Files(files, items=items))
    assert report.pictures == 4 and report.shorter_side == (100, 100, 100)
    assert report.longer_side == (100, 160, 300)
    assert report.classes == {"a": 2, "b": 1} and report.unlabelled == 1 and report.captions == 1
    shares = np.array([2 / 3, 1 / 3])
    assert report.effective_classes == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert {name: n for name, n in report.aspects.items() if n} == {
        "square": 1, "4:3 to 2:1": 1, "under 1:2": 1, "11:10 to 4:3": 1,
    }  # fmt: skip
    assert [(skip.key, skip.reason[:13]) for skip in report.skipped] == [("bad", "not a picture")]
    assert report.notes == ("a note",)
    said = {getattr(line, "identifier", ""): line for line in report.lines()}
    classes = said["data.inspect_classes"].values
    assert (classes["largest"], classes["most"], classes["smallest"], classes["least"]) == ("a", 2, "b", 1)
    assert said["data.inspect_unlabelled"].values["n"] == 1
    whole = report_of(Files(files, items=[Item(str(i), label="ab"[i % 2]) for i in range(4)]))
    assert "without a class" not in "\n".join(whole.lines())


def test_grey_and_transparent_pictures_are_counted():
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    grey = scene(0).convert("L")
    files = {"color": encoded(scene(1)), "grey": encoded(grey), "stored as RGB": encoded(grey.convert("RGB"))}
    report = report_of(Files(files | {"clear": encoded(clear)}))
    assert (report.grey, report.transparent, report.channels) == (3, 1, 3)  # the clear one is white on white
    clear_note = next(note for note in report.notes if "data.channels=4" in note)
    assert "1 of 4 pictures is transparent and is laid on white" in clear_note
    assert {"grey: 3 of 4 pictures", "transparent: 1 of 4 pictures"} <= set(report.lines())
    del files["color"]
    report = report_of(Files(files))
    assert (report.grey, report.transparent, report.channels) == (2, 0, 1)
    assert any("All pictures are grey" in note for note in report.notes)


def test_attributes_are_listed_with_what_is_known_of_them():
    colors = ["red", "blue", "red", "", None, "red", "N/A"]
    items = [
        Item(str(i), attributes={"color": color, "year": str(1990.5 + i)}) for i, color in enumerate(colors)
    ]
    report = report_of(Files({str(i): encoded(scene(i)) for i in range(7)}, items=items))
    assert report.attributes["color"] == {"red": 3, "blue": 1}
    lines = report.lines()
    assert "attribute color: 2 values in 4 of 7 pictures: red (3), blue (1)" in lines
    assert "attribute year: numbers from 1990.5 to 1996.5 in 7 of 7 pictures" in lines


def test_values_that_are_no_numbers_are_told_in_the_report():
    years = ["NA", *(str(1990 + i) for i in range(9))]
    items = [Item(str(i), attributes={"year": year}) for i, year in enumerate(years)]
    report = report_of(Files({str(i): encoded(scene(i)) for i in range(10)}, items=items))
    (told,) = (note for note in report.notes if note != "a note")
    assert told.values == {"name": "year", "count": 1, "first": "NA"}
    assert "attribute year: numbers from 1990 to 1998 in 9 of 10 pictures" in report.lines()


def test_equal_classes_count_fully():
    items = [Item(str(i), label=f"class {i % 5}") for i in range(10)]
    report = report_of(Files({str(i): encoded(scene(i)) for i in range(10)}, items=items))
    assert report.effective_classes == pytest.approx(5)


@pytest.mark.parametrize(
    ("size", "box", "fit", "side"),
    [
        ((100, 100), None, "squash", 64),
        ((150, 100), None, "squash", 64),  # all alike: squashing loses nothing
        ((600, 600), None, "squash", 256),
        ((20, 20), None, "squash", 32),
        ((200, 100), (40, 20, 90, 70), "box", 32),
        ((100, 100), (0, 0, 100, 95), "squash", 64),  # the box is all of it
    ],
)
def test_suggestion(size, box, fit, side):
    items = [Item(str(i), box=box) for i in range(6)]
    report = report_of(Files({str(i): encoded(scene(i, *size)) for i in range(6)}, items=items))
    assert (report.fit, report.size) == (fit, side)
    assert report.reasons[0].startswith(fit)


@pytest.mark.parametrize(("ratios", "fit"), [((1.0, 1.3), "crop"), ((1.3, 2.4), "squash")])
def test_suggestion_where_shapes_vary(ratios, fit):
    widths = np.linspace(ratios[0] * 100, ratios[1] * 100, 9).astype(int)
    report = report_of(Files({str(w): encoded(scene(int(w), int(w), 100)) for w in widths}))
    assert report.fit == fit


def test_the_report_is_json_and_text():
    report = report_of(
        Files({str(i): encoded(scene(i)) for i in range(4)} | {"copy": encoded(scene(0)), "no": b""})
    )
    again = json.loads(json.dumps(report.to_dict()))
    assert again["pictures"] == 5 and again["copies"][0]["keys"] == ["0", "copy"]
    text = "\n".join(report.lines())
    for part in (
        "5 pictures, 1 skipped",
        "skipped no: empty: 0 bytes",
        "0 = copy",
        "training uses",
        "squash: all pictures have nearly one shape",
        "size 64, as in the recipes",
    ):
        assert part in text


def test_long_lists_are_cut_and_say_so():
    files = {f"{i}": b"" for i in range(30)} | {"good": encoded(scene(1))}
    lines = report_of(Files(files)).lines()
    assert sum(line.startswith("skipped") for line in lines) == 20
    assert "  … and 10 more" in lines


@pytest.mark.skipif(not CARS.is_dir(), reason=f"no Stanford Cars at {CARS}")
def test_the_duplicates_of_stanford_cars():
    """Checked by eye: these pairs are one photograph in two crops, one of them mirrored."""
    from alphabar.data.sources import open_source

    source = open_source(CARS)
    wanted = {"00648", "03569", "04247", "04386", "06800", "07679", "00050", "03436"}
    source.items = [item for i, item in enumerate(source.items) if item.key[-9:-4] in wanted or i % 25 == 0]
    found = {tuple(key[-9:-4] for key in copies.keys) for copies in report_of(source).copies}
    assert found == {("00648", "03569"), ("04247", "04386"), ("06800", "07679"), ("00050", "03436")}
