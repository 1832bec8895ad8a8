"""The three predicates and the verdict of an arm (`docs/measures.md`, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from atlas_schema.documents.preregistration import PlannedArm
from atlas_schema.documents.receipt import CellState, Predicate, VerdictName

SuccessState = Literal["reached", "missed", "undetermined"]


def above_any(cells: Sequence[tuple[str, CellState]], subject: str) -> Predicate:
    """TRUE if some cell is above, FALSE if every applicable cell is below or identical, else UNDETERMINED.

    ``cells`` are (name, state). Without a single applicable cell the predicate is UNDETERMINED: nothing was measured.
    """
    above = [name for name, state in cells if state == "above"]
    if above:
        return Predicate(value="TRUE", decided_by=tuple(f"{name} above" for name in above))
    applicable = [(name, state) for name, state in cells if state != "not_applicable"]
    unclear = [name for name, state in applicable if state == "undetermined"]
    if unclear or not applicable:
        reasons = tuple(f"{name} undetermined" for name in unclear) or (f"no applicable {subject}",)
        return Predicate(value="UNDETERMINED", decided_by=reasons)
    return Predicate(value="FALSE", decided_by=(f"every one of {len(applicable)} {subject}s below",))


def verdict(rewrite: Predicate, damage: Predicate, success: SuccessState) -> VerdictName:
    """Return the first verdict that applies."""
    if rewrite.value == "TRUE":
        return "rewritten"
    if damage.value == "TRUE":
        return "damaged"
    if success == "missed":
        return "unmatched"
    if "UNDETERMINED" in (rewrite.value, damage.value) or success == "undetermined":
        return "undetermined"
    return "preserved"


def flags(rewrite: Predicate, damage: Predicate, success: SuccessState) -> tuple[str, ...]:
    """Return every condition that holds, also those that a verdict earlier in the order hides."""
    held = (
        ("rewritten", rewrite.value == "TRUE"), ("rewrite undetermined", rewrite.value == "UNDETERMINED"),
        ("damaged", damage.value == "TRUE"), ("damage undetermined", damage.value == "UNDETERMINED"),
        ("unmatched", success == "missed"), ("success undetermined", success == "undetermined"),
    )  # fmt: skip
    return tuple(name for name, holds in held if holds)


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """What `knowledge_expansive` needs of one arm. ``counterexample``: rewrite FALSE, success reached, at alpha / arms."""

    name: str
    rewrite: str
    success: SuccessState
    counterexample: bool


def knowledge_expansive(planned: Sequence[PlannedArm], arms: Sequence[ArmSummary]) -> Predicate:
    """Say whether the task seems to need chart redefinition; TRUE: not refuted by these arms, budgets and seeds."""
    against = [a for a in arms if a.counterexample]
    if against:
        lines = tuple(f"arm {a.name}: rewrite FALSE, success reached" for a in against)
        return Predicate(value="FALSE", decided_by=lines)
    reported = {a.name: a for a in arms}
    reasons = [f"arm {p.name} is planned and not reported" for p in planned if p.name not in reported]
    for policy in sorted({p.policy for p in planned if p.chart_preserving}):
        names = [p.name for p in planned if p.policy == policy and p.chart_preserving]
        of_policy = [reported[name] for name in names if name in reported]
        if not any(a.rewrite == "FALSE" and a.success == "missed" for a in of_policy):
            reasons.append(f"policy {policy}: no arm kept the atlas and missed the task")
    reasons += [f"arm {a.name}: rewrite {a.rewrite}, success {a.success}" for a in arms
                if a.rewrite != "TRUE" and a.success != "missed"]  # fmt: skip
    if not any(a.rewrite == "TRUE" and a.success == "reached" for a in arms):
        reasons.append("no arm rewrote the atlas and reached the task")
    if reasons:
        return Predicate(value="UNDETERMINED", decided_by=tuple(reasons))
    return Predicate(value="TRUE", decided_by=("not refuted by these arms, budgets and seeds",))
