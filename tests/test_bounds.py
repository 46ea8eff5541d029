"""The bounds of the design: short functions and files, small classes, documented names, no import cycles.

The lists of exceptions only shrink; each has its reason beside it.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import alphabar

SOURCE = Path(alphabar.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
LINES_OF_A_FUNCTION, LINES_OF_A_FILE, MEMBERS_OF_A_CLASS = 60, 500, 12
LONG_FUNCTIONS: set[str] = set()
LONG_FILES: set[str] = set()
LARGE_CLASSES: set[str] = set()


def trees():
    for path in FILES:
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def modules():
    for info in pkgutil.walk_packages([str(SOURCE)], "alphabar."):
        if not info.name.endswith("__main__"):
            yield info.name


def test_functions_are_short():
    long = {
        f"{name}:{node.name}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LINES_OF_A_FUNCTION
    }
    assert long == LONG_FUNCTIONS


def test_files_are_short():
    long = {
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        if len(path.read_text(encoding="utf-8").splitlines()) > LINES_OF_A_FILE
    }
    assert long == LONG_FILES


def test_classes_are_small():
    """Methods and properties that a class itself defines; fields of a record are data, not members."""
    large = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                members = [
                    each.name
                    for each in node.body
                    if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")
                ]
                if len(members) > MEMBERS_OF_A_CLASS:
                    large.add(f"{name}:{node.name}")
    assert large == LARGE_CLASSES


@pytest.mark.parametrize("name", modules())
def test_public_names_are_documented(name):
    module = pytest.importorskip(name, reason=f"{name} needs an extra", exc_type=ImportError)
    assert module.__doc__ or name.count(".") == 1, f"{name} has no docstring"
    missing = []
    for key, value in vars(module).items():
        own = getattr(value, "__module__", None) == name and not key.startswith("_")
        if not own or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not value.__doc__:
            missing.append(key)
        for member, function in vars(value).items() if inspect.isclass(value) else ():
            callable_ = inspect.isfunction(function) or isinstance(
                function, property | classmethod | staticmethod
            )
            if callable_ and not member.startswith("_") and not inspect.getdoc(getattr(value, member)):
                missing.append(f"{key}.{member}")
    assert not missing, missing


def imports_of(tree, package):
    """The modules of alphabar that a module imports when it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alphabar"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in package else node.module


def test_no_module_imports_itself_by_a_detour():
    package = {
        "alphabar." + path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."): path
        for path in FILES
    }
    package = {name.removesuffix(".__init__"): path for name, path in package.items()}
    graph = {
        name: set(imports_of(ast.parse(path.read_text(encoding="utf-8")), package)) & set(package)
        for name, path in package.items()
    }
    while free := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in free:
            del graph[name]
    # What is left lies on a cycle or above one; those above are imported by none of the rest.
    while above := [name for name in graph if not any(name in targets for targets in graph.values())]:
        for name in above:
            del graph[name]
    assert not graph, sorted(graph)


def test_the_walk_finds_the_whole_package():
    assert importlib.import_module("alphabar.registry").__name__ in set(modules())
    assert len(FILES) > 100
