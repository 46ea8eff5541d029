"""The tabs Generate, Restore and Compare in a real browser: nothing is lost, and nothing misleads."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.loop import begin, train
from test_studio_page import browser, launch, picture_of, ready_page, set_slider, stop, tab, unfold
from training_child import tiny_dataset, tiny_recipe

pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")

__all__ = ["browser"]


@pytest.fixture(scope="module")
def address(picture_folder, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("opened")
    run = begin(folder / "tiny", tiny_recipe("monitor.samples=4"))
    for _ in train(tiny_dataset(picture_folder), run, images=16, runtime=Runtime()):
        pass
    assert Run(folder / "tiny").exists
    process, address = launch(folder)
    yield address
    stop(process)


@pytest.fixture(scope="module")
def shared(browser, address) -> Iterator:
    """All tests share the page, as loading takes seconds."""
    yield from ready_page(browser, address)


@pytest.fixture
def page(shared) -> Iterator:
    page, errors = shared
    yield page
    found = errors.copy()
    errors.clear()
    assert found == []
    assert page.locator(".toast-body").count() == 0  # errors stand where they belong, and stay


def picture(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def upload(page, file: Path) -> None:
    """A file as the picture of the tab Restore."""
    field = page.locator("#picture-upload input[type=file], .small-buttons input[type=file]")
    field.first.set_input_files(file)


def paint(page) -> None:
    """A stroke in the middle of the editor."""
    page.wait_for_selector("#editor canvas")
    page.wait_for_timeout(1200)  # the editor says nowhere when it is ready
    box = page.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=6)
    page.mouse.up()
    page.wait_for_timeout(400)


def saved(page, button: str) -> tuple[str, dict[str, Image.Image]]:
    """The name of an archive that a button saves, and the pictures in it."""
    with page.expect_download() as download:
        page.click(button)
    with zipfile.ZipFile(download.value.path()) as packed:
        pictures = {name: Image.open(io.BytesIO(packed.read(name))) for name in packed.namelist()}
    return download.value.suggested_filename, pictures


def facts(page, text: str) -> None:
    page.wait_for_selector(f"#picture-facts :text('{text}')")


# ---------------------------------------------------------------- Restore


def test_inpaint_go_on_and_undo(page, tmp_path):
    tab(page, "Restore")
    given = picture(1, 24, 20, 4)
    given[..., 3] = np.where(given[..., 3] < 128, 0, 255)
    Image.fromarray(given).save(tmp_path / "cat.png")
    page.click("#picture-undo")  # without a picture: a word, and nothing else
    page.wait_for_selector("#picture-facts .error")
    upload(page, tmp_path / "cat.png")
    facts(page, "cat.png, 24 × 20 px. Its transparency is kept.")
    page.click("#inpaint-button")
    page.wait_for_selector("#restore-status .error:has-text('Nothing is painted yet')")
    facts(page, "cat.png")
    paint(page)
    unfold(page, "#restore-settings")
    set_slider(page, "#restore-steps", 5)
    page.click("#inpaint-button")
    page.wait_for_selector("#restored-samples img")
    assert page.locator("#restored-samples img").count() == 4
    name, pictures = saved(page, "#restore-save")
    assert name == "cat-inpainted.zip"
    answers = [np.asarray(pictures[f"cat-inpainted-{k}.png"]) for k in range(1, 5)]
    kept = np.all([answer == given for answer in answers], axis=(0, 3))
    assert 0.3 < kept.mean() < 1  # every pixel that was not painted over, and its transparency
    filled = ~kept
    assert len({answer[filled].tobytes() for answer in answers}) == 4 and answers[0][filled][:, 3].min() >= 0

    page.locator("#restored-samples button").nth(1).click()
    page.click("#continue-button")
    facts(page, "cat-inpainted-2.png")
    page.click("#picture-undo")
    facts(page, "cat.png")
    page.fill("#restore-seed input", "3")
    set_slider(page, "#restore-steps", 40)  # a few may be over before one of them is seen
    for _ in range(10):  # what was painted is there again, too; the editor says nowhere when it is
        page.wait_for_timeout(1500)
        page.click("#inpaint-button")
        page.wait_for_selector("#restore-status .error, #restore-status :text('step')")
        if page.locator("#restore-status .error").count() == 0:
            break
    page.wait_for_selector("#restore-status :text('4 samples')")
    page.click("#picture-undo")
    page.wait_for_selector("#picture-facts :text('no picture before')")
    facts(page, "cat.png")
    assert page.locator("#editor canvas").first.is_visible()


@pytest.mark.slow
def test_a_large_photo_is_filled_in_place(page, tmp_path):
    tab(page, "Restore")
    given = picture(2, 640, 400)
    Image.fromarray(given).save(tmp_path / "large.png")
    upload(page, tmp_path / "large.png")
    facts(page, "large.png, 640 × 400 px")
    page.wait_for_selector("#inpaint-plan :text('128 × 80 px and put into the picture of 640 × 400 px')")
    paint(page)
    page.click("#inpaint-button")
    page.wait_for_selector("#restore-status :text('put into the whole picture')")
    _, pictures = saved(page, "#restore-save")
    answer = np.asarray(pictures["large-inpainted-1.png"])
    assert answer.shape == given.shape and 0.5 < (answer == given).all(-1).mean() < 1


def test_upscaling_says_the_sizes_and_never_makes_smaller(page, tmp_path):
    tab(page, "Restore")
    tab(page, "Upscale")
    Image.fromarray(picture(3, 24, 20)).save(tmp_path / "small.png")
    upload(page, tmp_path / "small.png")
    facts(page, "small.png")  # a picture of another test may have the same size
    page.wait_for_selector("#upscale-plan :text('24 × 20 px go in, 96 × 80 px come out')")
    page.get_by_label("2", exact=True).check()
    page.wait_for_selector("#upscale-plan :text('48 × 40 px come out')")
    page.click("#upscale-button")
    page.wait_for_selector("#restore-status :text('From 24 × 20 px to 48 × 40 px')")
    name, pictures = saved(page, "#restore-save")
    assert name == "small-enlarged.zip" and pictures["small-enlarged-1.png"].size == (48, 40)
    before, after = (
        picture_of(page, page.locator("#before-after img").nth(i).get_attribute("src")) for i in range(2)
    )
    assert before.size == after.size and before.width >= 240  # small pictures are shown large, and whole
    box = page.locator("#before-after img").first.bounding_box()
    assert abs(box["width"] / box["height"] - 1.2) < 0.02
    Image.fromarray(picture(3, 1500, 1000)).save(tmp_path / "photo.png")
    upload(page, tmp_path / "photo.png")
    facts(page, "photo.png")
    page.get_by_label("8", exact=True).check()
    page.wait_for_selector("#upscale-plan .error:has-text('Choose the factor 2')")
    page.click("#upscale-button")
    page.wait_for_selector("#restore-status .error:has-text('12000 × 8000 px')")


@pytest.mark.slow  # it waits for the page, which busy cores keep from answering in time
def test_deep_and_broken_files(page, tmp_path):
    tab(page, "Restore")
    tab(page, "Undo a degradation")
    deep = (picture(4, 24, 20)[..., 0].astype(np.uint16)) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    upload(page, tmp_path / "deep.png")
    facts(page, "deep.png")
    shown = np.asarray(picture_of(page, page.locator("#restore-picture img").get_attribute("src")))
    assert abs(shown.mean() - deep.mean() / 257) < 2
    page.click("#restore-button")
    page.wait_for_selector("#restore-status :text('about')")  # how long it still takes
    page.wait_for_selector("#restore-status :text('Click on one')")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    upload(page, tmp_path / "broken.jpg")
    page.wait_for_selector("#picture-facts .error:has-text('broken.jpg cannot be used')")
    assert "/" not in page.inner_text("#picture-facts")
    assert page.locator("#restore-picture img").is_visible()  # the picture before is still there
    field = page.locator("#degradation input")
    field.fill("mask:/etc/passwd")
    field.press("Enter")
    page.click("#restore-button")
    page.wait_for_selector("#restore-status .error:has-text('paint it under Inpaint')")


# ---------------------------------------------------------------- Generate


def seed_of(page) -> int:
    return int(page.input_value("#seed input"))


DRAWN = "name => document.querySelector('#samples a')?.download === name"


def generate(page) -> int:
    """Generate with a new seed, which is returned."""
    page.check("#seed-new input")
    before = seed_of(page)
    page.click("#generate-button")
    page.wait_for_function("before => +document.querySelector('#seed input').value !== before", arg=before)
    page.wait_for_selector(f"#generate-status :text('the seed {seed_of(page)}')")
    page.wait_for_function(DRAWN, arg=f"tiny-{seed_of(page)}-000.png")
    return seed_of(page)


def test_seeds_history_and_files(page):
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 2)
    set_slider(page, "#number", 3)
    seeds = []
    for _ in range(2):
        seeds.append(generate(page))
    assert seeds[0] != seeds[1]
    page.wait_for_function("document.querySelectorAll('#samples a').length === 3")
    first = page.locator("#samples img").first.get_attribute("src")
    page.fill("#seed input", "12")
    page.press("#seed input", "Enter")  # which generates, with the seed that was typed
    page.wait_for_selector("#generate-status :text('the seed 12')")
    page.wait_for_function(DRAWN, arg="tiny-12-000.png")
    assert not page.is_checked("#seed-new input")
    name, pictures = saved(page, "#generate-save")
    assert name == "tiny-12.zip" and set(pictures) == {f"tiny-12-{i:03d}.png" for i in range(3)}
    page.locator("#history button").nth(1).click()
    page.wait_for_selector(f"#generate-status :text('the seed {seeds[1]}')")
    assert seed_of(page) == seeds[1]
    assert page.locator("#samples img").first.get_attribute("src") == first


def test_cancelling_brings_the_finished_samples_back(page):
    tab(page, "Generate")
    generate(page)
    before = page.locator("#samples a").first.get_attribute("href")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 300)
    set_slider(page, "#number", 64)  # long enough that a slow browser still comes in time to cancel it
    page.click("#generate-button")
    page.wait_for_selector("#samples span img")
    page.click("#generate-cancel")
    page.wait_for_selector("#generate-status :text('Cancelled')")
    page.wait_for_selector("#samples a")
    assert page.locator("#samples a").first.get_attribute("href") == before
    assert page.locator("#generate-save").is_visible()
    set_slider(page, "#steps", 2)
    set_slider(page, "#number", 3)


@pytest.mark.slow
def test_a_sample_goes_to_restore_and_back(page):
    tab(page, "Generate")
    generate(page)
    page.locator("#samples a").nth(1).click()
    page.click("dialog >> text=Use in Restore")
    facts(page, "-001.png, 16 × 16 px")
    tab(page, "Inpaint")
    paint(page)
    page.click("#inpaint-button")
    page.wait_for_selector("#restore-status :text('4 samples')")
    page.click("#use-in-generate")
    page.wait_for_selector("#edit-picture img")
    set_slider(page, "#strength", 0.3)
    generate(page)
    page.locator("#edit-remove").click()
    page.wait_for_selector("#edit-file input[type=file]", state="attached")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_button_and_the_samples_are_on_the_first_screen(page, width, height):
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 2)
    generate(page)
    page.set_viewport_size({"width": width, "height": height})
    try:
        page.evaluate("scrollTo(0, 0)")
        button, samples = (page.locator(s).bounding_box() for s in ("#generate-button", "#samples .grid"))
        fits = page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})
    assert fits and button["y"] + button["height"] < 0.7 * height and samples["y"] + 100 < height


# ---------------------------------------------------------------- Compare and the whole page


def test_compare_checks_its_values_first(page):
    tab(page, "Compare")
    page.get_by_label("steps", exact=True).check()
    page.wait_for_function("document.querySelector('#values input, #values textarea').value.includes('50')")
    page.fill("#values input, #values textarea", "2, 3, none")
    page.click("#compare-button")
    page.wait_for_selector("#compare-status .error:has-text('none')")
    assert page.locator("#compare-table img").count() == 0
    page.fill("#values input, #values textarea", "2, 3")
    page.click("#compare-button")
    page.wait_for_selector("#compare-status :text('same initial noise')")
    heads = [head.bounding_box()["width"] for head in page.locator("#compare-table th").all()]
    assert page.locator("#compare-table img").count() == 8 and min(heads) >= 60


def test_dark_text_in_the_accent_colour_is_readable(browser, address):
    page = browser.new_page(color_scheme="dark", viewport={"width": 1280, "height": 900})
    page.goto(address + "/es")
    page.wait_for_selector("#model-facts :text('16 × 16')")
    colors = page.evaluate(
        """() => ['.language', '[role=tab][aria-selected=true]', '.brand span']
            .map((selector) => getComputedStyle(document.querySelector(selector)).color)
            .concat(getComputedStyle(document.body).backgroundColor)"""
    )
    page.close()

    def luminance(color: str) -> float:
        parts = np.array([float(v) for v in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    *words, ground = map(luminance, colors)
    assert all((word + 0.05) / (ground + 0.05) >= 4.5 for word in words), colors
