"""The mutants of the mutation campaign: which single changes of a line there are, and which are drawn.

Excluded, because no test of behaviour could or should notice them: docstrings and all other texts, type
annotations, ``__repr__``, assertions, what a raised error or a warning says, ``strict=`` of zip, arguments
and numbers that only change speed and memory, what runs on a GPU alone, and the drawings of ``data/toycars``,
whose numbers are the picture itself, and the bridge to deepinv, which is not installed with the tests.
"""

import ast
import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PACKAGES = ("diffusion", "restoration", "metrics", "training", "conditioning", "data", "guidance", "codecs")
EXCLUDED = ("data/toycars/", "restoration/deepinv.py")
HOW_MUCH_AT_ONCE = (
    " at once",
    " in memory",
    "_PER_CALL",
    "_AT_ONCE",
    "lru_cache(",
)  # in a line that sets a number of no other effect

# Lines whose mutants survived an earlier sample: file, old text, new text, in words.
NAMED = (
    ("training/muon.py", "torch._foreach_lerp(g, m, momentum)", "m", "Nesterov's step dropped"),
    (
        "training/muon.py",
        "torch._foreach_lerp(g, m, momentum)",
        "torch._foreach_lerp(m, g, momentum)",
        "swap",
    ),
    ("runs/ema.py", "min(self.half_life, self.ramp * images)", "self.half_life", "the EMA's ramp dropped"),
    ("runs/ema.py", "min(self.half_life, self.ramp * images)", "min(self.half_life, images)", "ramp of one"),
    ("methods/gan.py", "self.every * self.gamma / 2 * penalty", "self.gamma / 2 * penalty", "lazy factor"),
    ("methods/gan.py", "self.every * self.gamma / 2 * penalty", "self.every * self.gamma * penalty", "half"),
    ("methods/gan.py", "images // self.batch % self.every == 0", "True", "penalty at every update"),
    ("metrics/attribute_frequencies.py", "1 - 0.05 / len(names)", "1 - 0.05", "Bonferroni dropped"),
    ("metrics/attribute_frequencies.py", "math.sqrt(2) * torch.erfinv", "torch.erfinv", "factor dropped"),
    ("diffusion/noise_distributions.py", "(u - uniform_share) / (1 - uniform_share)", "u", "u not rescaled"),
    ("diffusion/noise_distributions.py", "u / uniform_share", "u", "share not rescaled"),
    ("diffusion/noise_distributions.py", "if uniform_share else t", "if not uniform_share else t", "not"),
)

# Survivors that need no test, by their key, and why.
ACCEPTED = {
    "c9b2ce3fabb03761": "the number of steps is a choice, of quality against time",
    "ed0d333eb7025bec": "from which size on a region is more than a speck is a choice",
    "e5ab277e1ad832b3": "how many images a value needs is a choice",
    "3bc0445b42516889": "the number of components is a choice",
    "d2580f45c73cc56f": "the number of labels that are kept is a choice",
    "bef31933ed083658": "the length of a file's name",
    "a6c031b2972bea72": "equivalent: `shrink` is for matrices over channels, and the others are None",
    "f756eee6885bab24": "equivalent: the folder stays the same, and so does the next round",
    "1bce4fbd9985a873": "a guard for who changes the network's layers",
    "c981b8d41ba9153e": "not tested: a restoration by a model whose recipe names a guidance classifier",
    "2f78c5a21fda4806": "a test written after this run fails with it",
    "725785c32927ef08": "the copies that are tested lie in no repository",
}

OPERATORS: dict[type, tuple[str, ...]] = {
    ast.Add: ("-",),
    ast.Sub: ("+",),
    ast.Mult: ("/",),
    ast.Div: ("*",),
    ast.FloorDiv: ("/", "*"),
    ast.Mod: ("*",),
    ast.Pow: ("*",),
    ast.BitAnd: ("|",),
    ast.BitOr: ("&",),
}
COMPARISONS: dict[type, tuple[str, ...]] = {
    ast.Lt: ("<=", ">"),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<"),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
}
PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("sin", "cos"),
    ("floor", "ceil"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("sum", "mean"),
    ("ones", "zeros"),
    ("ones_like", "zeros_like"),
    ("exp", "log"),
)
SWAPS = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
# Calls of one argument or method that may be left out: f(x) → x, x.f(...) → x.
DROPPED_CALLS = {"abs", "sqrt", "square", "sorted", "clamp", "round", "flip", "log", "exp", "relu"}
DROPPED_CALLS |= {"mean_only", "clip", "unique", "reversed", "mT", "conj"}
WITHOUT_RESULT = {
    "non_blocking",
    "pin_memory",
    "num_workers",
    "max_workers",
    "prefetch",
    "stacklevel",
    "flush",
}
WITHOUT_RESULT |= {
    "set_to_none",
    "strict",
    "device",
    "fused",
    "memory_format",
    "chunksize",
    "maxsize",
    "daemon",
    "repr",
}
SILENT_CALLS = {"message", "warn", "print", "UsageError", "AlphabarError", "note", "set_num_threads", "cast"}


