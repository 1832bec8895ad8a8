"""Mutate the modules that decide, and count what the tests notice: ``python tests/mutation/run.py [--write docs/attacks.md]``.

At every place where an operator of Cosmic Ray applies, one mutant is drawn by the seed; a comparison is moved by its boundary besides.
The tests that execute the changed lines run in a fork until one fails. A mutant that survives must stand in `survivors.toml` with a
reason, or the command exits 1. ``--only atlas_schema/verdict`` asks about some modules; ``--sample N`` draws N mutants of each module.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import itertools
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy: a fork keeps no threads

import pytest  # noqa: E402
from mutation.forks import COLLECTING, Seen, baseline, functions_of, in_fork, put_in_place, run_anew, run_items  # noqa: E402
from mutation.mutants import Made, Mutant, function_lines, make, statement  # noqa: E402

SEED = 6
ROUND = 8
CHEAP = 0.1
"""Seconds below which a test is asked before dearer ones."""
NAME = "tests/mutation/run.py"
RESULT, SURVIVORS, TARGETS = HERE / "result.json", HERE / "survivors.toml", HERE / "targets.toml"
NOTES = ROOT / ".mutation" / "state.jsonl"
"""What is known of single mutants, for ``--resume``; not tracked."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one mutant: ``killed``, ``timeout`` or ``survived``, and the test that noticed."""

    key: str
    module_digest: str
    tests_digest: str
    status: str
    by: str


@dataclass(slots=True)
class Counted:
    """What became of the mutants of one module: ``run`` of the ``places``, where operators offer ``possible`` replacements."""

    places: int = 0
    possible: int = 0
    excluded: int = 0
    run: int = 0
    killed: int = 0
    timeouts: int = 0
    explained: int = 0
    unexplained: int = 0
    first: int = 0  # noticed when first met, before any test was written for it


@dataclass(slots=True)
class Work:
    """One module under mutation: its places, its functions as they live in this process, and what was counted so far."""

    path: str
    digest: str
    made: Made
    mutants: Iterator[Mutant]
    live: list[FunctionType]
    counted: Counted

    @classmethod
    def of(cls, path: str, seed: int) -> Work:
        made, file = make(path, seed), ROOT / path
        counted = Counted(len(made.places), made.possible, made.excluded)
        return cls(path, digest(made.source.encode()), made, made.mutants(), functions_of([file])[str(file)], counted)


# --- one group of modules and tests -------------------------------------------------------------------------------


