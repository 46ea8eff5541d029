"""The commands ``report`` and ``compare``."""

from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import localized, print_json, print_table, run_to_end, say
from alphabar.cli.options import JsonOption
from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import LANGUAGES, message

LanguageOption = Annotated[
    str | None,
    typer.Option(metavar="|".join(LANGUAGES), help="Language of the page. By default that of your system."),
]


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN|MODEL", help="A run folder, a model folder, or a shipped model: cars64."),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="The training data, if it has moved since.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page to write. [default: RUN/report.html, MODEL-report.html]"),
    ] = None,
    language: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a self-contained page with everything known of a run, and its tables and figures beside it.

    For example: alphabar report runs/mine
    """
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
    say(message("cli.report_written", path=path))
    print_json(as_json, {"run": str(run), "report": str(path)})


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("comparison.html"),
    language: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table and one page: cost, quality, variety, copies, samples.

    For example: alphabar compare runs/mine runs/other
    """
    from alphabar.reporting.comparison import compare as compare_runs
    from alphabar.reporting.comparison_page import comparison_rows, write_comparison
    from alphabar.reporting.pages import files_folder

    _check(language)
    files_folder(out)  # refuses a name that is no page before the work begins
    result = run_to_end(compare_runs(runs))
    rankings = [(), *(table.ranking for table in result.tables)]
    for (title, (head, *body)), ranking in zip(comparison_rows(result), rankings, strict=True):
        print(localized(title))
        print_table(head, [tuple(map(localized, row)) for row in body])
        print("\n".join((*map(localized, ranking), "")))
    for note in (message("reporting.cost_caption"), *result.notes):
        print(localized(message("cli.note", text=note)))
    write_comparison(result, out, language)
    say(message("cli.comparison_written", path=out))
    print_json(as_json, {"page": str(out), **result.to_dict()})


def _check(language: str | None) -> None:
    """Raises UsageError for a language that the catalogue does not have."""
    if language not in (None, *LANGUAGES):
        raise UsageError("cli.unknown_language", language=language, known=", ".join(LANGUAGES))
