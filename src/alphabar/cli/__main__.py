"""The entry point of the command line: ``alphabar`` or ``python -m alphabar.cli``."""

import json
import sys

from alphabar.cli.app import app
from alphabar.cli.console import say
from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import reader_language


def main() -> None:
    """Run a command. Errors that a person can correct are one sentence on stderr, never a traceback."""
    try:
        load_extensions(sys.argv)
        app()
    except AlphabarError as error:
        say(f"alphabar: {error.in_language(reader_language())}")
        if "--json" in sys.argv:
            print(json.dumps({"error": str(error)}))
        sys.exit(2 if isinstance(error, UsageError) else 1)


def load_extensions(arguments: list[str]) -> None:
    """Load the files named by ``--extension FILE`` and take these arguments out of the list.

    This comes before the command line is read, since an extension can bring options of its own.
    """
    files = []
    while "--extension" in arguments[:-1]:
        at = arguments.index("--extension")
        files.append(arguments[at + 1])
        del arguments[at : at + 2]
    if files:
        from alphabar.extensions import load_extension

        for file in files:
            load_extension(file)


if __name__ == "__main__":
    main()
