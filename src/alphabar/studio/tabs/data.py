"""The tab Data: what ``alphabar inspect`` says, to look at."""

import html
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import read_image
from alphabar.data.inspect import Report, inspect
from alphabar.data.items import Source, read
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.studio.page import LIGHT, Page, cancelling, data_uri, empty
from alphabar.studio.upload import unpack

CLASSES, SKIPPED, GROUPS = 24, 40, 12  # shown


SIDE = 128  # pixels of a thumbnail


BUILT_IN = "toycars"


def tab(page: Page) -> None:
    """Build the tab."""
    text = page.text
    names = page.shelf.runs()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            what = gr.Dropdown(
                _choices(page),
                value=f"run:{names[0]}" if names else "upload",
                label=text("data_what"),
                elem_id="data-what",
            )
            files = gr.File(
                label=text("pictures_drop"),
                file_count="multiple",
                file_types=[".zip", "image"],
                height=150,
                visible=not names,
                elem_id="data-files",
            )
            with gr.Row():
                go = gr.Button(text("inspect"), variant="primary", elem_id="inspect", min_width=90)
                stop = gr.Button(text("cancel"), min_width=90)
            said = gr.HTML(elem_id="data-said")
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(empty(text("data_empty")), elem_id="data-report")

    def look(what: str, files: list[str] | None) -> Iterator[tuple[str, str]]:
        kind, _, name = what.partition(":")
        uploaded = None
        try:
            if kind == "upload":
                if not files:
                    raise UsageError(text("no_files_given"))
                uploaded = Path(tempfile.mkdtemp(dir=page.files))
                unpack([Path(file) for file in files], uploaded / "pictures")
                source = open_source(uploaded / "pictures")
            elif kind == "run":
                data = page.shelf.run(name).data
                if data is None:
                    raise AlphabarError(text("no_data"))
                source = open_source(data)
            else:
                source = open_source(BUILT_IN)
            for record in inspect(source):
                yield (
                    page.progress(
                        record.done, record.total, text("looking", n=record.done, total=record.total)
                    ),
                    empty("…"),
                )
            assert record.result is not None
            yield page.note(""), report_of(page, record.result, source)
        finally:
            if uploaded is not None:
                shutil.rmtree(uploaded, ignore_errors=True)

    def adapt(what: str):
        return gr.update(visible=what == "upload")

    what.change(adapt, what, files, **LIGHT)
    what.focus(lambda: gr.update(choices=_choices(page)), None, what, **LIGHT)
    job = go.click(page.told(look), [what, files], [said, shown], concurrency_limit=1, show_progress="hidden")
    cancelling(page, stop, [job], said)


def _choices(page: Page) -> list[tuple[str, str]]:
    runs = [(page.text("data_of", name=name), f"run:{name}") for name in page.shelf.runs()]
    return [*runs, (page.text("pictures_upload"), "upload"), (page.text("pictures_toycars"), BUILT_IN)]


def report_of(page: Page, report: Report, source: Source) -> str:
    """The report as HTML: facts, classes, what is double, what is bad."""
    text = page.text
    short, long = report.shorter_side, report.longer_side
    facts = (
        (f"{report.pictures:,}", text("fact_pictures")),
        (f"{len(report.skipped):,}", text("fact_bad")),
        (f"{len(report.classes):,}", text("fact_classes")),
        (f"{len(report.copies):,}", text("fact_double")),
        (f"{short[1]} × {long[1]}", text("fact_size")),
        (f"{report.size} px, {report.fit}", text("fact_suggested")),
    )
    boxes = "".join(
        f'<div class="fact"><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>' for a, b in facts
    )
    parts = [f'<div class="facts">{boxes}</div>']
    parts += [page.note(note) for note in (*report.notes, *report.reasons)]
    for title, counts in ((text("classes"), report.classes), (text("shapes"), report.aspects)):
        counted = {name: count for name, count in counts.items() if count}
        if counted:
            parts.append(f'<h3 class="part">{html.escape(title)}</h3>{bars(page, counted)}')
    if report.copies:
        parts.append(f'<h3 class="part">{html.escape(text("double"))}</h3>{twins(page, report, source)}')
    if report.skipped:
        rows = "".join(
            f'<tr><td class="long">{html.escape(skip.key)}</td>'
            f'<td class="long">{html.escape(skip.reason)}</td></tr>'
            for skip in report.skipped[:SKIPPED]
        )
        more = len(report.skipped) - SKIPPED
        rest = page.note(text("and_more", n=f"{more:,}")) if more > 0 else ""
        title = html.escape(text("bad"))
        parts.append(f'<h3 class="part">{title}</h3><table class="plain">{rows}</table>{rest}')
    return "".join(parts)


def bars(page: Page, counts: dict[str, int]) -> str:
    """How many pictures of each kind, the most numerous first."""
    most = max(counts.values())
    rows = "".join(
        f"<span>{html.escape(name)}</span>"
        f'<i style="width:{100 * count / most:.1f}%"></i><span>{count:,}</span>'
        for name, count in list(counts.items())[:CLASSES]
    )
    more = len(counts) - CLASSES
    return f'<div class="bars">{rows}</div>' + (page.note(page.text("and_more", n=more)) if more > 0 else "")


def twins(page: Page, report: Report, source: Source) -> str:
    """The first two pictures of each group that show the same."""
    items = {item.key: item for item in source.items}
    figures = []
    for group in report.copies[:GROUPS]:
        images = []
        for key in group.keys[:2]:
            try:
                pixels = read_image(read(source, items[key]), (SIDE, SIDE), "crop").pixels
            except (Unreadable, KeyError):
                continue
            images.append(
                f'<img src="{data_uri(Image.fromarray(pixels), quick=True)}" alt="{html.escape(key)}">'
            )
        said = f"{page.text(f'copies_{group.kind}')}: {' = '.join(group.keys[:3])}"
        if group.across_split:
            said += f" ({page.text('across')})"
        figures.append(
            f"<figure><div>{''.join(images)}</div><figcaption>{html.escape(said)}</figcaption></figure>"
        )
    more = len(report.copies) - GROUPS
    rest = page.note(page.text("and_more", n=f"{more:,}")) if more > 0 else ""
    return f'<div class="twins">{"".join(figures)}</div>{rest}'
