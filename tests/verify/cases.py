"""What a case of one defect is, and the ways to make one: changed documents, changed rows, everything re-issued over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator import StudySimulator
from verify.forging import (
    Json,
    as_json,
    honest,
    reissued,
    study,
    verified,
)

from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options

OTHER = "sha256:" + "ab" * 32


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


def row_of(s: StudySimulator, table: str, **key: str | int) -> int:
    return s.find(table, **key)


def first(table: str, run_id: str) -> int:
    return row_of(study(), table, run_id=run_id)


def altered(table: str, run_id: str, column: str, change: Callable[[Any], Any]) -> StudySimulator:
    """Change one value in the first row of a run."""
    at = first(table, run_id)
    return study().with_value(table, at, column, change(study().rows(table)[at][column]))
