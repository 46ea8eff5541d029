"""Do the tests notice when a line of the library is wrong?

    python benchmarks/mutations.py

Changes one line at a time (benchmarks/mutants.py says how) in a private copy of the project and runs the
tests that execute this line, the fastest first, until one fails. First it runs every related test file once
to learn which test executes which lines. The same seed chooses the same mutants. Everything is kept in
``--work``: when stopped, the same command goes on; after tests have changed, it tries the survivors again.
Prints docs/results/mutations.md. Takes at most two hours on two cores.
"""

import argparse
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import mutants
from mutants import PACKAGES, Mutant

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/alphabar")
# Test files of other parts: they execute the library as a whole, slowly, or only read its text.
UNRELATED = (
    *("ablations", "bounds", "cli", "compare", "extend", "messages", "networks", "reporting", "registry"),
    *("recipe", "shapes", "shipped", "studio", "studio_page", "survival", "words"),
)
NOTHING = "no test"
FIRST_SECONDS = 10.0  # of tests in the first of two rounds; most mutants need no other
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "--no-header"]
# Imported once, before the processes that test a mutant are forked.
HEAVY = (
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "torch",
    "torch._dynamo",
    "PIL.Image",
    "pydantic",
    "pytest",
)
HEAVY += ("hypothesis", "safetensors.torch", "matplotlib.pyplot", "diffusers", "pyarrow")
HEAVY += ("pyarrow.parquet", "scipy.io", "typer", "rich", "jinja2")


