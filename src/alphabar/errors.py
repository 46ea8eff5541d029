"""Errors that a person can correct, each one sentence from the catalogue of messages."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from alphabar.messages import Message, catalogue, message

MOST_SHOWN = 12  # of a long list of names


class AlphabarError(Exception):
    """Something outside the code is wrong: the message names it and says what to do. Exit code 1.

    identifier: of the message in the catalogue; values: what stands in its fields. An extension, which has no
        place in the catalogue, gives a plain sentence instead.
    of_one_process: whether, of the processes that torchrun started, only this one met it.
    """

    of_one_process = False

    def __init__(self, identifier: str, **values: Any):
        self.message = message(identifier, **values) if identifier in catalogue() else identifier
        super().__init__(self.message)

    def in_language(self, language: str) -> str:
        """The message in a language, "en" or "es"."""
        return self.message.in_language(language) if isinstance(self.message, Message) else self.message


class UsageError(AlphabarError):
    """What a person chose does not exist or does not fit: an unknown name, a bad value. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list of names, with the nearest one that is; of many, with a few.

    kind: what the names are of, such as "sampler"; the catalogue may translate it under "kind.…".
    Returns the error, for the caller to raise.
    """
    known = sorted(known)
    folded = {other.casefold(): other for other in known}
    near = [folded[m] for m in get_close_matches(name.casefold(), folded, n=MOST_SHOWN, cutoff=0.4)]
    hint = message("registry.nearest", nearest=repr(near[0])) if near else ""
    shown: list[str] = known
    if len(known) > 2 * MOST_SHOWN:
        shown = (near + [other for other in known if other not in near])[:MOST_SHOWN]
    listed = ", ".join(shown)
    if len(shown) < len(known):
        listed = message("registry.some", names=listed, n=len(known))
    return UsageError("registry.unknown", kind=kind_word(kind), name=repr(name), hint=hint, known=listed)


def kind_word(kind: str) -> Message | str:
    """What the choices of a registry are called, in the reader's language where the catalogue says it."""
    return message(f"kind.{kind}") if f"kind.{kind}" in catalogue() else kind
