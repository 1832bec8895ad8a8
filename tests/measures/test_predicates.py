"""Predicates and verdicts against the oracle's Kleene logic, and their monotonicity."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import decisions as naive

from atlas_schema.documents.preregistration import PlannedArm
from atlas_schema.documents.receipt import CellState, Predicate
from atlas_schema.verdict.predicates import (
    ArmSummary,
    SuccessState,
    above_any,
    flags,
    knowledge_expansive,
    verdict,
)

KLEENE: tuple[naive.Kleene, ...] = ("TRUE", "FALSE", "UNDETERMINED")
SUCCESS: tuple[SuccessState, ...] = ("reached", "missed", "undetermined")
STATES: tuple[CellState, ...] = ("below", "above", "undetermined", "identical", "not_applicable")
states_strategy = st.lists(st.sampled_from(STATES), max_size=6)


def predicate(value: naive.Kleene) -> Predicate:
    return Predicate(value=value, decided_by=())


def named(states: list[CellState]) -> list[tuple[str, CellState]]:
    return [(f"cell {i}", state) for i, state in enumerate(states)]


@given(states_strategy)
def test_above_any_is_the_kleene_or_of_its_cells(states: list[CellState]) -> None:
    found = above_any(named(states), "cell")
    assert found.value == naive.some_cell_above(states)
    assert found.decided_by


@given(states_strategy)
def test_the_cells_that_decided_are_named(states: list[CellState]) -> None:
    found = above_any(named(states), "cell")
    deciding = {"TRUE": "above", "UNDETERMINED": "undetermined"}.get(found.value)
    expected = {f"{name} {state}" for name, state in named(states) if state == deciding}
    assert set(found.decided_by) == expected or not expected


@given(states_strategy, st.integers(0, 5))
def test_above_any_is_monotone(states: list[CellState], at: int) -> None:
    """Raising one cell from below over undetermined to above never moves the predicate towards FALSE."""
    order = {"FALSE": 0, "UNDETERMINED": 1, "TRUE": 2}
    levels: tuple[CellState, ...] = ("below", "undetermined", "above")
    with_cell = [[*states[:at], level, *states[at:]] for level in levels]
    values = [order[above_any(named(s), "cell").value] for s in with_cell]
    assert values == sorted(values)


@pytest.mark.parametrize(("rewrite", "damage", "success"), list(product(KLEENE, KLEENE, SUCCESS)))
def test_verdicts_equal_the_oracle_everywhere(
    rewrite: naive.Kleene, damage: naive.Kleene, success: SuccessState
) -> None:
    expected, held = naive.verdict_and_flags(rewrite, damage, success)
    assert verdict(predicate(rewrite), predicate(damage), success) == expected
    found = flags(predicate(rewrite), predicate(damage), success)
    firm = {name for name in held if name != "undetermined"}
    assert {f for f in found if not f.endswith("undetermined")} == firm
    assert any(f.endswith("undetermined") for f in found) == ("undetermined" in held)
    assert (expected == "preserved") == (found == ())


def test_only_false_false_reached_is_preserved() -> None:
    for rewrite, damage, success in product(KLEENE, KLEENE, SUCCESS):
        found = verdict(predicate(rewrite), predicate(damage), success)
        assert (found == "preserved") == ((rewrite, damage, success) == ("FALSE", "FALSE", "reached"))


arms_strategy = st.lists(
    st.tuples(
        st.sampled_from(["p", "q"]), st.booleans(), st.sampled_from(KLEENE), st.sampled_from(SUCCESS), st.booleans(),
        st.booleans(),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@given(arms_strategy)
def test_knowledge_expansive_equals_the_oracle(
    arms: list[tuple[str, bool, naive.Kleene, SuccessState, bool, bool]],
) -> None:
    planned, summaries, outcomes = [], [], []
    preserving_policy = {policy: chart for policy, chart, *_ in arms}
    for i, (policy, _, rewrite, success, strict, reported) in enumerate(arms):
        name = f"arm{i}"
        against = strict and rewrite == "FALSE" and success == "reached"
        planned.append(PlannedArm(name=name, policy=policy, chart_preserving=preserving_policy[policy]))
        if reported:
            summaries.append(ArmSummary(name, rewrite, success, against))
        family: naive.Kleene = "FALSE" if against else "UNDETERMINED"
        outcomes.append(naive.ArmOutcome(name, policy, True, reported, rewrite, success, family, success))
    policies = sorted({p.policy for p in planned if p.chart_preserving})
    found = knowledge_expansive(planned, summaries)
    assert found.value == naive.knowledge_expansive(outcomes, policies)
    assert found.decided_by


@pytest.mark.parametrize("success", SUCCESS)
@pytest.mark.parametrize("rewrite", KLEENE)
def test_knowledge_expansive_asks_every_preserving_policy_on_its_own(
    rewrite: naive.Kleene, success: SuccessState
) -> None:
    """Exhaustive over two arms of two chart-preserving policies, beside a free arm that rewrote the atlas and reached the task."""
    planned = [PlannedArm(name=n, policy=n, chart_preserving=n != "free") for n in ("p", "q", "free")]
    free = naive.ArmOutcome("free", "free", True, True, "TRUE", "reached", "TRUE", "reached")
    for other, of_other in product(KLEENE, SUCCESS):
        pairs = (("p", rewrite, success), ("q", other, of_other))
        summaries = [ArmSummary(name, r, s, False) for name, r, s in pairs] + [
            ArmSummary("free", "TRUE", "reached", False)
        ]
        outcomes = [naive.ArmOutcome(name, name, True, True, r, s, "UNDETERMINED", s) for name, r, s in pairs] + [free]
        found = knowledge_expansive(planned, summaries)
        assert found.value == naive.knowledge_expansive(outcomes, ["p", "q"]), pairs


def test_knowledge_expansive_in_its_three_values() -> None:
    planned = [
        PlannedArm(name="kept", policy="lora", chart_preserving=True),
        PlannedArm(name="free", policy="full", chart_preserving=False),
    ]
    free = ArmSummary("free", "TRUE", "reached", False)
    missed, reached = ArmSummary("kept", "FALSE", "missed", False), ArmSummary("kept", "FALSE", "reached", True)
    assert knowledge_expansive(planned, [missed, free]).value == "TRUE"
    assert knowledge_expansive(planned, [reached, free]).value == "FALSE"
    assert knowledge_expansive(planned, [missed]).value == "UNDETERMINED"
    assert knowledge_expansive(planned, [free]).value == "UNDETERMINED"
    undecided = ArmSummary("kept", "FALSE", "reached", False)
    assert knowledge_expansive(planned, [undecided, free]).value == "UNDETERMINED"
    for success in ("missed", "undetermined"):
        not_there = ArmSummary("free", "TRUE", success, False)
        assert knowledge_expansive(planned, [missed, not_there]).value == "UNDETERMINED", success
