"""What the benchmarks of the studio share: the studio with a run, a browser, and moving on the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import common  # noqa: F401 (makes tests/ importable)
from alphabar.messages import message
from alphabar.runtime import Runtime
from alphabar.training.loop import begin, train
from test_studio_page import CHROMIUM, launch, stop, unfold
from test_studio_pictures import paint
from training_child import tiny_dataset, tiny_recipe

__all__ = ["TABS", "choose_tab", "chromium", "paint", "studio", "tiny_run", "unfold"]

TABS = ("generate", "process", "restore", "runs", "compare", "data")


def tiny_run(folder: Path) -> Path:
    """A folder of runs with one of a tiny model."""
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(pictures / f"{i:03d}.png")
    run = begin(folder / "runs" / "tiny", tiny_recipe("monitor.samples=4"))
    run.remember_data(str(pictures))
    for _ in train(tiny_dataset(pictures), run, images=160, runtime=Runtime()):
        pass
    return folder / "runs"


@contextmanager
def studio(folder: Path) -> Iterator[str]:
    """The address of a studio that has opened a folder."""
    process, address = launch(folder)
    try:
        yield address
    finally:
        stop(process)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def choose_tab(page: Any, language: str, tab: str) -> None:
    """Open a tab; on a narrow page it may stand in a menu."""
    name = message(f"studio.{tab}").in_language(language)
    button = page.get_by_role("tab", name=name, exact=True)
    if button.is_visible():
        button.click()
    else:
        page.locator(".overflow-menu button").first.click()
        page.locator(f".overflow-dropdown button:has-text('{name}')").click()
    page.wait_for_timeout(200)
