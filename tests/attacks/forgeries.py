"""Forgeries of shipped studies in which evidence and receipt agree, and what the verifier says of each.

    python -m attacks.forgeries --write docs/attacks.md

A forgery that is caught names its rules; one that is believed says who could make it and what would catch it. Both are
tests: the day the verifier catches one that stands here as believed, this page is to be changed.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from attacks.remembered import remembered
from attacks.world import (
    FOLDERS,
    Outcome,
    Shipped,
    bundle_of,
    issued,
    looked_at,
    outcome,
    processor_seconds,
    shipped,
)
from simulator import StudySimulator
from verify.forging import Json

from atlas_schema.documents.receipt import Receipt
from atlas_schema.errors import EvidenceError
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.verifier import Options
from benchmarks.page import write_section

NAME = "tests/attacks/forgeries.py"
CAUGHT, BELIEVED = "caught", "believed"


@dataclass(frozen=True)
class Forged:
    """What a forger hands over: a study with rows and documents, and how the receipt over it is written.

    ``arm`` is the arm of the receipt. ``keep``: findings and claim stay those of the honest receipt. ``edit`` changes the
    receipt once it is written. ``raw`` is handed over in place of a receipt. ``changes`` replace parts of the submission.
    """

    world: str
    study: StudySimulator
    arm: str
    keep: bool = False
    edit: Callable[[Json], Any] | None = None
    raw: bytes | None = None
    options: Options = field(default_factory=Options)
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Forgery:
    """One forgery: what is claimed, by whom, and what must come of it."""

    name: str
    says: str
    by: str
    evidence: str
    rules: tuple[str, ...]
    code: Code
    verdict: str
    left_to: str
    make: Callable[[], Forged]

    @property
    def believed(self) -> bool:
        return not self.rules


FORGERIES: dict[str, Forgery] = {}


def forgery(
    says: str,
    evidence: str,
    *,
    rules: str = "",
    code: Code = Code.VERIFIED,
    verdict: str = "",
    left_to: str = "",
    by: str = "producer",
) -> Callable[[Callable[[], Forged]], Callable[[], Forged]]:
    """Register a forgery: caught by ``rules`` with a code, or believed with a verdict and ``left_to`` something else."""

    def register(make: Callable[[], Forged]) -> Callable[[], Forged]:
        name = make.__name__
        if name in FORGERIES or bool(rules) == bool(left_to):
            raise ValueError(f"{name}: caught by rules, or left to something; once")
        FORGERIES[name] = Forgery(name, says, by, evidence, tuple(sorted(rules.split())), code, verdict, left_to, make)
        return make

    return register


# --- running ------------------------------------------------------------------------------------------------------


@cache
def receipt_for(world: str, arm: str) -> Receipt:
    """Return the honest receipt about an arm: that of any arm holds the findings of all."""
    original = shipped(world)
    known = original.receipts.get(arm)
    if known is not None:
        return known
    other = next(iter(original.receipts.values()))
    verdict = next(a.verdict for a in other.findings.arms if a.arm == arm)
    return other.model_copy(update={"claim": other.claim.model_copy(update={"arm": arm, "verdict": verdict})})


def ran(made: Forged) -> Outcome:
    """Write the bundle, issue the receipt as the forger does, and verify what he hands over."""
    original: Shipped = shipped(made.world)
    with bundle_of(made.study, original) as folder:
        if made.raw is not None:
            return outcome(made.raw, made.study, folder, made.options, **made.changes)
        receipt = receipt_for(made.world, made.arm)
        with remembered():
            seen = looked_at(made.study, folder)
            if isinstance(seen, EvidenceError):
                return outcome(receipt, made.study, folder, made.options, **made.changes)
            if seen.sums is None and not made.keep:
                made = replace(made, keep=True)  # nothing follows from such rows: he writes what he wants
            study, forged = issued(made.study, seen, receipt, original.study.tables["run"], keep=made.keep)
            if made.edit is not None:
                made.edit(forged)
            return outcome(forged, study, folder, made.options, **made.changes)


def lines_of(make: Callable[..., Any], seen: set[str] | None = None) -> int:
    """Count lines of code of a function and of the forgers' functions that it calls: no docstrings, no decorators."""
    seen = set() if seen is None else seen
    seen.add(make.__name__)
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(make))).body[0]
    if not isinstance(body, ast.FunctionDef):
        return 0
    statements = [n for n in body.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    count = 1 + sum((n.end_lineno or n.lineno) - n.lineno + 1 for n in statements)
    for name in sorted({node.id for node in ast.walk(body) if isinstance(node, ast.Name)} - seen):
        called = inspect.unwrap(make.__globals__.get(name, str))
        if inspect.isfunction(called) and called.__module__ in FORGERS and name not in seen:
            count += lines_of(called, seen)
    return count


FORGERS = tuple(
    f"attacks.{name}" for name in ("edits", "experts", "replanned", "rewrites", "forged_rows", "forged_plans")
)


def fitting(made: Outcome, expected: Forgery) -> bool:
    """Return whether what came out is what stands in the registry."""
    if expected.believed:
        return made.believed and made.code is expected.code and made.verdict == expected.verdict
    return made.rules == expected.rules and made.code is expected.code


@dataclass(frozen=True)
class Tried:
    """What came of a forgery, and what making its rows took: processor seconds, lines of code."""

    outcome: Outcome
    seconds: float
    lines: int


def tried(known: Forgery) -> Tried:
    """Make and verify one forgery; the time is that of making the rows."""
    if known.evidence in FOLDERS:
        shipped(known.evidence)  # loading is nobody's cost
    start = processor_seconds()
    made = known.make()  # what a cached part cost, the first to use it pays
    spent = processor_seconds() - start
    return Tried(ran(made), spent, lines_of(known.make))


def told(results: dict[str, Tried]) -> str:
    """Return the section: forgeries that are caught, then those that are believed."""
    caught = [n for n in results if not FORGERIES[n].believed]
    lines = [f"{len(results)} forgeries of shipped studies: {len(caught)} caught, {len(results) - len(caught)} believed.", "",
             "| caught | what the forger wrote | study | channel | rules | exit |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name in caught:
        known, found = FORGERIES[name], results[name].outcome
        where, rules = ", ".join(found.channels), " ".join(found.rules)
        lines.append(f"| `{name}` | {known.says} | {known.evidence} | {where} | {rules} | {int(found.code)} |")
    lines += ["", "| believed | what the forger wrote | study | verdict | exit | lines | seconds | left to |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, made in results.items():
        known = FORGERIES[name]
        if known.believed:
            what = f"{made.outcome.verdict} | {int(made.outcome.code)} | {made.lines} | {made.seconds:.1f}"
            lines.append(f"| `{name}` | {known.says} | {known.evidence} | {what} | {known.left_to} |")
    return "\n".join(lines)


def main() -> None:
    """Make every forgery, print what came of each, and write the section."""
    from attacks import forged_plans  # noqa: F401 - registers its forgeries, and those of rows

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="page to put the section into")
    parser.add_argument("names", nargs="*", help="forgeries to make; all by default")
    given = parser.parse_args()
    results, wrong = {}, []
    for name in given.names or FORGERIES:
        results[name] = tried(FORGERIES[name])
        fine = fitting(results[name].outcome, FORGERIES[name])
        wrong += [] if fine else [name]
        print(f"{'' if fine else 'NOT AS STATED '}{name}: {results[name]}", flush=True)
    content = told(results)
    print(content)
    if wrong:
        sys.exit("not as stated: " + ", ".join(wrong))
    if given.write:
        write_section(given.write, NAME, content)


if __name__ == "__main__":
    from attacks.forgeries import main as registered  # the module that the cases register with, not this copy of it

    registered()
