"""TODO-DOC from cli"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.app import app
from alphabar.cli.console import print_json, say
from alphabar.cli.options import JsonOption


@app.command()
def studio(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL|RUNS", help="A model, a run, or a folder of them.")
    ] = Path("runs"),
    host: Annotated[
        str, typer.Option(metavar="NAME", help="Where to listen; beyond this machine only with --password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Default: the first free one from 7860.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="ALPHABAR_PASSWORD", help="What the page asks for first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open the studio: a local web page to draw, mend, compare, train and watch. Needs the extra [studio]."""
    from alphabar.studio.app import serve

    def opened(address: str) -> None:
        say(f"the studio is at {address}")
        print_json(as_json, {"address": address})
        sys.stdout.flush()

    serve(folder, host=host, port=port, password=password, opened=opened)