class Group:
    """pytest plugin: once tests are collected, runs them against mutants in place of running them."""

    def __init__(self, modules: Sequence[str], target: Mapping[str, Any], asked: Asked) -> None:
        self.modules, self.target, self.asked = modules, target, asked
        self.all_modules = modules_of(target)
        self.order: dict[str, list[str]] = {}
        self.error: str | None = None
        self.found: list[tuple[Mutant, Fate]] = []
        self.made: dict[str, Counted] = {}
        tests = sorted((ROOT / "tests").rglob("*.py"))
        self.tests_digest = digest(b"".join(p.read_bytes() for p in tests if p.parent != HERE))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            self.error = "tests do not import"
            return True
        paths = [ROOT / m for m in self.all_modules]
        for module in self.all_modules:  # those too that are imported only where they are needed
            importlib.import_module(dotted(module))
        kept = self._warm(paths)
        seen = self._seen(session, paths, kept)
        if seen.failed:
            self.error = "without any mutation a test fails: " + seen.failed[0]
            return True
        say(f"{len(session.items)} tests, {sum(seen.seconds.values()):.0f} s of processor time without mutation")
        work = [Work.of(module, self.asked.seed) for module in self.modules]
        self.made = {w.path: w.counted for w in work}
        started = time.monotonic()
        # In rounds, so that where time ends every module has had its share.
        for _ in range(0, max(len(w.made.places) for w in work), ROUND):
            for one in work:
                self._round(session, one, seen)
                if self.asked.minutes is not None and time.monotonic() - started > 60 * self.asked.minutes:
                    return True
        return True

    def _seen(self, session: pytest.Session, paths: Sequence[Path], kept: Sequence[Any]) -> Seen:
        """Return what tests execute; of an earlier run, if that is resumed and the modules are the same."""
        notes = NOTES.parent / f"seen-{digest(b''.join(p.read_bytes() for p in paths))}.json"
        known = Seen.loaded(notes) if self.asked.resume and notes.exists() else Seen()
        new = [item for item in session.items if item.nodeid not in known.seconds]
        if new:
            known = known.joined(baseline(session, new, paths, kept))
            known.save(notes)
        return known

    def _warm(self, paths: Sequence[Path]) -> list[Any]:
        """Make what every fork needs; raises if that executes a line of the modules."""
        import coverage

        watch, kept = coverage.Coverage(data_file=None, include=[str(p) for p in paths], config_file=False), []
        watch.start()
        for entry in self.target["warm"]:
            where, *arguments = entry.split(" ")
            module, name = where.split(":")
            kept.append(getattr(importlib.import_module(module), name))
            kept[-1](*arguments)
        watch.stop()
        if executed := watch.get_data().measured_files():
            raise RuntimeError(f"{self.target['warm']} must not execute {sorted(executed)}")
        return kept

    def _round(self, session: pytest.Session, work: Work, seen: Seen) -> None:
        """Run the next mutants of one module."""
        started, tried, survived = time.monotonic(), 0, 0
        room = ROUND if self.asked.sample is None else min(ROUND, self.asked.sample - work.counted.run)
        for mutant in itertools.islice(work.mutants, max(0, room)):
            fate = self.asked.known(mutant.key, work.digest, self.tests_digest)
            if fate is None and self.asked.again and mutant.key not in self.asked.resumed:
                work.mutants = iter(())
                break
            if fate is None:
                fate = self._try(session, work, mutant, seen)
                self.asked.note(fate)
            tried, survived = tried + 1, survived + (fate.status == "survived")
            work.counted.run += 1
            self.found.append((mutant, fate))
        if tried:
            say(f"{work.path:<48} {work.counted.run:>4} of {len(work.made.places):>4}, {survived:>2} of these {tried} survived, "
                f"{time.monotonic() - started:>5.0f} s")  # fmt: skip

    def _try(self, session: pytest.Session, work: Work, mutant: Mutant, seen: Seen) -> Fate:
        """Run one mutant."""
        path, source, live = ROOT / work.path, work.made.source, work.live

        covering = seen.tests_of(path, statement(source, mutant.line))
        everywhere = seen.tests_of_file(path)
        name = dotted(mutant.path)

        def meet() -> str:
            if put_in_place(path, source, mutant.source, live):
                chosen = self._ordered(mutant, source, [i for i in session.items if i.nodeid in covering], seen)
                failed = run_items(session, self._affordable(chosen, seen))
            else:
                first = [i.nodeid for i in session.items if i.nodeid.startswith("tests/test_values.py")]
                rest = self._ordered(mutant, source, [i for i in session.items if i.nodeid in everywhere], seen)
                rest = self._affordable(rest, seen)
                failed = run_anew(ROOT, path, name, mutant.source, [*first, *(i.nodeid for i in rest)])
            return failed or "survived"

        limit = 20 + int(3 * min(self.asked.patience, sum(seen.seconds[t] for t in everywhere)))
        ended = in_fork(meet, limit)
        status = "survived" if ended.output == "survived" else "timeout" if ended.timeout else "killed"
        by = ended.output if status == "killed" and ended.output else "the process ended" if status == "killed" else ""
        if status == "killed":
            for known in (
                self.order.setdefault(f"{mutant.path} {mutant.function}", []),
                self.order.setdefault(mutant.path, []),
            ):
                if by in known:
                    known.remove(by)
                known.insert(0, by)
        return Fate(mutant.key, work.digest, self.tests_digest, status, by)

    def _affordable(self, items: list[pytest.Item], seen: Seen) -> list[pytest.Item]:
        """Return as many of the first tests as patience lasts for."""
        spent, chosen = 0.0, list[pytest.Item]()
        for item in items:
            spent += seen.seconds[item.nodeid]
            if spent > self.asked.patience and chosen:
                break
            chosen.append(item)
        return chosen

    def _ordered(self, mutant: Mutant, source: str, items: list[pytest.Item], seen: Seen) -> list[pytest.Item]:
        """Order tests: those that killed mutants of this function, cases of the rules it names, those that killed others of this
        module, then quick ones first."""
        own, near = self.order.get(f"{mutant.path} {mutant.function}", []), self.order.get(mutant.path, [])
        cases = cases_of(rules_in(source, mutant.line))
        first = [*own[:8], *near[:2], *cases, *near[2:12]]
        ranks = {name: n for n, name in reversed(list(enumerate(first)))}
        likely = sorted((i for i in items if i.nodeid in ranks), key=lambda i: ranks[i.nodeid])
        rest = [i for i in items if i.nodeid not in ranks]
        # A test that executes little is about what it executes; those that execute all resemble each other, so some go by lot.
        by_reach = sorted(rest, key=lambda i: (seen.reach[i.nodeid], seen.seconds[i.nodeid]))
        cheap = [i for i in by_reach if seen.seconds[i.nodeid] < CHEAP]
        lot = sorted(rest, key=lambda i: digest(f"{mutant.key} {i.nodeid}".encode()))
        mixed = dict.fromkeys([*cheap, *(i for pair in zip(by_reach, lot, strict=True) for i in pair)])
        return [*likely, *mixed]


