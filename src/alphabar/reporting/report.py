"""The report: one HTML page without outside links, made from what lies in a run folder or a model folder."""

from pathlib import Path

from alphabar.files import write_file
from alphabar.messages import reader_language
from alphabar.reporting.exports import write_files
from alphabar.reporting.pages import files_folder, page_template, report_page
from alphabar.reporting.report_data import report_data, report_files
from alphabar.runs.model import locate


def write_report(path: str | Path, page: Path | None = None, language: str | None = None) -> Path:
    """Write the report of a run, or of a model without its run, and return the path of the page.

    page: the file, by default that of `report_page`. Its tables and figures are written into the folder
    `files_folder` beside it. language: "en" or "es", by default the reader's. The same run folder gives the
    same bytes. A section without data says what to run.

    Raises AlphabarError where there is neither run nor model, or the page cannot be written, UsageError where
    the page is no .html.
    """
    page = page or report_page(path)
    language = language or reader_language()
    folder = files_folder(page)
    data = report_data(locate(path), folder, str(path), language)
    write_files(folder, report_files(data))
    html = page_template("report.html", language).render(**data)
    write_file(page, html.encode(errors="backslashreplace"))
    return page
