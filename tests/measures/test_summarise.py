"""Every finding of `summarise`, recomputed by the oracle from plain rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from measures.oracle import Name, Oracle, OracleArm
from naive import bootstrap as naive
from naive import measures as tokens
from simulator import DAMAGED, IDENTICAL, PRESERVED, REWRITTEN, UNMATCHED, Settings, StudySimulator

from atlas_schema.documents.receipt import ArmFindings, Findings
from atlas_schema.measures.summarise import rounded, summarise

RELATIVE = 1e-9

METHODS = {"bootstrap": "bootstrap", "identical": "identical", "rare_bounded": "rare_events"}


def close(value: float | None, absolute: float = 1e-14) -> object:
    return None if value is None else pytest.approx(value, rel=RELATIVE, abs=absolute)


def settings(**changes: object) -> Settings:
    """Return a world with a stratum to merge (c into b), a domain too small for damage (c), and full precision."""
    usual: dict[str, object] = {
        "clusters": (("a", 14), ("b", 11), ("c", 3)), "double_windows": 2, "items": 60, "target": 0.7, "tolerance": 0.1,
        "bootstrap": {"resamples": 400, "min_clusters": 10},
        "arms": (replace(PRESERVED, success=0.8), replace(REWRITTEN, success=0.75), replace(IDENTICAL, success=0.5)),
    }  # fmt: skip
    return Settings(**{**usual, **changes})  # type: ignore[arg-type]


def precise(study: StudySimulator) -> StudySimulator:
    return study.with_contract({"numbers": {"significant_digits": 15}})


@cache
def study() -> StudySimulator:
    return precise(StudySimulator.make(settings()))


@cache
def oracle() -> Oracle:
    return Oracle(study())


@cache
def oracle_arm(name: str) -> OracleArm:
    return oracle().arm(name)


@cache
def findings() -> Findings:
    return found_in(study())


def found_in(made: StudySimulator) -> Findings:
    return summarise(made.source(), made.contract, made.preregistration, made.evidence_root())


ARMS = ("preserved", "rewritten", "identical")


def arm_of(name: str) -> ArmFindings:
    return next(a for a in findings().arms if a.arm == name)


def names(arm: ArmFindings) -> list[Name]:
    return [(c.layer, c.definition, c.form) for c in arm.cells]


@pytest.mark.parametrize("arm", ARMS)
def test_cells_are_those_of_the_contract_in_its_order(arm: str) -> None:
    expected = [(layer, *cell) for layer in study().preregistration.protected_layers for cell in oracle().thresholds]
    assert names(arm_of(arm)) == expected


@pytest.mark.parametrize("arm", ARMS)
def test_sums_values_and_bounds_equal_the_oracle(arm: str) -> None:
    expected = oracle_arm(arm)
    for cell in arm_of(arm).cells:
        interval = expected.cells[cell.layer, cell.definition, cell.form].intervals[0]
        assert cell.numerator == close(interval.numerator)
        assert cell.denominator == close(interval.denominator)
        assert cell.value == close(interval.theta)
        assert cell.upper == close(interval.upper)
        assert (cell.clusters, cell.nonzero_clusters) == (interval.clusters, interval.nonzero_clusters)
        assert cell.method == METHODS[interval.rule]


@pytest.mark.parametrize("arm", ARMS)
def test_simultaneous_bounds_and_monte_carlo_errors_equal_the_oracle(arm: str) -> None:
    expected = oracle_arm(arm)
    for cell in arm_of(arm).cells:
        interval = expected.cells[cell.layer, cell.definition, cell.form].intervals[0]
        if interval.rule != "bootstrap":
            assert cell.monte_carlo_error is None
            assert cell.simultaneous is None or (cell.simultaneous.lower, cell.simultaneous.upper) == (0.0, 0.0)
            continue
        assert cell.simultaneous is not None
        assert cell.simultaneous.lower == close(interval.simultaneous_lower)
        assert cell.simultaneous.upper == close(interval.simultaneous_upper)
        error = max(interval.mc_upper, interval.mc_lower, interval.mc_simultaneous_lower)
        assert cell.monte_carlo_error == close(error, absolute=1e-13)


@pytest.mark.parametrize("arm", ARMS)
def test_states_floors_and_thresholds_equal_the_oracle(arm: str) -> None:
    expected = oracle_arm(arm)
    for cell in arm_of(arm).cells:
        other = expected.cells[cell.layer, cell.definition, cell.form]
        assert cell.state == other.state
        assert cell.floor == close(other.floor)
        assert cell.threshold.value == oracle().thresholds[cell.definition, cell.form]
        assert cell.missing_tokens == other.missing


def test_floors_name_the_worst_nuisance() -> None:
    listed = {(f.layer, f.definition, f.form): f for f in findings().floors}
    assert {name: f.upper for name, f in listed.items()} == {n: close(u) for n, u in oracle().floors.items()}
    for layer in study().preregistration.protected_layers:
        floor = listed[layer, "drift.coordinate/1", "ratio_of_sums"]
        assert floor.nuisance == "dtype"
        assert floor.upper is not None
        assert floor.upper > 0
    for floor in findings().floors:
        if floor.definition != "drift.coordinate/1":
            assert floor.upper == 0.0


@pytest.mark.parametrize("arm", ARMS)
def test_damage_equals_the_oracle(arm: str) -> None:
    expected = oracle_arm(arm)
    sums = tokens.damage_sums(oracle().rows["output"], oracle().rows["window"], f"arm:{arm}")
    base = {(r["window_id"], r["position"]): r["nll"] for r in oracle().rows["output"] if r["run_id"] == "base"}
    domain_of = {r["window_id"]: r["domain"] for r in oracle().rows["window"]}
    assert [d.domain for d in arm_of(arm).damage] == sorted(sums)
    for row in arm_of(arm).damage:
        clusters = sums[row.domain].values()
        total = math.fsum(d for _, d in clusters)
        assert row.delta_nll_nats == close(math.fsum(n for n, _ in clusters) / total)
        mean = math.fsum(v for (w, _), v in base.items() if domain_of[w] == row.domain) / total
        assert row.base_nll_nats == close(mean)
        assert (row.tokens, row.clusters) == (total, len(clusters))
        assert row.state == expected.damage_states[row.domain]
        pair = expected.damage[row.domain]
        if pair is None:
            assert (row.upper, row.simultaneous, row.state) == (None, None, "undetermined")
            assert "clusters" in row.reason
            continue
        assert row.upper == close(pair[0].upper)
        assert row.simultaneous is not None
        assert row.simultaneous.lower == close(pair[0].simultaneous_lower)
        assert row.simultaneous.upper == close(pair[0].simultaneous_upper)


@pytest.mark.parametrize("arm", ARMS)
def test_success_equals_the_oracle(arm: str) -> None:
    expected = oracle_arm(arm)
    success = arm_of(arm).success
    assert success.value == close(expected.success[0].theta)
    assert success.lower == close(expected.success[0].lower)
    assert success.upper == close(expected.success[0].upper)
    assert success.state == expected.success_state
    assert success.items == len(oracle().scores(f"arm:{arm}"))


@pytest.mark.parametrize("arm", ARMS)
def test_predicates_and_verdicts_equal_the_oracle(arm: str) -> None:
    expected, found = oracle_arm(arm), arm_of(arm)
    assert found.predicates.protected_atlas_rewrite.value == expected.rewrite
    assert found.predicates.base_domain_damage.value == expected.harmed
    assert found.verdict == expected.verdict


def test_knowledge_expansive_equals_the_oracle() -> None:
    arms = {name: oracle_arm(name) for name in ARMS}
    assert findings().knowledge_expansive.value == oracle().knowledge_expansive(arms)


def test_the_second_seed_can_be_replaced_and_changes_no_number() -> None:
    made = study()
    other = summarise(made.source(), made.contract, made.preregistration, made.evidence_root(), second=b"\x07" * 32)
    for mine, theirs in zip(findings().arms, other.arms, strict=True):
        for a, b in zip(mine.cells, theirs.cells, strict=True):
            numbers = (a.value, a.upper, a.simultaneous, a.monte_carlo_error)
            assert numbers == (b.value, b.upper, b.simultaneous, b.monte_carlo_error)
        assert [d.upper for d in mine.damage] == [d.upper for d in theirs.damage]
        assert mine.success.lower == theirs.success.lower
    assert findings().floors == other.floors


def test_findings_depend_on_the_seed_only_through_bounds() -> None:
    made = study()
    other = summarise(made.source(), made.contract, made.preregistration, "sha256:" + "1" * 64)
    mine, theirs = findings().arms[0].cells, other.arms[0].cells
    assert [c.value for c in mine] == [c.value for c in theirs]
    assert [c.upper for c in mine] != [c.upper for c in theirs]


def test_stated_numbers_have_the_contracts_digits_and_nothing_else_changes() -> None:
    made, exact = study(), findings().model_dump()
    few = made.with_contract({"numbers": {"significant_digits": 6}})
    stated = rounded(findings(), few.contract).model_dump()

    def pairs(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                yield from pairs(a[key], b[key])
        elif isinstance(a, tuple):
            for one, other in zip(a, b, strict=True):
                yield from pairs(one, other)
        else:
            yield a, b

    numbers = [(a, b) for a, b in pairs(exact, stated) if isinstance(a, float)]
    assert len(numbers) > 500
    assert all(b == float(f"{a:.5e}") for a, b in numbers)
    assert sum(a != b for a, b in numbers) > 200
    assert all(a == b for a, b in pairs(exact, stated) if not isinstance(a, float))


def test_a_domain_is_resampled_alone_for_damage_where_drift_merges_it_with_a_smaller_one() -> None:
    clusters = (("a", 3), ("b", 11), ("c", 14))
    made = precise(StudySimulator.make(settings(clusters=clusters, arms=(replace(PRESERVED, success=0.8),))))
    expected, arm = Oracle(made).arm("preserved"), found_in(made).arms[0]
    assert [d.domain for d in arm.damage if d.upper is not None] == ["b", "c"]
    for damage in arm.damage:
        pair = expected.damage[damage.domain]
        assert damage.upper == (None if pair is None else close(pair[0].upper))


# --- verdicts of known worlds -----------------------------------------------------------------------------------


@cache
def verdicts() -> dict[str, ArmFindings]:
    """Return the findings of a world of two large domains with one arm of every kind."""
    arms = (PRESERVED, REWRITTEN, IDENTICAL, DAMAGED, UNMATCHED)
    return {a.arm: a for a in found_in(StudySimulator.make(Settings(arms=arms))).arms}


@pytest.mark.parametrize(
    ("arm", "verdict"),
    [
        ("preserved", "preserved"),
        ("identical", "preserved"),
        ("rewritten", "rewritten"),
        ("damaged", "damaged"),
        ("unmatched", "unmatched"),
    ],
)
def test_arms_of_known_kind_get_their_verdict(arm: str, verdict: str) -> None:
    assert verdicts()[arm].verdict == verdict


def test_an_arm_with_the_bases_weights_is_identical_everywhere() -> None:
    arm = verdicts()["identical"]
    assert {c.state for c in arm.cells} == {"identical"}
    assert {c.upper for c in arm.cells} == {0.0}
    assert {d.state for d in arm.damage} == {"identical"}


def test_only_an_arm_with_the_bases_weights_has_identical_damage() -> None:
    """The outputs of other weights are never called identical, even where they happen to be equal."""
    made = StudySimulator.make(settings(arms=(PRESERVED,)))
    base = {(r["window_id"], r["position"]): r for r in made.rows("output") if r["run_id"] == "base"}
    forged = made.with_rows(
        "output",
        [
            {**base[row["window_id"], row["position"]], "run_id": row["run_id"]}
            if row["run_id"].startswith("arm")
            else row
            for row in made.rows("output")
        ],
    )
    assert {d.state for d in found_in(forged).arms[0].damage} == {"undetermined"}


# --- tokens without a competitor, thresholds and floors ---------------------------------------------------------


def without_pairs(made: StudySimulator, every: int) -> StudySimulator:
    rows = made.rows("update")
    arm = [at for at, row in enumerate(rows) if row["run_id"] == "arm:preserved"]
    for at in arm[::every]:
        rows[at] = {**rows[at], "pair_in": None}
    return made.with_rows("update", rows)


def test_tokens_without_a_competitor_leave_transition_and_are_counted() -> None:
    made = without_pairs(precise(StudySimulator.make(settings(arms=(PRESERVED,)))), every=25)
    other = Oracle(made)
    for cell in found_in(made).arms[0].cells:
        missing, total = other.missing("arm:preserved", cell.layer)
        assert 0 < missing / total <= 0.05
        is_transition = cell.definition == tokens.TRANSITION
        assert cell.missing_tokens == (missing if is_transition else 0)
        sums = tokens.cluster_sums(
            other.rows["state"], other.rows["update"], other.rows["window"], "arm:preserved", cell.layer
        )[cell.definition, cell.form]
        assert cell.numerator == close(math.fsum(n for n, _ in sums.values()))
        assert cell.denominator == close(math.fsum(d for _, d in sums.values()))


def test_too_many_tokens_without_a_competitor_leave_transition_undetermined() -> None:
    made = without_pairs(StudySimulator.make(settings(arms=(PRESERVED,))), every=12)
    arm = found_in(made).arms[0]
    for cell in arm.cells:
        if cell.definition == tokens.TRANSITION:
            assert (cell.state, cell.method, cell.upper) == ("undetermined", "none", None)
            assert "competitor" in cell.reason
        else:
            assert cell.method != "none"
    assert arm.predicates.protected_atlas_rewrite.value == "UNDETERMINED"


def test_boundary_and_transition_do_not_apply_where_every_expert_is_active() -> None:
    made = StudySimulator.make(settings(arms=(PRESERVED,), experts=3, top_k=3))
    for cell in found_in(made).arms[0].cells:
        applies = cell.definition not in (tokens.TRANSITION, tokens.BOUNDARY)
        assert (cell.state == "not_applicable") == (not applies)


def test_what_does_not_apply_stands_in_the_way_of_no_counterexample() -> None:
    made = StudySimulator.make(settings(arms=(replace(IDENTICAL, success=1.0),), experts=3, top_k=3))
    assert found_in(made).knowledge_expansive.value == "FALSE"


@pytest.mark.parametrize(("needed", "decided"), [(60, True), (61, False)])
def test_success_is_decided_by_as_many_items_as_the_contract_needs(needed: int, decided: bool) -> None:
    made = StudySimulator.make(settings(arms=(replace(PRESERVED, success=1.0), replace(IDENTICAL, success=0.0))))
    found = found_in(made.with_contract({"success": {"min_items": needed}}))
    states = [a.success.state for a in found.arms]
    assert states == (["reached", "missed"] if decided else ["undetermined"] * 2)
    reasons = [a.success.reason for a in found.arms] + [m.reason for m in found.matched_success]
    assert all(("60 items; the contract needs 61" in reason) != decided for reason in reasons), reasons


def test_a_threshold_at_or_below_the_floor_decides_nothing() -> None:
    made = StudySimulator.make(settings(arms=(IDENTICAL, REWRITTEN)))
    floor = {f.layer: f.upper for f in found_in(made).floors if f.definition == tokens.COORDINATE}[2]
    assert floor is not None
    for value, decided in ((floor, False), (floor * 1.001, True)):
        channels = made.contract.model_dump(mode="json")["channels"]
        channels[0]["thresholds"][0]["value"] = value
        changed = made.with_contract({"channels": channels}, relink=False)
        for arm in found_in(changed).arms:
            cell = next(c for c in arm.cells if (c.layer, c.definition) == (2, tokens.COORDINATE))
            assert (cell.state != "undetermined") == decided
            assert cell.floor == floor
            assert cell.threshold.value == value


def test_too_few_clusters_give_no_bound() -> None:
    made = StudySimulator.make(settings(arms=(PRESERVED,))).with_contract({"bootstrap": {"min_clusters": 29}})
    arm = found_in(made).arms[0]
    assert {c.state for c in arm.cells} == {"undetermined"}
    assert {c.upper for c in arm.cells} == {None}
    assert all("28 clusters" in c.reason for c in arm.cells)
    assert arm.verdict == "undetermined"


@pytest.mark.parametrize(("solved", "state"), [(1.0, "reached"), (0.95, "reached"), (0.05, "missed"), (0.0, "missed")])
def test_almost_perfect_and_almost_absent_success_is_bounded_exactly(solved: float, state: str) -> None:
    made = precise(StudySimulator.make(settings(arms=(replace(IDENTICAL, success=solved),))))
    success = found_in(made).arms[0].success
    alpha, items = made.contract.bootstrap.alpha, made.settings.items
    events = round(min(solved, 1 - solved) * items)
    bound = naive.clopper_pearson_upper(events, items, alpha)
    expected = (1 - bound, 1.0) if solved > 0.5 else (0.0, bound)
    assert (success.lower, success.upper) == (close(expected[0]), close(expected[1]))
    assert success.state == state


@pytest.mark.parametrize(("of", "target", "value"), [
    ("alpha", -1e-6, "UNDETERMINED"), ("alpha over arms", 1e-6, "UNDETERMINED"), ("alpha over arms", 0.0, "FALSE"),
    ("alpha over arms", -1e-6, "FALSE"),
])  # fmt: skip
def test_a_counterexample_must_hold_at_the_level_of_all_arms_together(of: str, target: float, value: str) -> None:
    """An arm with the base's weights solves every item, so that its bound is exact; the task asks for just so much."""
    arms, items, alpha = (replace(IDENTICAL, success=1.0), replace(DAMAGED, success=0.0)), 60, 0.025
    bound = 1.0 - naive.clopper_pearson_upper(0, items, alpha if of == "alpha" else alpha / len(arms))
    made = StudySimulator.make(settings(arms=arms, items=items, target=bound + target, tolerance=0.0))
    assert made.contract.bootstrap.alpha == alpha
    found = found_in(made)
    assert found.arms[0].predicates.protected_atlas_rewrite.value == "FALSE"
    assert found.arms[0].success.state == "reached"
    assert found.knowledge_expansive.value == value


def test_a_bound_that_is_just_what_the_task_needs_reaches_it_at_every_level() -> None:
    """An arm that solves nothing has zero for its lower bound, exactly; a task that needs nothing is reached by it."""
    made = StudySimulator.make(settings(arms=(replace(IDENTICAL, success=0.0),), target=0.25, tolerance=0.25))
    found = found_in(made)
    assert (found.arms[0].success.lower, found.arms[0].success.state) == (0.0, "reached")
    assert found.knowledge_expansive.value == "FALSE"
