"""The tabs Runs and Process in a real browser: trainings begun, paused and resumed there, and films."""

import io
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from alphabar.runs.run import Run
from test_studio_page import (  # noqa: F401 (fixtures)
    address,
    browser,
    folder,
    opened,
    page,
    picture_of,
    set_slider,
    tab,
)

# Fixtures are used by their names.
# ruff: noqa: F811


def value(page, selector: str, text: str) -> None:
    page.fill(f"{selector} input, {selector} textarea", text)


def choose(page, selector: str, option: str) -> None:
    page.click(f"{selector} input")
    page.get_by_role("option", name=option, exact=True).click()


# ---------------------------------------------------------------- the process


def test_the_process_is_there_at_once_and_plays_as_a_film(page):
    tab(page, "Process")
    page.wait_for_selector("#process-pictures img")  # nothing was clicked
    set_slider(page, "#time", 0)
    page.wait_for_selector("#process-lesson :text('0.00')")
    sources = [page.locator("#process-pictures img").nth(i).get_attribute("src") for i in range(4)]
    picture, noisy, noise, estimate = (np.array(picture_of(page, source)) for source in sources)
    assert (picture == noisy).all() and (picture == estimate).all()  # t = 0 is the picture
    assert np.ptp(noise) == 0
    set_slider(page, "#time", 0.9)
    page.wait_for_selector("#process-lesson :text('0.90')")
    assert page.locator("#process-curves svg").count() == 2

    page.click("#forward-button")
    page.wait_for_selector("#film .moment.shown img")
    film, play = page.locator("#film .film"), page.locator("#film .play")
    page.select_option("#film select", "4")
    play.click()
    page.wait_for_function("() => +document.querySelector('#film .film').dataset.at > 3")
    play.click()
    at = film.get_attribute("data-at")
    film.focus()
    page.keyboard.press("ArrowRight")
    assert int(film.get_attribute("data-at")) == int(at) + 1
    assert play.get_attribute("aria-pressed") == "false"
    page.keyboard.press("f")
    page.wait_for_function("() => document.fullscreenElement?.className === 'film'")
    page.evaluate("document.exitFullscreen()")
    assert page.locator("#film .moment.shown").count() == 1

    page.click("#reverse-button")
    link = page.locator("#film a[download='reverse-tiny.gif']")
    link.wait_for()
    response = page.request.get(link.evaluate("link => link.href"))
    with Image.open(io.BytesIO(response.body())) as gif:
        assert gif.n_frames > 3 and gif.width > 2 * gif.height
    page.locator(".term", has_text="SNR").first.hover()
    assert page.locator(".term [role=tooltip]", has_text="signal-to-noise").first.is_visible()
    glossary = page.request.get(page.locator(".term", has_text="SNR").first.evaluate("a => a.href"))
    assert glossary.ok and 'id="snr"' in glossary.text()


# ---------------------------------------------------------------- runs


def test_a_form_with_something_wrong_says_so_beside_its_button_and_leaves_nothing(page, folder, tmp_path):
    tab(page, "Runs")
    page.wait_for_selector("#runs-table td")
    page.click("#new-run button")
    wrong = {"": "no name yet", "../x": "cannot be the name", "tiny": "already a run called"}
    for name, said in wrong.items():
        value(page, "#new-name", name)
        page.click("#train-button")
        page.wait_for_selector(f"#new-status .error:has-text('{said}')")
    value(page, "#new-name", "my cats")
    value(page, "#new-budget", "soon")
    page.click("#train-button")
    page.wait_for_selector("#new-status .error:has-text('is not a time')")
    value(page, "#new-budget", "5s")
    page.click("#train-button")
    page.wait_for_selector("#new-status .error:has-text('Upload a zip')")
    assert not (folder / ".pictures").exists() and not (folder / "my cats").exists()
    page.click("#new-run button")