def rules_in(source: str, line: int) -> list[str]:
    """Return the rules that are named nearest to a line, and then those of the function around it."""
    span = function_lines(source, line)
    named = [(abs(n - line), rule) for n in span for rule in re.findall(r"\b[A-Z]\d{3}\b", source.splitlines()[n - 1])]
    return list(dict.fromkeys(f"ATL-{rule}" for _, rule in sorted(named)))


@functools.cache
def cases_by_rule() -> dict[str, list[str]]:
    """Return the tests of the cases of one defect, by the rule that must fire alone."""
    from verify import document_defects, finding_defects, router_defects, row_defects  # noqa: F401 - they register cases
    from verify.cases import CASES

    found: dict[str, list[str]] = {}
    for name, case in CASES.items():
        for rule in case.rules:
            found.setdefault(rule, []).append(
                f"tests/verify/test_rules.py::test_the_defect_is_caught_by_its_rule[{name}]"
            )
    return found


def cases_of(rules: Sequence[str]) -> list[str]:
    return [name for rule in rules for name in cases_by_rule().get(rule, [])]


# --- the command --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """The options, and what an earlier run left to resume from."""

    seed: int
    sample: int | None
    patience: float
    minutes: float | None
    again: bool
    resume: bool
    resumed: dict[str, Fate]
    reasons: dict[str, str]

    def known(self, key: str, module: str, tests: str) -> Fate | None:
        """Return an earlier fate: a kill while the module is the same; a survival if it has a reason or the tests are the same too."""
        fate = self.resumed.get(key)
        if fate is None or fate.module_digest != module:
            return None
        return fate if fate.status != "survived" or fate.tests_digest == tests or key in self.reasons else None

    def note(self, fate: Fate) -> None:
        """Keep what was found for `--resume`."""
        NOTES.parent.mkdir(exist_ok=True)
        with NOTES.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(fate)) + "\n")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def dotted(path: str) -> str:
    """Return the name of a module by its path below the root."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def say(line: str) -> None:
    print(line, flush=True)


def groups(only: Sequence[str]) -> Iterator[tuple[str, list[str], Mapping[str, Any]]]:
    """Yield every group of `targets.toml` with those of its modules that were asked for."""
    for name, target in tomllib.loads(TARGETS.read_text(encoding="utf-8")).items():
        chosen = [p for p in modules_of(target) if not only or any(p.startswith(o) for o in only)]
        if chosen:
            yield name, chosen, target


def modules_of(target: Mapping[str, Any]) -> list[str]:
    """Return the modules of a group that hold code."""
    paths = sorted(p for pattern in target["modules"] for p in ROOT.glob(pattern))
    return [str(p.relative_to(ROOT)) for p in paths if p.stat().st_size > 200]


def first_met() -> dict[str, str]:
    """Return what became of every mutant when it was first run; later runs may have met tests that were written for it."""
    found: dict[str, str] = {}
    for line in NOTES.read_text(encoding="utf-8").splitlines() if NOTES.exists() else ():
        fate = Fate(**json.loads(line))
        found.setdefault(fate.key, fate.status)
    return found


def deciding() -> set[str]:
    """Return every module that measures, decides or verifies and holds code that an operator changes."""
    found = [p for name in ("measures", "verdict", "verify") for p in (ROOT / "atlas_schema" / name).rglob("*.py")]
    return {str(p.relative_to(ROOT)) for p in found if p.stat().st_size > 200}


def explained() -> dict[str, str]:
    """Return the reasons of `survivors.toml` by mutant."""
    entries = tomllib.loads(SURVIVORS.read_text(encoding="utf-8")).get("survivor", [])
    return {"\x1f".join((e["module"], e["function"], e["line"], e["mutation"])): e["reason"] for e in entries}


def remember_studies() -> None:
    """Make equal simulated studies once, also where the modules that ask for them are imported anew."""
    from simulator import StudySimulator

    plain, known = StudySimulator.make, dict[str, Any]()

    @functools.wraps(plain)
    def make_once(settings: Any, *rest: Any, **named: Any) -> Any:
        key = repr((settings, rest, named))
        if key not in known:
            known[key] = plain(settings, *rest, **named)
        return known[key]

    StudySimulator.make = make_once  # type: ignore[method-assign,assignment]


def main(argv: Sequence[str]) -> int:
    """Run, print, compare with `survivors.toml`; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="paths that modules begin with")
    parser.add_argument("--sample", type=int, help="at most so many mutants of each module")
    parser.add_argument(
        "--minutes", type=float, help="after how long each group of modules ends, all modules at about the same share"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--patience", type=float, default=30.0, help="seconds of tests after which a mutant is called a survivor"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what an earlier run found of a module that is the same"
    )
    parser.add_argument(
        "--again", action="store_true", help="as --resume, but nothing new: try survivors without a reason, and count"
    )
    parser.add_argument("--write", type=Path, help="page whose section to write; also writes result.json")
    options = parser.parse_args(argv)
    resumed: dict[str, Fate] = {}
    if (options.resume or options.again) and NOTES.exists():
        for line in NOTES.read_text(encoding="utf-8").splitlines():
            fate = Fate(**json.loads(line))
            resumed[fate.key] = fate
    elif NOTES.exists() and not options.only and options.sample is None:
        NOTES.unlink()
    asked = Asked(
        options.seed,
        options.sample,
        options.patience,
        options.minutes,
        options.again,
        options.resume or options.again,
        resumed,
        explained(),
    )
    remember_studies()
    found: list[tuple[Mutant, Fate]] = []
    made: dict[str, Counted] = {}
    for name, modules, target in groups(options.only):
        say(f"[{name}]")
        group = Group(modules, target, asked)
        code = pytest.main([*COLLECTING, *(str(ROOT / t) for t in target["tests"])], plugins=[group])
        if group.error or code != 0:
            say(group.error or f"pytest ended with {int(code)}")
            return 2
        found += group.found
        made |= group.made
    return conclude(found, made, options)


