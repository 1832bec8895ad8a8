"""Matched success: whether two arms score equally on the same items, within the tolerance of the pre-registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from atlas_schema.documents.receipt import Bound, MatchedSuccess
from atlas_schema.measures.bootstrap import clopper_pearson_upper
from atlas_schema.measures.definitions import MATCHED
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Interval, Resampler, Statistic, family

State = Literal["matched", "different", "undetermined"]


def matched(
    first: str, second: str, a: F64, b: F64, resamplers: Sequence[Resampler], tolerance: float, min_items: int
) -> MatchedSuccess:
    """Compare scores ``[m]`` of two arms, paired by item: two one-sided tests, which must agree under both seeds.

    The interval is the pointwise one at ``alpha`` on each side, so it covers with ``1 - 2 alpha``. ``resamplers`` are those
    of the items under both seeds.
    """
    change = a - b
    if (change == 0).all() and len(change) >= min_items:
        same = Interval(0.0, "identical", "every item has the same score", len(change), 0, 0.0, 0.0)
        return _entry(first, second, len(change), same, tolerance, ("matched", same.reason))
    few = f"{len(change)} items; the contract needs {min_items}" if len(change) < min_items else ""
    both = [_interval(change, r, few) for r in resamplers]
    states = [_state(found, tolerance, r.rule.monte_carlo_errors) for found, r in zip(both, resamplers, strict=True)]
    agreed = states[0] if states[0][0] == states[1][0] else ("undetermined", "the decision changes with the seed")
    return _entry(first, second, len(change), both[0], tolerance, agreed)


def _interval(change: F64, resampler: Resampler, refused: str) -> Interval:
    """Bound a mean of differences in [-1, 1]; where few items differ, the share of either sign bounds its side exactly."""
    rule, size = resampler.rule, len(change)
    differing = int((change != 0).sum())
    if not refused and differing < rule.rare_event_clusters and np.abs(change).max() <= 1:
        lower, upper = (clopper_pearson_upper(int((s * change > 0).sum()), size, rule.alpha) for s in (-1, 1))
        reason = f"{differing} items differ: exact binomial bounds"
        return Interval(float(change.mean()), "rare_events", reason, size, differing, -lower, upper, error=0.0)
    return family(change[:, None], np.ones((size, 1)), [Statistic(False, False, False, refused)], resampler, 1)[0]


def _state(found: Interval, tolerance: float, errors: float) -> tuple[State, str]:
    if found.method == "none":
        return "undetermined", found.reason
    if found.lower is None or found.upper is None or found.error is None:
        return "undetermined", "the difference has no finite interval"
    margin = errors * found.error
    if found.lower - margin >= -tolerance and found.upper + margin <= tolerance:
        return "matched", "the interval of the difference lies within the tolerance"
    if found.lower - margin > tolerance or found.upper + margin < -tolerance:
        return "different", "the interval of the difference lies outside the tolerance"
    return "undetermined", "the interval of the difference meets the tolerance's edge"


def _entry(
    first: str, second: str, items: int, found: Interval, tolerance: float, state: tuple[State, str]
) -> MatchedSuccess:  # fmt: skip
    return MatchedSuccess(
        definition=MATCHED, first=first, second=second, difference=float(found.value or 0.0), items=items, lower=found.lower,
        upper=found.upper, tolerance=Bound(value=tolerance, source="preregistration"), state=state[0], reason=state[1],
        assurance="recomputed",
    )  # fmt: skip
