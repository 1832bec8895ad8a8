"""Running tests against mutants without paying for a start each time: one process imports and collects, then forks per mutant.

In the fork, functions that the mutation changed get new code in place, so that everyone who imported them runs the mutant. Where the
change is outside of functions (a constant, a default, a decorator), the module and all that imports it are imported anew.
Needs `fork`; limits are of processor time, so that a busy machine makes no timeouts.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

MEMORY = 6 << 30
"""Address space that a fork may add; a mutant that asks for more is killed by its own `MemoryError`."""
WALL = 8.0
"""Seconds by the clock per second of processor time, before a fork that waits for something is ended."""

FAULT = "fault of the runner: "


@dataclass(frozen=True, slots=True)
class Ended:
    """How a fork ended: what it wrote, or that a limit or a signal ended it."""

    output: str | None
    timeout: bool = False


def in_fork(work: Callable[[], str], seconds: int) -> Ended:
    """Run in a fork, silent, with a folder of its own for temporary files; return what `work` returned."""
    scratch = tempfile.mkdtemp(prefix="mutant")
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(read)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_AS, (_size() + MEMORY, resource.RLIM_INFINITY))
            tempfile.tempdir = os.environ["TMPDIR"] = scratch
            with os.fdopen(write, "w") as out:
                try:
                    out.write(work())
                except Exception:  # noqa: BLE001 - a fault of the runner, told apart from a test that failed
                    out.write(FAULT + traceback.format_exc())
        finally:
            os._exit(0)  # no clean-up of what the parent holds too
    os.close(write)
    try:
        return _awaited(pid, read, seconds)
    finally:
        os.close(read)
        shutil.rmtree(scratch, ignore_errors=True)


def _awaited(pid: int, read: int, seconds: int) -> Ended:
    """Collect a fork's output until it ends or its time by the clock is over; ends it and what it started."""
    deadline, parts, late = time.monotonic() + WALL * seconds + 30, [], False
    while not late:
        ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            late = True
        elif part := os.read(read, 1 << 16):
            parts.append(part)
        else:
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL) if late else None
    _, status = os.waitpid(pid, 0)
    ended = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    text = b"".join(parts).decode()
    if text.startswith(FAULT):
        raise RuntimeError(text.removeprefix(FAULT))
    return Ended(text if text and not ended else None, late or ended)


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# --- the mutant takes the module's place --------------------------------------------------------------------------


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes(inner)


def same_but_functions(a: CodeType, b: CodeType) -> bool:
    """Return whether two modules or class bodies differ at most inside of functions."""

    def plain(code: CodeType) -> tuple[object, ...]:
        consts = [(type(c), c if c == c else "nan") for c in code.co_consts if not isinstance(c, CodeType)]
        return code.co_code, repr(consts), code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars

    if plain(a) != plain(b):
        return False
    inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (a, b)]
    if len(inner[0]) != len(inner[1]):
        return False
    optimised = 0x1  # CO_OPTIMIZED: a function's own names; absent in modules and class bodies
    return all(
        x.co_name == y.co_name and (bool(x.co_flags & optimised) or same_but_functions(x, y))
        for x, y in zip(*inner, strict=True)
    )


def functions_of(paths: Iterable[Path]) -> dict[str, list[FunctionType]]:
    """Return every live function of some files, closures and wrapped ones too."""
    found: dict[str, list[FunctionType]] = {str(p): [] for p in paths}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename in found:
            found[thing.__code__.co_filename].append(thing)
    return found


def put_in_place(path: Path, source: str, mutated: str, live: Sequence[FunctionType]) -> bool:
    """Give live functions the mutant's code; return False, with nothing changed, where that cannot show the mutation."""
    old, new = (compile(text, str(path), "exec", dont_inherit=True) for text in (source, mutated))
    if not same_but_functions(old, new):
        return False
    fresh: dict[tuple[str, int], list[CodeType]] = {}
    for code in codes(new):
        fresh.setdefault((code.co_qualname, code.co_firstlineno), []).append(code)
    pairs: list[tuple[FunctionType, CodeType]] = []
    for function in live:
        known = fresh.get((function.__code__.co_qualname, function.__code__.co_firstlineno), [])
        if len(known) != 1 or known[0].co_freevars != function.__code__.co_freevars:
            if len(known) > 1 and all(k == known[0] for k in known):
                continue
            return False
        pairs.append((function, known[0]))
    if all(function.__code__ == code for function, code in pairs):
        return False
    for function, code in pairs:
        function.__code__ = code
    return True


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a text in place of its file."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        return importlib.util.spec_from_loader(fullname, self, origin=str(self.path)) if fullname == self.name else None

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, str(self.path), "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return False


def forget(root: Path, target: Path) -> None:
    """Remove a module, and all below `root` that import it however indirectly, from what is imported."""
    found = {name: getattr(m, "__file__", None) for name, m in list(sys.modules.items())}
    files = {name: Path(file) for name, file in found.items() if file and Path(file).is_relative_to(root)}
    names = {name: _imported(path) for name, path in files.items() if path.suffix == ".py"}
    lost = {name for name, path in files.items() if path == target}
    grown = True
    while grown:
        more = {name for name, wanted in names.items() if name not in lost and wanted & lost}
        grown, lost = bool(more), lost | more
    for name in lost - {"conftest"}:
        del sys.modules[name]


@functools.cache
def _imported(path: Path) -> frozenset[str]:
    """Return the absolute names that a file's import statements may mean."""
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(wanted)


# --- the tests ----------------------------------------------------------------------------------------------------


