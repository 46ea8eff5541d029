"""How long and how many clicks until a newcomer has something on the studio's page?

    python benchmarks/studio_first_minutes.py PICTURES

Starts the studio with an empty folder and the shipped model cars64, in Chromium, and does three things as a
newcomer would: generates a first picture, fills in a part of a photo of PICTURES (a folder), and begins a
training with a zip of it. Clicks, choices of a file, strokes and typed fields are counted, and the time goes
from the moment before the first to the moment when the result is seen. Needs Chromium. Prints a section of
docs/results/user_testing.md.
"""

import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from common import argument_parser, note, print_command, print_section, print_table
from studio_browser import choose_tab, chromium, paint, studio

MODEL = "cars64"
PHOTOS = 100  # of the training


class Newcomer:
    """A person at the page, whose deeds are counted."""

    def __init__(self, page: Any):
        self.page, self.deeds, self.began = page, 0, time.monotonic()

    def begin(self) -> None:
        """Start counting."""
        self.deeds, self.began = 0, time.monotonic()

    def click(self, selector: str) -> None:
        """One click."""
        self.deeds += 1
        self.page.click(selector)

    def tab(self, name: str) -> None:
        """One click on a tab."""
        self.deeds += 1
        choose_tab(self.page, "en", name)

    def file(self, selector: str, file: Path) -> None:
        """One choice of a file."""
        self.deeds += 1
        self.page.locator(f"{selector} input[type=file]").set_input_files(file)

    def row(self, what: str, first: float, whole: float | None = None) -> list[str]:
        """The row of a task. first, whole: when the first and the whole result were seen."""
        seconds = f"{first - self.began:.1f}", "–" if whole is None else f"{whole - self.began:.1f}"
        note(f"{what}: {seconds}, {self.deeds}")
        return [what, str(self.deeds), *seconds]


def generated(person: Newcomer) -> list[str]:
    """The first samples of the model."""
    person.begin()
    person.click("#generate-button")
    person.page.wait_for_selector("#samples img")
    first = time.monotonic()
    person.page.wait_for_selector("#samples a")
    return person.row("generate 16 pictures", first, time.monotonic())


def inpainted(person: Newcomer, photo: Path) -> list[str]:
    """A part of a photo filled in, four times."""
    person.begin()
    person.tab("restore")
    person.file("#picture-upload", photo)
    paint(person.page)
    person.deeds += 1
    person.click("#inpaint-button")
    person.page.wait_for_selector("#restore-forming img")
    first = time.monotonic()
    person.page.wait_for_selector("#restored-samples img", timeout=900_000)
    return person.row("inpaint a photo, 4 samples", first, time.monotonic())


def trained(person: Newcomer, archive: Path) -> list[str]:
    """A training from a zip that shows its first loss; it is paused then."""
    person.begin()
    person.tab("runs")
    if not person.page.is_visible("#train-button"):
        person.click("#new-run button")
    person.file("#new-files", archive)
    person.page.fill("#new-name input, #new-name textarea", "mine")
    person.deeds += 1
    person.page.wait_for_selector("#new-found p")
    person.click("#train-button")
    person.page.wait_for_selector("#runs-table tr:has-text('mine') .active")
    first = time.monotonic()
    person.page.wait_for_selector("#runs-curves svg", timeout=900_000)
    whole = time.monotonic()
    person.page.click("#pause-button")
    return person.row("train with a zip (listed; first loss)", first, whole)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("pictures", type=Path, metavar="PICTURES")
    photos = sorted(parser.parse_args().pictures.glob("*.jpg"))
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        archive, opened = Path(scratch) / "photos.zip", Path(scratch) / "runs"
        opened.mkdir()
        with zipfile.ZipFile(archive, "w") as packed:
            for photo in photos[:PHOTOS]:
                packed.write(photo, photo.name)
        began = time.monotonic()
        with studio(opened) as address, chromium() as browser:
            started = time.monotonic()
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(300_000)
            page.goto(f"{address}/?language=en")
            page.wait_for_selector("#model-facts :text('64 × 64')")
            seconds = f"{started - began:.1f}", f"{time.monotonic() - began:.1f}"
            rows.append(["start the studio (address printed; page ready)", "0", *seconds])
            person = Newcomer(page)
            rows.append(generated(person))
            rows.append(inpainted(person, photos[0]))
            rows.append(trained(person, archive))
    print_section(
        "## The first minutes on the page",
        "How many seconds and clicks does a newcomer need until there is something to see?",
        f"{MODEL} in an empty folder, Chromium without a screen, {os.cpu_count()} cores that others may use "
        f"as well (load {load:.1f} before, {os.getloadavg()[0]:.1f} after), the page's default settings. A "
        f"deed is a click, a choice of a file, a stroke or a typed field. The zip has {PHOTOS} photos.",
    )
    print_table(["task", "deeds", "seconds to the first thing seen", "seconds to the whole"], rows)
    print_command()


if __name__ == "__main__":
    main()
