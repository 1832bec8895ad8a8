"""The planner's promises, counted: at the planned size the real decision comes out as often as was asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measures.test_bootstrap import BOUNDED, SIGNED, UNBOUNDED
from naive import bootstrap as naive
from simulator import contract_json, small

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.decide import agree, decide
from atlas_schema.measures.intervals import Statistic, family
from atlas_schema.study.planner import Column, need, resampler_for
from atlas_schema.study.rehearsal import Cells, Group, redraw, rehearse, rehearse_scores
from atlas_schema.study.sizing import Aims, PilotArm, plan_sizes

F64 = npt.NDArray[np.float64]


def rule(**changes: Any) -> Bootstrap:
    usual = {**contract_json(small())["bootstrap"], "min_clusters": 20, "resamples": 1000}
    return Bootstrap.model_validate({**usual, **changes})


RULE = rule()


def skewed(n: int, seed: int, spread: float = 0.8) -> tuple[F64, F64]:
    rng = np.random.default_rng(seed)
    weight = rng.integers(2, 9, n).astype(np.float64)
    return weight * rng.lognormal(-2.0, spread, n), weight


def counted(column: Column, domains: tuple[str, ...], size: int, studies: int = 200) -> float:
    """Return how often studies of ``size`` clusters, drawn with other random numbers than the planner's, decide below."""
    rng = np.random.default_rng(99)
    planned = tuple(sorted(domains[i] for i in rng.choice(len(domains), size)))
    both = [resampler_for(planned, RULE, which) for which in (0, 1)]
    sizes = {d: planned.count(d) for d in set(planned)}
    hits = 0
    for _ in range(studies):
        at = redraw(domains, sizes, rng)
        n, d = column.numerator[at, None], column.denominator[at, None]
        found = agree(*(decide(family(n, d, [column.statistic], r, 1)[0], column.threshold, RULE, 0.0) for r in both))
        hits += found.state == "below"
    return hits / studies


