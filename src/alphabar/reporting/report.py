"""The report: one HTML page without outside links, made from what lies in a run folder."""

from pathlib import Path

from alphabar.errors import AlphabarError
from alphabar.files import write_file
from alphabar.reporting.pages import page_template
from alphabar.reporting.report_data import report_data


def write_report(run: str | Path) -> Path:
    """Write RUN/report.html and return its path. The same run folder gives the same bytes.

    A section without data says what to run. Raises AlphabarError where the folder is no run, or cannot be
    written to.
    """
    run = Path(run)
    if not (run / "recipe.toml").is_file():
        raise AlphabarError("reporting.no_run", path=run)
    path = run / "report.html"
    write_file(path, page_template("report.html").render(**report_data(run)).encode())
    return path