@dataclass(frozen=True)
class Mutant:
    """One change: the text of a file from ``start`` to ``end`` becomes ``new``.

    path: below src/alphabar. in_function: whether the line runs only when a function is called. text: of the
    line. nth: how many lines with this text the file has before it. column: of the change in the text.
    """

    package: str
    path: str
    line: int
    kind: str
    old: str
    new: str
    start: int
    end: int
    in_function: bool
    text: str
    nth: int
    column: int

    def line_order(self, seed: int) -> str:
        """The place of the line in a random order that changes elsewhere in the file leave as it is."""
        return digest(seed, self.path, self.text, self.nth)

    @property
    def key(self) -> str:
        """A name, which changes elsewhere in the file leave as it is."""
        return digest(self.path, self.text, self.nth, self.column, self.old, self.new)

    def applied(self, text: str) -> str:
        """The file with the change."""
        if text[self.start : self.end] != self.old:
            raise SystemExit(f"{self.path} is not the file that the mutants were made of.")
        return text[: self.start] + self.new + text[self.end :]


class _Finder(ast.NodeVisitor):
    """Collects (node's place, kind, new text) of one file."""

    def __init__(self, text: str):
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = text.splitlines()
        self.found: list[tuple[int, int, str, str, bool]] = []
        self.functions = 0

    def offset(self, line: int, column: int) -> int:
        """Characters before a place of the syntax tree, whose columns count bytes."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def source(self, node: Any) -> str:
        """The text of a node."""
        return self.text[self.offset(node.lineno, node.col_offset) : self.end(node)]

    def end(self, node: Any) -> int:
        """Where a node ends."""
        return self.offset(node.end_lineno, node.end_col_offset)

    def add(self, node: Any, kind: str, new: str) -> None:
        """A mutant that replaces a node, where the node is on one line."""
        if node.lineno == node.end_lineno:
            start = self.offset(node.lineno, node.col_offset)
            self.found.append((start, self.end(node), kind, new, self.functions > 0))

    # What is left out.
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name == "__repr__":
            return
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self.functions += 1
        for statement in node.body:
            self.visit(statement)
        self.functions -= 1

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if "Cuda" not in node.name:
            for statement in node.body:
                self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_Import(self, node: ast.Import) -> None:
        pass

    visit_ImportFrom = visit_Import  # type: ignore[assignment]

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add(node, "statement removed", "pass")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    # What is changed.
    def visit_Constant(self, node: ast.Constant) -> None:
        value, text = node.value, self.source(node)
        if isinstance(value, bool):
            self.add(node, "constant", str(not value))
        elif isinstance(value, int):
            self.add(node, "constant", f"({text} + 1)")
            if value > 1:
                self.add(node, "constant", f"({text} - 1)")
        elif isinstance(value, float):
            self.add(node, "constant", "1.0" if value == 0 else f"({text} * 1.25)")
            if value not in (0.0, 1.0):
                self.add(node, "constant", "0.0")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        a, b = self.source(node.left), self.source(node.right)
        joint = self.text[self.end(node.left) : self.offset(node.right.lineno, node.right.col_offset)]
        for new in OPERATORS.get(type(node.op), ()):
            sign = {"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%"}
            old = {**sign, "Pow": "**", "BitAnd": "&", "BitOr": "|"}[type(node.op).__name__]
            self.add(node, f"{old} becomes {new}", f"{a}{joint.replace(old, new, 1)}{b}")
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            self.add(node, "term or factor dropped", f"({a})")
            if not isinstance(node.op, ast.Div):
                minus = "-" if isinstance(node.op, ast.Sub) else ""
                self.add(node, "term or factor dropped", f"({minus}({b}))")
        if isinstance(node.op, ast.Sub | ast.Div | ast.MatMult):
            middle = joint.strip(" ()") or joint
            self.add(node, "operands swapped", f"(({b}) {middle} ({a}))")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub | ast.Not):
            self.add(node, "sign or not dropped", f"({self.source(node.operand)})")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            a, b = self.source(node.left), self.source(node.comparators[0])
            for new in COMPARISONS.get(type(node.ops[0]), ()):
                self.add(node, f"comparison becomes {new}", f"{a} {new} {b}")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        parts = [f"({self.source(value)})" for value in node.values]
        other = " or " if isinstance(node.op, ast.And) else " and "
        self.add(node, f"becomes{other.rstrip()}", f"({other.join(parts)})")
        self.add(node, "condition dropped", f"({parts[0]})")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in SILENT_CALLS:
            return
        if name in SWAPS:
            old = self.source(node.func)
            self.add(node.func, f"{name} becomes {SWAPS[name]}", old[: len(old) - len(name)] + SWAPS[name])
        if name in DROPPED_CALLS:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if isinstance(inner, ast.Name) and inner.id in ("torch", "math", "np", "F"):
                inner = None
            kept = inner if inner is not None else (node.args[0] if node.args else None)
            if kept is not None:
                self.add(node, f"{name} dropped", f"({self.source(kept)})")
        if len(node.args) >= 2 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
            first, second = node.args[:2]
            if first.lineno == second.end_lineno and type(first) is type(second):  # others fail at once
                a, b = self.source(first), self.source(second)
                begin, end = self.offset(first.lineno, first.col_offset), self.end(second)
                between = self.text[self.end(first) : self.offset(second.lineno, second.col_offset)]
                new = b + between + a
                self.found.append((begin, end, "arguments swapped", new, self.functions > 0))
        self.visit(node.func)
        for arg in node.args:
            self.visit(arg)
        for keyword in node.keywords:
            if keyword.arg not in WITHOUT_RESULT:
                self.visit(keyword.value)

    def visit_If(self, node: Any) -> None:
        test = self.source(node.test)
        if "cuda" in test or "is_cuda" in test or "TYPE_CHECKING" in test:
            return
        self.add(node.test, "condition negated", f"not ({test})")
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            name = getattr(node.value.func, "id", getattr(node.value.func, "attr", ""))
            if name in SILENT_CALLS:
                return
            self.add(node, "statement removed", "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(node, "statement removed", "pass")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add(node, "continue becomes break", "break")

    def visit_Break(self, node: ast.Break) -> None:
        self.add(node, "break becomes continue", "continue")


def of_file(root: Path, path: Path) -> list[Mutant]:
    """All mutants of a file. root: src/alphabar."""
    text = path.read_text()
    finder = _Finder(text)
    finder.visit(ast.parse(text))
    found = []
    for start, end, kind, new, in_function in finder.found:
        if text[start:end] != new:
            found.append(_mutant(root, path, text, start, end, kind, new, in_function))
    return found


def _mutant(
    root: Path, path: Path, text: str, start: int, end: int, kind: str, new: str, in_function: bool
) -> Mutant:
    lines = text.splitlines()
    line = text.count("\n", 0, start)
    column = start - text.rfind("\n", 0, start) - 1
    name = path.relative_to(root).as_posix()
    nth = lines[:line].count(lines[line])
    place = (name.split("/")[0], name, line + 1, kind, text[start:end], new, start, end, in_function)
    return Mutant(*place, lines[line].strip(), nth, column)


def named(root: Path) -> list[Mutant]:
    """The mutants that survived an earlier sample."""
    found = []
    for name, old, new, kind in NAMED:
        text = (root / name).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{name} has {old!r} not once: bring NAMED up to date.")
        start = text.index(old)
        mutant = _mutant(root, root / name, text, start, start + len(old), kind, new, True)
        found.append(replace(mutant, package="named"))
    return found


def sample(root: Path, package: str, n: int, seed: int) -> list[Mutant]:
    """n mutants of a package on n different lines, a line as likely as any other, chosen by the seed."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted((root / package).rglob("*.py")):
        if path.relative_to(root).as_posix().startswith(EXCLUDED):
            continue
        for mutant in of_file(root, path):
            if not any(words in mutant.text for words in HOW_MUCH_AT_ONCE):
                by_line.setdefault((mutant.path, mutant.line), []).append(mutant)
    found: list[Mutant] = []
    for line in sorted(by_line.values(), key=lambda alike: alike[0].line_order(seed)):
        if len(found) < n:
            found += _first_that_compiles(root, sorted(line, key=lambda mutant: digest(seed, mutant.key)))
    return found


def _first_that_compiles(root: Path, mutants: list[Mutant]) -> list[Mutant]:
    for mutant in mutants:
        with contextlib.suppress(SyntaxError, ValueError):
            compile(mutant.applied((root / mutant.path).read_text()), mutant.path, "exec")
            return [mutant]
    return []


def digest(*values: object) -> str:
    """The beginning of a hash."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
