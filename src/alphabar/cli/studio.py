"""The command ``studio``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import print_json, say
from alphabar.cli.options import JsonOption


def studio(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL|RUNS", help="A model, a run, or a folder of them.")
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen at; other machines reach it only with --password."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port to listen at; by default the first free one from 7860."),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="ALPHABAR_PASSWORD", help="Password that the page requires."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open a local web page to generate, restore, compare, train and monitor. It needs the extra [studio].

    For example: alphabar studio runs
    """
    from alphabar.studio.server import serve

    def opened(address: str) -> None:
        say(f"The studio is at {address}")
        print_json(as_json, {"address": address})
        sys.stdout.flush()

    serve(folder, host=host, port=port, password=password, opened=opened)
