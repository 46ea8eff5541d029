"""The entry point of the command line: ``alphabar`` or ``python -m alphabar.cli``."""

import signal


def main() -> None:
    """Run a command. Ctrl-C while its modules are loaded ends it without a traceback."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from alphabar.cli.command_line import run_command

    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command()


if __name__ == "__main__":
    main()
