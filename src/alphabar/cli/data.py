"""The command ``inspect``."""

from alphabar.cli.console import localized, print_json, run_to_end
from alphabar.cli.options import DataArgument, JsonOption


def inspect(data: DataArgument, as_json: JsonOption = False) -> None:
    """Report what a data set holds: counts, sizes, classes, bad files, copies, and how training uses it."""
    from alphabar.data.inspect import inspect as inspect_data

    report = run_to_end(inspect_data(data))
    print("\n".join(map(localized, report.lines())))
    print_json(as_json, report.to_dict())
