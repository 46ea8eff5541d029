"""The tab Data: the report of ``alphabar inspect`` as a page."""

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import read_image
from alphabar.data.inspect import Report, inspect
from alphabar.data.items import Source, read
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.model import Model
from alphabar.studio.elements import heading, note, picture_address, placeholder, progress_bar
from alphabar.studio.page import LIGHT, LOOKING, Page, Tab, paced
from alphabar.studio.temporary import TemporaryFiles
from alphabar.studio.upload import unpacked

MAX_CLASSES, MAX_SKIPPED, MAX_GROUPS = 24, 40, 12  # that are shown
THUMBNAIL = 128  # pixels a side
BUILT_IN = "toycars"


class Inspected(NamedTuple):
    """A report, and the addresses of the pictures that are copies, by their keys in the data."""

    report: Report
    pictures: Mapping[str, str]


class DataTab(Tab):
    """Its controls and their handlers."""

    def __init__(self, page: Page):
        self.page = page
        self.inspected = gr.State(None)
        text, names = page.text, page.models.runs()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280, elem_classes="controls"):
                self.choice = gr.Dropdown(
                    self._choices(),
                    value=f"run:{names[0]}" if names else "upload",
                    label=text("data"),
                    elem_id="data-choice",
                )
                self.files = gr.File(
                    label=text("upload"),
                    file_count="multiple",
                    height=150,
                    visible=not names,
                    elem_id="data-files",
                )
                with gr.Row():
                    self.inspect_button = gr.Button(
                        text("inspect"), variant="primary", elem_id="inspect-button", min_width=90
                    )
                    self.cancel_button = gr.Button(text("cancel"), min_width=90)
                self.status = gr.HTML(elem_id="data-status")
            with gr.Column(scale=5, min_width=320):
                self.report = gr.HTML(placeholder(text("data_empty")), elem_id="data-report")
        self._connect()

    def _connect(self) -> None:
        page = self.page
        self.choice.change(
            lambda choice: gr.update(visible=choice == "upload"), self.choice, self.files, **LIGHT
        )
        self.choice.focus(lambda: gr.update(choices=self._choices()), None, self.choice, **LIGHT)
        job = self.inspect_button.click(
            page.handler(self.inspect, self.status),
            [self.choice, self.files],
            [self.status, self.report, self.inspected],
            **LOOKING,
        )
        self.kept, self.views = [self.inspected, self.choice, self.files], [self.report]
        page.cancel_button(self.cancel_button, [job], self.status)

    def _choices(self) -> list[tuple[str, str]]:
        text = self.page.text
        runs = [(text("data_of_run", name=name), f"run:{name}") for name in self.page.models.runs()]
        return [*runs, (text("own_pictures"), "upload"), (text("toycars"), BUILT_IN)]

    def inspect(self, choice: str, files: list[str] | None) -> Iterator[dict[Any, Any]]:
        """The report of the data that were chosen."""
        text = self.page.text
        # What stood here is of other data.
        yield {self.status: note(""), self.report: placeholder("…"), self.inspected: None}
        with self._source(choice, files) as source:
            for record in paced(inspect(source)):
                line = text("inspecting", n=record.done, total=record.total)
                yield {self.status: progress_bar(record.done, record.total, line)}
            assert record.result is not None
            found = Inspected(record.result, copied_pictures(record.result, source))
            yield {self.status: note(""), self.report: report_page(self.page, found), self.inspected: found}

    def show_kept(self, model: Model, values: Sequence[Any]) -> dict[Any, Any]:
        """The last report."""
        return {} if values[0] is None else {self.report: report_page(self.page, values[0])}

    @contextmanager
    def _source(self, choice: str, files: list[str] | None) -> Iterator[Source]:
        """The data that were chosen; those that were uploaded are removed afterwards."""
        kind, _, name = choice.partition(":")
        if kind == "upload":
            if not files:
                raise UsageError("studio.no_files")
            with unpacked([Path(file) for file in files], TemporaryFiles(self.page.files)) as folder:
                yield open_source(folder)
        elif kind == "run":
            data = self.page.models.run(name).data
            if data is None:
                raise AlphabarError("studio.no_data")
            yield open_source(data)
        else:
            yield open_source(BUILT_IN)


