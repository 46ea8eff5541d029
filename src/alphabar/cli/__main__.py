"""The entry point of the command line: ``alphabar`` or ``python -m alphabar.cli``."""

import json
import sys

from alphabar.cli import data, demo, evaluate, report, restore, sample, studio, train  # noqa: F401  (they register)
from alphabar.cli.app import app
from alphabar.cli.console import say
from alphabar.errors import AlphabarError, UsageError


def main() -> None:
    """The entry point: errors a person can mend are one line on stderr, never a traceback."""
    try:
        app()
    except AlphabarError as error:
        say(f"alphabar: {error}")
        if "--json" in sys.argv:
            print(json.dumps({"error": str(error)}))
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
