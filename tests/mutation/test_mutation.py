"""The runner notices what tests notice and reports what they do not; reasons for survivors belong to lines that still stand there."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mutation.forks import functions_of, in_fork, put_in_place, run_anew, same_but_functions
from mutation.report import interval, table

from benchmarks.page import section

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "attacks.md"
NAME = "tests/mutation/run.py"
RESULT: dict[str, Any] = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
SURVIVORS: list[dict[str, str]] = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]

PLANTED = '''"""A module with one line that its test watches and one that nobody does."""

import functools

STEP = 3


def watched(x: int) -> int:
    if x > 2:
        return x + STEP
    return x


@functools.cache
def slept(x: int) -> int:
    return x * 5
'''
TESTS = """from planted import watched


def test_watched():
    assert [watched(x) for x in (1, 2, 3)] == [1, 2, 6]
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "test_planted.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = thorough: as in the project\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.find_spec("planted")
    assert spec is not None
    module = importlib.import_module("planted")
    yield module
    del sys.modules["planted"]


def fate(module: ModuleType, before: str, after: str) -> str:
    """Try one change of the planted module on its test; return the test that failed, or ``survived``."""
    path, mutated = Path(str(module.__file__)), PLANTED.replace(before, after)
    assert mutated != PLANTED
    live = functions_of([path])[str(path)]

    def work() -> str:
        if put_in_place(path, PLANTED, mutated, live):
            try:
                assert [module.watched(x) for x in (1, 2, 3)] == [1, 2, 6]
            except AssertionError:
                return "in place"
            return "survived"
        return run_anew(path.parent, path, "planted", mutated, [str(path.parent / "test_planted.py")]) or "survived"

    ended = in_fork(work, 20)
    assert not ended.timeout
    return str(ended.output)


def test_a_change_inside_of_a_function_is_noticed_in_place(planted: ModuleType) -> None:
    assert fate(planted, "x > 2", "x >= 2") == "in place"
    assert fate(planted, "x + STEP", "x - STEP") == "in place"
    assert planted.watched(3) == 6  # the fork's change is not ours


def test_a_change_outside_of_functions_is_noticed_by_importing_anew(planted: ModuleType) -> None:
    assert fate(planted, "STEP = 3", "STEP = 4").endswith("test_planted.py::test_watched")
    assert planted.STEP == 3


def test_a_change_that_no_test_sees_survives(planted: ModuleType) -> None:
    assert fate(planted, "x * 5", "x * 6") == "survived"
    assert fate(planted, "@functools.cache\n", "") == "survived"


def test_a_wrapped_function_is_changed_where_everyone_holds_it(planted: ModuleType) -> None:
    path = Path(str(planted.__file__))
    live = functions_of([path])[str(path)]

    def work() -> str:
        assert put_in_place(path, PLANTED, PLANTED.replace("x * 5", "x * 6"), live)
        return str(planted.slept(7))

    assert in_fork(work, 20).output == "42"


def test_tests_that_cannot_run_notice_nothing(planted: ModuleType) -> None:
    path = Path(str(planted.__file__))
    nowhere = [str(path.parent / "test_nowhere.py")]
    with pytest.raises(RuntimeError, match="could not run"):
        in_fork(lambda: run_anew(path.parent, path, "planted", PLANTED, nowhere) or "survived", 20)


def test_a_mutant_that_never_ends_is_ended() -> None:
    def endless() -> str:
        while True:
            pass

    ended = in_fork(endless, 1)
    assert (ended.output, ended.timeout) == (None, True)


def test_a_fault_of_the_runner_is_no_kill() -> None:
    def faulty() -> str:
        raise KeyError("of the runner")

    with pytest.raises(RuntimeError, match="of the runner"):
        in_fork(faulty, 5)


def test_a_fork_that_dies_has_said_nothing() -> None:
    ended = in_fork(lambda: os._exit(3), 5)  # type: ignore[func-returns-value]
    assert (ended.output, ended.timeout) == (None, False)


def test_only_what_lies_outside_of_functions_needs_a_new_import() -> None:
    def code(text: str) -> Any:
        return compile(text, "x", "exec")

    one = code("class A:\n  k = 1\n  def f(self): return 1\n")
    assert same_but_functions(one, code("class A:\n  k = 1\n  def f(self): return 2\n"))
    assert not same_but_functions(one, code("class A:\n  k = True\n  def f(self): return 1\n"))
    assert not same_but_functions(one, code("class A:\n  k = 1\n  def f(self, a=2): return 1\n"))


