"""From bounds to states: on which side of its threshold a statistic lies, or that this cannot be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.documents.receipt import CellState
from atlas_schema.measures.intervals import Interval
from atlas_schema.verdict.predicates import SuccessState


@dataclass(frozen=True, slots=True)
class Decision:
    """The state of a cell and the sentence that explains it. ``strict_below`` holds at ``alpha / arms``."""

    state: CellState
    reason: str
    strict_below: bool


def margins(interval: Interval, rule: Bootstrap) -> tuple[float, float]:
    """Return how far a bound, and a strict bound, must keep from what it is compared with; infinite where that is unknown."""
    if interval.method == "rare_events":
        return 0.0, 0.0
    error, strict = (np.inf if e is None else e for e in (interval.error, interval.strict_error))
    return rule.monte_carlo_errors * error, rule.monte_carlo_errors * strict


def decide(interval: Interval, threshold: float, rule: Bootstrap, floor: float | None) -> Decision:
    """Compare one interval with its threshold. ``floor`` is what null arms reached; None where no floor could be given."""
    if interval.method == "none":
        return Decision("undetermined", interval.reason, False)
    if floor is None:
        return Decision("undetermined", "the null arms give no floor", False)
    if threshold <= floor:
        return Decision("undetermined", "the threshold is not above the floor of the null arms", False)
    if interval.method == "identical":
        return Decision("identical", interval.reason, True)
    margin, strict_margin = margins(interval, rule)
    if not np.isfinite(margin):
        return Decision("undetermined", "the Monte-Carlo error has no finite estimate", False)
    strict = interval.strict_upper is not None and interval.strict_upper + strict_margin < threshold
    lower, upper = interval.simultaneous_lower, interval.upper
    if upper is not None and upper + margin < threshold:
        return Decision("below", "the upper bound is below the threshold", strict)
    if lower is not None and lower - margin > threshold:
        return Decision("above", "the simultaneous lower bound is above the threshold", False)
    near = (upper is not None and upper < threshold) or (lower is not None and lower > threshold)
    reason = (
        "a bound is within the Monte-Carlo error of the threshold" if near else "the interval contains the threshold"
    )
    return Decision("undetermined", reason, False)


def agree(first: Decision, second: Decision) -> Decision:
    """Return a decision that holds under both seeds, or UNDETERMINED."""
    if first.state == second.state:
        return Decision(first.state, first.reason, first.strict_below and second.strict_below)
    return Decision("undetermined", f"the decision changes with the seed: {first.state} or {second.state}", False)


def success_state(interval: Interval, needed: float, rule: Bootstrap) -> tuple[SuccessState, str]:
    """Compare the interval of a mean score with the score that is needed."""
    if interval.method == "none":
        return "undetermined", interval.reason
    margin, _ = margins(interval, rule)
    if interval.lower is not None and interval.lower - margin >= needed:
        return "reached", "the lower bound is at least target minus tolerance"
    if interval.upper is not None and interval.upper + margin < needed:
        return "missed", "the upper bound is below target minus tolerance"
    return "undetermined", "the interval contains target minus tolerance"


def agree_on_success(first: tuple[SuccessState, str], second: tuple[SuccessState, str]) -> tuple[SuccessState, str]:
    """Return the state that holds under both seeds, with the first one's reason."""
    return first if first[0] == second[0] else ("undetermined", "the decision changes with the seed")


def strictly_reached(interval: Interval, needed: float, rule: Bootstrap) -> bool:
    """Return whether a mean score reaches what is needed by its bound at ``alpha / arms`` too."""
    return interval.strict_lower is not None and interval.strict_lower - margins(interval, rule)[1] >= needed