class FirstFailure:
    """pytest plugin: remembers the first test that failed, in set-up, call or teardown, or at collection."""

    def __init__(self) -> None:
        self.failed: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"


def run_items(session: pytest.Session, items: Sequence[pytest.Item]) -> str | None:
    """Run collected tests in this order until one fails; return its name."""
    watch = FirstFailure()
    session.config.pluginmanager.register(watch)
    for item, following in zip(items, [*items[1:], None], strict=False):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if watch.failed:
            break
    session.config.pluginmanager.unregister(watch)
    return watch.failed


def run_anew(root: Path, path: Path, name: str, mutated: str, nodes: Sequence[str]) -> str | None:
    """Import a mutated module and all that needs it anew, collect, and run until one test fails; return its name."""
    forget(root, path)
    sys.meta_path.insert(0, _Mutated(name, path, mutated))
    watch = FirstFailure()
    code = pytest.main([*COLLECTING, "-x", *nodes], plugins=[watch])
    if code == pytest.ExitCode.USAGE_ERROR:  # tests are named after values that the mutant changed: then by file
        code = pytest.main([*COLLECTING, "-x", *dict.fromkeys(n.partition("::")[0] for n in nodes)], plugins=[watch])
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED) and not watch.failed:
        raise RuntimeError(f"pytest could not run {nodes[:3]}")
    return watch.failed or (None if code == 0 else f"pytest ended with {int(code)}")


COLLECTING = (
    "-o",
    "addopts=",
    "--strict-markers",
    "-m",
    "not thorough",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-s",
    "-q",
)


@dataclass
class Seen:
    """What the unmutated tests execute: seconds by test, and the tests that execute a line of a file."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @functools.cached_property
    def reach(self) -> Counter[str]:
        """How many lines each test executes."""
        return Counter(test for by in self.lines.values() for tests in by.values() for test in tests)

    @classmethod
    def loaded(cls, path: Path) -> Seen:
        """Return what `save` wrote."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(found["seconds"], {f: {int(n): set(t) for n, t in by.items()} for f, by in found["lines"].items()})

    def save(self, path: Path) -> None:
        """Keep it for a run that resumes."""
        path.parent.mkdir(exist_ok=True)
        lines = {f: {str(n): sorted(t) for n, t in by.items()} for f, by in self.lines.items()}
        path.write_text(json.dumps({"seconds": self.seconds, "lines": lines}), encoding="utf-8")

    def joined(self, other: Seen) -> Seen:
        """Return both together."""
        lines = {f: dict(by) for f, by in self.lines.items()}
        for name, by in other.lines.items():
            mine = lines.setdefault(name, {})
            for line, tests in by.items():
                mine[line] = mine.get(line, set()) | tests
        return Seen({**self.seconds, **other.seconds}, lines, [*self.failed, *other.failed])

    def tests_of(self, path: Path, lines: Iterable[int]) -> set[str]:
        """Return the tests that execute one of these lines."""
        known = self.lines.get(str(path), {})
        return set[str]().union(*(known.get(line, set()) for line in lines))

    def tests_of_file(self, path: Path) -> set[str]:
        """Return the tests that execute any line of a file."""
        return self.tests_of(path, self.lines.get(str(path), {}))


class _Watch:
    """pytest plugin of the baseline: contexts of coverage by test, and by module for what its fixtures do."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.current, self.failed = coverage, "", list[str]()

    def enter(self, context: str) -> None:
        self.current = context
        self.coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        self.coverage.switch_context(f"fixture:{request.node.nodeid}")
        try:
            return (yield)
        finally:
            self.coverage.switch_context(self.current)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid}: {report.longreprtext[-600:]}")


def baseline(
    session: pytest.Session, items: Sequence[pytest.Item], modules: Sequence[Path], kept: Iterable[Any]
) -> Seen:
    """Run collected tests unmutated, in a fork, and return what it executes. Caches of tests that may hold what the
    modules computed are emptied before each test: what a test gets from a cache it depends on as if it had computed it."""

    def work() -> str:
        import coverage

        held = {id(cache) for cache in kept}
        caches = [c for c in gc.get_objects() if isinstance(c, functools._lru_cache_wrapper) and id(c) not in held
                  and not (c.__module__ or "").startswith(("atlas_", "pytest", "_pytest", "hypothesis", "re", "numpy"))]  # fmt: skip
        measured = coverage.Coverage(data_file=None, include=[str(m) for m in modules], config_file=False)
        measured.start()
        watch = _Watch(measured)
        session.config.pluginmanager.register(watch)
        seconds: dict[str, float] = {}
        for item, following in zip(items, [*items[1:], None], strict=False):
            for cache in caches:
                cache.cache_clear()
            started = time.process_time()
            watch.enter(item.nodeid)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.process_time() - started
        measured.stop()
        data = measured.get_data()
        lines = {f: {n: sorted(c) for n, c in data.contexts_by_lineno(f).items()} for f in data.measured_files()}
        return json.dumps({"seconds": seconds, "lines": lines, "failed": watch.failed})

    ended = in_fork(work, 1800)
    if ended.output is None:
        raise RuntimeError("the tests did not come to an end without any mutation")
    found = json.loads(ended.output)
    names = list(found["seconds"])

    def tests(contexts: list[str]) -> set[str]:
        own = {c for c in contexts if c and not c.startswith("fixture:")}
        nodes = [c.removeprefix("fixture:") for c in contexts if c.startswith("fixture:")]
        return own | {name for name in names for node in nodes if name.startswith(node)}

    lines = {f: {int(n): tests(c) for n, c in by.items()} for f, by in found["lines"].items()}
    return Seen(found["seconds"], lines, found["failed"])