def conclude(found: Sequence[tuple[Mutant, Fate]], made: Mapping[str, Counted], options: argparse.Namespace) -> int:
    """Count by module, say what is unexplained or stale, write what was asked for; return the exit code."""
    reasons, met = explained(), first_met()
    counts = dict(made)
    unexplained = []
    for mutant, fate in found:
        count = counts[mutant.path]
        count.first += met.get(mutant.key, fate.status) != "survived"
        count.killed += fate.status == "killed"
        count.timeouts += fate.status == "timeout"
        if fate.status == "survived":
            count.explained += mutant.key in reasons
            count.unexplained += mutant.key not in reasons
            if mutant.key not in reasons:
                unexplained.append(mutant)
    for mutant in unexplained:
        say(
            f"SURVIVED {mutant.path}:{mutant.line} {mutant.function} ({mutant.operator})\n  - {mutant.before}\n  + {mutant.after}"
        )
    survived = {m.key for m, f in found if f.status == "survived"}
    for mutant, _ in found:
        if mutant.key in reasons and mutant.key not in survived:
            say(f"STALE {mutant.path}:{mutant.line} is explained in survivors.toml, but was killed: {mutant.after}")
    result = {
        "command": " ".join(["tests/mutation/run.py", *(f"--{n}" for n in ("resume", "again") if getattr(options, n))]),
        "date": datetime.now(UTC).date().isoformat(), "seed": options.seed, "sample": options.sample, "patience": options.patience,
        "not_run": sorted(deciding() - {module for module, count in counts.items() if count.run}),
        "open": [f"{m.path} {m.function}: {m.before} → {m.after}" for m in unexplained],
        "modules": {module: asdict(count) for module, count in sorted(counts.items()) if count.run},
    }  # fmt: skip
    from mutation.report import table

    say(table(result))
    if options.write:
        from benchmarks.page import write_section

        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_section(options.write, NAME, table(result))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
