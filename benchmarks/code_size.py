"""How large the code is and how it hangs together, as a Markdown table.

    python benchmarks/code_size.py CHECKOUT

Reads the files of ``CHECKOUT/src``; nothing is imported or run, so any checkout will do. Lines count with
comments and blank lines; a function's lines include those of functions inside it, and no decorators.
"""

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

LONG_FUNCTION, LONG_FILE, LARGE_CLASS = 60, 500, 12

SIDE = r"\{?[\w.]*(?:size|side|picture)\b\}?"  # also in a text with braces
IMAGE_SHAPES = re.compile(
    "|".join(
        (
            rf"\b3, {SIDE}, {SIDE}",  # the shape of a signal: 3, size, size
            r"\b3, (?:h, w|height, width)\b",
            rf"{SIDE}, {SIDE}, 3\b",  # the shape of an image: size, size, 3
            r"\b(?:h, w|height, width), 3\b",
            r"\bchannels ?= ?3\b",
            r"(?:\bchannels|\bshape\[-?\d\]) [!=]= 3\b",
            r"\bexpand\(-1, 3,",
            rf"(?<!\w)(?P<side>{SIDE}), (?P=side)",  # any other square: (size, size)
        )
    )
)
"""Where code names three channels or a square size, at most once a line; comments and docstrings aside."""


class Function(NamedTuple):
    """A function or method and its length in lines."""

    name: str
    lines: int


@dataclass(frozen=True)
class Module:
    """A source file. name: as it is imported."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Every function, also those in classes and functions."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last = node.end_lineno or node.lineno
                yield Function(f"{self.name}.{node.name}", last - node.lineno + 1)

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def code(self) -> str:
        """The text without comments and docstrings, line by line as before."""
        lines = self.text.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
        for node in ast.walk(self.tree):
            # A string that stands alone is a docstring, or what documents the name above it.
            match node:
                case ast.Expr(value=ast.Constant(value=str())):
                    for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                        lines[row - 1] = ""
        return "\n".join(lines)


def modules_of(checkout: Path) -> list[Module]:
    """Every module in the sources of a checkout."""
    source = checkout / "src"
    found = []
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(name, path.read_text(encoding="utf-8")))
    return found


# ---------------------------------------------------------------- imports


def _statements(node: ast.AST, deferred: bool) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported; with deferred also those inside functions.

    What stands under ``if TYPE_CHECKING`` never runs.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (grandchild for rest in child.orelse for grandchild in _statements(rest, deferred))
        elif deferred or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(child, ast.stmt):
                yield child
            yield from _statements(child, deferred)


def imports(module: Module, names: set[str], deferred: bool) -> set[str]:
    """The modules of the package, out of names, that a module imports."""
    found: set[str] = set()
    for statement in _statements(module.tree, deferred):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            for alias in statement.names:
                inner = f"{statement.module}.{alias.name}"
                found.add(inner if inner in names else statement.module)
    return (found & names) - {module.name}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import each other, directly or by a detour; the largest first."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in graph[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    reach = {name: reached(name) for name in graph}
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted((sorted(cycle) for cycle in found), key=len, reverse=True)


# ---------------------------------------------------------------- documentation and words


def undocumented(modules: list[Module]) -> list[str]:
    """Public modules, classes, functions, methods and properties without a docstring.

    Public is what neither has a leading underscore nor lies in what has one, or in a function. A method that
    a base class of the package documents is documented; bases are found by their names.
    """
    bases: dict[str, set[str]] = {}
    documented: set[tuple[str, str]] = set()
    for module in modules:
        for node in module.classes():
            bases.setdefault(node.name, set()).update(ast.unparse(b).partition("[")[0] for b in node.bases)
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and ast.get_docstring(member):
                    documented.add((node.name, member.name))

    def inherits(owner: str, method: str) -> bool:
        seen, waiting = {owner}, [owner]
        while waiting:
            more = {base.rpartition(".")[2] for base in bases.get(waiting.pop(), ())} - seen
            seen |= more
            waiting += more
        return any((name, method) in documented for name in seen)

    missing: list[str] = []

    def look(node: ast.Module | ast.ClassDef, prefix: str, owner: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if child.name.startswith("_"):
                continue
            if not ast.get_docstring(child) and not (owner and inherits(owner, child.name)):
                missing.append(f"{prefix}.{child.name}")
            if isinstance(child, ast.ClassDef):
                look(child, f"{prefix}.{child.name}", child.name)

    for module in modules:
        empty = not module.text.strip()
        if not empty and not ast.get_docstring(module.tree):
            missing.append(module.name)
        look(module.tree, module.name, "")
    return missing


def is_method_name(node: ast.AST) -> bool:
    """Whether an expression is ``….method["name"]``."""
    return isinstance(node, ast.Subscript) and ast.unparse(node).endswith("method['name']")


def method_comparisons(module: Module) -> int:
    """How many comparisons have a method's name on a side, itself or as a variable of the same function."""
    count = 0
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        variables: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    pairs = [(target, node.value)]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = list(zip(target.elts, node.value.elts))
                    variables |= {t.id for t, v in pairs if isinstance(t, ast.Name) and is_method_name(v)}
        for node in ast.walk(function):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                named = any(isinstance(side, ast.Name) and side.id in variables for side in sides)
                count += named or any(is_method_name(side) for side in sides)
    return count


