"""The catalogue of messages: whole, in both languages, and neither more nor less than the code uses."""

import ast
import json
import re
import string
import tomllib
from functools import lru_cache
from pathlib import Path

import pytest

import alphabar
from alphabar.messages import (
    LANGUAGES,
    catalogue,
    message,
    pack_messages,
    reader_language,
    unpack_messages,
)

SOURCE = Path(alphabar.__file__).parent
CATALOGUE = catalogue()
AREAS = {identifier.partition(".")[0] for identifier in CATALOGUE}
STUDIO_TEXTS = {"text", "text_or"}  # methods of the studio's page, whose argument lacks the area


@lru_cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


@lru_cache
def of_templates() -> tuple[tuple[str, str], ...]:
    """(where, identifier) of each message in the templates of pages."""
    return tuple(
        (path.name, identifier)
        for path in sorted(SOURCE.rglob("*.html"))
        for identifier in re.findall(r'message\("([^"]+)"', path.read_text(encoding="utf-8"))
    )


def callee(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


@lru_cache
def errors() -> set[str]:
    """The names of AlphabarError and of all its subclasses, which take an identifier."""
    classes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found: set[str] = {"AlphabarError"}
    while new := {c.name for c in classes if {getattr(b, "id", "") for b in c.bases} & found} - found:
        found |= new
    return found


def uses():
    """(where, identifier, names of values, whether there may be more) of each message in the code."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            first, name = node.args[0].value, callee(node)
            if name in STUDIO_TEXTS and path.startswith("studio/"):
                first = f"studio.{first}"
            elif name not in {"message", "Message", *errors()}:
                continue
            if name == "text_or":
                first = first if first in CATALOGUE else None
            if isinstance(first, str):
                given = {keyword.arg for keyword in node.keywords}
                yield f"{path}:{node.lineno}", first, given - {None}, None in given


def fields(text: str) -> set[str]:
    return {
        name.split(".")[0].split("[")[0]
        for _, name, _, _ in string.Formatter().parse(text)
        if name is not None
    }


@lru_cache
def literals() -> tuple[set[str], tuple[str, ...]]:
    """All strings in the code that may be identifiers, and what identifiers begin with that are composed."""
    whole, beginnings = set(), set()
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
            if isinstance(node, ast.Call) and callee(node) in STUDIO_TEXTS and path.startswith("studio/"):
                for each in ast.walk(node.args[0]):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        whole.add(f"studio.{each.value}")
                if isinstance(node.args[0], ast.JoinedStr):
                    beginnings.add(f"studio.{node.args[0].values[0].value}")
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                begun = node.values[0].value
                if begun.partition(".")[0] in AREAS and "." in begun:
                    beginnings.add(begun)
    return whole, tuple(begun for begun in beginnings if begun != "studio.")


def test_the_walk_finds_messages():
    found = list(uses())
    assert len(found) > 100 and {"UsageError", "Unreadable"} <= errors()
    assert any(identifier == "studio.no_mask" for _, identifier, _, _ in found)


def test_every_message_is_in_the_catalogue():
    used = [(where, identifier) for where, identifier, _, _ in uses()] + list(of_templates())
    assert len(of_templates()) > 50
    assert not [(where, identifier) for where, identifier in used if identifier not in CATALOGUE]


def test_no_error_is_plain_text():
    plain = [
        f"{path}:{node.lineno}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and callee(node) in errors()
        and node.args
        and isinstance(node.args[0], ast.JoinedStr)
    ]
    assert not plain


def test_every_field_of_a_message_is_given():
    missing = []
    for where, identifier, given, more in uses():
        if identifier in CATALOGUE and not more:
            lacking = fields(CATALOGUE[identifier]["en"]) - given
            missing += [(where, identifier, lacking)] if lacking else []
    assert not missing


def test_no_message_is_left_over():
    whole, beginnings = literals()
    whole = whole | {identifier for _, identifier in of_templates()}
    assert not [key for key in CATALOGUE if key not in whole and not key.startswith(beginnings)]


@pytest.mark.parametrize("area", sorted(AREAS))
def test_both_languages_say_the_same(area):
    for identifier, texts in CATALOGUE.items():
        if identifier.startswith(f"{area}."):
            assert set(texts) == set(LANGUAGES) and all(texts.values()), identifier
            assert fields(texts["en"]) == fields(texts["es"]), identifier


def test_no_identifier_is_defined_twice():
    folder = SOURCE / "messages" / "catalogue"
    keys = [key for path in folder.glob("*.toml") for key in tomllib.loads(path.read_text(encoding="utf-8"))]
    assert len(keys) == len(set(keys))


def test_a_message_speaks_both_languages():
    said = message("studio.no_model", folder="runs")
    assert "runs" in said and said.in_language("es") != said
    assert said.in_language("de") == said  # a language that the catalogue does not have


def test_messages_are_stored_by_identifier_and_read_in_any_language():
    inner = message("metrics.papers_samples", usual=50_000, n=200)
    said = message("metrics.not_comparable", missing=inner)
    stored = json.loads(
        json.dumps(pack_messages({"notes": [said, "an old sentence"], "n": 3, "pair": (1, 2)}))
    )
    assert stored["notes"][0] == {
        "message": "metrics.not_comparable",
        "values": {"missing": {"message": inner.identifier, "values": {"usual": 50_000, "n": 200}}},
    }
    read = unpack_messages(stored)
    assert read == {"notes": [said, "an old sentence"], "n": 3, "pair": [1, 2]}
    assert read["notes"][0].in_language("es") == said.in_language("es") != said


@pytest.mark.parametrize(
    "value",
    [
        {"message": "metrics.of_another_version", "values": {}},
        {"message": "metrics.small_n", "values": {"m": 1}},
        {"message": "metrics.small_n", "values": {"n": {}, "identifier": 1}},
        {"message": "metrics.copies", "values": {"copies": None}},
    ],
)
def test_a_message_that_cannot_be_said_becomes_its_identifier(value):
    assert unpack_messages([value]) == [value["message"]]


@pytest.mark.parametrize(
    "value", [{"message": 3, "values": {}}, {"message": "a", "values": 1}, {"values": {}}, None]
)
def test_what_only_resembles_a_message_is_left_alone(value):
    assert unpack_messages(value) == value


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "es_BO.UTF-8"}, "es"),
        ({"LANG": "es_BO.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE", "LC_MESSAGES": "es_MX"}, "es"),
        ({"LANG": "es_BO.UTF-8", "ALPHABAR_LANGUAGE": "en"}, "en"),
        ({"ALPHABAR_LANGUAGE": "ES"}, "es"),
        ({"LANG": "est_EE"}, "en"),
        ({}, "en"),
    ],
)
def test_the_reader_s_language(environment, language, monkeypatch):
    for name in ("ALPHABAR_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert reader_language() == language
