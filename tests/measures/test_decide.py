"""From bounds to states, exhaustively on a grid of eighths where every boundary is met exactly (`docs/measures.md`, sections 5 and 6)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from typing import Any, get_args

import numpy as np
import pytest
from simulator import small_study

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.documents.receipt import LayerOccupancy, RunOccupancy
from atlas_schema.measures.bootstrap import Draws, Strata, studentised
from atlas_schema.measures.decide import agree, agree_on_success, decide, strictly_reached, success_state
from atlas_schema.measures.exact import split, weighted_sums
from atlas_schema.measures.geometry import member_masks
from atlas_schema.measures.intervals import Interval, Method, Resampler, score_interval
from atlas_schema.measures.matched import _state, matched
from atlas_schema.measures.occupancy import (
    Assignments,
    _set_keys,
    layer_occupancy,
    margin_use,
    rarefied,
    run_occupancy,
    shift,
)
from atlas_schema.verdict.predicates import SuccessState

ERRORS = 2.0
RULE = Bootstrap.model_validate({**small_study().contract.bootstrap.model_dump(), "monte_carlo_errors": ERRORS})
GRID: tuple[float | None, ...] = (None, 0.0, 0.125, 0.25, 0.375, 0.5)
METHODS: tuple[Method, ...] = ("bootstrap", "identical", "rare_events", "none")


def interval(
    method: Method, lower: Any, upper: Any, error: Any, strict: Any = None, strict_error: Any = None
) -> Interval:
    """An interval whose pointwise lower and simultaneous upper bounds would decide otherwise, were they asked."""
    return Interval(0.2, method, "why", 60, 50, -9.0, upper, lower, 9.0, error, -9.0, strict, strict_error)


def exact(value: float | None) -> Fraction | None:
    return None if value is None else Fraction(value)


def naive_state(
    method: str, lower: float | None, upper: float | None, error: float | None, at: float, floor: float | None
) -> str:
    """The list of section 6, in its order."""
    if method == "none" or floor is None or Fraction(at) <= Fraction(floor):
        return "undetermined"
    if method == "identical":
        return "identical"
    if method == "bootstrap" and error is None:
        return "undetermined"
    margin = Fraction(0) if method == "rare_events" else Fraction(ERRORS) * Fraction(error or 0.0)
    top, bottom = exact(upper), exact(lower)
    if top is not None and top + margin < Fraction(at):
        return "below"
    return "above" if bottom is not None and bottom - margin > Fraction(at) else "undetermined"


def bounds() -> Iterator[tuple[float | None, float | None]]:
    yield from ((a, b) for a, b in product(GRID, GRID) if a is None or b is None or a <= b)


@pytest.mark.parametrize("floor", [None, 0.0, 0.25, 0.375])
@pytest.mark.parametrize("method", METHODS)
def test_states_are_those_of_the_list_also_where_a_bound_meets_the_threshold(
    method: Method, floor: float | None
) -> None:
    for (lower, upper), error in product(bounds(), (None, 0.0, 0.0625)):
        found = decide(interval(method, lower, upper, error), 0.25, RULE, floor)
        assert found.state == naive_state(method, lower, upper, error, 0.25, floor), (lower, upper, error)
        assert found.reason


@pytest.mark.parametrize("floor", [None, 0.0, 0.25])
@pytest.mark.parametrize("lower", [None, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_strictly_below_is_below_by_the_strict_bound_too(
    method: Method, lower: float | None, floor: float | None
) -> None:
    for upper, strict, error, strict_error in product(GRID, GRID, (None, 0.0, 0.0625), (None, 0.0, 0.0625)):
        found = decide(interval(method, lower, upper, error, strict, strict_error), 0.25, RULE, floor)
        margin = Fraction(0) if method == "rare_events" else Fraction(ERRORS) * Fraction(strict_error or 0.0)
        known = strict is not None and (method == "rare_events" or strict_error is not None)
        holds = found.state == "below" and known and Fraction(strict or 0.0) + margin < Fraction(1, 4)
        assert found.strict_below == (holds or found.state == "identical"), (upper, strict, error, strict_error)


def test_a_state_says_whether_a_bound_or_only_its_error_is_in_the_way() -> None:
    for (lower, upper), error in product(bounds(), (0.0, 0.0625)):
        found = decide(interval("bootstrap", lower, upper, error), 0.25, RULE, 0.0)
        if found.state == "undetermined":
            one_side = (upper is not None and upper < 0.25) or (lower is not None and lower > 0.25)
            assert ("Monte-Carlo" in found.reason) == one_side, (lower, upper, error)


def test_success_is_reached_at_what_is_needed_and_missed_below_it() -> None:
    for method, lower, upper, error in product(METHODS, GRID, GRID, (0.0, 0.0625, None)):
        # The simultaneous bounds would decide otherwise.
        found = replace(interval(method, None, upper, error), lower=lower, simultaneous_lower=-9.0)
        state, reason = success_state(found, 0.25, RULE)
        margin = (
            Fraction(0) if method == "rare_events" else None if error is None else Fraction(ERRORS) * Fraction(error)
        )
        expected = "undetermined"
        if method != "none" and margin is not None:
            if lower is not None and Fraction(lower) - margin >= Fraction(1, 4):
                expected = "reached"
            elif upper is not None and Fraction(upper) + margin < Fraction(1, 4):
                expected = "missed"
        assert state == expected, (method, lower, upper, error)
        assert reason


def test_success_is_strictly_reached_at_what_is_needed_by_the_strict_bound_alone() -> None:
    methods: tuple[Method, ...] = ("bootstrap", "rare_events")
    for method, strict, error in product(methods, GRID, (0.0, 0.0625, None)):
        # The other bounds, and the error of the other level, would decide otherwise.
        wrong = 9.0 if strict is None or strict < 0.25 else -9.0
        found = replace(interval(method, wrong, wrong, -wrong), lower=wrong, strict_lower=strict, strict_error=error)
        margin = 0.0 if method == "rare_events" else math.inf if error is None else ERRORS * error
        holds = strict in (0.375, 0.5) if margin == 0.125 else strict in (0.25, 0.375, 0.5) if margin == 0 else False
        assert strictly_reached(found, 0.25, RULE) == holds, (method, strict, error)


def test_success_must_hold_under_both_seeds() -> None:
    for one, other in product(get_args(SuccessState), repeat=2):
        found = agree_on_success((one, "first"), (other, "second"))
        assert found == ((one, "first") if one == other else ("undetermined", "the decision changes with the seed"))


def test_two_seeds_agree_on_strictness_only_together() -> None:
    sure = decide(interval("bootstrap", 0.0, 0.125, 0.0, 0.125, 0.0), 0.25, RULE, 0.0)
    loose = decide(interval("bootstrap", 0.0, 0.125, 0.0, 0.375, 0.0), 0.25, RULE, 0.0)
    assert [agree(a, b).strict_below for a, b in product((sure, loose), repeat=2)] == [True, False, False, False]
    open_one = decide(interval("bootstrap", 0.0, 0.375, 0.0), 0.25, RULE, 0.0)
    assert (agree(sure, open_one).state, agree(sure, open_one).strict_below) == ("undetermined", False)


def test_scores_match_or_differ_also_where_the_interval_meets_the_tolerance() -> None:
    grid = (-0.5, -0.375, -0.25, -0.125, 0.0, 0.125, 0.25, 0.375, 0.5)
    for lower, upper, error in product(grid, grid, (0.0, 0.0625)):
        if lower > upper:
            continue
        found = replace(interval("bootstrap", None, upper, error), lower=lower)
        margin, edge = Fraction(ERRORS) * Fraction(error), Fraction(1, 4)
        inside = Fraction(lower) - margin >= -edge and Fraction(upper) + margin <= edge
        outside = Fraction(lower) - margin > edge or Fraction(upper) + margin < -edge
        expected = "matched" if inside else "different" if outside else "undetermined"
        assert _state(found, 0.25, ERRORS)[0] == expected, (lower, upper, error)
    sure = replace(interval("bootstrap", None, 0.0, 0.0), lower=0.0)
    assert _state(sure, 0.25, ERRORS)[0] == "matched"
    for lacking in (replace(sure, lower=None), replace(sure, upper=None), replace(sure, error=None)):
        assert _state(lacking, 0.25, ERRORS)[0] == "undetermined"


@pytest.mark.parametrize("total", [1, 2, 3, 7, 8, 127, 2**17 + 1, 2**18 - 1])
@pytest.mark.parametrize("scale", [-300, -20, 0, 20, 300])
def test_halves_give_exact_products_up_to_the_total_and_lose_nothing_that_counts(total: int, scale: int) -> None:
    values = np.ldexp(np.random.default_rng(total).uniform(0.5, 1.0, (1, 64)), scale)
    halves = split(values, total)
    for at in range(values.shape[1]):
        high, low = (Fraction(float(h)) for h in halves[:, at])
        assert abs(Fraction(float(values[0, at])) - high - low) < Fraction(float(values.max())) / 2**70
        assert [Fraction(float(v)) for v in (halves[:, [at]] * float(total))[:, 0]] == [high * total, low * total]
    weighted = weighted_sums(halves[:, :1], np.array([[float(total)]]))
    assert Fraction(float(weighted[0, 0])) == Fraction(
        float(Fraction(float(halves[0, 0])) * total + Fraction(float(halves[1, 0])) * total)
    )


@pytest.mark.parametrize("experts", [1, 63, 64, 65, 128, 130, 200])
def test_sets_are_masks_of_as_many_words_as_the_experts_need(experts: int) -> None:
    members = np.array([[0, experts - 1], [experts // 2, experts - 1], [0, experts // 3]])
    found = member_masks(members, experts)
    assert found.shape == (3, math.ceil(experts / 64))
    for row, ids in zip(found.tolist(), members.tolist(), strict=True):
        bits = {64 * w + b for w, word in enumerate(row) for b in range(64) if word >> b & 1}
        assert bits == set(ids)


def occupied(*layers: tuple[float, ...]) -> RunOccupancy:
    """A run of layers with these shares of the load."""
    return run_occupancy("arm:x", [_layer(np.array(shares)) for shares in layers])


def _layer(shares: Any) -> LayerOccupancy:
    found = Assignments(len(shares))
    found.tokens = 64
    found.loads[0] = np.rint(shares * 64)
    found.sets = np.array([64])
    return layer_occupancy(3, found, 1, 64)


def test_margins_may_be_cited_at_the_bounds_of_the_contract_and_not_beyond() -> None:
    rule = small_study().contract.occupancy
    base = occupied((0.25, 0.25, 0.25, 0.25), (0.25, 0.25, 0.25, 0.25))
    half = occupied((0.25, 0.25, 0.25, 0.25), (0.5, 0.5, 0.0, 0.0))
    ratio = half.layers[1].effective_experts / base.layers[1].effective_experts
    for least, lost, citable in (
        (ratio, 2, True), (float(np.nextafter(ratio, 1)), 2, False), (ratio, 1, False), (0.1, 2, True), (0.1, 1, False), (0.9, 4, False),
    ):  # fmt: skip
        made = rule.model_copy(update={"min_effective_ratio": least, "max_lost_experts": lost})
        found = margin_use(base, half, made)
        assert (found.citable, "layer 3" in found.reason) == (citable, not citable), (least, lost)
        assert ("2 experts" in found.reason) == (not citable)


def test_loads_of_a_layer_say_who_is_used_and_how_evenly() -> None:
    even, one = occupied((0.25, 0.25, 0.25, 0.25)).layers[0], occupied((1.0, 0.0, 0.0, 0.0)).layers[0]
    assert (even.cv_percent, even.max_load_percent, even.experts_active) == (0.0, 25.0, 4)
    assert [even.entropy_nats, even.effective_experts] == pytest.approx([math.log(4), 4.0])
    assert [one.cv_percent, one.max_load_percent, one.experts_active] == pytest.approx([100 * math.sqrt(3), 100.0, 1])
    assert (one.entropy_nats, one.effective_experts) == (0.0, 1.0)
    run = occupied((0.5, 0.5, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
    assert (run.dead_experts, run.experts_active_mean, run.min_entropy_nats) == (5, 1.5, 0.0)
    assert run.mean_entropy_nats == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("experts", [4, 300, 70_000])
def test_sets_are_counted_whether_or_not_their_number_fits_an_integer(experts: int) -> None:
    rng = np.random.default_rng(experts)
    members = np.sort(np.array([rng.choice(min(experts, 60_000), size=4, replace=False) for _ in range(5)]), axis=1)
    rows = members[[0, 1, 1, 2, 3, 3, 3, 4]]
    keys, counts = np.unique(_set_keys(rows, experts, 4), return_counts=True)
    assert len(keys) == len({tuple(m) for m in members.tolist()})
    tally = Counter(map(tuple, rows.tolist()))
    assert sorted(counts.tolist()) == sorted(tally.values())


def test_expected_distinct_sets_are_those_of_every_way_to_draw() -> None:
    sets = np.array([3, 1, 2])
    tokens = [0, 0, 0, 1, 2, 2]
    for n in range(1, 7):
        ways = [len(set(way)) for way in combinations(tokens, n)]
        assert rarefied(sets, n) == pytest.approx(sum(ways) / len(ways))
    assert rarefied(sets, 7) is None


def test_two_arms_match_or_differ_only_where_both_seeds_say_so() -> None:
    a, b = np.zeros(200), np.where(np.arange(200) < 30, 1.0, 0.0)
    rule = RULE.model_copy(update={"resamples": 100, "batches": 10, "min_clusters": 10, "monte_carlo_errors": 0.0})
    one, other = (Resampler(bytes([seed]) * 32, Strata((np.arange(200),)), rule) for seed in (1, 2))
    lower = [matched("x", "y", a, b, [r, r], 0.1, 1).lower or 0.0 for r in (one, other)]
    assert lower[0] != lower[1]
    seen = Counter[tuple[str, str]]()
    for tolerance in (0.05, -sum(lower) / 2, 0.3):
        alone = [matched("x", "y", a, b, [r, r], tolerance, 1).state for r in (one, other)]
        for pair in ([one, other], [other, one]):
            both = matched("x", "y", a, b, pair, tolerance, 1)
            assert both.state == (alone[0] if alone[0] == alone[1] else "undetermined")
            assert ("seed" in both.reason) == (alone[0] != alone[1])
        seen[alone[0], alone[1]] += 1
    assert {len(set(pair)) for pair in seen} == {1, 2}


def test_a_resample_without_spread_and_without_shift_deviates_by_nothing() -> None:
    """Two clusters differ, in opposite ways; a resample that has neither is the estimate itself, with no width."""
    numerator, denominator = np.ones((16, 1)), np.ones((16, 1))
    numerator[0], numerator[1] = 0.0, 2.0
    draws = Draws(b"\x07" * 32, Strata((np.arange(16),)), 300)
    made = studentised(numerator, denominator, draws)
    counts = np.concatenate([block for _, block in draws.blocks(300)])
    plain = (counts[:, 0] == 0) & (counts[:, 1] == 0)
    assert plain.any()
    assert (made.t_low[0][plain] == 0).all()
    assert not np.isnan(made.t_low).any()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_all_or_nothing_is_bounded_by_what_never_happened(score: float) -> None:
    """A perfect score has the lower bound 1 - CP(0, n), a score of zero the upper bound CP(0, n)."""
    rule = RULE.model_copy(update={"resamples": 50, "batches": 5, "min_clusters": 10})
    found = score_interval(np.full(60, score), Resampler(b"\x01" * 32, Strata((np.arange(60),)), rule), "", 2)
    at_most = 1 - rule.alpha ** (1 / 60)
    assert (found.value, found.method) == (score, "rare_events")
    bounds_ = (0.0, at_most) if score == 0 else (1 - at_most, 1.0)
    assert [found.lower, found.upper] == pytest.approx(list(bounds_))


def test_a_run_without_tokens_in_one_half_has_no_witness_and_still_a_distance() -> None:
    both, one = np.array([[3, 1], [2, 2]]), np.array([[0, 0], [4, 4]])
    for base, arm in ((both, one), (one, both)):
        found = shift(base, arm)
        assert found.witness is None
        assert found.plugin == pytest.approx(abs(5 / 8 - 4 / 8))
    assert shift(both, both).witness == 0.0
    assert shift(both, np.zeros((2, 2), dtype=np.int64)).plugin is None
