"""The entry point of the command line: ``alphabar`` or ``python -m alphabar.cli``."""

import atexit
import signal
import sys


def main() -> None:
    """Run a command. Ctrl-C ends it without a traceback, also while modules load or Python itself ends."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from alphabar.cli.command_line import run_command

    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_command()
    except KeyboardInterrupt:  # also a second one, in the middle of the last words
        sys.exit(128 + signal.SIGINT)
    finally:
        # A second Ctrl-C would interrupt what libraries tidy up at the end, with a traceback. What is
        # registered last is called first.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
