"""TODO-DOC from cli"""

from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, print_json, print_table, say
from alphabar.cli.options import JsonOption


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="The training pictures, where they have moved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write RUN/report.html: one self-contained page with everything that is known of the run."""
    from alphabar.reporting.report import write_report
    from alphabar.reporting.report_figures import make_report_figures
    from alphabar.runs.run import Run

    last_with_bar(make_report_figures(Run(run), data), None)
    path = write_report(run)
    say(f"the report is at {path}")
    print_json(as_json, {"run": str(run), "report": str(path)})


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path("comparison.html"),
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: cost, quality, variety, copies, samples; a table here and one HTML page."""

    from alphabar.reporting.comparison import compare as comparison_compare
    from alphabar.reporting.comparison_page import comparison_rows, write_comparison

    result = last_with_bar(comparison_compare(runs), None).result
    for (title, (head, *body)), rankings in zip(
        comparison_rows(result), [(), *(t.ranking for t in result.tables)], strict=True
    ):
        print(title)
        print_table(head, body)
        print("\n".join((*rankings, "")))
    for note in result.notes:
        print(f"note: {note}")
    write_comparison(result, out)
    say(f"the page is at {out}")
    print_json(as_json, {"page": str(out), **result.to_dict()})
