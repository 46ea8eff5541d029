"""The commands ``report`` and ``compare``."""

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from alphabar.cli.console import localized, print_json, print_table, run_to_end, say
from alphabar.cli.options import JsonOption
from alphabar.errors import AlphabarError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="The training data, if it has moved since.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The page to write, where RUN takes none.", show_default="RUN/report.html"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write RUN/report.html, a self-contained page with everything known of a run.

    For example: alphabar report runs/mine
    """
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
    say(f"The report is at {path}")
    print_json(as_json, {"run": str(run), "report": str(path)})


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("comparison.html"),
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table and one page: cost, quality, variety, copies, samples.

    For example: alphabar compare runs/mine runs/other
    """
    from alphabar.reporting.comparison import compare as compare_runs
    from alphabar.reporting.comparison_page import comparison_rows, write_comparison

    result = run_to_end(compare_runs(runs))
    rankings = [(), *(table.ranking for table in result.tables)]
    for (title, (head, *body)), ranking in zip(comparison_rows(result), rankings, strict=True):
        print(title)
        print_table(head, body)
        print("\n".join((*map(localized, ranking), "")))
    for note in result.notes:
        print(f"Note: {localized(note)}")
    write_comparison(result, out)
    say(f"The page is at {out}")
    print_json(as_json, {"page": str(out), **result.to_dict()})