def report_page(page: Page, found: Inspected) -> str:
    """The report as HTML: facts, notes, classes, copies and skipped files."""
    text, report = page.text, found.report
    parts = [facts(page, report)]
    parts += [note(page.say(each)) for each in (*report.notes, *report.reasons)]
    for title, counts in ((text("classes"), report.classes), (text("aspects"), report.aspects)):
        present = {name: count for name, count in counts.items() if count}
        if present:
            parts.append(heading(title) + bars(page, present))
    if report.copies:
        parts.append(heading(text("copies")) + copies(page, found))
    if report.skipped:
        rows = "".join(
            f'<tr><td class="long">{html.escape(skipped.key)}</td>'
            f'<td class="long">{html.escape(page.say(skipped.reason))}</td></tr>'
            for skipped in report.skipped[:MAX_SKIPPED]
        )
        rest = and_more(page, len(report.skipped) - MAX_SKIPPED)
        parts.append(f'{heading(text("skipped"))}<table class="plain">{rows}</table>{rest}')
    return "".join(parts)


def and_more(page: Page, count: int) -> str:
    """How many entries of a list are not shown; nothing where there are none."""
    return note(page.text("and_more", n=f"{count:,}")) if count > 0 else ""


def facts(page: Page, report: Report) -> str:
    """The most important numbers of a report, each in a box."""
    text = page.text
    shown = (
        (f"{report.pictures:,}", text("fact_pictures")),
        (f"{len(report.skipped):,}", text("fact_skipped")),
        (f"{len(report.classes):,}", text("fact_classes")),
        (f"{len(report.copies):,}", text("fact_copies")),
        (f"{report.shorter_side[1]} × {report.longer_side[1]}", text("fact_size")),
        (f"{report.size} px, {page.text_or(f'fit_{report.fit}', report.fit)}", text("fact_suggestion")),
    )
    boxes = "".join(
        f'<div class="fact"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>'
        for value, name in shown
    )
    return f'<div class="facts">{boxes}</div>'


def bars(page: Page, counts: Mapping[str, int]) -> str:
    """A bar for each count, the largest first."""
    most = max(counts.values())
    rows = "".join(
        f"<span>{html.escape(page.say(name))}</span>"
        f'<i style="width:{100 * count / most:.1f}%"></i><span>{count:,}</span>'
        for name, count in list(counts.items())[:MAX_CLASSES]
    )
    return f'<div class="bars">{rows}</div>' + and_more(page, len(counts) - MAX_CLASSES)


def copied_pictures(report: Report, source: Source) -> dict[str, str]:
    """The addresses of small pictures of the first two of each group of copies, by their keys."""
    items, pictures = {item.key: item for item in source.items}, {}
    for group in report.copies[:MAX_GROUPS]:
        for key in group.keys[:2]:
            try:
                pixels = read_image(read(source, items[key]), (THUMBNAIL, THUMBNAIL), "crop").pixels
            except (Unreadable, KeyError):
                continue
            pictures[key] = picture_address(pixels, lossless=False)
    return pictures


def copies(page: Page, found: Inspected) -> str:
    """The first two pictures of each group of copies."""
    shown, report, pictures = [], found.report, found.pictures
    for group in report.copies[:MAX_GROUPS]:
        images = [
            f'<img src="{pictures[key]}" alt="{html.escape(key)}">'
            for key in group.keys[:2]
            if key in pictures
        ]
        caption = f"{page.text(f'copies_{group.kind}')}: {' = '.join(group.keys[:3])}"
        if group.across_split:
            caption += f" ({page.text('across_split')})"
        shown.append(
            f"<figure><div>{''.join(images)}</div><figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div class="copies">{"".join(shown)}</div>' + and_more(page, len(report.copies) - MAX_GROUPS)
