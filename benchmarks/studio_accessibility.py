"""Can everybody use the studio? axe-core on every tab, and what the keyboard reaches.

    python benchmarks/studio_accessibility.py --axe axe.min.js [RUNS]

RUNS is the folder that the studio opens, otherwise one with a tiny run that is trained first. Every tab is
filled first: samples, a film, a restored picture, an evaluation, a comparison, an inspection. axe.min.js
comes from ``npm pack axe-core``. Needs Chromium. Prints a section of docs/results/user_testing.md; ends with
an error where markup of the studio's own has a serious or critical finding. ``--screenshots FOLDER`` also
photographs what it looks at.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alphabar.messages import LANGUAGES, message
from common import argument_parser, note, print_command, print_paragraph, print_section, print_table
from studio_browser import TABS, choose_tab, chromium, paint, studio, tiny_run, unfold

WIDTHS = {1280: 900, 390: 844}
SCHEMES = ("light", "dark")
IMPACTS = ("critical", "serious", "moderate", "minor")
# What the studio writes itself stands in these; everything else is made by Gradio.
OWN = ".prose, .html-container, dialog.lightbox, body > main"
FOCUSED = """() => {
    const element = document.activeElement, box = element.getBoundingClientRect();
    const shows = (each) => {
        const style = getComputedStyle(each);
        const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
        return outlined || style.boxShadow !== 'none';
    };
    const near = element.closest('[id]:not(body)');
    return {tag: element.tagName, id: near ? near.id : '',
        ring: shows(element) || shows(element.parentElement),
        text: (element.innerText || element.ariaLabel || '').trim(), seen: box.width > 0 && box.height > 0};
}"""


def findings(page: Any, where: str) -> Iterator[tuple[str, str, str, str, str]]:
    """(impact, rule, whose, place, where) of each element that axe-core finds fault with."""
    result = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    for violation in result["violations"]:
        for each in violation["nodes"]:
            target = each["target"][-1]
            own = page.evaluate(
                "([target, own]) => !!document.querySelector(target)?.closest(own)", [target, OWN]
            )
            whose = "studio" if own else "Gradio"
            impact, place = each["impact"] or violation["impact"], f"{target} {each['html'][:300]}"
            note(f"{where}: {whose}, {impact}, {violation['id']}, {place}")
            yield impact, violation["id"], whose, place, where


def fill(page: Any, language: str, picture: Path) -> None:
    """Put something on each tab."""
    choose_tab(page, language, "generate")
    for _ in range(2):
        page.click("#generate-button")
        page.wait_for_selector("#generate-save")
        page.wait_for_selector("#samples a")
    page.wait_for_selector("#history button")
    note("generated")
    choose_tab(page, language, "process")
    page.wait_for_selector("#process-curves svg")
    page.click("#forward-button")
    page.wait_for_selector("#film .moment.shown")
    note("film")
    choose_tab(page, language, "restore")
    page.locator("#picture-upload input[type=file]").set_input_files(picture)
    paint(page)
    page.click("#inpaint-button")
    page.wait_for_selector("#restored-samples img")
    note("restored")
    choose_tab(page, language, "compare")
    page.click("#compare-button")
    page.wait_for_selector("#compare-table img")
    page.wait_for_function("document.querySelectorAll('#compare-table i').length === 0")
    choose_tab(page, language, "data")
    page.click("#inspect-button")
    page.wait_for_selector("#data-report .fact")
    note("compared, inspected")
    choose_tab(page, language, "runs")
    page.wait_for_selector("#runs-table td")
    unfold(page, "#run-evaluation")
    page.fill("#evaluate-n input", "20")
    page.click("#evaluate-button")
    page.wait_for_selector("#evaluation table")
    page.wait_for_timeout(1000)


def looked_at(page: Any, language: str, screenshots: Path | None) -> Iterator[tuple[str, str, str, str, str]]:
    """The findings of every tab in both schemes and widths, folded and unfolded, and of an enlargement."""
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(300)
            for tab in TABS:
                choose_tab(page, language, tab)
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(400)
                where = f"{tab}, {language}, {scheme}, {width}"
                note(where)
                if screenshots:
                    file = screenshots / f"{tab}-{language}-{scheme}-{width}.png"
                    page.screenshot(path=file, full_page=True)
                yield from findings(page, where)
            choose_tab(page, language, "generate")
            page.locator("#samples a").first.click()
            page.wait_for_selector("dialog.lightbox")
            if screenshots:
                page.screenshot(path=screenshots / f"enlarged-{language}-{scheme}-{width}.png")
            yield from findings(page, f"enlarged, {language}, {scheme}, {width}")
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog.lightbox", state="detached")


def keyboard(page: Any, language: str) -> Iterator[tuple[str, str, str]]:
    """For each tab: how many presses of Tab lead from the tab's name to its main button and to its result,
    and how many of the stops on the way showed no focus."""
    stops = {
        "generate": ("#generate-button", "#samples a"),
        "process": ("#take-button", "#film .film"),
        "restore": ("#inpaint-button", "#restored-samples button"),
        "runs": ("#runs-chosen input", "#evaluate-button"),
        "compare": ("#compare-button", "#compare-table a"),
        "data": ("#inspect-button", None),
    }
    for tab, wanted in stops.items():
        choose_tab(page, language, tab)
        name = message(f"studio.{tab}").in_language(language)
        page.get_by_role("tab", name=name, exact=True).focus()
        reached: dict[str, int] = {}
        hidden = []
        for press in range(1, 90):
            page.keyboard.press("Tab")
            about = page.evaluate(FOCUSED)
            if about["tag"] == "BODY":
                break
            if not (about["ring"] and about["seen"]):
                hidden.append(f"{about['tag'].lower()} in #{about['id']} {about['text'][:20]}".strip())
            for selector in filter(None, wanted):
                inside = "selector => !!document.activeElement.closest(selector)"
                if selector not in reached and page.evaluate(inside, selector):
                    reached[selector] = press
        row = ", ".join(f"{selector}: {reached.get(selector, 'never')}" for selector in filter(None, wanted))
        yield tab, row, "; ".join(dict.fromkeys(hidden)) or "0"


def escapes(page: Any, language: str) -> bool:
    """Whether a sample is enlarged with Enter, closed with Esc, and has the focus again."""
    choose_tab(page, language, "generate")
    page.locator("#samples a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.lightbox")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.lightbox", state="detached")
    return bool(page.evaluate("document.activeElement === document.querySelector('#samples a')"))


def options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="?", metavar="RUNS")
    parser.add_argument("--axe", type=Path, required=True, help="axe.min.js, from npm pack axe-core")
    parser.add_argument("--languages", nargs="*", choices=LANGUAGES, default=LANGUAGES)
    parser.add_argument("--screenshots", type=Path)
    return parser.parse_args()


def main() -> None:
    args = options()
    found: list[tuple[str, str, str, str, str]] = []
    keys: dict[str, list[tuple[str, str, str]]] = {}
    returned = {}
    script = args.axe.read_text(encoding="utf-8")
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "picture.png"
        ramp = np.linspace(0, 255, 96 * 72 * 3).reshape(72, 96, 3)
        Image.fromarray(ramp.astype(np.uint8)).save(picture)
        with studio(args.runs or tiny_run(Path(scratch))) as address, chromium() as browser:
            for language in args.languages:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.set_default_timeout(120_000)
                page.goto(f"{address}/?language=en" if language == "en" else f"{address}/{language}")
                page.wait_for_selector("#model-facts p")
                page.evaluate(script)
                fill(page, language, picture)
                found += looked_at(page, language, args.screenshots)
                page.set_viewport_size({"width": 1280, "height": 900})
                keys[language] = list(keyboard(page, language))
                returned[language] = escapes(page, language)
                page.goto(f"{address}/{'' if language == 'en' else 'es/'}glossary")
                page.evaluate(script)
                found += findings(page, f"glossary, {language}")
                page.close()
    print_result(found, keys, returned)
    if any(impact in IMPACTS[:2] and whose == "studio" for impact, _, whose, _, _ in found):
        sys.exit("markup of the studio's own has serious findings")


def print_result(
    found: list[tuple[str, str, str, str, str]],
    keys: dict[str, list[tuple[str, str, str]]],
    returned: dict[str, bool],
) -> None:
    """The section of the result page."""
    print_section(
        "## Accessibility",
        "Can people who see, hear or move differently use every tab?",
        f"axe-core on {', '.join(TABS)} and an enlarged sample, everything filled ({', '.join(keys)}; "
        f"{' and '.join(SCHEMES)}; {' and '.join(map(str, WIDTHS))} px), and on the glossary. A finding is "
        "one element that breaks one rule, counted in each place where it is looked at.",
    )
    counts = Counter((impact, whose) for impact, _, whose, _, _ in found)
    rows = ([impact, *(str(counts[impact, whose]) for whose in ("studio", "Gradio"))] for impact in IMPACTS)
    print_table(["impact", "studio", "Gradio"], rows)
    kinds = Counter((whose, impact, rule, place) for impact, rule, whose, place, _ in found)
    print_table(
        ["whose", "impact", "rule", "element", "times"],
        (
            [whose, impact, rule, f"`{place[:150]}`".replace("|", "¦").replace("\n", " "), str(n)]
            for (whose, impact, rule, place), n in sorted(kinds.items())
        ),
    )
    rows = ([language, *row] for language, each in keys.items() for row in each)
    head = ["language", "tab", "presses of Tab from the tab's name", "stops without visible focus"]
    print_table(head, rows)
    print_paragraph(f"Enter enlarges a sample, Esc closes it and the sample has the focus again: {returned}.")
    print_command()


if __name__ == "__main__":
    main()
