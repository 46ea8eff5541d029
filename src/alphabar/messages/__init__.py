"""Every sentence that the library says to a person, in English and in Spanish, by identifier.

The catalogue is the folder ``catalogue`` beside this file: a TOML file for each area, a table for each
message, for example::

    ["sampling.bad_steps"]
    en = "A sampler makes from 1 to {most} steps, not {steps}."
    es = "Un muestreador da de 1 a {most} pasos, no {steps}."

The fields in braces are those of ``str.format``, with two additions: ``{n:picture|pictures}`` chooses a word
by a number, the first for exactly 1, and ``{n:,}`` separates thousands by a space in Spanish, where 1.234
and 1,234 mean different numbers in different countries. Decimals keep their point, as one types them.
"""

import locale
import os
import re
import string
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, Self

LANGUAGES = ("en", "es")
THIN_SPACE = "\u202f"  # one at which no line is broken
LONG_WORD = re.compile(r"[^\s/\\]{260,}")  # longer than a file's name, such as a number of 400 digits


class _Formatter(string.Formatter):
    """``str.format`` in a language, with words chosen by numbers."""

    def __init__(self, language: str):
        self.language = language

    def format_field(self, value: Any, spec: str) -> str:
        if "|" in spec:
            return spec.split("|")[value != 1]
        text = format(value, spec)
        return text.replace(",", THIN_SPACE) if self.language == "es" and spec.startswith(",") else text


class Message(str):
    """A sentence for a person: the English text, which also knows how to say it in another language.

    identifier: its name in the catalogue, such as "sampling.bad_steps".
    values: what stands in its fields; a value may be a message itself.
    """

    identifier: str
    values: dict[str, Any]

    def __new__(cls, identifier: str, **values: Any) -> Self:
        made = super().__new__(cls, _text(identifier, LANGUAGES[0], values))
        made.identifier, made.values = identifier, values
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.identifier,), self.values

    def in_language(self, language: str) -> str:
        """The text in a language, "en" or "es"; a language that the catalogue does not have is English."""
        return _text(self.identifier, language if language in LANGUAGES else LANGUAGES[0], self.values)


def message(identifier: str, **values: Any) -> Message:
    """The message of that identifier with its fields filled. Raises KeyError for an unknown identifier."""
    return Message(identifier, **values)


def reader_language() -> str:
    """The language of the reader, "en" or "es": that of ALPHABAR_LANGUAGE, or else that of the system."""
    variables = ("ALPHABAR_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    name = next(filter(None, map(os.environ.get, variables)), None)
    if name is None and os.name == "nt":  # which sets no variable
        name = locale.getlocale()[0]
    return "es" if re.split(r"\W|_", name or "")[0].lower() in ("es", "spanish") else "en"


def translated(text: Any, language: str) -> str:
    """A message in a language; anything else as the text that it is."""
    return text.in_language(language) if isinstance(text, Message) else str(text)


def pack_messages(value: Any) -> Any:
    """A value as a file holds it: each message in it becomes {"message": identifier, "values": …}.

    So the file can be read in any language, and by programs without comparing sentences.
    """
    if isinstance(value, Message):
        return {"message": value.identifier, "values": pack_messages(value.values)}
    if isinstance(value, Mapping):
        return {key: pack_messages(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [pack_messages(each) for each in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def unpack_messages(value: Any) -> Any:
    """What `pack_messages` packed, with its messages. Sentences of older files remain the text they are.

    A message that this version of the catalogue lacks, or whose values do not fit, becomes its identifier.
    """
    if isinstance(value, list):
        return [unpack_messages(each) for each in value]
    if not isinstance(value, dict):
        return value
    unpacked = {key: unpack_messages(each) for key, each in value.items()}
    identifier, values = unpacked.get("message"), unpacked.get("values")
    if len(unpacked) != 2 or not isinstance(identifier, str) or not isinstance(values, dict):
        return unpacked
    try:
        return Message(identifier, **values)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return identifier


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, str]]:
    """The whole catalogue: identifier → language → text with fields."""
    texts: dict[str, dict[str, str]] = {}
    for file in sorted(files("alphabar.messages").joinpath("catalogue").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            texts |= tomllib.loads(file.read_text(encoding="utf-8"))
    return texts


def _text(identifier: str, language: str, values: dict[str, Any]) -> str:
    said = {k: v.in_language(language) if isinstance(v, Message) else v for k, v in values.items()}
    text = _Formatter(language).vformat(catalogue()[identifier][language], (), said)
    return LONG_WORD.sub(lambda word: f"{word[0][:60]}…", text)
