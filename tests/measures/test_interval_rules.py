"""Which rule bounds a column, and what it states, at the edges between the rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from measures.by_hand import at, rows
from measures.test_matched import RULE, compared
from naive import bootstrap as naive

from atlas_schema.documents.contract import Occupancy
from atlas_schema.documents.preregistration import PlannedArm
from atlas_schema.documents.receipt import RunOccupancy
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.bootstrap import Draws, Strata, Studentised, bounds, clopper_pearson_upper, studentised
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Interval, Resampler, Statistic, family, score_interval
from atlas_schema.measures.occupancy import Assignments, _set_keys, layer_occupancy, margin_use
from atlas_schema.verdict.predicates import ArmSummary, knowledge_expansive

RARE = RULE.rare_event_clusters
RESOLUTION = RULE.rare_event_resolution
DRIFT = Statistic(identical=False, bounded=True, nonnegative=True)


def resampler(size: int) -> Resampler:
    return Resampler(b"\x05" * 32, Strata((np.arange(size),)), RULE)


def bounded(n: Sequence[float], d: float = 1.0, statistic: Statistic = DRIFT) -> Interval:
    numerator = np.array(n, dtype=np.float64)[:, None]
    (found,) = family(numerator, np.full_like(numerator, d), [statistic], resampler(len(n)), 1)
    return found


def score(values: F64, arms: int = 1) -> Interval:
    return score_interval(values, resampler(len(values)), "", arms)


def part(size: int, ones: int, value: float = 1.0) -> F64:
    return np.where(np.arange(size) < ones, value, 0.0)


def test_nothing_at_all_under_equal_tensors_is_an_interval_of_zero() -> None:
    found = bounded([0.0] * 40, statistic=Statistic(True, False, True))
    sides = (
        found.lower,
        found.upper,
        found.simultaneous_lower,
        found.simultaneous_upper,
        found.strict_lower,
        found.strict_upper,
    )
    assert (found.method, sides) == ("identical", (0.0,) * 6)
    assert bounded([0.0] * 40).method == "rare_events"


@pytest.mark.parametrize(("value", "d", "events"), [
    (RESOLUTION, 1.0, 0), (np.nextafter(RESOLUTION, 1.0), 1.0, 1), (1.5 * RESOLUTION, 2.0, 0), (2.5 * RESOLUTION, 2.0, 1),
    (0.75 * RESOLUTION, 0.5, 1),
])  # fmt: skip
def test_a_cluster_at_the_resolution_is_no_event(value: float, d: float, events: int) -> None:
    found = bounded([value] + [0.0] * 39, d)
    assert found.reason.startswith(f"{events} clusters above resolution")
    noise = 0.0 if events else RESOLUTION
    assert found.upper == pytest.approx(naive.clopper_pearson_upper(events, 40, RULE.alpha) + noise, rel=1e-12)
    assert (found.lower, found.strict_lower) == (0.0, 0.0)


def test_where_enough_clusters_are_not_zero_the_bootstrap_takes_over() -> None:
    assert bounded(part(60, RARE - 1).tolist()).method == "rare_events"
    assert bounded(part(60, RARE).tolist()).method == "bootstrap"
    unlimited = Statistic(False, False, True)
    assert bounded(part(60, RARE - 1).tolist(), statistic=unlimited).method == "none"


def test_what_cannot_be_negative_is_bounded_by_zero_from_below() -> None:
    heavy = [1.0] + [1e-4] * (RARE + 5) + [0.0] * 30
    assert (bounded(heavy).simultaneous_lower, bounded(heavy).strict_lower) == (0.0, 0.0)
    free = bounded(heavy, statistic=Statistic(False, False, False))
    assert free.simultaneous_lower is not None
    assert free.simultaneous_lower < 0.0
    found = score(np.array(heavy))
    assert (found.lower, found.strict_lower) == (0.0, 0.0)


def test_few_successes_are_bounded_from_above_and_few_failures_from_below() -> None:
    few, many = score(part(60, 3), arms=4), score(part(60, 57), arms=4)
    assert (few.lower, few.strict_lower) == (0.0, 0.0)
    assert few.upper == pytest.approx(naive.clopper_pearson_upper(3, 60, RULE.alpha))
    assert few.strict_upper == pytest.approx(naive.clopper_pearson_upper(3, 60, RULE.alpha / 4))
    assert (many.upper, many.strict_upper) == (1.0, 1.0)
    assert many.lower == pytest.approx(1.0 - naive.clopper_pearson_upper(3, 60, RULE.alpha))
    assert many.strict_lower == pytest.approx(1.0 - naive.clopper_pearson_upper(3, 60, RULE.alpha / 4))


def test_where_both_are_few_successes_are_bounded() -> None:
    size = max(2 * RARE - 4, RULE.min_clusters)
    ones = RARE - 1
    assert size - ones < RARE, "neither successes nor failures are enough"
    found = score(part(size, ones))
    assert found.lower == 0.0
    assert found.upper == pytest.approx(naive.clopper_pearson_upper(ones, size, RULE.alpha))


def test_at_the_edge_of_few_failures_the_plain_rule_holds() -> None:
    size = 3 * RARE
    assert score(part(size, size - RARE)).simultaneous_lower is not None, "as many failures as the bootstrap needs"
    assert score(part(size, size - RARE + 1)).simultaneous_lower is None, "one fewer: they are bounded instead"
    few = score(part(2 * RARE - 1, RARE))
    assert (few.method, few.upper) == ("rare_events", 1.0), "just enough successes for the failures to be bounded"


def test_clusters_without_a_denominator_are_none_and_small_ones_are_some() -> None:
    n, d = np.zeros((40, 1)), np.ones((40, 1))
    n[:5], d[30:] = 1.0, 0.0
    (found,) = family(n, d, [DRIFT], resampler(40), 1)
    assert (found.clusters, found.nonzero) == (30, 5)
    assert found.value == pytest.approx(5 / 30)
    small = bounded([0.001] * 5 + [0.0] * 35, 0.005)
    assert small.value == pytest.approx(0.025)


def test_a_stratum_of_one_cluster_has_no_spread_of_its_own() -> None:
    n = part(41, RARE + 3)[:, None]
    strata = Strata((np.arange(40), np.array([40])))
    (found,) = family(n, np.ones((41, 1)), [DRIFT], Resampler(b"\x05" * 32, strata, RULE), 1)
    assert found.upper is not None
    assert found.value is not None
    assert found.value < found.upper < 1.0


def test_where_all_happened_the_bound_is_one() -> None:
    assert [clopper_pearson_upper(n, n, 0.05) for n in (1, 5, 60)] == [1.0] * 3
    assert clopper_pearson_upper(4, 5, 0.05) < 1.0


# --- matched success ------------------------------------------------------------------------------------------------


def test_as_many_items_as_the_contract_needs_are_enough() -> None:
    assert compared([1.0, 0.0], [1.0, 0.0], items=2).state == "matched"
    a, b = part(200, 2), part(200, 0)
    assert compared(a, b, items=200).upper is not None
    assert compared(a, b, items=201).upper is None


def test_differences_of_less_than_one_are_bounded_exactly_and_of_more_not_at_all() -> None:
    exact = -naive.clopper_pearson_upper(3, 200, RULE.alpha), naive.clopper_pearson_upper(0, 200, RULE.alpha)
    for size in (0.5, 1.0):
        found = compared(part(200, 0), part(200, 3, size))
        assert sorted(map(abs, (found.lower or 0.0, found.upper or 0.0))) == pytest.approx(sorted(map(abs, exact)))
    assert compared(part(200, 0), part(200, 3, 1.5)).upper is None


def test_many_differing_items_are_resampled_whatever_their_sign() -> None:
    for a, b in ((part(200, RARE + 2), part(200, 0)), (part(200, 0), part(200, RARE + 2))):
        found = compared(a, b)
        assert found.upper is not None
        assert abs(found.upper) != pytest.approx(naive.clopper_pearson_upper(RARE + 2, 200, RULE.alpha), rel=1e-3)
        assert found.lower is not None
        assert found.lower < found.difference < found.upper


# --- occupancy ------------------------------------------------------------------------------------------------------


def test_sets_are_told_apart_however_many_there_can_be() -> None:
    sets = np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [0, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    for experts in (8, 256, 65_536):
        assert len(np.unique(_set_keys(sets, experts, 5))) == 3
    assert _set_keys(sets, 8, 5).dtype == np.int64
    assert _set_keys(sets, 65_536, 5).dtype.itemsize == 10


def test_a_layer_of_one_expert_has_an_entropy_of_plain_zero() -> None:
    dims, found = Dims(d=2, E=4, k=1, P=2), Assignments(4)
    tokens = rows("routing", *(at("w", i, experts=[2], competitor_out=2) for i in range(3)), dims=dims)
    found.add(tokens, np.array([0, 1, 1]))
    entropy = layer_occupancy(3, found, 1, 2).entropy_nats
    assert (entropy, math.copysign(1.0, entropy)) == (0.0, 1.0)


def test_swaps_are_counted_by_half_and_pair() -> None:
    dims, found = Dims(d=2, E=3, k=2, P=2), Assignments(3)
    swaps = [(0, 2), (2, 1), (2, 1), (1, None)]
    tokens = [
        at("w", i, experts=[out, (out + 1) % 3], competitor_out=out, competitor_in=new)
        for i, (out, new) in enumerate(swaps)
    ]
    found.add(rows("routing", *tokens, dims=dims), np.array([1, 1, 0, 1]))
    assert found.swaps[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert found.swaps[1].tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert found.loads.tolist() == [[1, 0, 1], [2, 2, 2]]


def occupied(effective: float, *pi: float) -> RunOccupancy:
    return cast(RunOccupancy, SimpleNamespace(layers=[SimpleNamespace(layer=3, effective_experts=effective, pi=pi)]))


@pytest.mark.parametrize(("effective", "pi", "citable"), [
    (2.0, (0.5, 0.5, 0.0), True), (2.0, (0.25, 0.75, 0.0), True), (2.0, (1.0, 0.0, 0.0), False), (1.6, (0.5, 0.5, 0.0), True),
    (1.59, (0.5, 0.5, 0.0), False), (2.0, (0.5, 0.25, 0.25), True),
])  # fmt: skip
def test_an_expert_that_the_base_did_not_use_is_not_lost(
    effective: float, pi: tuple[float, ...], citable: bool
) -> None:
    rule = Occupancy(min_effective_ratio=0.8, max_lost_experts=0, rarefied_tokens=10, rationale="for a test")
    assert margin_use(occupied(2.0, 0.5, 0.5, 0.0), occupied(effective, *pi), rule).citable is citable


@pytest.mark.parametrize(
    ("state", "rewrite", "success"), [(False, "FALSE", "undetermined"), (False, "UNDETERMINED", "reached")]
)
def test_an_arm_that_is_not_decided_leaves_the_family_undecided(state: bool, rewrite: Any, success: Any) -> None:
    planned = [PlannedArm(name=n, policy=n, chart_preserving=n == "kept") for n in ("kept", "free", "other")]
    decided = [ArmSummary("kept", "FALSE", "missed", False), ArmSummary("free", "TRUE", "reached", False)]
    assert knowledge_expansive(planned, [*decided, ArmSummary("other", "FALSE", "missed", False)]).value == "TRUE"
    found = knowledge_expansive(planned, [*decided, ArmSummary("other", rewrite, success, state)])
    assert (found.value, found.decided_by) == ("UNDETERMINED", (f"arm other: rewrite {rewrite}, success {success}",))
    found = knowledge_expansive(planned, [decided[0], ArmSummary("free", "UNDETERMINED", "reached", False), ArmSummary(
        "other", "FALSE", "missed", False)])  # fmt: skip
    assert "no arm rewrote the atlas and reached the task" in found.decided_by


# --- resamples without a denominator --------------------------------------------------------------------------------


def test_a_resample_without_a_denominator_counts_against_both_bounds() -> None:
    """One cluster of four has tokens; a column in proportion to its denominator has no width."""
    draws = Draws(b"\x05" * 32, Strata((np.arange(4),)), 200)
    counts = np.concatenate([block for _, block in draws.blocks(64)])
    d = np.array([[0.25, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]])
    n = np.array([[0.5, 2.0], [0.125, 4.0], [0.0, 6.0], [0.0, 8.0]])
    found = studentised(n, d, draws)
    absent = counts[:, 0] == 0
    assert 20 < absent.sum() < 120
    assert (np.isposinf(found.t_high[0]) >= absent).all()
    assert (np.isneginf(found.t_low[0]) >= absent).all()
    assert (found.t_low[0] == found.t_high[0]).tolist() == (~absent).tolist()
    assert (found.t_low[1] == 0.0).all()


def test_each_bound_is_taken_from_its_own_side() -> None:
    t = np.random.default_rng(0).standard_normal((1, 407))  # no multiple of the batches
    theta, se = np.array([3.0]), np.array([0.5])
    alike, apart = (bounds(Studentised(theta, se, t, high), (0.05,), 20)[0] for high in (t, t + 2.0))
    assert apart.upper == alike.upper
    assert apart.lower == pytest.approx(alike.lower - 1.0)
    assert apart.simultaneous_lower == pytest.approx(alike.simultaneous_lower - 1.0)
    assert apart.error_lower == pytest.approx(alike.error_lower)
