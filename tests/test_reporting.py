"""Figures put every pixel where it belongs; the report is whole, safe and says what is missing."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json, read_document, with_checksum, write_document
from alphabar.images import evenly, image_grid, image_strip, nearest_panel, on_white
from alphabar.messages import message, pack_messages
from alphabar.recipes.presets import classic, named_recipe
from alphabar.reporting.exports import latex
from alphabar.reporting.pages import png_data_uri
from alphabar.reporting.plots import Curve, plot, smooth
from alphabar.reporting.report import write_report


@pytest.fixture(autouse=True)
def english(monkeypatch) -> None:
    monkeypatch.setenv("ALPHABAR_LANGUAGE", "en")


HOSTILE = "<script>alert('x')</script>\"&"


def flat(*values: int, h: int = 4, w: int = 6) -> np.ndarray:
    """One picture a value, every pixel of it that value."""
    return np.stack([np.full((h, w, 3), value, np.uint8) for value in values])


def seen(image: Image.Image, pad: int = 2, h: int = 4, w: int = 6) -> list[list[int]]:
    """The values of flat pictures by row and column, after checking that each fills its cell."""
    array = np.asarray(image)
    rows = range(0, array.shape[0], h + pad)
    return [[_cell(array[y : y + h, x : x + w]) for x in range(0, array.shape[1], w + pad)] for y in rows]


def _cell(cell: np.ndarray) -> int:
    assert (cell == cell[0, 0]).all()
    return int(cell[0, 0, 0]) if cell[0, 0, 3] else -1


# Pictures


def test_grid_is_row_after_row_and_as_square_as_n_allows() -> None:
    assert seen(image_grid(flat(10, 20, 30, 40, 50))) == [[10, 20, 30], [40, 50, -1]]
    assert seen(image_grid(flat(10, 20, 30), columns=1, pad=1), pad=1) == [[10], [20], [30]]


def test_grid_gaps_are_transparent_and_nothing_else_is() -> None:
    image = np.asarray(image_grid(flat(1, 2, 3, 4), pad=3))
    assert image.shape == (4 + 3 + 4, 6 + 3 + 6, 4)
    assert (image[4:7, :, 3] == 0).all()
    assert (image[:, 6:9, 3] == 0).all()
    assert (image[..., 3] == 255).sum() == 4 * 4 * 6


def test_grid_scale_repeats_pixels() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    small, large = np.asarray(image_grid(pictures)), np.asarray(image_grid(pictures, scale=3))
    assert (large == small.repeat(3, 0).repeat(3, 1)).all()


def test_pictures_may_be_tensors() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    assert image_grid(torch.from_numpy(pictures)).tobytes() == image_grid(pictures).tobytes()


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((2, 3, 5, 5), np.uint8)]
)
def test_what_is_no_picture_is_named(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match=re.escape(str(bad.shape))):
        image_grid(bad)


def test_strips_have_a_row_a_sample_and_a_column_a_moment() -> None:
    assert seen(image_strip([flat(1, 2), flat(11, 12), flat(21, 22)])) == [[1, 11, 21], [2, 12, 22]]


def test_transparent_pictures_keep_their_alpha_in_a_grid_and_lie_on_white_without() -> None:
    pictures = torch.tensor([[200, 100, 0, 255], [200, 100, 0, 51], [200, 100, 0, 0]], dtype=torch.uint8)
    pictures = pictures[:, None, None].expand(3, 4, 6, 4)
    grid = np.asarray(image_grid(pictures, columns=3))
    assert [grid[0, x].tolist() for x in (0, 8, 16)] == pictures[:, 0, 0].tolist()
    laid = on_white(pictures)[:, 0, 0].tolist()
    assert laid == [[200, 100, 0], [244, 224, 204], [255, 255, 255]]


def test_a_strip_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        image_strip([])


def test_nearest_panel_puts_each_sample_above_its_own_neighbours() -> None:
    neighbours = np.stack([flat(11, 12), flat(21, 22), flat(31, 32)])
    panel = nearest_panel(flat(1, 2, 3), neighbours)
    top, below = panel.crop((0, 0, panel.width, 4)), panel.crop((0, 4 + 8, panel.width, panel.height))
    assert seen(top) == [[1, 2, 3]]
    assert seen(below) == [[11, 21, 31], [12, 22, 32]]
    with pytest.raises(UsageError, match="n = 2"):
        nearest_panel(flat(1, 2), neighbours)


@given(st.integers(1, 400), st.integers(2, 20))
def test_evenly_spread_indices(count: int, most: int) -> None:
    chosen = evenly(count, most)
    assert chosen[0] == 0 and chosen[-1] == count - 1
    assert len(chosen) == min(count, most)
    gaps = np.diff(chosen)
    assert (gaps >= 1).all() and (len(gaps) == 0 or gaps.max() - gaps.min() <= 1)


def test_data_uri_holds_the_image() -> None:
    image = image_grid(flat(1, 2, 3))
    assert decoded(png_data_uri(image)).tobytes() == image.tobytes()


def decoded(uri: str) -> Image.Image:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# Curves

LABELS = {"x_label": "images seen", "y_label": "loss", "description": "a loss"}


def curve_points(svg: str, variable: str) -> list[tuple[float, float]]:
    """The vertices of the first line drawn in a colour."""
    path = re.search(rf'<path d="([^"]+)"[^>]*stroke: var\(--{variable},', svg)
    assert path
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path[1])]


def test_plot_draws_the_curve_it_was_given() -> None:
    x, y = [0.0, 1000.0, 3000.0], [9.0, 3.0, 1.0]
    points = np.array(curve_points(plot("p", [Curve("a", x, y)], **LABELS), "first"))
    # Affine in both axes, y upwards: three points determine it, the differences must be proportional.
    dx, dy = np.diff(points[:, 0]), np.diff(points[:, 1])
    assert dx[1] / dx[0] == pytest.approx(2, rel=1e-4)
    assert dy[0] / dy[1] == pytest.approx(3, rel=1e-4) and dy[0] > 0


def test_a_curve_of_one_point_is_seen() -> None:
    marks = [plot("p", [Curve("a", x, x)], **LABELS).count("<use") for x in ([1.0], [1.0, 2.0])]
    assert marks[0] > marks[1]


def test_logarithmic_plot_and_its_baseline() -> None:
    svg = plot("p", [Curve("a", [0, 1, 2], [100.0, 10.0, 1.0])], log_y=True, baseline=1.0, **LABELS)
    points = np.array(curve_points(svg, "first"))
    dy = np.diff(points[:, 1])
    assert dy[0] == pytest.approx(dy[1], rel=1e-4)
    baseline = np.array(curve_points(svg, "ink-soft"))
    assert baseline[:, 1] == pytest.approx(points[-1, 1], abs=1e-3)
    assert "real images (baseline)" in svg


@pytest.mark.parametrize("y", [[0.031, 0.033], [0.5037, 0.50371], [1e-5, 1e4], [0.5, 0.5], [3.0]])
def test_logarithmic_axes_are_labelled_whatever_their_range(y: list[float]) -> None:
    svg = plot("p", [Curve(None, list(range(len(y))), y, points=True)], log_y=True, **LABELS)
    labels = re.findall(r"-ytick_\d+.*?>([\d.e+-]+)</text>", svg, re.DOTALL)
    assert 2 <= len(labels) <= 7
    assert all(float(label) > 0 for label in labels)


def test_plots_share_a_page_without_clashes_and_without_links() -> None:
    curves = [Curve("a & b", [1, 2], [1, 2], points=True, error=[0.1, 0.1]), Curve("c$d$", [1, 2], [2, 1])]
    page = plot("one", curves, **LABELS) + plot("two", curves, **LABELS)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert references and {a or b for a, b in references} <= set(ids)
    assert "http" not in page and "xlink" not in page and "<style" not in page
    assert "a &amp; b" in page and "c$d$" in page


def test_plots_are_deterministic_and_leave_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    a, b = (plot("p", [Curve("a", [1, 2], [1, 2])], **LABELS) for _ in range(2))
    assert a == b
    assert dict(matplotlib.rcParams) == before


def test_smooth_takes_means_of_groups_and_leaves_short_curves() -> None:
    assert smooth([1, 2, 3], [4.0, 5.0, 9.0]) == ([1, 2, 3], [4, 5, 9])
    assert smooth([0, 1, 2, 3], [1.0, 3.0, 5.0, 9.0], most=2) == ([0.5, 2.5], [2, 7])
    assert smooth([], []) == ([], [])


# The report


class Page(HTMLParser):
    """Checks that elements nest; collects what tests ask about."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is there twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def log_records() -> list[dict]:
    records: list[dict] = [{"kind": "unheard of", "images": 0}, {"kind": "unheard of"}]
    for i in range(1, 6):
        records += [
            {
                "kind": "train",
                "images": i * 128,
                "seconds": i * 60.0,
                "loss": 1 / i,
                "rate": 33.0,
                "lr": 1e-3,
                "wait": 0.02,
                "load": 3.0,
            },
            {
                "kind": "held_out",
                "images": i * 128,
                "levels": [-2.0, 0.0, 2.0],
                "error": [0.4 / i, 0.2, 0.1],
                "train_error": [0.3 / i, 0.2, 0.1],
            },
            {
                "kind": "distance",
                "images": i * 128,
                "features": "lite0_96",
                "n": 256,
                "n_reference": 900,
                "frechet": 300 - i,
                "kid": 0.5,
                "kid_error": 0.01,
            },
        ]
    return records


