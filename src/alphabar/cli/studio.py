"""The command ``studio``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import has_display, open_path, print_json, say
from alphabar.cli.options import JsonOption
from alphabar.errors import UsageError
from alphabar.files import read_given_text
from alphabar.messages import message


def studio(
    folder: Annotated[Path, typer.Argument(metavar="MODEL|RUNS", help="cli.help.studio_folder")] = Path(
        "runs"
    ),
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="cli.help.host")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(metavar="N", help="cli.help.port")] = None,
    origin: Annotated[str | None, typer.Option(metavar="URL", help="cli.help.origin")] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="cli.help.password_file")] = None,
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
        return read_given_text(file).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError("studio.no_password_file", path=file, problem=problem) from None
