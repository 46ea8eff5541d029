"""The commands ``report`` and ``compare``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import localized, open_path, print_json, print_table, run_to_end, say
from alphabar.cli.options import JsonOption, OpenOption
from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import LANGUAGES, message

LanguageOption = Annotated[
    str | None, typer.Option(metavar="|".join(LANGUAGES), help="cli.help.page_language")
]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="cli.help.report_run")],
    data: Annotated[str | None, typer.Option(metavar="DATA", help="cli.help.report_data")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="cli.help.report_out")] = None,
    language: LanguageOption = None,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a self-contained page with everything known of a run, and its tables and figures beside it."""
    from alphabar.reporting.report import write_report
    from alphabar.reporting.report_figures import make_report_figures
    from alphabar.runs.run import Run

    _check(language)
    try:
        run_to_end(make_report_figures(Run(run), data, out))
        path = write_report(run, out, language)
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
    language: LanguageOption = None,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table and one page: cost, quality, variety, copies, samples."""
    result = write_and_print_comparison(runs, out, language)
    open_path(out, show)
    print_json(as_json, {"page": str(out), **result.to_dict()})


def write_and_print_comparison(runs: list[Path], out: Path, language: str | None = None) -> Any:
    """Compare runs, write the page and print the tables. Returns the comparison."""
    from alphabar.reporting.comparison import compare as compare_runs
    from alphabar.reporting.comparison_page import comparison_rows, write_comparison
    from alphabar.reporting.pages import files_folder

    _check(language)
    files_folder(out)  # refuses a name that is no page before the work begins
    result = run_to_end(compare_runs(runs))
    try:
        write_comparison(result, out, language)  # before anything is printed, which may fail
    finally:
        _print_comparison(comparison_rows(result), result)
    say(message("cli.page_written", path=out))
    return result


def _print_comparison(tables: list[Any], result: Any) -> None:
    """Print the tables of a comparison, each with its ranking, and the notes."""
    rankings = [(), *(table.ranking for table in result.tables)]
    for (title, (head, *body)), ranking in zip(tables, rankings, strict=True):
        print(localized(title))
        print_table(head, [tuple(map(localized, row)) for row in body])
        print("\n".join((*map(localized, ranking), "")))
    for note in (message("reporting.cost_caption"), *result.notes):
        print(localized(message("cli.note", note=note)))


def _check(language: str | None) -> None:
    """Raises UsageError for a language that the catalogue does not have."""
    if language not in (None, *LANGUAGES):
        raise UsageError("cli.unknown_language", language=language, known=", ".join(LANGUAGES))
