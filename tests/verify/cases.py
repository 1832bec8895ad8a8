"""What a case of one defect is, and the ways to make one: changed documents, changed rows, everything re-issued over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator import StudySimulator
from verify.forging import Json, as_json, honest, mapped, only, reissued, study, verified

from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options

OTHER = "sha256:" + "ab" * 32
POSITION = ("run_id", "layer", "window_id", "position")
"""What names a row of tables `routing`, `state` and `update`."""


@dataclass(frozen=True)
class Case:
    """One defect: what is wrong, the rules that must fire (no others), the exit code, and how to make it."""

    rules: frozenset[str]
    defect: str
    code: Code
    make: Callable[[Path], Report]


CASES: dict[str, Case] = {}


def defect(rules: str, sentence: str, code: Code) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Register a case; its function may take the folder of a written study."""

    def register(make: Callable[..., Report]) -> Callable[..., Report]:
        takes_folder = make.__code__.co_argcount > 0
        made = frozenset(f"ATL-{rule}" for rule in rules.split())
        if make.__name__ in CASES:
            raise ValueError(f"two cases are called {make.__name__}")
        CASES[make.__name__] = Case(made, sentence, code, make if takes_folder else lambda _: make())
        return make

    return register


def forged(s: StudySimulator, arm: str = "frozen", options: Options | None = None) -> Report:
    """Re-issue everything over a changed study, and verify that."""
    again, receipt = reissued(s, arm)
    return verified(again, receipt, options)


def stated(change: Callable[[Json], Any], arm: str = "frozen") -> Report:
    """Change only the receipt."""
    receipt = as_json(honest(arm))
    change(receipt)
    return verified(study(), receipt)


def first(table: str, run_id: str) -> int:
    """Return the place of the first row of a run."""
    return study().find(table, run_id=run_id)


def place(s: StudySimulator, table: str, wanted: Callable[[Json], bool]) -> int:
    """Return the place of the first row of which something holds."""
    return next(at for at, row in enumerate(s.rows(table)) if wanted(row))


def route(s: StudySimulator, row: Json) -> int:
    """Return the place of the routing row of a sampled position's row."""
    return s.find("routing", **{name: row[name] for name in POSITION})


def valued(s: StudySimulator, table: str, at: int, column: str, change: Callable[[Json], Any]) -> StudySimulator:
    """Change one value by a function of its row."""
    return s.with_value(table, at, column, change(s.rows(table)[at]))


def altered(table: str, run_id: str, column: str, change: Callable[[Any], Any]) -> StudySimulator:
    """Change one value in the first row of a run, by a function of the value."""
    return valued(study(), table, first(table, run_id), column, lambda row: change(row[column]))


def copied(table: str, run_id: str, source: str) -> StudySimulator:
    """Put another run's rows in place of a run's, under its name."""
    theirs = {(r["window_id"], r["position"]): r for r in study().rows(table) if r["run_id"] == source}
    return mapped(
        study(), table, only(run_id, lambda row: {**theirs[row["window_id"], row["position"]], "run_id": run_id})
    )