class Trace:
    """A pytest plugin that records which lines of the library each test executes.

    What a fixture of a module or session executes counts for every test that uses it, and so does its time.
    """

    def __init__(self, source: Path):
        self.source = f"{source}/"
        self.lines: set[tuple[str, int]] = set()
        self.known: dict[Any, set[int]] = {}
        self.fixtures: dict[int, tuple[float, set[tuple[str, int]]]] = {}
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()

    def _call(self, frame: Any, event: str, arg: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(self.source):
            return None
        left = self.known.get(code)
        if left is None:
            left = self.known[code] = {line for _, _, line in code.co_lines() if line}
        if not left:
            return None
        name = code.co_filename[len(self.source) :]

        def local(frame: Any, event: str, arg: Any) -> Any:
            if frame.f_lineno in left:
                left.discard(frame.f_lineno)
                self.lines.add((name, frame.f_lineno))
            return local

        return local(frame, event, arg)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[set[tuple[str, int]]]:
        before = self.lines
        self.lines = set()
        self.known.clear()
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            yield self.lines
        finally:
            self.lines = before
            self.known.clear()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        """Records one test."""
        start = time.perf_counter()
        with self._recording() as lines:
            yield
        seconds, found = time.perf_counter() - start, set(lines)
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                took, more = self.fixtures.get(id(definition), (0.0, set()))
                found |= more
                seconds += took
        by_file: dict[str, list[int]] = defaultdict(list)
        for name, line in sorted(found):
            by_file[name].append(line)
        self.tests[item.nodeid] = {"seconds": round(seconds, 3), "lines": by_file}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """Records what a fixture that lives longer than a test executes."""
        if fixturedef.scope == "function":
            yield
            return
        start = time.perf_counter()
        with self._recording() as lines:
            yield
        self.fixtures[id(fixturedef)] = (time.perf_counter() - start, set(lines))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tests that fail without any mutant are no use."""
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


class Killer:
    """A pytest plugin that runs some tests alone, file by file, and remembers the first that failed.

    Not by names on the command line: pytest does not find every name again that it gives.
    """

    def __init__(self, tests: list[str]) -> None:
        self.test, self.ran = "", 0
        self.place = {test: i for i, test in enumerate(tests)}
        files = [test.partition("::")[0] for test in tests]
        self.files = list(dict.fromkeys(files))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Called by pytest when it knows all tests."""
        chosen = [item for item in items if item.nodeid in self.place]
        file_of = {item: self.files.index(item.nodeid.partition("::")[0]) for item in chosen}
        items[:] = sorted(chosen, key=lambda item: (file_of[item], self.place[item.nodeid]))
        self.ran = len(items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest after each phase of a test."""
        if report.failed and not self.test:
            self.test = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """Called by pytest after it has read a test file."""
        if report.failed and not self.test:
            self.test = f"{report.nodeid} (import)"


def copy_project(to: Path) -> None:
    """A copy of what the tests need, compiled files left out."""
    shutil.rmtree(to, ignore_errors=True)
    for name in ("src", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, to / name)


def in_child(tree: Path, work: Callable[[], Any], seconds: float) -> Any:
    """The result of a function called in a fork of this process; None if it died or took too long.

    seconds: of processor time that it may take.
    """
    answer = tree / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Not the clock, because a machine may be busy; the clock is for a wait without end.
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
            os.chdir(tree)
            out = os.open(tree / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.path[:0] = [str(tree / "src"), str(tree / "tests")]
            os.environ["PYTHONPATH"] = str(tree / "src")
            temporary = tree / "tmp"
            temporary.mkdir(exist_ok=True)
            os.environ["TMPDIR"] = str(temporary)
            answer.write_text(json.dumps(work()))
        finally:
            os._exit(0)
    end = time.monotonic() + 300 + 10 * seconds
    try:
        while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end:
            time.sleep(0.02)
    finally:  # also what the tests have started
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    shutil.rmtree(tree / "tmp", ignore_errors=True)
    return json.loads(answer.read_text()) if answer.exists() else None


def run_tests(arguments: Iterable[str], plugin: object) -> None:
    """pytest in this process, with hypothesis free of deadlines and of chance."""
    checks = list(hypothesis.HealthCheck)
    hypothesis.settings.register_profile(
        "mutations", deadline=None, suppress_health_check=checks, derandomize=True, database=None
    )
    hypothesis.settings.load_profile("mutations")
    pytest.main([*PYTEST, *arguments], plugins=[plugin])


def trace_file(tree: Path, name: str) -> dict[str, Any]:
    """Seconds and lines of each test of a file that passes."""

    def work() -> Any:
        trace = Trace(tree / SOURCE)
        run_tests(["--maxfail=1000000", f"tests/{name}"], trace)
        sys.settrace(None)
        return {test: found for test, found in trace.tests.items() if test not in trace.failed}

    return in_child(tree, work, 1200) or {}


def related(tests: dict[str, dict[str, Any]], mutant: Mutant, limit: float) -> list[tuple[str, float]]:
    """The tests that execute a mutant's line and their seconds, the fastest first, within a limit."""
    executed = {mutant.line}
    if constant := re.match(r"[A-Z][A-Z_0-9]+", mutant.text):  # what tells is who uses it
        text = (ROOT / SOURCE / mutant.path).read_text().splitlines()
        executed = {i for i, line in enumerate(text, 1) if re.search(rf"\b{constant[0]}\b", line)}
    found = []
    for test, each in tests.items():
        lines = each["lines"].get(mutant.path, ())
        if executed & {*lines} or (lines and not mutant.in_function and not constant):
            found.append((each["seconds"], test))
    # What a file's fastest test takes is taken to be its fixtures, which are made once.
    fixtures: dict[str, float] = {}
    chosen, total = [], 0.0
    for seconds, test in sorted(found):
        file = test.partition("::")[0]
        total += seconds - fixtures.get(file, 0.0)
        fixtures.setdefault(file, seconds)
        if chosen and total > limit:
            break
        chosen.append((test, seconds))
    return chosen


def try_mutant(tree: Path, mutant: Mutant | None, chosen: list[tuple[str, float]]) -> dict[str, Any]:
    """Whether the tests notice a mutant: {"status": killed, survived or timeout, "by": the test}."""
    path = tree / SOURCE / mutant.path if mutant else None
    original = path.read_text() if path else ""
    total = sum(seconds for _, seconds in chosen)
    first, spent = [], 0.0
    for test, seconds in chosen:
        if first and spent + seconds > FIRST_SECONDS:
            break
        spent += seconds
        first.append(test)
    rounds = [each for each in (first, [test for test, _ in chosen[len(first) :]]) if each]

    def work() -> Any:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for tests in rounds:
            killer = Killer(tests)
            run_tests(killer.files, killer)
            if killer.test:
                return killer.test
            if not killer.ran:
                return NOTHING
        return ""

    start = time.monotonic()
    try:
        if path and mutant:
            for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                stale.unlink()
            path.write_text(mutant.applied(original))
        answer = in_child(tree, work, 30 + 3 * total)
    finally:
        if path:
            path.write_text(original)
    if answer == NOTHING:
        raise SystemExit(f"pytest found none of the tests that it named before, such as {chosen[0][0]}.")
    status = "timeout" if answer is None else "killed" if answer else "survived"
    return {"status": status, "by": answer or "", "seconds": round(time.monotonic() - start, 1)}


def work_off(tree: Path, tasks: Any, results: Any) -> None:
    """One of the processes: takes tasks until there is none."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    copy_project(tree)
    for kind, argument in iter(tasks.get, None):
        if kind == "trace":
            results.put((kind, argument, trace_file(tree, argument)))
        else:
            results.put((kind, argument, try_mutant(tree, *argument)))


class Pool:
    """Processes that each have a copy of the project."""

    def __init__(self, work: Path, n: int):
        context = multiprocessing.get_context("fork")
        self.tasks, self.results = context.Queue(), context.Queue()
        self.processes = [
            context.Process(target=work_off, args=(work / f"tree{i}", self.tasks, self.results), daemon=True)
            for i in range(n)
        ]
        for process in self.processes:
            process.start()

    def run(self, tasks: list[tuple[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
        """(kind, argument, result) of each task, in the order in which they end."""
        for task in tasks:
            self.tasks.put(task)
        for _ in tasks:
            yield self.results.get()

    def close(self) -> None:
        """Ends the processes."""
        for _ in self.processes:
            self.tasks.put(None)
        for process in self.processes:
            process.join()


def trace_all(pool: Pool, work: Path) -> dict[str, dict[str, Any]]:
    """Every related test: seconds, lines by file, hash of its file; traced again where that changed."""
    wanted = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        if path.stem.removeprefix("test_") not in UNRELATED:
            wanted[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    folder = work / "traces"
    folder.mkdir(exist_ok=True)
    missing = [name for name, of in wanted.items() if not (folder / f"{name}.{of}.json").exists()]
    missing.sort(key=lambda name: -(ROOT / "tests" / name).stat().st_size)
    for _, name, found in pool.run([("trace", name) for name in missing]):
        (folder / f"{name}.{wanted[name]}.json").write_text(json.dumps(found))
        print(f"{name}: {len(found)} tests", file=sys.stderr, flush=True)
    tests = {}
    for name, of in wanted.items():
        for test, each in json.loads((folder / f"{name}.{of}.json").read_text()).items():
            tests[test] = {**each, "hash": of}
    return tests


def chosen_mutants(n: int, seed: int) -> list[Mutant]:
    """The mutants of the campaign: first those that are named, then n of each package."""
    root = ROOT / SOURCE
    found = [*mutants.named(root)]
    for package in PACKAGES:
        found += mutants.sample(root, package, n, seed)
    rest = found[len(mutants.NAMED) :]
    random.Random(seed).shuffle(rest)
    return found[: len(mutants.NAMED)] + rest


def campaign(pool: Pool, work: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The results by the key of the mutant; written as they come."""
    tests = trace_all(pool, work)
    path = work / "results.jsonl"
    known: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line, where it was stopped
                known[json.loads(line)["key"]] = json.loads(line)
    tasks, results = [], {}
    for mutant in chosen_mutants(options.mutants, options.seed):
        selected = related(tests, mutant, options.limit)
        of = mutants.digest([(test, tests[test]["hash"]) for test, _ in sorted(selected)])
        before = known.get(mutant.key)
        if before and (options.report or before["status"] != "survived" or before["tests"] == of):
            results[mutant.key] = before
        elif options.report:
            continue
        else:
            tasks.append(("mutant", (mutant, selected)))
            results[mutant.key] = {"key": mutant.key, "tests": of, "selected": len(selected)}
    quick = sorted(test for test, each in tests.items() if each["seconds"] < 2)
    for i in range(0 if options.report else options.controls):
        picks = random.Random(f"control {i}").sample(quick, min(40, len(quick)))
        tasks.append(("mutant", (None, [(test, tests[test]["seconds"]) for test in picks])))
    done = 0
    with path.open("a") as log:
        for _, (mutant, _), result in pool.run(tasks):
            done += 1
            if mutant is None:
                print(f"without a mutant: {result}", file=sys.stderr, flush=True)
                continue
            results[mutant.key].update(asdict(mutant), **result)
            log.write(json.dumps(results[mutant.key]) + "\n")
            log.flush()
            if result["status"] != "killed":
                change = f"{mutant.path}:{mutant.line} {mutant.old!r} -> {mutant.new!r}"
                print(f"{result['status']}: {change}", file=sys.stderr, flush=True)
            if done % 20 == 0:
                print(f"{done} of {len(tasks)}", file=sys.stderr, flush=True)
    return results


def print_page(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """The page's table and the survivors."""
    # Imported only now: it imports alphabar, which the forked processes must import from their copies.
    from common import print_command, print_section, print_table

    seconds = sum(each["seconds"] for each in results.values()) / max(len(results), 1)
    print_section(
        "# Mutations",
        "Do the tests notice when a line of the library is wrong?",
        f"""{len(results)} mutants, each with one change in one line: another operator, comparison, sign,
        constant or index, a term, factor, condition or statement dropped, arguments swapped, min for max, and
        the like. {options.mutants} of each package, on lines drawn at random (seed {options.seed}), and
        {len(mutants.NAMED)} that had survived an earlier sample. Docstrings, messages, annotations,
        assertions, arguments that only change speed and the drawings of `toycars` are left out. For each
        mutant the tests that execute its line run, the fastest first and about {options.limit:.0f} seconds of
        them at most, until one fails. A mutant took {seconds:.0f} seconds on average.""",
    )
    rows, total = [], Counter[str]()
    for package in ("named", *PACKAGES):
        count = Counter(each["status"] for each in results.values() if each["package"] == package)
        total += count
        rows.append(row(package, count))
    head = ["package", "mutants", "killed", "of these by time", "survived", "share killed"]
    print_table(head, [*rows, row("all", total)])
    alive = [each for each in results.values() if each["status"] == "survived"]
    cells = [
        [
            f"`{each['path']}:{each['line']}`",
            *(f"`{each[name]}`".replace("|", "\\|") for name in ("old", "new")),
            mutants.ACCEPTED.get(each["key"], ""),
        ]
        for each in alive
    ]
    print_table(["line", "right", "survived", "why it may"], sorted(cells))
    print_command()


def row(name: str, count: Counter[str]) -> list[str]:
    """A row of the table of packages."""
    dead, n = count["killed"] + count["timeout"], sum(count.values())
    share = f"{100 * dead / n:.0f} %" if n else "–"
    return [name, str(n), str(dead), str(count["timeout"]), str(count["survived"]), share]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=36, help="of each package (default: 36)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/mutations", help="results and copies")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=90, help="seconds of tests for a mutant (default: 90)")
    parser.add_argument("--controls", type=int, default=4, help="runs of 40 quick tests without any mutant")
    parser.add_argument("--report", action="store_true", help="print the page of what is known; test nothing")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg")
    os.nice(10)
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            __import__(name)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    pool = Pool(work, options.processes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes end with this one
    results = campaign(pool, work, options)
    pool.close()
    print_page(results, options)


if __name__ == "__main__":
    main()
