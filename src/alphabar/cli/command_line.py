"""A command from its first word to its exit code."""

import io
import json
import os
import sys
import warnings
from contextlib import suppress
from typing import Any, NoReturn

import typer

from alphabar.cli.app import app
from alphabar.cli.console import localized, say, speaks
from alphabar.cli.help import UsageProblem, usage_sentence
from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import Message, message

SHOW_WARNING = warnings.showwarning


def run_command() -> None:
    """Run a command. Errors that a person can correct are one sentence on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # file names that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _say_warning  # type: ignore[assignment]
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    if not speaks():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # results are printed once
    try:
        load_extensions(sys.argv)
        code = app(prog_name="alphabar", standalone_mode=False)
        print(end="", flush=True)  # a full disk is met here at the latest
    except AlphabarError as error:
        _fail(error.message, 2 if isinstance(error, UsageError) else 1, error.of_one_process)
    except UsageProblem as error:
        _fail(usage_sentence(error), 2)
    except OSError as error:  # that no module foresaw
        _fail_on_system(error)
    except typer.Abort:
        sys.exit(1)
    if code:
        sys.exit(code)


def _say_warning(warning: Any, *about: Any, **more: Any) -> None:
    """Say a warning that is a message, without the line of code that Python names."""
    text = next(iter(getattr(warning, "args", ())), None)
    if isinstance(text, Message):
        say(text)
    else:
        SHOW_WARNING(warning, *about, **more)


def _fail(sentence: str, code: int, of_one_process: bool = False) -> NoReturn:
    """End with a sentence: on stderr in the person's language, with --json on stdout in English too.

    of_one_process: whether of several processes this one alone met the problem, and must say it.
    """
    if of_one_process or speaks(on_each_host=True):
        with suppress(OSError):  # stderr may be a full disk
            say(f"alphabar: {localized(sentence)}", from_each=True)
    if "--json" in sys.argv:
        with suppress(OSError):
            print(json.dumps({"error": str(sentence)}))
    _flush_stdout()
    sys.exit(code)


def _fail_on_system(error: OSError) -> NoReturn:
    """End with a sentence about what the system refused: to read or write a file, or to take the results."""
    reason = error.strerror or error
    refused = _flush_stdout()
    if error.filename is not None:
        _fail(message("files.unusable", path=os.fsdecode(error.filename), reason=reason), 1)
    if isinstance(refused or error, BrokenPipeError):  # whoever read the results has seen enough
        sys.exit(1)
    _fail(message("cli.cannot_print" if refused else "cli.system_refused", reason=reason), 1)


def _flush_stdout() -> OSError | None:
    """Write what was printed. The error where that cannot be, and then nothing is tried again at the end."""
    try:
        print(end="", flush=True)
    except OSError as error:
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return error
    return None


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