# --- mutants ------------------------------------------------------------------------------------------------------


def test_mutants_are_the_operators_own_and_the_rules_leave_out_what_they_name(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray", reason="in the extra `mutation`")
    from mutation.mutants import make

    path = tmp_path / "small.py"
    path.write_text(
        '"""Three - one."""\n\n'
        "def f(x: int | None, y: int = 2) -> int | str:\n"
        '    """Return x + 1."""\n'
        "    if x < y:\n"
        '        raise AtlasError(f"{x - 1} is low", number=x * 2)\n'
        '    return f"{x - 3}"\n'
    )
    made = make(str(path), 5)
    mutants = list(made.mutants())
    lines = Counter((m.line, m.family) for m in mutants)
    assert lines == {
        (3, "number"): 1, (5, "AddNot"): 1, (5, "boundary"): 1, (5, "comparison"): 1, (6, "number"): 1, (6, "binary"): 1,
        (7, "number"): 1, (7, "binary"): 1,
    }  # fmt: skip
    assert [m.after for m in mutants if m.family == "boundary"] == ["if x <= y:"]
    assert made.excluded > 20  # both annotations with `|`, and the message's arithmetic
    assert [m.after for m in make(str(path), 5).mutants()] == [m.after for m in mutants]
    assert [m.after for m in make(str(path), 6).mutants()] != [m.after for m in mutants]
    for mutant in mutants:
        ast.parse(mutant.source)
        assert mutant.before != mutant.after
        assert mutant.function == "f"


# --- what is committed --------------------------------------------------------------------------------------------


def lines_of(path: Path, function: str) -> set[str]:
    """Return the lines of a function or class by its qualified name, of the whole file for an empty one."""
    source = path.read_text(encoding="utf-8")
    body: Any = ast.parse(source)
    for name in function.split(".") if function else ():
        body = next(n for n in ast.walk(body) if getattr(n, "name", None) == name)
    first = min([getattr(body, "lineno", 1), *(d.lineno for d in getattr(body, "decorator_list", []))])
    last = getattr(body, "end_lineno", None) or len(source.splitlines())
    return {" ".join(line.split()) for line in source.splitlines()[first - 1 : last]}


def test_every_explained_survivor_is_about_a_line_that_stands_there() -> None:
    assert SURVIVORS
    for entry in SURVIVORS:
        assert entry.keys() == {"module", "function", "line", "mutation", "reason"}
        assert entry["line"] in lines_of(ROOT / entry["module"], entry["function"]), entry
        assert entry["line"] != entry["mutation"]
        assert len(entry["reason"].split()) >= 4, entry


def test_no_survivor_is_explained_twice() -> None:
    keys = Counter((e["module"], e["function"], e["line"], e["mutation"]) for e in SURVIVORS)
    assert max(keys.values()) == 1


def test_the_result_adds_up_names_what_is_open_and_agrees_with_the_reasons() -> None:
    for name, count in RESULT["modules"].items():
        assert (ROOT / name).exists()
        assert count["unexplained"] == sum(line.startswith(f"{name} ") for line in RESULT["open"])
        assert count["run"] == count["killed"] + count["timeouts"] + count["explained"] + count["unexplained"]
    entries = Counter(e["module"] for e in SURVIVORS)
    explained = {name: count["explained"] for name, count in RESULT["modules"].items() if count["explained"]}
    assert explained == entries


def test_the_page_says_what_the_result_holds() -> None:
    assert section(PAGE, NAME) == table(RESULT)


def test_the_interval_is_the_exact_binomial_one() -> None:
    count = {"first": 10, "run": 10}
    low, high = interval(count)
    assert (round(low, 6), high) == (0.691503, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 10))


# --- the whole, on the smallest group -----------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_command_runs_on_what_decides_verdicts() -> None:
    pytest.importorskip("cosmic_ray", reason="in the extra `mutation`")
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "atlas_schema/verdict", "--sample", "25"],
                          capture_output=True, text=True, check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "25 mutants" in done.stdout
