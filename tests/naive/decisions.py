"""States of cells, predicates in Kleene logic, and the verdict of an arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .bootstrap import MC_MULTIPLE, Interval, Success

Kleene = Literal["TRUE", "FALSE", "UNDETERMINED"]
CellState = Literal["below", "above", "undetermined", "identical", "not_applicable"]
Verdict = Literal["rewritten", "damaged", "unmatched", "undetermined", "preserved"]


# --- Kleene logic -------------------------------------------------------------------------------------------


def kleene_or(values: Iterable[Kleene]) -> Kleene:
    """TRUE if any is TRUE, FALSE if all are FALSE (also of nothing), else UNDETERMINED."""
    result: Kleene = "FALSE"
    for value in values:
        if value == "TRUE":
            return "TRUE"
        if value == "UNDETERMINED":
            result = "UNDETERMINED"
    return result


def kleene_not(value: Kleene) -> Kleene:
    """TRUE and FALSE exchanged."""
    if value == "UNDETERMINED":
        return "UNDETERMINED"
    return "FALSE" if value == "TRUE" else "TRUE"


def kleene_and(values: Iterable[Kleene]) -> Kleene:
    """FALSE if any is FALSE, TRUE if all are TRUE (also of nothing), else UNDETERMINED."""
    return kleene_not(kleene_or(kleene_not(value) for value in values))


# --- cells --------------------------------------------------------------------------------------------------


def cell_state(
    interval: Interval,
    threshold: float,
    *,
    floor: float | None = None,
    missing_share: float = 0.0,
    min_clusters: int = 50,
    applicable: bool = True,
) -> CellState:
    """Where a cell lies: above by its simultaneous lower bound, below by its pointwise upper bound.

    Reasons to be undetermined come first: too few clusters, more than 5 % of tokens without a competitor, a
    threshold at or below the floor, no bound, a bound within four Monte-Carlo standard errors of the
    threshold.
    """
    if not applicable:
        return "not_applicable"
    if interval.clusters < min_clusters or missing_share > 0.05:
        return "undetermined"
    if floor is not None and threshold <= floor:
        return "undetermined"
    lower = interval.simultaneous_lower
    upper = interval.upper
    if interval.rule == "identical":
        return "identical" if threshold > 0.0 else "undetermined"
    if lower is not None and lower > threshold:
        near = abs(lower - threshold) <= MC_MULTIPLE * interval.mc_simultaneous_lower
        return "undetermined" if near else "above"
    if upper is not None and upper < threshold:
        near = abs(upper - threshold) <= MC_MULTIPLE * interval.mc_upper
        return "undetermined" if near else "below"
    return "undetermined"


def under_both_seeds(first: CellState, second: CellState) -> CellState:
    """A state that does not hold under both seeds is undetermined."""
    return first if first == second else "undetermined"


# --- predicates ---------------------------------------------------------------------------------------------


def some_cell_above(states: Iterable[CellState]) -> Kleene:
    """The rule shared by `protected_atlas_rewrite` and `base_domain_damage`.

    Cells that do not apply do not count; where none is left nothing was examined: UNDETERMINED.
    """
    values: list[Kleene] = []
    for state in states:
        if state == "not_applicable":
            continue
        if state == "above":
            values.append("TRUE")
        elif state in ("below", "identical"):
            values.append("FALSE")
        else:
            values.append("UNDETERMINED")
    return kleene_or(values) if values else "UNDETERMINED"


def protected_atlas_rewrite(states: Iterable[CellState]) -> Kleene:
    """TRUE: some gated cell above. FALSE: every gated cell below or identical."""
    return some_cell_above(states)


def base_domain_damage(states: Iterable[CellState]) -> Kleene:
    """TRUE: some base domain above its tolerance. FALSE: all below."""
    return some_cell_above(states)


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """One arm. `family_*`: outcomes at alpha over the number of planned arms (default: the plain ones)."""

    name: str
    policy: str
    planned: bool
    reported: bool
    rewrite: Kleene
    success: Success
    family_rewrite: Kleene | None = None
    family_success: Success | None = None


def knowledge_expansive(arms: Sequence[ArmOutcome], chart_preserving_policies: Sequence[str]) -> Kleene:
    """Whether the planned arms leave the claim that knowledge needs rewriting unrefuted."""
    present = [arm for arm in arms if arm.reported]
    for arm in present:
        rewrite = arm.rewrite if arm.family_rewrite is None else arm.family_rewrite
        success = arm.success if arm.family_success is None else arm.family_success
        if arm.planned and rewrite == "FALSE" and success == "reached":
            return "FALSE"
    if any(arm.planned and not arm.reported for arm in arms):
        return "UNDETERMINED"
    for policy in chart_preserving_policies:
        if not any(arm.policy == policy and arm.rewrite == "FALSE" and arm.success == "missed" for arm in present):
            return "UNDETERMINED"
    for arm in present:
        if arm.rewrite in ("FALSE", "UNDETERMINED") and arm.success in ("reached", "undetermined"):
            return "UNDETERMINED"
    if any(arm.rewrite == "TRUE" and arm.success == "reached" for arm in present):
        return "TRUE"
    return "UNDETERMINED"


# --- verdict ------------------------------------------------------------------------------------------------


def verdict_and_flags(rewrite: Kleene, damage: Kleene, success: Success) -> tuple[Verdict, list[Verdict]]:
    """The first outcome that applies, and all that apply (without `preserved`)."""
    flags: list[Verdict] = []
    if rewrite == "TRUE":
        flags.append("rewritten")
    if damage == "TRUE":
        flags.append("damaged")
    if success == "missed":
        flags.append("unmatched")
    if rewrite == "UNDETERMINED" or damage == "UNDETERMINED" or success == "undetermined":
        flags.append("undetermined")
    return (flags[0] if flags else "preserved"), flags