def evaluation(images: int, frechet: float) -> dict:
    return {
        "images": images,
        "when": "2025-06-01T12:30:00+00:00",
        "sampler": {"name": "ancestral", "clamp": True},
        "guidance": [],
        "guidance_interval": None,
        "seconds_per_sample": 0.0211495,
        "machine": {"machine": "cpu X", "cores": 2, "memory": 7.6, "load": 6.5},
        "extractor": "lite0",
        "protocol": "224 px, bicubic",
        "reference": "7326 pictures of cars",
        "n": 1000,
        "reference_n": 7326,
        "metrics": [
            {
                "key": "frechet",
                "name": "Fréchet distance (lite0)",
                "value": frechet,
                "better": "lower",
                "error": None,
                "baseline": 8.25,
            },
            {
                "key": "kid",
                "name": "kernel distance (lite0)",
                "value": 0.491,
                "better": "lower",
                "error": 0.0123,
                "baseline": 0.0004,
            },
        ],
        "warnings": ["n is below the dimension"],
        "held_out": {
            "reference": "810 held-out pictures of cars",
            "metrics": [{"key": "kid", "name": "kernel distance (lite0)", "value": 0.52, "better": "lower",
                          "error": 0.02, "baseline": 0.001, "interval": [0.48, 0.56]}],
        },
        "memorization": {"copies": 31, "n": 1000, "thresholds": {"false_alarms": 0.01},
                         "sentence": "31 of 1000 samples are as near as a copy; by chance 10: it copies"},
        "attribute_frequencies": [
            {"attribute": "body", "accuracy": 0.9, "imbalance": 2.5, "frequencies": [
                {"value": "bus", "data": 0.2, "samples": 0.21, "low": 0.18, "high": 0.24, "verdict": ""},
                {"value": "van", "data": 0.4, "samples": 0.1, "low": 0.07, "high": 0.13, "verdict": "under"},
            ]},
        ],
        "condition_agreement": [
            {"attribute": "colour", "n": 900, "agreed": 0.61, "low": 0.57, "high": 0.64, "accuracy": 0.83,
             "distances": [
                {"value": "red", "n": 300, "reference_n": 700, "kid": 0.111, "low": 0.1, "high": 0.12},
                {"value": "mauve", "n": 30, "reference_n": 70, "kid": 0.222, "low": 0.1, "high": 0.34},
            ]},
        ],
        "appearance": [
            {"statistic": "redness", "data": 5.5, "samples": 9.5, "difference": 4.0, "low": 3.1, "high": 4.9},
        ],
        "notes": ["colour: fewer than two values"],
    }  # fmt: skip


