"""The entry point of the command line: ``alphabar`` or ``python -m alphabar.cli``."""

import io
import json
import sys
from typing import NoReturn

import typer

from alphabar.cli.app import app
from alphabar.cli.console import localized, say
from alphabar.cli.help import UsageProblem, usage_sentence
from alphabar.errors import AlphabarError, UsageError


def main() -> None:
    """Run a command. Errors that a person can correct are one sentence on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # file names that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        load_extensions(sys.argv)
        code = app(prog_name="alphabar", standalone_mode=False)
    except AlphabarError as error:
        _fail(error.message, 2 if isinstance(error, UsageError) else 1)
    except UsageProblem as error:
        _fail(usage_sentence(error), 2)
    except typer.Abort:
        sys.exit(1)
    if code:
        sys.exit(code)


def _fail(sentence: str, code: int) -> NoReturn:
    """End with a sentence: on stderr in the person's language, with --json on stdout in English too."""
    say(f"alphabar: {localized(sentence)}")
    if "--json" in sys.argv:
        print(json.dumps({"error": str(sentence)}))
    sys.exit(code)


def load_extensions(arguments: list[str]) -> None:
    """Load the files of ``--extension FILE`` and ``--extension=FILE``, and take these arguments out.

    This comes before the command line is read, since an extension can bring options of its own.
    """
    files, rest = [], iter(arguments[:])
    arguments.clear()
    for argument in rest:
        name, equals, file = argument.partition("=")
        if name == "--extension" and (equals or (file := next(rest, ""))):
            files.append(file)
        else:
            arguments.append(argument)
    if files:
        from alphabar.extensions import load_extension

        for file in files:
            load_extension(file)


if __name__ == "__main__":
    main()
