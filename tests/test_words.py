"""One word for one meaning: words that the project has dropped stay out of what people read and of names."""

import ast
import re
from pathlib import Path

import pytest
import typer

import alphabar
from alphabar.cli.app import COMMANDS, app
from alphabar.messages import LANGUAGES, catalogue
from alphabar.recipes.schema import Recipe

SOURCE = Path(alphabar.__file__).parent
ROOT = SOURCE.parents[1]
# Words without an ordinary meaning in this field, in texts; \w* takes their other forms.
DROPPED = re.compile(
    r"\b(mend(s|ed|ing)?|teller\w*|knower\w*|spoil\w*|shorten(s|ed|ing)?"
    r"|as the data has it|asked for|told of)\b",
    re.I,
)
# Names that say nothing of a value: of functions, parameters, options, settings and keys.
DROPPED_NAMES = {
    "from",
    "how",
    "look",
    "looks",
    "start",
    "draw",
    "drawn",
    "ask",
    "asked",
    "told",
    "kinds",
    "watch",
    "mend",
}


def documents():
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(SOURCE.rglob("*.html"))]
    return [path for path in files if path.exists()]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_documents(path):
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if DROPPED.search(line)]
    assert not found


@pytest.mark.parametrize("language", LANGUAGES)
def test_messages(language):
    found = {key: texts[language] for key, texts in catalogue().items() if DROPPED.search(texts[language])}
    assert not found


def commands():
    group = typer.main.get_command(app)
    return {name: group.get_command(None, name) for name in COMMANDS}


def test_help_and_options():
    for name, command in commands().items():
        texts = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
        assert not [text for text in texts if DROPPED.search(text)], name
        names = {option.name for option in command.params}
        assert not names & DROPPED_NAMES, name


def test_names_in_the_code():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.FunctionDef):
                names = [node.name, *(a.arg for a in (*node.args.args, *node.args.kwonlyargs))]
            elif isinstance(node, ast.ClassDef):
                names = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign)]
            found += [
                f"{path.relative_to(SOURCE)}: {n}" for n in names if n.lower().strip("_") in DROPPED_NAMES
            ]
    assert not found


def keys_of(model):
    for key, field in model.model_fields.items():
        yield key
        if hasattr(field.annotation, "model_fields"):
            yield from keys_of(field.annotation)


def test_recipe_keys():
    assert not set(keys_of(Recipe)) & DROPPED_NAMES