FIGURES = {
    "forward": {"levels": [{"t": 0, "snr": None}, {"t": 1, "alpha": 0.2, "sigma": 0.9, "snr": 0.0505}]},
    "reverse": {"levels": [{"t": 1, "snr": 0.0505}, {"t": 0, "snr": None}]},
    "samples": {"sampler": {"name": "ancestral", "clamp": True}, "steps": 300, "seed": 7, "n": 4},
    "nearest": {"distances": [[3.25, 4.0], [5.5, 6.0]]},
    "terminal_warning": "the schedule ends at SNR 0.05",
    "model": {"parameters": 15_500_000, "gflop": 8.6},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with everything in it."""
    run = tmp_path / "cars64"
    (run / "report_files").mkdir(parents=True)
    (run / "samples").mkdir()
    (run / "recipe.toml").write_text(classic().to_toml())
    environment = {
        "torch": "2.13.0",
        "runtime": {"device": "cpu", "compile": True},
        "cores": 2,
        "memory": 7.6,
        "commit": None,
    }
    write_document(run / "data.json", {"data": "my cars"})
    write_document(run / "environment.json", environment)
    lines = "".join(json.dumps(r) + "\n" for r in log_records())
    (run / "log.jsonl").write_text(lines + '{"kind": "train", "ima')
    for i in range(1, 21):
        image_grid(flat(i, i)).save(run / "samples" / f"{i * 128:09d}.png")
    (run / "samples" / "notes.png").write_bytes(b"not one of ours")
    for value, name in enumerate(("forward", "reverse", "samples", "nearest"), start=100):
        image_grid(flat(value, value)).save(run / "report_files" / f"{name}.png")
    write_document(run / "report_files" / "figures.json", FIGURES)
    (run / "evaluation.json").write_text(json.dumps([evaluation(128, 301.5), evaluation(640, 278.25)]))
    return run


def test_a_spanish_report_says_what_was_chosen_to_train_in_spanish(run_without_curves: Path) -> None:
    file, note = run_without_curves / "environment.json", message("training.compile_short")
    write_document(file, read_document(file) | {"runtime": pack_messages({"notes": [note]})})
    for language in ("en", "es"):
        html = write_report(run_without_curves, language=language).read_text(encoding="utf-8")
        assert note.in_language(language).rstrip(".") in html


def test_a_distance_without_a_baseline_has_no_number_for_it(run: Path) -> None:
    record = {"kind": "distance", "images": 9, "kid": 0.5, "n": 8}
    (run / "log.jsonl").write_text(json.dumps(record))
    (run / "evaluation.json").unlink()
    assert message("reporting.card_baseline", baseline="–") in page_of(run).text


@pytest.fixture
def run_without_curves(run: Path) -> Path:
    """Curves take most of a report's time."""
    (run / "log.jsonl").unlink()
    return run


def test_report_is_whole_and_well_formed(run: Path) -> None:
    page = page_of(run)
    shown = [seen(decoded(uri).convert("RGBA"))[0][0] for uri in page.attributes("src")]
    assert shown[:2] == [102, 103] and shown[-2:] == [100, 101]  # samples first, noise last
    frames = shown[2:-2]
    assert len(frames) == 12 and frames[0] == 1 and frames[-1] == 20 and frames == sorted(frames)
    assert sum(tag == "svg" for tag, _ in page.tags) == 6
    assert "missing" not in page.attributes("class")


def test_report_has_no_outside_links_and_no_clashing_ids(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert all(re.fullmatch("data:image/png;base64,[A-Za-z0-9+/=]+", src) for src in page.attributes("src"))
    html = re.sub('data:[a-z/-]+;base64,[^"]*', "", html)
    assert "//" not in html and "@import" not in html
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    inside = {href for href in page.attributes("href") if not href.startswith("data:")} - {"report_files/"}
    assert {href.removeprefix("#") for href in inside} <= set(ids)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", html)


def test_report_tells_the_numbers_with_their_protocol(run: Path) -> None:
    text = page_of(run).text
    assert text.index("At 640 images") < text.index("Earlier evaluations (1)") < text.index("At 128 images")
    for said in (
        "kernel distance (lite0) 0.491 1000 samples; lower is better real images: 0.000400",
        "0.491 ± 0.0123 0.000400 lower",
        "1000 samples against 7326 pictures of cars.",
        "n is below the dimension",
        "reference 7326 pictures of cars",
        "sampler ancestral (clamp = true)",
        "guidance none",
        "time per sample 0.0211 s",
        "machine cpu X; 2 cores, 7.6 GiB of memory, load 6.5",
        "the schedule ends at SNR 0.05",
        "15.5M 8.6 GFLOP per evaluation",
        "trained for 5m00s 33 images/s at a machine load of 3 on 2 cores",
        "steps 300, seed of the noise 7, samples 4",
        "linear_beta (steps = 300, beta_min = 0.0001, beta_max = 0.02)",
        "tutorial_unet (widths = [64, 128, 256, 512]",
        "device cpu",
        "spent 2.0 % of its time waiting for data. The machine has 2 cores and 7.6 GiB",
        "measured this with 256 samples, sampled more quickly than by the recipe, against 900 training",
        "SNR 0.05",
        "3.25 5.5",
        "Against 810 held-out pictures of cars",
        "0.52 [0.48, 0.56] 0.001 lower",
        "31 of 1000 samples are as near as a copy",
        "copies of training images 31 of 1000 up to 1.0 % of unseen images",
        "body: 1 of 2 values too rare or too frequent (the classifier is right for 90.0 % of real images",
        "van 10.0 % [7.0 %, 13.0 %] 40.0 % too rare bus 21.0 %",
        "colour: 61.0 % of 900 samples agree [57.0 %, 64.0 %]",
        "the classifier is right for 83.0 % of real images",
        "mauve 0.222 [0.1, 0.34] 30 70 red 0.111 [0.1, 0.12] 300 700",
        "redness +4.0 [+3.1, +4.9] 5.5",
        "colour: fewer than two values",
        "alphabar train 'my cars' --run",
        "alphabar evaluate",
    ):
        assert said in text, said
    assert "DATA" not in text  # the run remembers its data


def test_one_report_says_that_its_two_kernel_distances_have_two_scales(run: Path) -> None:
    text = page_of(run).text
    assert "KID" not in text and "FID" not in text.replace("neither is an FID", "")
    assert "kernel distance (lite0)" in text and "kernel distance (lite0_96)" in text
    assert text.index("The curve further below is on another scale") < text.index("is on another scale", 9)


def test_the_frechet_distance_is_no_card_and_says_why_it_has_no_interval(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    cards = page[page.index('<dl class="facts">') : page.index("</dl>")]
    assert "kernel distance" in cards and "Fréchet" not in cards
    assert "A number without brackets has no interval: the Fréchet distance" in page
    (run / "evaluation.json").unlink()
    cards = page_of(run).text
    assert "kernel distance (lite0_96) 0.5 ± 0.01 by the training monitor, 256 samples" in cards


def test_a_report_speaks_spanish_also_of_old_evaluations(run: Path, monkeypatch) -> None:
    named = message("evaluation.reference", n=7, name="cars")
    newer = evaluation(900, 5.0) | {"warnings": [message("metrics.small_n", n=9)], "notes": []}
    newer |= {"reference": named, "held_out": {**newer["held_out"], "reference": named}}
    newer["memorization"]["sentence"] = message("metrics.copies", copies=1, n=2, share="3 %", chance="4 %")
    monkeypatch.setenv("ALPHABAR_LANGUAGE", "es_BO.UTF-8")
    (run / "evaluation.json").write_text(json.dumps([pack_messages(newer)]))
    html = write_report(run).read_text(encoding="utf-8")
    assert '<html lang="es">' in html
    # The recipe and the environment have the keys of their files.
    pattern = '<style>.*?</style>|<section id="(recipe|environment)">.*?</section>|<pre>.*?</pre>'
    text = Page(re.sub(pattern, "", html, flags=re.DOTALL)).text
    for spanish in (
        "n = 9 es pequeño",
        "distancia de kernel (lite0)",
        "El modelo copia",
        "muy escaso",
        "7 imágenes",
    ):
        assert spanish in text, spanish
    text = text.replace("the schedule ends", "")  # as an old figures.json says it
    for english in (
        "better",
        "sample",
        "distance",
        "earning",
        "held-out",
        " the ",
        "images",
        " of ",
        "value",
    ):
        assert english not in text, text[max(text.find(english) - 60, 0) :][:120]
    (run / "evaluation.json").write_text(json.dumps([evaluation(640, 278.25)]))
    text = page_of(run).text
    assert (
        "distancia de kernel (lite0)" in text and "n is below the dimension" in text
    )  # as the old file says it
    assert "Samples" in Page(write_report(run, language="en").read_text(encoding="utf-8")).text


def test_a_report_brings_its_tables_and_figures(run: Path) -> None:
    page = page_of(run)
    folder = run / "report_files"
    inside = {a["download"]: a["href"] for tag, a in page.tags if tag == "a" and "download" in a}
    assert set(inside) == {
        "metrics.csv", "attributes.csv", "conditions.csv", "training.csv", "monitor.csv", "metrics.tex",
        "evaluation.json",
    }  # fmt: skip
    for name, address in inside.items():
        assert base64.b64decode(address.split(",")[1]) == (folder / name).read_bytes()
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(
        (run / "evaluation.json").read_text()
    )
    rows = list(csv.DictReader((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    newest = [r for r in rows if r["images"] == "640"]
    assert [(r["against"], r["key"], r["value"]) for r in newest] == [
        ("training", "frechet", "278.25"), ("training", "kid", "0.491"), ("held_out", "kid", "0.52"),
    ]  # fmt: skip
    assert newest[2]["low"] == "0.48" and newest[0]["n"] == "1000" and newest[0]["baseline"] == "8.25"
    assert newest[0]["reference"] == "7326 pictures of cars"
    bodies = list(csv.DictReader((folder / "attributes.csv").read_text(encoding="utf-8").splitlines()))
    assert [(r["attribute"], r["value"], r["samples"]) for r in bodies][:2] == [
        ("body", "bus", "0.21"), ("body", "van", "0.1"),
    ]  # fmt: skip
    assert len((folder / "training.csv").read_text().splitlines()) == 6
    latex = (folder / "metrics.tex").read_text(encoding="utf-8")
    assert r"kernel distance (lite0), lower is better & 0.491 & 0.000400 \\" in latex
    svg = (folder / "kid.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert "var(" not in svg and 'xmlns="http://www.w3.org/2000/svg"' in svg


def test_latex_shows_every_character() -> None:
    assert latex("a_b & 5 % of {x}\n^") == r"a\_b \& 5 \% of \{x\} \textasciicircum{}"


def test_a_page_elsewhere_has_its_files_beside_it(run_without_curves: Path, tmp_path: Path) -> None:
    before = sorted(run_without_curves.rglob("*"))
    page = write_report(run_without_curves, tmp_path / "out.html")
    assert page == tmp_path / "out.html" and (tmp_path / "out_files" / "metrics.csv").exists()
    assert sorted(run_without_curves.rglob("*")) == before
    with pytest.raises(UsageError, match=r"must end in \.html"):
        write_report(run_without_curves, tmp_path / "out")


def test_a_model_without_its_run_has_a_report(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "mine"
    model.mkdir()
    about = {"images": 5, "recipe": classic().model_dump(mode="json")}
    (model / "recipe.json").write_text(json.dumps(about))
    page = write_report("mine")
    assert page == Path("mine-report.html") and list(model.iterdir()) == [model / "recipe.json"]
    text = Page(page.read_text(encoding="utf-8")).text
    assert "This is a model without the run that trained it" in text
    assert "alphabar report mine --data DATA" in text and "alphabar evaluate mine" in text
    assert "alphabar train" not in text and "Environment" not in text
    shipped = Page(write_report("cars64").read_text(encoding="utf-8")).text
    assert "alphabar sample cars64" in shipped


def test_headings_tables_and_pictures_are_accessible(run: Path) -> None:
    page = page_of(run)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")
    assert all(a.get("tabindex") == "0" for tag, a in page.tags if a.get("class") == "scroll")


def test_the_report_of_a_classifier_shows_its_accuracy_and_asks_for_no_samples(run: Path) -> None:
    (run / "recipe.toml").write_text(named_recipe("classifier").to_toml())
    records = [r for r in log_records() if r["kind"] == "train"]
    for i in (1, 2):
        records.append(
            {"kind": "accuracy", "images": i * 300, "sigma": [0.1, 1.0], "accuracy": [0.3 * i, None]}
        )
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, records)))
    page = page_of(run)
    assert "Classifier of noisy images · trained with the recipe classifier" in page.text
    assert "How often the classifier predicts the label" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 3  # accuracy, loss, rate
    for absent in (
        "iffusion model",
        "alphabar sample",
        "alphabar evaluate",
        "Copies",
        "samples still improve",
    ):
        assert absent not in page.text, absent


def test_report_is_deterministic_and_leaves_nothing_beside(run: Path) -> None:
    first = write_report(run).read_bytes()
    before = sorted(run.rglob("*"))
    assert write_report(run).read_bytes() == first
    assert sorted(run.rglob("*")) == before


def test_hostile_strings_are_shown_as_they_are(run: Path) -> None:
    hostile = run.with_name("a <b> & 'c'")
    run.rename(hostile)
    (hostile / "recipe.toml").write_text(f"name = {json.dumps(HOSTILE)}\n{json.dumps(HOSTILE)} = 1\n")
    write_document(hostile / "environment.json", {HOSTILE: {HOSTILE: [HOSTILE]}})
    judged = evaluation(640, 1.0) | {
        HOSTILE: HOSTILE,
        "warnings": [HOSTILE],
        "when": HOSTILE,
        "images": HOSTILE,
    }
    judged["metrics"] = [
        {"key": HOSTILE, "name": HOSTILE, "value": HOSTILE, "baseline": HOSTILE, "error": HOSTILE}
    ]
    (hostile / "evaluation.json").write_text(json.dumps([judged, judged]))
    about = {**FIGURES, "terminal_warning": HOSTILE, "samples": {HOSTILE: HOSTILE}}
    write_document(hostile / "report_files" / "figures.json", about)
    records = [
        {"kind": "distance", "images": 1, "frechet": 1.0, "features": HOSTILE, "n": HOSTILE},
    ]
    (hostile / "log.jsonl").write_text("\n".join(map(json.dumps, records)))
    html = write_report(hostile).read_text(encoding="utf-8")
    assert "<script" not in html
    page = Page(html)
    assert page.text.count(HOSTILE) >= 11
    assert "alphabar report '" in page.text


MISSING = {
    "report_files/forward.png": ("The figure of the forward process is not made yet", "alphabar report"),
    "report_files/reverse.png": ("The figure of the reverse process is not made yet", "alphabar report"),
    "report_files/samples.png": ("The grid of samples is not made yet", "alphabar report"),
    "report_files/nearest.png": (
        "The figure of the nearest training images is not made yet",
        "alphabar report",
    ),
    "report_files/figures.json": (None, None),
    "samples": ("There are no samples from the training yet", "alphabar train 'my cars' --run"),
    "evaluation.json": ("The model has not been evaluated yet", "alphabar evaluate"),
    "environment.json": ("are not recorded", None),
}


@pytest.mark.parametrize("piece", MISSING)
def test_a_missing_piece_becomes_a_sentence_with_what_to_run(run_without_curves: Path, piece: str) -> None:
    run = run_without_curves
    path = run / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = page_of(run).text
    sentence, command = MISSING[piece]
    assert sentence is None or sentence in text
    assert command is None or f"{command} {run}" in text[text.index(sentence or "") :]


def test_a_run_that_has_only_just_begun(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "recipe.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = page_of(run).text
    assert all(sentence in text for sentence, _ in MISSING.values() if sentence)
    assert (
        "Nothing has been logged yet. The training writes the curves. Start or continue it with:"
        f" alphabar train DATA --run {run}" in text
    )
    assert f"To evaluate the model as it is now: alphabar evaluate {run}" in text


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe\x00", b"[1, 2", b"null", b'{"a": '])
def test_broken_files_are_named_and_never_crash(run_without_curves: Path, rubbish: bytes) -> None:
    run = run_without_curves
    for piece in MISSING:
        if (run / piece).is_file():
            (run / piece).write_bytes(rubbish)
    (run / "recipe.toml").write_bytes(b"name = \n")
    (run / "samples" / "000000128.png").write_bytes(rubbish)
    text = page_of(run).text
    for name in ("recipe.toml", "figures.json", "evaluation.json", "environment.json"):
        assert f"{name} cannot be read" in text or f"{name} holds something other" in text


def test_numbers_that_are_none_are_left_out(run: Path) -> None:
    odd = [None, "x", [], True, -1.0, float("nan"), float("inf")]
    records = log_records()
    records += [{"kind": "train", "images": v, "loss": 0.5} for v in odd]
    records += [
        {"kind": k, "images": 999, "seconds": v, "loss": v, "rate": v, "frechet": v, "kid": v}
        for v in odd
        for k in ("train", "distance")
    ]
    records += [{"kind": "held_out", "images": 999, "levels": [v, 1.0], "error": [1.0, v]} for v in odd]
    records += [{"kind": "held_out", "images": 999, "levels": v, "error": v} for v in odd]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, [*records, *odd])))
    page = page_of(run)
    assert not re.search(r"\bnan\b|\binf\b", " ".join(page.attributes("d")).lower())
    assert sum(tag == "svg" for tag, _ in page.tags) == 6


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(AlphabarError, match=r"not a run folder and holds no model.*alphabar train"):
            write_report(path)
    assert list(tmp_path.iterdir()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**12), 10**12) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def of(*keys: str) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, JSON))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    about=of(*FIGURES),
    samples=of("steps"),
    judged=st.lists(
        of(
            "images",
            "when",
            "metrics",
            "warnings",
            "n",
            "held_out",
            "memorization",
            "attribute_frequencies",
            "condition_agreement",
            "appearance",
            "notes",
        )
        | JSON,
        max_size=2,
    ),
    measure=of("key", "name", "value", "error", "baseline", "better", "interval"),
    level=of("t", "snr"),
    environment=JSON,
)
def test_no_json_crashes_the_report(
    tmp_path: Path, about: dict, samples: dict, judged: list, measure: dict, level: dict, environment: object
) -> None:
    (tmp_path / "report_files").mkdir(exist_ok=True)
    (tmp_path / "recipe.toml").touch()
    about |= {"samples": samples, "forward": {"levels": [level]}}
    write_document(tmp_path / "report_files" / "figures.json", about)
    (tmp_path / "evaluation.json").write_text(json.dumps([*judged, {"metrics": [measure]}]))
    (tmp_path / "environment.json").write_bytes(
        pack_json(with_checksum(environment) if isinstance(environment, dict) else environment)
    )
    page_of(tmp_path)
