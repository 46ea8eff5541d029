"""One self-contained Python file out of alphabar's own source files.

What an export needs of alphabar's code is taken from the files that alphabar itself runs: the definitions
that a module uses, those that they use, and so on. So there is no second copy of a network or a sampler to
maintain. Annotations are left unevaluated, so that what only they name is left out.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from pprint import pformat

from alphabar.messages import catalogue

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT.name
STAND_INS = {
    "alphabar.registry.Registry": "alphabar.export.standalone.Registry",
    "alphabar.messages.catalogue": "alphabar.export.standalone.catalogue",
}
NO_MESSAGES = "CATALOGUE: dict[str, dict[str, str]] = {}"  # in standalone.py, where a bundle has its messages
HEAD = '"""{about}"""\n\nfrom __future__ import annotations\n\n{imports}\n'


@dataclass(frozen=True)
class _Module:
    """A source file: its definitions by name, and what it imports.

    imported: name → (module of alphabar, name there). external: name → (the module that it is imported from,
    or "" for a module itself; the name, and its other name if it has one).
    """

    lines: list[str]
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    external: dict[str, tuple[str, str]] = field(default_factory=dict)


def bundle(
    module: str,
    about: str,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> str:
    """The source text of one file that defines what a module of alphabar defines, and imports nothing of it.

    module: "alphabar.export.diffusers_pipeline" for example. about: the docstring of the file.
    only: registry → the names that it keeps, such as {"NETWORKS": ["unet"]}. stand_ins: the full name of a
        definition → that of the one that stands in its place, beside `STAND_INS`.
    Raises ValueError for code that cannot be put into one file: two definitions of one name, and imports of
    alphabar inside a function.
    """
    found = _Closure(only or {}, {**STAND_INS, **(stand_ins or {})})
    for name in _read(module).definitions:
        found.add(module, name)
    text = "".join(found.sections())
    said = {key: texts for key, texts in catalogue().items() if f'"{key}"' in text}
    text = text.replace(NO_MESSAGES, f"CATALOGUE = {pformat(said, width=110)}")
    return HEAD.format(about=about, imports="\n".join(_import_lines(found.imports))) + text


class _Closure:
    """The definitions that some need, all in all."""

    def __init__(self, only: Mapping[str, Collection[str]], stand_ins: Mapping[str, str]):
        self.only, self.stand_ins = only, stand_ins
        self.imports: set[tuple[str, str]] = set()
        self._texts: dict[tuple[str, str], str] = {}
        self._place_of: dict[str, tuple[str, str]] = {}  # of a name in the one file
        self._modules: list[str] = []  # in the order in which they must stand

    def add(self, module: str, name: str) -> None:
        """Take a definition and what it needs."""
        module, name = self._stand_in(module, name)
        source = _read(module)
        if name in source.imported:
            self.add(*source.imported[name])
        elif name in source.external:
            self._claim(name, source.external[name])
            self.imports.add(source.external[name])
        elif name in source.definitions and self._claim(name, (module, name)):
            self._define(module, name)

    def sections(self) -> Iterator[str]:
        """The text of each module, those that others need first."""
        for module in self._modules:
            source = _read(module)
            taken = [self._texts[module, n] for n in source.definitions if (module, n) in self._texts]
            texts = "\n\n\n".join(dict.fromkeys(taken))
            yield f"\n\n# From {module.replace('.', '/')}\n\n{texts}\n"

    def _stand_in(self, module: str, name: str) -> tuple[str, str]:
        """Where what stands for a definition is: at its own place, unless there is a stand-in."""
        module, _, name = self.stand_ins.get(f"{module}.{name}", f"{module}.{name}").rpartition(".")
        return module, name

    def _claim(self, name: str, place: tuple[str, str]) -> bool:
        """Whether a name is new in the one file, where it comes from that place."""
        new = name not in self._place_of
        if (known := self._place_of.setdefault(name, place)) != place:
            raise ValueError(f"{name} is defined twice: in {known} and in {place}")
        return new

    def _define(self, module: str, name: str) -> None:
        source = _read(module)
        node = source.definitions[name]
        if name in self.only:
            node = _reduced(node, self.only[name])
            text = ast.unparse(node)
        else:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            text = "\n".join(source.lines[first - 1 : node.end_lineno])
        self._texts[module, name] = text
        for needed in sorted(_names(node)):
            self.add(module, needed)
        if module not in self._modules:
            self._modules.append(module)
        self._order()

    def _order(self) -> None:
        """Keep modules behind all those that they import."""
        done: list[str] = []

        def visit(each: str) -> None:
            if each in done:
                return
            for place in _read(each).imported.values():
                visit(self._stand_in(*place)[0])
            done.append(each)

        for each in self._modules:
            visit(each)
        self._modules.sort(key=done.index)


@lru_cache
def _read(module: str) -> _Module:
    """A source file of alphabar, by its module's name."""
    path = ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = file.read_text(encoding="utf-8")
    source = _Module(text.splitlines())
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                source.imported[alias.asname or alias.name] = (node.module or "", alias.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                source.external[bound] = _external(node, alias)
        else:
            source.definitions.update(dict.fromkeys(_defined(node), node))
    return source


def _external(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str]:
    renamed = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
    return (node.module or "", renamed) if isinstance(node, ast.ImportFrom) else ("", renamed)


def _import_lines(imports: Collection[tuple[str, str]]) -> Iterator[str]:
    """The lines that import names, grouped by module."""
    for module in sorted({module for module, _ in imports}):
        names = sorted(name for each, name in imports if each == module)
        if module:
            yield f"from {module} import {', '.join(names)}"
        else:
            yield from (f"import {name}" for name in names)


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _names(node: ast.AST) -> set[str]:
    """The names that code needs when it runs: all but those that only annotations have.

    ClassVar is needed there too, by which dataclasses know what is no field.
    """
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
        raise ValueError(f"line {node.lineno} imports {node.module} inside a function")
    if isinstance(node, ast.Name):
        return {node.id}
    found: set[str] = set()
    for key, value in ast.iter_fields(node):
        children = [each for each in _listed(value) if isinstance(each, ast.AST)]
        if key in ("annotation", "returns"):
            named = {each.id for child in children for each in ast.walk(child) if isinstance(each, ast.Name)}
            found |= named & {"ClassVar"}
        else:
            for child in children:
                found |= _names(child)
    return found


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else [value]


def _reduced(node: ast.stmt, names: Collection[str]) -> ast.stmt:
    """The definition of a registry with only some of its choices."""
    node = ast.parse(ast.unparse(node)).body[0]
    (choices,) = [each for each in ast.walk(node) if isinstance(each, ast.Dict)]
    kept = [
        (key, value)
        for key, value in zip(choices.keys, choices.values, strict=True)
        if isinstance(key, ast.Constant) and key.value in names
    ]
    choices.keys, choices.values = [key for key, _ in kept], [value for _, value in kept]
    return node