def test_a_new_training_is_shown_and_paused_at_once(page, folder, picture_folder, tmp_path):
    tab(page, "Runs")
    file = tmp_path / "bundle.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for i, path in enumerate(sorted(picture_folder.glob("*.png"))):
            archive.write(path, f"{'waves' if i % 2 else 'ripples'}/{path.name}")
    page.click("#new-run button")
    page.set_input_files("#new-files input[type=file]", file)
    page.wait_for_selector("#new-found :text('2 classes')")  # what suits the pictures is set
    assert page.locator("#new-condition input").input_value() == "class (folders)"
    value(page, "#new-name", "my cats")
    value(page, "#new-budget", "1h")
    choose(page, "#new-recipe", "finetune tiny, at its size")
    page.click("#train-button")
    # It is shown at once, and named by the button that pauses it, although another run was shown.
    page.wait_for_selector("#runs-table tr:has-text('my cats') .active")
    page.wait_for_selector("#runs-chosen :text('my cats')")
    page.click("#pause-button:has-text('Pause my cats')")
    page.wait_for_selector("#runs-following :text('my cats has ended')")
    assert page.locator("#runs-following .error, #runs-status .error").count() == 0
    if not (folder / "my cats").exists():  # it ended before there was anything to save
        assert list((folder / ".pictures").iterdir()) == []
    page.click("#new-run button")


def test_a_run_is_resumed_and_paused_renamed_and_deleted(page, folder):
    seen = Run(folder / "tiny").log.records()[-1]["images"]
    shutil.rmtree(folder / "my cats", ignore_errors=True)
    tab(page, "Runs")
    page.wait_for_selector("#more-budget :text('tiny has been trained for')")
    value(page, "#more-budget", "soon")
    page.click("#resume-button:has-text('Resume tiny')")
    page.wait_for_selector("#runs-status .error:has-text('is not a time')")
    value(page, "#more-budget", "1h")
    page.click("#resume-button")
    page.wait_for_selector("#runs-table .active")
    page.wait_for_function(
        "seen => document.querySelector('#runs-table tr + tr td:nth-child(3)').innerText !== `${seen}`",
        arg=seen,
    )
    page.click("#pause-button:has-text('Pause tiny')")
    page.wait_for_selector("#runs-table .active", state="detached")
    assert Run(folder / "tiny").checkpoints.newest()[0].images > seen

    shutil.copytree(folder / "tiny", folder / "spare")
    page.click("#run-manage button")
    value(page, "#rename-name", "my dogs")
    page.click("#rename-button")
    page.wait_for_selector("#runs-chosen :text('my dogs')")
    page.click("#delete-button")
    page.wait_for_selector("#manage-status :text('Delete my dogs for good')")
    page.click("#confirm-delete")
    page.wait_for_selector("#manage-status :text('my dogs is deleted')")
    assert not (folder / "my dogs").exists() and not (folder / "tiny").exists()
    page.wait_for_selector("#runs-chosen :text('spare')")
    value(page, "#rename-name", "tiny")
    page.click("#rename-button")
    page.wait_for_selector("#runs-chosen :text('tiny')")


@pytest.mark.slow
def test_a_run_is_evaluated_and_reported_on_the_page(page):
    tab(page, "Runs")
    page.click("#run-evaluation button")
    value(page, "#evaluate-n", "0")
    page.click("#evaluate-button")
    page.wait_for_selector("#evaluate-status .error:has-text('from 1 to')")
    value(page, "#evaluate-n", "20")
    page.click("#evaluate-button")
    page.wait_for_selector("#evaluation table")
    said = page.inner_text("#evaluation")
    assert re.search(r"n = 20 samples against \d+", said) and "Protocol" in said and "Real-vs-real" in said
    page.click("#report-button")
    page.wait_for_selector("#report-file a[download='tiny-report.html']", timeout=600_000)


@pytest.mark.slow
def test_a_model_is_finetuned_for_a_number_of_images(page, folder, picture_folder, tmp_path):
    tab(page, "Runs")
    if not page.is_visible("#train-button"):
        page.click("#new-run button")
    file = tmp_path / "more.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in picture_folder.glob("*.png"):
            archive.write(path, path.name)
    page.set_input_files("#new-files input[type=file]", file)
    page.wait_for_selector("#new-found :text('0 classes')", timeout=180_000)
    value(page, "#new-name", "finer")
    page.get_by_label("a number of images").check()
    field = "#new-budget input, #new-budget textarea"
    page.wait_for_function(f"() => document.querySelector('{field}').value === '200k'")
    value(page, "#new-budget", "64")
    page.click("#train-button")
    page.wait_for_selector("#new-status .error:has-text('choose a recipe')")
    choose(page, "#new-recipe", "finetune tiny, at its size")
    page.click("#train-button")
    page.wait_for_selector("#runs-following :text('finer has ended')", timeout=600_000)
    run = Run(folder / "finer")
    assert run.checkpoints.newest()[0].images == 64 and run.initial_weights.exists()