# ---------------------------------------------------------------- the table


def public_methods(node: ast.ClassDef) -> int:
    """Methods and properties that a class itself defines; the fields of a record are data, not members."""
    functions = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return len({each.name for each in functions if not each.name.startswith("_")})


def named(count: int, examples: list[str]) -> str:
    """A count with what it counts, as far as that is short."""
    shown = ", ".join(f"`{name.removeprefix('alphabar.')}`" for name in examples[:20])
    more = ", …" if len(examples) > 20 else ""
    return f"{count}" + (f": {shown}{more}" if examples else "")


def sizes(modules: list[Module]) -> Iterator[tuple[str, str]]:
    """The rows about files, functions and classes."""
    files = sorted(modules, key=lambda module: module.lines)
    functions = sorted((f for m in modules for f in m.functions()), key=lambda function: function.lines)
    classes = [
        (f"{module.name}.{node.name}", public_methods(node))
        for module in modules
        for node in module.classes()
    ]
    yield "files in `src`", f"{len(files)}"
    yield "lines in `src`", f"{sum(module.lines for module in files):,}"
    yield "median file", f"{statistics.median(module.lines for module in files):g} lines"
    yield "longest file", f"{files[-1].lines} lines, `{files[-1].name}`"
    long_files = [f"{module.name} ({module.lines})" for module in reversed(files) if module.lines > LONG_FILE]
    yield f"files over {LONG_FILE} lines", named(len(long_files), long_files)
    yield "functions", f"{len(functions)}"
    yield "median function", f"{statistics.median(function.lines for function in functions):g} lines"
    yield "longest function", f"{functions[-1].lines} lines, `{functions[-1].name}`"
    long = [f"{f.name} ({f.lines})" for f in reversed(functions) if f.lines > LONG_FUNCTION]
    yield f"functions over {LONG_FUNCTION} lines", named(len(long), long)
    large = [f"{name} ({members})" for name, members in classes if members > LARGE_CLASS]
    yield f"classes with more than {LARGE_CLASS} public methods and properties", named(len(large), large)


def structure(modules: list[Module]) -> Iterator[tuple[str, str]]:
    """The rows about imports, documentation and assumptions."""
    names = {module.name for module in modules}
    for what, deferred in (("", False), (", imports inside functions included", True)):
        found = cycles({module.name: imports(module, names, deferred) for module in modules})
        shown = [" ↔ ".join(name.removeprefix("alphabar.") for name in cycle) for cycle in found]
        yield f"import cycles between modules{what}", named(len(found), shown)
    missing = undocumented(modules)
    yield "public definitions without docstring", f"{len(missing)}"
    lines = [line for module in modules for line in module.code().splitlines()]
    yield "lines of code that name three channels or a square size", f"{sum(map(_names_shape, lines))}"
    compared = sum(method_comparisons(module) for module in modules)
    yield 'comparisons of `recipe.method["name"]`', f"{compared}"


def _names_shape(line: str) -> bool:
    return IMAGE_SHAPES.search(line) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a folder with src/ and README.md")
    parser.add_argument(
        "--list", action="store_true", help="also list what has no docstring or names a shape"
    )
    given = parser.parse_args()
    modules = modules_of(given.checkout)
    print("| measure | value |\n| --- | --- |")
    words = len((given.checkout / "README.md").read_text(encoding="utf-8").split())
    for measure, value in (*sizes(modules), *structure(modules), ("words of the README", f"{words:,}")):
        print(f"| {measure} | {value} |")
    if given.list:
        print("\nWithout docstring:", *undocumented(modules), sep="\n- ")
        print("\nThree channels or a square size:\n")
        for module in modules:
            for number, line in enumerate(module.code().splitlines(), 1):
                if _names_shape(line):
                    print(f"- {module.name}:{number}: `{line.strip()}`")


if __name__ == "__main__":
    main()
