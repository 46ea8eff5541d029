"""The commands ``report`` and ``compare``."""

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from alphabar.cli.console import localized, open_path, print_json, print_table, run_to_end, say
from alphabar.cli.options import JsonOption, OpenOption
from alphabar.errors import AlphabarError
from alphabar.messages import message


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="cli.help.report_run")],
    data: Annotated[str | None, typer.Option(metavar="DATA", help="cli.help.report_data")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="cli.help.report_out")] = None,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write RUN/report.html, a self-contained page with everything known of a run."""
    from alphabar.reporting.report import write_report
    from alphabar.reporting.report_figures import make_report_figures
    from alphabar.runs.run import Run

    with TemporaryDirectory() if out else nullcontext() as elsewhere:
        figures = Path(elsewhere) / "figures" if elsewhere else run / "report"
        try:
            run_to_end(make_report_figures(Run(run), data, figures))
            path = write_report(run, out, figures)
        except AlphabarError as error:
            if out is None and isinstance(error.__cause__, OSError):
                raise AlphabarError("reporting.elsewhere", problem=error.message) from None
            raise
    say(message("cli.page_written", path=path))
    open_path(path, show)
    print_json(as_json, {"run": str(run), "report": str(path)})


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="cli.help.compare_runs")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="cli.help.compare_out")] = Path("comparison.html"),
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table and one page: cost, quality, variety, copies, samples."""
    result = write_and_print_comparison(runs, out)
    open_path(out, show)
    print_json(as_json, {"page": str(out), **result.to_dict()})


def write_and_print_comparison(runs: list[Path], out: Path) -> Any:
    """Compare runs, print the tables and write the page. Returns the comparison."""
    from alphabar.reporting.comparison import compare as compare_runs
    from alphabar.reporting.comparison_page import comparison_rows, write_comparison

    result = run_to_end(compare_runs(runs))
    rankings = [(), *(table.ranking for table in result.tables)]
    for (title, (head, *body)), ranking in zip(comparison_rows(result), rankings, strict=True):
        print(localized(title))
        print_table(head, [tuple(map(localized, row)) for row in body])
        print("\n".join((*map(localized, ranking), "")))
    for note in result.notes:
        print(localized(message("cli.note", note=note)))
    write_comparison(result, out)
    say(message("cli.page_written", path=out))
    return result
