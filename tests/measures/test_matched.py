"""Matched success: against the oracle, and what swapping the arms does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measures.worlds import findings, study
from naive import bootstrap
from naive import reported as oracle
from simulator import small_study

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.documents.receipt import MatchedSuccess
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.intervals import Resampler
from atlas_schema.measures.matched import matched

RULE = Bootstrap.model_validate({**small_study().contract.bootstrap.model_dump(), "resamples": 300, "min_clusters": 10})
SEEDS = (b"\x01" * 32, b"\x02" * 32)


def compared(a: Any, b: Any, tolerance: float = 0.1, items: int = 1) -> MatchedSuccess:
    first, second = (np.array(x, dtype=np.float64) for x in (a, b))
    resamplers = [Resampler(seed, Strata((np.arange(len(first)),)), RULE) for seed in SEEDS]
    return matched("one", "two", first, second, resamplers, tolerance, items)


def test_every_two_arms_are_compared_as_the_oracle_says() -> None:
    made, found = study("softmax"), findings("softmax").matched_success
    names = [a.name for a in made.preregistration.arms]
    assert [(m.first, m.second) for m in found] == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    digests = (made.evidence_root(), made.preregistration_digest())
    seeds = bootstrap.bootstrap_seeds(*(bytes.fromhex(d.removeprefix("sha256:")) for d in digests))
    rule, task = made.contract.bootstrap, made.preregistration.task
    scores = {n: {r["item_id"]: r["score"] for r in made.rows("task") if r["run_id"] == f"arm:{n}"} for n in names}
    seen = set()
    for entry in found:
        difference, lower, upper, state = oracle.matched(
            scores[entry.first], scores[entry.second], seeds, rule.resamples, rule.alpha, task.tolerance, rule.rare_event_clusters
        )  # fmt: skip
        assert entry.difference == pytest.approx(difference, rel=1e-9)
        assert entry.lower == (None if lower is None else pytest.approx(lower, rel=1e-9, abs=1e-12))
        assert entry.upper == (None if upper is None else pytest.approx(upper, rel=1e-9, abs=1e-12))
        assert entry.state == state
        assert (entry.items, entry.tolerance.value, entry.tolerance.source) == (60, task.tolerance, "preregistration")
        seen.add("exact binomial" in entry.reason or entry.upper != 0.0)
    assert seen == {True}


scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=40, max_size=40)


@given(scores, st.data())
def test_swapping_the_arms_turns_the_sign(a: list[float], data: st.DataObject) -> None:
    flips = data.draw(st.sets(st.integers(0, 39)))
    b = [1 - x if i in flips else x for i, x in enumerate(a)]
    one, other = compared(a, b), compared(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.state, one.reason) == (other.state, other.reason)
    for x, y in ((one.lower, other.upper), (one.upper, other.lower)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert x == pytest.approx(-y, abs=1e-12)
    if one.lower is not None and one.upper is not None:
        assert one.lower <= one.difference <= one.upper


@given(scores)
def test_equal_scores_are_matched_for_that_reason(a: list[float]) -> None:
    found = compared(a, a)
    assert (found.state, found.difference, found.lower, found.upper) == ("matched", 0.0, 0.0, 0.0)
    assert found.reason == "every item has the same score"


def test_too_few_items_match_nothing() -> None:
    found = compared([1.0, 0.0], [1.0, 0.0], items=3)
    assert (found.state, found.lower, found.upper) == ("undetermined", None, None)
    assert found.reason == "2 items; the contract needs 3"


@pytest.mark.parametrize(("flips", "size", "tolerance", "state"), [
    (3, 400, 0.05, "matched"), (3, 40, 0.05, "undetermined"), (300, 400, 0.1, "different"), (40, 400, 0.1, "undetermined"),
    (40, 400, 0.2, "matched"),
])  # fmt: skip
def test_a_difference_is_judged_by_its_whole_interval(flips: int, size: int, tolerance: float, state: str) -> None:
    a = np.zeros(size)
    b = np.where(np.arange(size) < flips, 1.0, 0.0)
    assert compared(a, b, tolerance).state == state


def test_few_differing_items_are_bounded_exactly() -> None:
    a, b = np.zeros(200), np.zeros(200)
    a[:2], b[2:5] = 1.0, 1.0
    found = compared(a, b)
    assert found.upper == pytest.approx(bootstrap.clopper_pearson_upper(2, 200, RULE.alpha))
    assert found.lower == pytest.approx(-bootstrap.clopper_pearson_upper(3, 200, RULE.alpha))
    assert found.difference == pytest.approx(-1 / 200)
