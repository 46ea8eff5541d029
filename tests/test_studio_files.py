"""What files of the studio say about how they were computed, and samples generated again from them."""

import base64
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alphabar.codecs.png_metadata import png_metadata, read_png_metadata
from alphabar.inference.engines import with_runtime
from alphabar.inference.recorded import describe_runtime
from alphabar.inference.runtime import InferenceRuntime
from alphabar.messages import message
from alphabar.progress import Progress, last
from alphabar.runs.model import load_model
from alphabar.runtime import Runtime
from alphabar.sampling.comparison import comparison_settings
from alphabar.sampling.outputs import sampling_metadata
from alphabar.sampling.sample_folder import SampleFolder, batch_size, sample_into
from alphabar.sampling.settings import sampling_settings
from alphabar.studio.models import ModelStore
from alphabar.training.loop import begin, train
from refusals import refused
from training_child import tiny_dataset, tiny_recipe

OTHER = InferenceRuntime("torch", "fp32", True)  # than the plain one, and on every machine


@pytest.fixture(scope="module")
def page(picture_folder, tmp_path_factory):
    """A page whose only run is a tiny model."""
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.page import Page

    folder = tmp_path_factory.mktemp("opened")
    run = begin(folder / "tiny", tiny_recipe())
    run.remember_data(str(picture_folder))
    last(train(tiny_dataset(picture_folder), run, images=16, runtime=Runtime()))
    with gr.Blocks() as blocks:
        made = Page("en", ModelStore(folder), tmp_path_factory.mktemp("files"), blocks)
    return made  # outside of the context, in which no other test could build a page


@pytest.fixture
def measured(monkeypatch):
    """Every model is measured and computes in OTHER then; the numbers of evaluations and batches."""
    asked = []

    def choose(model, *, evaluations, batch, **_):
        asked.append((evaluations, batch))
        yield Progress(message("inference.stage"), 0, 1)
        yield Progress(message("inference.stage"), 1, 1, with_runtime(model, OTHER))

    monkeypatch.setattr("alphabar.sampling.bound.choose_runtime", choose)
    monkeypatch.setattr("alphabar.inference.recorded.choose_runtime", choose)
    return asked


def generate_tab(page):
    import gradio as gr

    from alphabar.studio.tabs.generate import GenerateTab

    with page.blocks:
        return GenerateTab(page, gr.Dropdown(), gr.HTML())


def generated(page, folder: Path, n: int = 2, base: Path | None = None):
    """What the page shows while samples are generated, and their files."""
    tab = generate_tab(page)
    scales = [slider.value for slider in tab.scales.values()]
    *on_the_way, done = tab.generate(
        "tiny", False, base, 0.6, [], n, 0, "ddim", 2, "standard_normal", *scales
    )
    with zipfile.ZipFile(done[tab.shown].archive) as packed:
        packed.extractall(folder)
    return [str(each.get(tab.status, "")) for each in on_the_way], sorted(folder.glob("*.png"))


def reproduced(page, file: Path) -> str:
    return list(generate_tab(page).reproduce(str(file), "tiny"))[-1]


def changed(file: Path, change=lambda pixels: pixels, **said) -> Path:
    """The file with other pixels or settings, beside it."""
    beside, about = file.with_name("changed.png"), read_png_metadata(file)
    pixels = np.array(Image.open(file))
    Image.fromarray(change(pixels)).save(beside, pnginfo=png_metadata({**about, **said}))
    return beside


def nudged(pixels):
    pixels = pixels.copy()
    pixels[0, 0] ^= 1
    return pixels


def test_only_small_differences_are_called_rounding(page, tmp_path):
    _, (file, _) = generated(page, tmp_path)
    assert "identical" in reproduced(page, file)
    assert "up to rounding: their pixels differ by at most 1 of" in reproduced(page, changed(file, nudged))
    other = reproduced(page, changed(file, np.invert))
    assert "different pictures" in other and "rounding" not in other


@pytest.mark.parametrize("said", [{"weights": "0123456789abcdef"}, {"images": 3}])
def test_samples_of_other_weights_are_not_called_the_same_up_to_rounding(page, tmp_path, said):
    _, (file, _) = generated(page, tmp_path)
    assert read_png_metadata(file)["weights"] == page.models.load("tiny").fingerprint[:16]
    text = reproduced(page, changed(file, nudged, **said))
    assert "rounding" not in text and "other weights than tiny" in text


def test_an_interpolation_is_refused_as_it_cannot_be_reproduced_from_its_position(page, tmp_path):
    _, (file, _) = generated(page, tmp_path)
    with refused("studio.reproduce_interpolated"):
        reproduced(page, changed(file, rows=1, columns=4))


def test_all_columns_of_a_comparison_compute_in_one_way_that_their_files_say(page, tmp_path, measured):
    import gradio as gr

    from alphabar.studio.tabs.compare import CompareTab

    with page.blocks:
        tab = CompareTab(page, gr.Dropdown())
    first, *_, done = tab.compare("tiny", "steps", [], "pag", "1, 2", "", 3, 0)
    assert "fastest way" in first[tab.status] and measured == [(3 * (1 + 2), 3)]
    links = re.findall(r'href="data:image/png;base64,([^"]+)"', done[tab.table])
    assert len(links) == 6
    how = describe_runtime(with_runtime(page.models.load("tiny"), OTHER), 3)
    for i, link in enumerate(links):
        file = tmp_path / f"{i}.png"
        file.write_bytes(base64.b64decode(link))
        about = read_png_metadata(file)
        assert about["runtime"] == how and about["n"] == 3
        assert "identical" in reproduced(page, file)


def test_variations_and_restorations_say_how_they_were_computed(page, tmp_path, measured):
    import gradio as gr

    from alphabar.studio.tabs.restore import RestoreTab

    base = tmp_path / "base.png"
    Image.new("RGB", (16, 16), (200, 30, 30)).save(base)
    shown, files = generated(page, tmp_path / "edited", base=base)
    assert any("fastest way" in each for each in shown)
    with page.blocks:
        tab = RestoreTab(page, gr.Dropdown())
    *_, updates = tab.panel.example("tiny", None, [], None)
    held = updates[tab.panel.held]
    *on_the_way, done = tab.undo("tiny", held, "noise:0.2", False, 2, 3, 0, False, 64)
    assert any("fastest way" in str(each.get(tab.status)) for each in on_the_way)
    for file in [*files, *done[tab.restored].files]:
        about = read_png_metadata(file)
        assert about["runtime"]["channels_last"] and about["n"] == about["runtime"]["batch"] == 2
        assert about["weights"] == page.models.load("tiny").fingerprint[:16]


def test_samples_of_a_comparison_on_the_disk_are_reproduced_to_the_bit(page, tmp_path):
    model = load_model(page.models.path / "tiny")
    variants = comparison_settings(model, sampling_settings(model, steps=2), "pag", ["1", "2", "3"])
    n, batch = 7, batch_size(model, 3)
    about = sampling_metadata(model, variants[0], "tiny", runtime=describe_runtime(model, batch))
    folder = SampleFolder(tmp_path / "compared", model.codec, about, 3 * n)
    last(sample_into(folder, model, n, variants))
    assert batch < n
    for i in (0, 4, 3 * n - 1):
        saved = read_png_metadata(folder.file(i))
        assert saved["n"] == n and saved["position"] == i // 3
        assert "identical" in reproduced(page, folder.file(i))
