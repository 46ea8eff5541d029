"""The command ``studio``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import print_json, say
from alphabar.cli.options import JsonOption
from alphabar.errors import UsageError


def studio(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL|RUNS", help="A model, a run, or a folder of them.")
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen at; for other machines than this it needs a password."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port to listen at; by default the first free one from 7860."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The page's address in the browser, behind a proxy, for example Colab's.",
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with a password that the page requires; or set ALPHABAR_PASSWORD."
        ),
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

    password = read_password(password_file)
    serve(folder, host=host, port=port, origin=origin, password=password, opened=opened)


def read_password(file: Path | None) -> str | None:
    """The password of the page, from a file or else the variable ALPHABAR_PASSWORD; None where there is none.

    A password on the command line could be read by everyone who lists the machine's processes. The variable
    is removed, so that trainings that the page begins do not inherit it. Raises UsageError for a file that
    cannot be read.
    """
    given = os.environ.pop("ALPHABAR_PASSWORD", None)
    if file is None:
        return given
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError("studio.no_password_file", path=file, problem=problem) from None