@pytest.mark.parametrize(
    ("spread", "excess", "power"), [(0.5, 1.15, 0.8), (0.5, 1.3, 0.95), (1.0, 1.6, 0.8), (1.0, 1.6, 0.95)]
)
def test_the_formula_is_near_the_power_it_names(spread: float, excess: float, power: float) -> None:
    numerator, weight = skewed(120, 3, spread)
    domains = ("a",) * 60 + ("b",) * 60
    column = Column(numerator, weight, UNBOUNDED, excess * float(numerator.sum() / weight.sum()))
    found = need(column, domains, RULE, power, 50, 20_000)
    assert found.size is not None
    # First order of skewness only; the rehearsal corrects the rest.
    assert counted(column, domains, found.size) >= power - 3.0 * math.sqrt(power * (1 - power) / 200) - 0.05
    assert found.size < 90 or counted(column, domains, found.size // 2) < power


def pilot(threshold: float, needed: float, damage: float = 0.1) -> tuple[PilotArm, tuple[str, ...]]:
    """Return an arm with skewed drift, a rare channel, damage with noise, and 70 of 80 items solved; 40 + 60 clusters."""
    numerator, weight = skewed(100, 7)
    domains = ("a",) * 40 + ("b",) * 60
    rare = np.where(np.arange(100) % 50 == 0, 0.5, 0.0)
    drift = Cells(np.stack([numerator, rare], axis=1), np.stack([weight, np.ones(100)], axis=1), (UNBOUNDED, BOUNDED))
    null = Cells(drift.numerator * 0.0, drift.denominator, (Statistic(True, True, True),) * 2)
    inside = np.array([[d == name for name in "ab"] for d in domains])
    change = np.random.default_rng(5).normal(0.01, 0.2, (100, 1)) * inside
    arm = PilotArm(
        "arm", ("skewed", "rare"), Group(drift, (threshold, 0.15), nulls=(null,)),
        Group(Cells(change, inside.astype(np.float64), (SIGNED, SIGNED)), (damage, damage), apart=True),
        (np.arange(80) < 70).astype(np.float64), needed,
    )  # fmt: skip
    return arm, domains


@pytest.mark.parametrize("jointly", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_a_plan_keeps_its_promise_in_studies_it_has_not_seen(jointly: bool) -> None:
    arm, domains = pilot(0.24, 0.8)
    aims = Aims(power=0.8, jointly=jointly, least_items=50, studies=60)
    plan = plan_sizes([arm], domains, RULE, aims)
    assert plan.kept
    assert plan.possible
    fresh = [rehearse(g, domains, plan.clusters, RULE, 80, seed=1) for g in (arm.drift, arm.damage)]
    scores = rehearse_scores(arm.scores, arm.needed, plan.items, RULE, 80, seed=1)
    every = np.concatenate([*fresh, scores[:, None]], axis=1)
    # Two binomial errors of the plan's own rehearsal, three of this one.
    allowed = 0.8 - 2 * math.sqrt(0.16 / 60) - 3 * math.sqrt(0.16 / 80)
    assert (every.mean(axis=0) >= allowed).all()
    assert not jointly or every.all(axis=1).mean() >= allowed
    assert [line.power for line in plan.lines] == pytest.approx(every.mean(axis=0).tolist(), abs=0.2)
    assert plan.joint["arm"] == pytest.approx(every.all(axis=1).mean(), abs=0.2)
    # Drift keeps the pilot's proportions unless damage asks for more in a domain.
    assert plan.clusters["b"] >= plan.clusters["a"] * 1.2


def test_a_joint_promise_asks_for_no_less_than_single_ones() -> None:
    arm, domains = pilot(0.24, 0.8)
    single, joint = (
        plan_sizes([arm], domains, RULE, Aims(jointly=j, least_items=50, studies=30)) for j in (False, True)
    )
    assert sum(joint.clusters.values()) >= sum(single.clusters.values())
    assert joint.items >= single.items
    assert (joint.joint["arm"] or 0) >= (single.joint["arm"] or 0)


def test_what_no_size_decides_is_named_and_the_rest_is_planned() -> None:
    arm, domains = pilot(0.1, 0.9)
    plan = plan_sizes([arm], domains, RULE, Aims(least_items=50, studies=20))
    assert not plan.possible
    assert plan.joint == {"arm": None}
    by_name = {line.name: line for line in plan.lines}
    assert "not below" in by_name["skewed"].need.why
    assert "score" in by_name["score"].need.why
    assert by_name["skewed"].power is by_name["score"].power is None
    assert (by_name["rare"].power or 0) > 0.6


def test_a_floor_that_no_size_lowers_makes_a_cell_impossible() -> None:
    arm, domains = pilot(0.24, 0.8)
    high = replace(arm.drift.arm, numerator=arm.drift.arm.numerator * 2)
    plan = plan_sizes(
        [replace(arm, drift=replace(arm.drift, nulls=(high,)))], domains, RULE, Aims(least_items=50, studies=5)
    )
    assert "floor" in plan.lines[0].need.why
    assert plan.lines[0].need.size is None


def test_a_plan_that_needs_more_than_can_be_had_says_so() -> None:
    arm, domains = pilot(0.24, 0.8)
    ample = plan_sizes([arm], domains, RULE, Aims(least_items=50, studies=20))
    most = sum(ample.clusters.values()) - 1
    plan = plan_sizes([arm], domains, RULE, Aims(least_items=50, studies=20, most_clusters=most))
    assert ample.possible
    assert not plan.possible


@pytest.mark.parametrize(("share", "threshold"), [(0.0, 0.08), (0.01, 0.08), (0.02, 0.08), (0.03, 0.05)])
def test_rare_events_are_planned_by_the_exact_bound(share: float, threshold: float) -> None:
    n = 400
    numerator = np.where(np.arange(n) < share * n, 0.5, 0.0)
    column = Column(numerator, np.ones(n), BOUNDED, threshold)
    found = need(column, ("a",) * n, RULE, 0.8, 20, 20_000)
    assert found.size is not None
    assert counted(column, ("a",) * n, found.size) >= 0.8 - 3 * math.sqrt(0.16 / 200)
    if share == 0.0:
        # The smallest n at which 0 of n is below the threshold, up to the step of the search.
        exact = next(k for k in range(1, 1000) if naive.clopper_pearson_upper(0, k, RULE.alpha) < threshold)
        assert exact <= found.size <= exact * 1.02 + 1
        assert "rare" in found.why


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (Column(np.full(50, 0.3), np.ones(50), UNBOUNDED, 0.3), "not below"),
        (Column(np.zeros(50), np.ones(50), SIGNED, 0.3), "no cluster changed"),
        (Column(np.zeros(50), np.zeros(50), UNBOUNDED, 0.3), "measured nothing"),
        (Column(np.full(50, 0.1), np.ones(50), UNBOUNDED, 0.3), "no spread"),
        (Column(np.full(50, 0.1), np.ones(50), Statistic(False, False, True, "60.0% of tokens have no competitor"), 0.3), "60.0%"),
        (Column(*skewed(50, 1), UNBOUNDED, 1.0001 * float(skewed(50, 1)[0].sum() / skewed(50, 1)[1].sum())), "more than"),
        (Column(np.eye(1, 50)[0], np.ones(50), BOUNDED, 0.0200001), "more than"),
    ],
)  # fmt: skip
def test_where_no_size_suffices_the_reason_is_said(column: Column, why: str) -> None:
    found = need(column, ("a",) * 50, RULE, 0.8, 20, 5000)
    assert found.size is None
    assert why in found.why


