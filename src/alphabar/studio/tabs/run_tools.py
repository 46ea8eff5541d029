"""Tools for one run in the tab Runs: its evaluation, its report, another name, and its end."""

import shutil
from collections.abc import Iterator
from typing import Any

import gradio as gr

from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.evaluation.evaluate import evaluate
from alphabar.evaluation.record import add_to_run
from alphabar.progress import Progress, last
from alphabar.reporting.report import write_report
from alphabar.reporting.report_figures import make_report_figures
from alphabar.runs.run import Run
from alphabar.studio.elements import error_note, note, progress_bar, terms
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, paced
from alphabar.studio.run_views import evaluation_view, format_bytes

SAMPLES = 500  # of an evaluation, by default: enough for a first impression
MOST_SAMPLES = 50_000


class RunTools:
    """Its controls and their handlers. All act on the first run that is shown."""

    def __init__(self, page: Page):
        self.page = page
        self.evaluation = gr.State(None)  # the last one
        text = page.text
        with gr.Accordion(text("evaluate_and_report"), open=False, elem_id="run-evaluation"):
            gr.HTML(note(text("evaluate_help")) + terms(page.language, "kid", "real_baseline", "held_out"))
            with gr.Row(equal_height=False):
                self.samples = gr.Number(
                    SAMPLES, label=text("evaluate_n"), precision=0, min_width=110, elem_id="evaluate-n"
                )
                self.evaluate_button = gr.Button(
                    text("evaluate"), variant="primary", elem_id="evaluate-button", min_width=90
                )
                self.report_button = gr.Button(text("report"), elem_id="report-button", min_width=90)
                self.cancel_button = gr.Button(text("cancel"), min_width=90)
            self.status = gr.HTML(elem_id="evaluate-status")
            self.result = gr.HTML(elem_id="evaluation")
            self.file = gr.File(label=text("report"), visible=False, elem_id="report-file")
        if not page.models.single:
            with gr.Accordion(text("rename_or_delete"), open=False, elem_id="run-manage"):
                self._add_management()

    def _add_management(self) -> None:
        text = self.page.text
        with gr.Row(equal_height=False):
            self.new_name = gr.Textbox("", label=text("new_name"), min_width=160, elem_id="rename-name")
            self.rename_button = gr.Button(text("rename"), elem_id="rename-button", min_width=90)
            self.delete_button = gr.Button(text("delete"), elem_id="delete-button", min_width=90)
        self.managed = gr.HTML(elem_id="manage-status")
        self.doomed = gr.State(None)  # the name of the run that is deleted when that is confirmed
        with gr.Row(visible=False) as self.confirmation:
            self.confirm_button = gr.Button(
                text("delete_confirm"), variant="stop", elem_id="confirm-delete", min_width=90
            )
            self.keep_button = gr.Button(text("keep"), elem_id="keep-run", min_width=90)

    def connect(self, chosen: gr.Dropdown, begun: gr.State) -> None:
        """Connect the handlers. chosen: the runs that are shown. begun: takes the name of a run to show."""
        page, status = self.page, self.status
        job = self.evaluate_button.click(
            page.handler(self.evaluate, status),
            [chosen, self.samples],
            [status, self.result, self.evaluation],
            **ONE_AT_A_TIME,
        )
        report = self.report_button.click(
            page.handler(self.report, status), chosen, [status, self.file], **ONE_AT_A_TIME
        )
        page.cancel_button(self.cancel_button, [job, report], status)
        if page.models.single:
            return
        gr.on(
            [self.rename_button.click, self.new_name.submit],
            page.handler(self.rename, self.managed),
            [chosen, self.new_name],
            [self.managed, begun],
            **LIGHT,
        )
        asked = [self.managed, self.doomed, self.confirmation]
        self.delete_button.click(page.handler(self.ask_to_delete, self.managed), chosen, asked, **LIGHT)
        self.confirm_button.click(
            page.handler(self.delete, self.managed), self.doomed, [*asked, begun], **LIGHT
        )
        self.keep_button.click(lambda: (note(""), None, gr.update(visible=False)), None, asked, **LIGHT)

    def evaluate(self, chosen: list[str], n: float) -> Iterator[dict[Any, Any]]:
        """Measures a run against its data; its report shows the numbers as well."""
        if not 1 <= (n or 0) <= MOST_SAMPLES:
            raise UsageError("studio.evaluate_n_range", most=f"{MOST_SAMPLES:,}")
        run = self._run(chosen)
        if run.data is None:
            raise AlphabarError("studio.no_data")
        yield {self.status: note(self.page.text("loading"))}
        model = self.page.models.load(run.path.name)
        dataset = last(prepare(open_source(run.data), model.codec, model.recipe.data.fit))
        if run.data_fingerprint not in (None, dataset.fingerprint):
            raise AlphabarError("studio.other_data", name=run.path.name)
        result = None
        for record in paced(evaluate(model, run.data, n=int(n))):
            yield {self.status: self._progress(record)}
            result = record.result
        assert result is not None
        problems = "".join(error_note(self.page.say(problem)) for problem in add_to_run(run, result))
        said = note(self.page.text("evaluation_of", name=run.path.name)) + problems
        yield {
            self.status: said,
            self.result: evaluation_view(self.page, result),
            self.evaluation: result,
        }

    def report(self, chosen: list[str]) -> Iterator[tuple[Any, Any]]:
        """Writes the report of a run and offers it."""
        run = self._run(chosen)
        for record in paced(make_report_figures(run)):
            yield self._progress(record), gr.skip()
        file = self.page.new_file(f"{run.path.name}-report.html")
        shutil.copyfile(write_report(run.path, language=self.page.language), file)
        said = note(self.page.text("report_written", name=run.path.name))
        yield said, gr.update(value=str(file), visible=True)

    def rename(self, chosen: list[str], new: str) -> Iterator[tuple[Any, Any]]:
        """Gives a run another name."""
        run, new = self._run(chosen), new.strip()
        self.page.models.rename(run.path.name, new)
        yield note(self.page.text("renamed", name=run.path.name, new=new)), new

    def ask_to_delete(self, chosen: list[str]) -> Iterator[tuple[Any, ...]]:
        """Asks whether a run is to be deleted, and says what that frees."""
        name = self._run(chosen).path.name
        size = format_bytes(self.page.models.disk_bytes(name))
        yield note(self.page.text("delete_question", name=name, size=size)), name, gr.update(visible=True)

    def delete(self, name: str | None) -> Iterator[tuple[Any, ...]]:
        """Deletes the run that was asked about."""
        self.page.models.delete(name)
        yield note(self.page.text("deleted", name=name)), None, gr.update(visible=False), f"-{name}"

    def _run(self, chosen: list[str]) -> Run:
        if not chosen:
            raise UsageError("studio.choose_run")
        return self.page.models.run(chosen[0])

    def _progress(self, record: Progress[Any]) -> str:
        return progress_bar(record.done, record.total, self.page.say(record.stage))
