"""Errors a person can mend, told in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class AlphabarError(Exception):
    """Something outside the code is wrong: the message names it and says what to do. Exit code 1."""


class UsageError(AlphabarError):
    """What was asked for does not exist or does not fit: an unknown name, a bad value. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list of names, with the nearest one that is.

    Returns the error, for the caller to raise.
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}")