def test_equal_tensors_need_no_more_than_the_least() -> None:
    column = Column(np.zeros(50), np.ones(50), Statistic(True, True, True), 0.05)
    assert need(column, ("a",) * 50, RULE, 0.8, 20, 5000).size == 20


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(1.2, 3.0), st.floats(1.05, 2.0))
def test_a_wider_threshold_or_less_power_never_needs_more(seed: int, excess: float, more: float) -> None:
    numerator, weight = skewed(80, seed)
    value = float(numerator.sum() / weight.sum())
    sizes = [
        need(Column(numerator, weight, UNBOUNDED, value * e), ("a",) * 80, RULE, power, 20, 10**6).size or math.inf
        for e, power in ((excess, 0.9), (excess, 0.8), (excess * more, 0.8))
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_a_rehearsal_refuses_small_domains_and_minds_the_floor() -> None:
    numerator, weight = skewed(80, 4)
    domains = ("a",) * 40 + ("b",) * 40
    inside = np.array([[d == "a", d == "b"] for d in domains])
    columns = Cells(numerator[:, None] * inside, weight[:, None] * inside, (SIGNED, SIGNED))
    far = (10.0, 10.0)
    found = rehearse(Group(columns, far, apart=True), domains, {"a": 30, "b": 10}, RULE, 5)
    assert found.tolist() == [[True, False]] * 5
    drift = Cells(numerator[:, None], weight[:, None], (UNBOUNDED,))
    high = Cells(numerator[:, None] * 100, weight[:, None], (UNBOUNDED,))
    sizes = {"a": 30, "b": 30}
    assert rehearse(Group(drift, (5.0,)), domains, sizes, RULE, 3).all()
    assert not rehearse(Group(drift, (5.0,), nulls=(high,)), domains, sizes, RULE, 3).any()


def test_scores_are_rehearsed_with_the_rules_of_success() -> None:
    perfect = np.ones(100)
    least = next(k for k in range(1, 1000) if naive.clopper_pearson_upper(0, k, RULE.alpha) < 0.05)
    assert rehearse_scores(perfect, 0.95, least, RULE, 3).all()
    assert not rehearse_scores(perfect, 0.95, least - 1, RULE, 3).any()
    assert not rehearse_scores(np.array([0.0, 1.0]), 0.5, 200, RULE, 20).all()
