"""Rows that break a rule: found by comparing arrays, counted over blocks, and told in one order however rows were cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from atlas_schema.evidence.columns import Array, Rows
from atlas_schema.measures.drift import row_name
from atlas_schema.verify.outcome import ChannelResult, Problem

SHOWN_PER_RULE = 5
"""How many problems of one rule a report lists; the number of rows of each is in its message."""


@dataclass(frozen=True, slots=True)
class Violation:
    """The first row that breaks a rule, and how many do."""

    rule: str
    what: str
    where: str
    stated: str
    recomputed: str
    tolerance: str = "exact"
    wrong: int = 1


def first_wrong(
    rule: str, what: str, rows: Rows, stated: Array, recomputed: Array, tolerance: Array | float
) -> list[Violation]:
    """Compare ``[T, ...]`` arrays within a tolerance; report the first row that differs and how many do."""
    with np.errstate(invalid="ignore"):
        # Written so that NaN and infinite tolerances, which huge stored values can produce, count as wrong.
        fine = (np.abs(stated - recomputed) <= tolerance) & np.isfinite(tolerance)
    if fine.all():
        return []
    off = ~np.broadcast_to(fine, stated.shape).reshape(rows.n, -1)
    wrong = np.flatnonzero(off.any(axis=1))
    at, item = int(wrong[0]), int(np.flatnonzero(off[int(wrong[0])])[0])
    allowed, value, expected = (
        float(np.broadcast_to(np.asarray(a), stated.shape).reshape(rows.n, -1)[at, item])
        for a in (tolerance, stated, recomputed)
    )
    return [Violation(rule, what, row_name(rows, at), f"{value:.9g}", f"{expected:.9g}", f"{allowed:.3g} from the contract",
                      len(wrong))]  # fmt: skip


def first_false(
    rule: str, what: str, rows: Rows, holds: Array | np.bool_, stated: Array, recomputed: Array | None = None
) -> list[Violation]:
    """Report the first row ``[T]`` for which a condition does not hold, showing its values."""
    if np.all(holds):
        return []
    wrong = np.flatnonzero(~np.asarray(holds))
    at = int(wrong[0])
    return [Violation(rule, what, row_name(rows, at), str(np.asarray(stated[at]).tolist()),
                      "" if recomputed is None else str(np.asarray(recomputed[at]).tolist()), wrong=len(wrong))]  # fmt: skip


def by_slot(rows: Rows, name: str) -> Array:
    """Return, for each value of a list of variable size, its row ``[sum n]``."""
    return np.repeat(np.arange(rows.n), np.diff(rows.offsets(name)))


@dataclass(slots=True)
class Record:
    """Violations by cell (layer, run) over all blocks."""

    rows: int = 0
    _found: dict[tuple[int, int, str, str], Violation] = field(default_factory=dict)

    def add(self, cell: tuple[int, int], violations: Iterable[Violation], rows: int = 0) -> None:
        """Count ``rows`` as checked, and keep of each kind of violation the first and the number."""
        self.rows += rows
        for v in violations:
            key = (*cell, v.rule, v.what)
            known = self._found.get(key)
            self._found[key] = v if known is None else replace(known, wrong=known.wrong + v.wrong)

    @property
    def clean(self) -> bool:
        return not self._found

    def broken(self, rule: str) -> bool:
        """Return whether any row broke a rule."""
        return any(key[2] == rule for key in self._found)

    def report(self, result: ChannelResult) -> None:
        """Report violations in order of layer, run and rule."""
        result.check(self.rows)
        shown: dict[str, int] = {}
        for key in sorted(self._found):
            v = self._found[key]
            shown[v.rule] = shown.get(v.rule, 0) + 1
            if shown[v.rule] <= SHOWN_PER_RULE:
                what = v.what + (f" ({v.wrong} rows)" if v.wrong > 1 else "")
                result.report(Problem(v.rule, what, where=v.where, stated=v.stated, recomputed=v.recomputed,
                                      tolerance=v.tolerance, todo=f"atlas explain {v.rule} says what this rule protects"))  # fmt: skip
