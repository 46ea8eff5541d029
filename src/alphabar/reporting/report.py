"""The report: one HTML page without outside links, made from what lies in a run folder."""

from pathlib import Path

from alphabar.errors import AlphabarError
from alphabar.files import is_file, write_file
from alphabar.reporting.pages import page_template
from alphabar.reporting.report_data import report_data


def write_report(run: str | Path, out: Path | None = None, figures: Path | None = None) -> Path:
    """Write the page and return its path. The same run folder gives the same bytes.

    out: the file of the page, by default RUN/report.html. figures: the folder of `make_report_figures`, by
    default RUN/report.
    A section without data says what to run. Raises AlphabarError where the folder is no run, or the page
    cannot be written.
    """
    run = Path(run)
    if not is_file(run / "recipe.toml"):
        raise AlphabarError("reporting.no_run", path=run)
    path = out or run / "report.html"
    html = page_template("report.html").render(**report_data(run, figures or run / "report"))
    write_file(path, html.encode(errors="backslashreplace"))
    return path
