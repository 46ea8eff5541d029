"""TODO-DOC from cli"""

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, print_json
from alphabar.cli.options import DataArgument, JsonOption


@app.command()
def inspect(data: DataArgument, as_json: JsonOption = False) -> None:
    """Say what is in a data set: counts, sizes, classes, bad files, duplicates, a size that suits it."""
    from alphabar.data.inspect import inspect

    report = last_with_bar(inspect(data), "inspecting").result
    print("\n".join(report.lines()))
    print_json(as_json, report.to_dict())
