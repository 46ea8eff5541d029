"""The command ``studio``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import has_display, open_path, print_json, say
from alphabar.cli.options import JsonOption
from alphabar.messages import message


def studio(
    folder: Annotated[Path, typer.Argument(metavar="MODEL|RUNS", help="cli.help.studio_folder")] = Path(
        "runs"
    ),
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="cli.help.host")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(metavar="N", help="cli.help.port")] = None,
    password: Annotated[
        str | None, typer.Option(metavar="TEXT", envvar="ALPHABAR_PASSWORD", help="cli.help.password")
    ] = None,
    show: Annotated[bool | None, typer.Option("--open/--no-open", help="cli.help.open_browser")] = None,
    as_json: JsonOption = False,
) -> None:
    """Open a local web page to generate, restore, compare, train and monitor. It needs the extra [studio]."""
    from alphabar.studio.server import serve

    def opened(address: str) -> None:
        say(message("cli.studio_opened", address=address))
        print_json(as_json, {"address": address})
        sys.stdout.flush()
        open_path(address, has_display() if show is None else show)

    serve(folder, host=host, port=port, password=password, opened=opened)
