"""Intervals, decisions, predicates, verdicts, claims: more information never overturns what less information decided."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from properties.contract import holds
from verify.forging import study

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.documents.receipt import CellState, Predicate
from atlas_schema.measures.bootstrap import Draws, Strata, bounds, clopper_pearson_upper, studentised
from atlas_schema.measures.decide import decide, success_state
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Interval
from atlas_schema.measures.ledger import Ratio
from atlas_schema.measures.statements import standard_error
from atlas_schema.verdict.predicates import SuccessState, above_any, verdict

STATES: tuple[CellState, ...] = ("above", "below", "identical", "not_applicable", "undetermined")


@cache
def rule() -> Bootstrap:
    return study().contract.bootstrap


# --- decisions ----------------------------------------------------------------------------------------------------

levels = st.floats(0, 1)


@st.composite
def nested(draw: st.DrawFn) -> tuple[Interval, Interval]:
    """Draw an interval and a narrower one inside it, with no larger Monte-Carlo error."""
    a, b, c, d = sorted(draw(st.lists(levels, min_size=4, max_size=4)))
    wide_error = draw(st.floats(0, 0.1))
    wide = Interval(b, "bootstrap", "", 30, 30, lower=a, upper=d, simultaneous_lower=a, error=wide_error, strict_upper=d,
                    strict_error=wide_error)  # fmt: skip
    narrow = replace(wide, lower=b, upper=c, simultaneous_lower=b, strict_upper=c, error=wide_error * draw(levels),
                     strict_error=wide_error * draw(levels))  # fmt: skip
    return wide, narrow


def without(interval: Interval, name: str) -> Interval:
    lost: dict[str, Any] = {name: None}
    return replace(interval, **lost)


@holds(
    "decisions",
    "A narrower interval decides what the wider one decided, or what it left open; never the opposite.",
    100,
    3000,
)
@given(nested(), levels, st.none() | st.floats(0, 0.5))
def test_narrowing_never_overturns_a_decision(
    two: tuple[Interval, Interval], threshold: float, floor: float | None
) -> None:
    wide, narrow = (decide(interval, threshold, rule(), floor) for interval in two)
    assert narrow.state == wide.state or wide.state == "undetermined"
    assert narrow.strict_below or not wide.strict_below


@holds("decisions", "The same of a task score against what is needed.", 100, 3000)
@given(nested(), levels)
def test_narrowing_never_overturns_a_score(two: tuple[Interval, Interval], needed: float) -> None:
    wide, narrow = (success_state(interval, needed, rule())[0] for interval in two)
    assert narrow == wide or wide == "undetermined"


@holds(
    "decisions",
    "A larger Monte-Carlo error, a higher floor or a bound taken away decides nothing that was open.",
    100,
    3000,
)
@given(
    nested(), levels, st.floats(0, 0.3), st.floats(0, 0.3), st.sampled_from(["upper", "simultaneous_lower", "error"])
)
def test_less_certainty_never_decides(
    two: tuple[Interval, Interval], threshold: float, floor: float, more: float, lost: str
) -> None:
    interval = two[0]
    before = decide(interval, threshold, rule(), floor).state
    error = (interval.error or 0.0) + more
    for after in (
        decide(replace(interval, error=error), threshold, rule(), floor), decide(interval, threshold, rule(), floor + more),
        decide(interval, threshold, rule(), None), decide(without(interval, lost), threshold, rule(), floor),
    ):  # fmt: skip
        assert after.state in (before, "undetermined")


# --- predicates and verdicts: every case --------------------------------------------------------------------------

VALUES = ("TRUE", "FALSE", "UNDETERMINED")
SUCCESS: tuple[SuccessState, ...] = ("reached", "missed", "undetermined")
REFINED = {"preserved": {"preserved"}, "rewritten": {"rewritten"}, "damaged": {"damaged", "rewritten"},
           "unmatched": {"unmatched", "damaged", "rewritten"}}  # fmt: skip
"""What a verdict may become once something undetermined is decided; an undetermined one may become any."""


@holds(
    "decisions",
    "Deciding what was undetermined keeps a predicate that was TRUE or FALSE, for every set of up to 4 cells.",
)
def test_predicates_keep_what_they_decided() -> None:
    for size in range(5):
        for states in np.ndindex(*(len(STATES),) * size):
            cells = [(str(at), STATES[s]) for at, s in enumerate(states)]
            before = above_any(cells, "cell").value
            for at, (name, state) in enumerate(cells):
                for better in ("above", "below", "identical") if state == "undetermined" else ():
                    after = above_any([*cells[:at], (name, better), *cells[at + 1 :]], "cell").value  # type: ignore[list-item]
                    assert after == before or before == "UNDETERMINED"
                # A cell that is left out never turns FALSE into TRUE, nor an open question into a rewrite.
                fewer = above_any([*cells[:at], *cells[at + 1 :]], "cell").value
                assert not (fewer == "TRUE" and before != "TRUE")


def predicate(value: str) -> Predicate:
    return Predicate.model_validate({"value": value, "decided_by": ("x",)})


@holds(
    "decisions",
    "Deciding what was undetermined makes 'preserved' of 'undetermined' only; every verdict keeps its order.",
)
def test_verdicts_are_refined_in_their_order() -> None:
    def may(value: str, known: tuple[str, ...]) -> tuple[str, ...]:
        return known if value in ("UNDETERMINED", "undetermined") else (value,)

    for rewrite in VALUES:
        for damage in VALUES:
            for success in SUCCESS:
                before = verdict(predicate(rewrite), predicate(damage), success)
                found = {verdict(predicate(r), predicate(d), s)  # type: ignore[arg-type]
                         for r in may(rewrite, VALUES[:2]) for d in may(damage, VALUES[:2]) for s in may(success, SUCCESS[:2])}  # fmt: skip
                assert found <= REFINED.get(before, {"preserved", "rewritten", "damaged", "unmatched"})
                worse = {verdict(predicate(r), predicate(d), s)
                         for r in (rewrite, "UNDETERMINED") for d in (damage, "UNDETERMINED") for s in (success, "undetermined")}  # type: ignore[arg-type]  # fmt: skip
                assert "preserved" not in worse or before == "preserved"


# --- bounds -------------------------------------------------------------------------------------------------------

alphas = st.floats(0.001, 0.3)


@holds(
    "bounds",
    "The exact binomial bound rises with events, falls with trials and with alpha, and is never below the share.",
    60,
    800,
)
@given(st.integers(0, 40), st.integers(1, 60), alphas, st.floats(1.01, 3))
def test_the_exact_bound_is_monotone(events: int, more: int, alpha: float, factor: float) -> None:
    trials = events + more
    bound = clopper_pearson_upper(events, trials, alpha)
    assert events / trials <= bound <= 1.0
    assert clopper_pearson_upper(events + 1, trials, alpha) >= bound
    assert clopper_pearson_upper(events, trials + 1, alpha) <= bound
    assert clopper_pearson_upper(events, trials, alpha * factor) <= bound
    assert clopper_pearson_upper(2 * events, 2 * trials, alpha) <= bound + 1e-12, "fewer trials of one share: wider"


@st.composite
def sums(draw: st.DrawFn) -> tuple[F64, F64, Strata]:
    """Draw numerators and denominators of a few cells over two strata of clusters."""
    sizes = draw(st.tuples(st.integers(3, 12), st.integers(3, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, cells = sum(sizes), draw(st.integers(1, 3))
    strata = Strata((np.arange(sizes[0]), np.arange(sizes[0], n)))
    return rng.gamma(0.5, size=(n, cells)), rng.uniform(1, 3, size=(n, cells)), strata


@holds("bounds", "A smaller alpha never narrows a bootstrap bound, pointwise or simultaneous.", 15, 300)
@given(sums(), alphas, alphas)
def test_bounds_widen_as_alpha_falls(case: tuple[F64, F64, Strata], a: float, b: float) -> None:
    numerator, denominator, strata = case
    assume(a != b)
    s = studentised(numerator, denominator, Draws(b"\x05" * 32, strata, 200))
    loose, strict = bounds(s, (max(a, b), min(a, b)), 10)
    assert (strict.upper >= loose.upper).all()
    assert (strict.lower <= loose.lower).all()
    assert (strict.simultaneous_upper >= loose.simultaneous_upper).all()
    assert (strict.simultaneous_lower <= loose.simultaneous_lower).all()
    assert (loose.simultaneous_lower <= loose.lower).all()
    assert (loose.simultaneous_upper >= loose.upper).all()


@holds(
    "bounds",
    "The same clusters twice give the same ratio and a smaller standard error: fewer clusters, wider.",
    40,
    1000,
)
@given(sums())
def test_fewer_clusters_give_a_larger_standard_error(case: tuple[F64, F64, Strata]) -> None:
    numerator, denominator, strata = case
    n, d = numerator[:, 0], denominator[:, 0]
    twice = [np.concatenate([members, members + len(n)]) for members in strata.members]
    once_error = standard_error(Ratio(n, d), strata.members)
    twice_error = standard_error(Ratio(np.tile(n, 2), np.tile(d, 2)), twice)
    assert once_error is not None
    assert twice_error is not None
    assert twice_error < once_error
    assert Ratio(np.tile(n, 2), np.tile(d, 2)).value == pytest.approx(Ratio(n, d).value)


@holds("bounds", "The order of clusters within a stratum moves no standard error beyond rounding.", 40, 1000)
@given(sums(), st.integers(0, 2**32 - 1))
def test_the_order_of_clusters_does_not_matter(case: tuple[F64, F64, Strata], seed: int) -> None:
    numerator, denominator, strata = case
    order = np.concatenate([np.random.default_rng(seed).permutation(members) for members in strata.members])
    before = standard_error(Ratio(numerator[:, 0], denominator[:, 0]), strata.members)
    after = standard_error(Ratio(numerator[order, 0], denominator[order, 0]), strata.members)
    assert after == pytest.approx(before, rel=1e-12)
