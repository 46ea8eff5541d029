"""The command ``export``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import localized, print_json, print_table, run_to_end, say, told_when_stopped
from alphabar.cli.options import (
    JsonOption,
    ModelArgument,
    SamplingOptions,
    SeedOption,
    with_sampling_options,
)
from alphabar.errors import UsageError
from alphabar.messages import message
from alphabar.result_folder import check_count


@with_sampling_options("precision")
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="cli.help.export_out")],
    sampling: SamplingOptions,
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="cli.help.export_to")],
    precision: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="cli.help.export_precision", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="cli.help.export_n")] = 64,
    against: Annotated[str | None, typer.Option(metavar="DATA", help="cli.help.export_against")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="cli.help.export_set")
    ] = None,
    upload: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="cli.help.upload")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a model as files that generate the same samples elsewhere, with a parity report."""
    from alphabar.export.export import export_to
    from alphabar.export.upload import check_upload, upload_folder
    from alphabar.runs.model import load_model

    check_count(n)
    target = parse_target(to, changes or [])
    if upload is not None:
        check_upload(upload)
    loaded = load_model(model)
    settings = sampling.settings(loaded, seed)
    with told_when_stopped(lambda: message("export.nothing_written")):
        parity = run_to_end(
            export_to(loaded, target, out, settings=settings, precision=precision, n=n, against=against)
        )
    head, *body = ([localized(cell) for cell in row] for row in parity.rows())
    print_table(head, body)
    for sentence in parity.sentences():
        print(localized(sentence))
    say(message("export.written", out=out))
    if upload is not None:
        say(message("hub.uploaded", address=upload_folder(out, upload)))
    print_json(as_json, {"out": str(out), **parity.to_dict()})


def parse_target(name: str, changes: list[str]) -> str | dict[str, Any]:
    """The spec of a target: its name, and settings KEY=VALUE with values that are JSON or else plain text.

    Raises UsageError for a setting without a value.
    """
    if not changes:
        return name
    spec: dict[str, Any] = {"name": name}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UsageError("hub.not_a_setting", setting=change)
        try:
            spec[key.strip()] = json.loads(text)
        except ValueError:
            spec[key.strip()] = text
    return spec
