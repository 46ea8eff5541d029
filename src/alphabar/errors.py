"""Errors a person can mend, told in one line."""

from collections.abc import Iterable
from difflib import get_close_matches

MOST_SHOWN = 12  # of a long list of names


class AlphabarError(Exception):
    """Something outside the code is wrong: the message names it and says what to do. Exit code 1."""


class UsageError(AlphabarError):
    """What was asked for does not exist or does not fit: an unknown name, a bad value. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list of names, with the nearest one that is; of many, with a few.

    Returns the error, for the caller to raise.
    """
    known = sorted(known)
    folded = {other.casefold(): other for other in known}
    near = [folded[m] for m in get_close_matches(name.casefold(), folded, n=MOST_SHOWN, cutoff=0.4)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown, rest = known, ""
    if len(known) > 2 * MOST_SHOWN:
        shown = (near + [other for other in known if other not in near])[:MOST_SHOWN]
        rest = f", … ({len(known)} in all)"
    return UsageError(f"unknown {kind} {name!r}: {hint}known: {', '.join(shown)}{rest}")
