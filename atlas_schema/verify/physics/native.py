"""Native execution of one routed layer: states, scores, sets, margins, weights (R004 to R007, R015, R021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Tolerances
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.drift import matching_rows, row_name
from atlas_schema.measures.geometry import F64, Ints
from atlas_schema.measures.routers import Mask, RouterRule
from atlas_schema.verify.physics.layers import LayerFacts
from atlas_schema.verify.physics.violations import Violation, first_false, first_wrong


@dataclass(frozen=True, slots=True)
class States:
    """States of one run widened once: ``z`` ``[T, d]``, ``||z||²`` and ``||z||`` ``[T]``, exact logits ``[T, E]``."""

    z: F64
    squared: F64
    size: F64
    logits: F64

    @classmethod
    def of(cls, state: Rows, facts: LayerFacts) -> States:
        """Widen the rows of table `state` and evaluate their run's router on them."""
        z = state["z"].astype(np.float64)
        squared = np.einsum("td,td->t", z, z)
        return cls(z, squared, np.sqrt(squared), facts.logits(z))


def admitted(rule: RouterRule, dims: Dims) -> int:
    """Return how many experts a token may choose from."""
    return dims.E // rule.n_groups * rule.kept_groups


def check_present(rows: Rows, name: str, there: bool) -> list[Violation]:
    """Check that a column holds values everywhere, or nowhere (R015)."""
    valid = rows.valid(name)
    what = f"{name} is missing" if there else f"{name} holds something where there is nothing to hold"
    return first_false("ATL-R015", what, rows, valid == there, rows[name])


def check_state(state: Rows, own: States, facts: LayerFacts, tolerances: Tolerances, dims: Dims) -> list[Violation]:
    """Check normalisation (R004), dispatch scores and gate coordinates (R005) of states."""
    r = state["r"].astype(np.float64)
    found = first_false("ATL-R004", "r is not positive", state, r > 0, r)
    expected = dims.d * (1.0 - facts.eps / r**2)
    allowed = tolerances.accumulation * dims.d * tolerances.float32_unit * 4.0
    found += first_wrong("ATL-R004", "||z||² is not d (1 - eps/r²)", state, own.squared, expected, allowed)
    scores, bound = facts.rule.dispatch(own.logits), facts.logit_bound(own.size, facts.unit, tolerances)
    bound = facts.score_bound(bound, scores, facts.unit, tolerances)
    found += first_wrong(
        "ATL-R005",
        "dispatch scores do not follow from the state",
        state,
        state["dispatch"].astype(np.float64),
        scores,
        bound,
    )
    stored = np.flatnonzero(state.valid("g"))
    if len(stored):
        rows, derived = state.take(stored), own.z[stored] * facts.gain
        rounding = tolerances.accumulation * facts.unit * np.abs(derived)
        found += first_wrong("ATL-R005", "gate coordinates are not state times gain", rows, rows["g"].astype(np.float64), derived,
                             rounding)  # fmt: skip
    limited = facts.rule.group_mode != "none"
    return found + check_present(state, "admissible", limited)


def check_routing(routing: Rows, rule: RouterRule, dims: Dims) -> list[Violation]:
    """Check sets, competitors, margins and flags of every token in themselves (R006, R021)."""
    experts = np.sort(routing["experts"], axis=1)
    distinct = (experts[:, 1:] > experts[:, :-1]).all(axis=1) & (experts[:, -1] < dims.E)
    member = (experts == routing["competitor_out"][:, None]).any(axis=1)
    rival, margin, flags = routing.valid("competitor_in"), routing["margin"], routing["flags"]
    outside = ~(experts == routing["competitor_in"][:, None]).any(axis=1) & (routing["competitor_in"] < dims.E)
    zero = (margin == 0) & routing.valid("margin")
    conditions = (
        ("experts are not distinct ids in range", distinct, routing["experts"]),
        ("competitor_out is not a member", member, routing["competitor_out"]),
        ("competitor_in is a member or out of range", outside | ~rival, routing["competitor_in"]),
        ("a margin is negative", margin >= 0, margin),
        ("a margin is missing, or there without a competitor", routing.valid("margin") == rival, rival),
        ("a flag is unknown", flags < 8, flags),
        ("a zero margin and its flag disagree", zero == ((flags & 3) > 0), flags),
        ("competitor_in is missing", rival == (dims.k < admitted(rule, dims)), rival),
    )  # fmt: skip
    found = [v for what, holds, stated in conditions for v in first_false("ATL-R006", what, routing, holds, stated)]
    limited = rule.group_mode != "none"
    found += check_present(routing, "group_margin", limited)
    if limited and not found:
        groups = np.sort(experts // (dims.E // rule.n_groups), axis=1)
        used = 1 + (groups[:, 1:] != groups[:, :-1]).sum(axis=1)
        found += first_false(
            "ATL-R021", "executed experts lie in more groups than are kept", routing, used <= rule.kept_groups, used
        )
        found += first_false(
            "ATL-R021", "a group margin is negative", routing, routing["group_margin"] >= 0, routing["group_margin"]
        )
    return found


def check_routing_against_state(
    state: Rows, own: States, routing: Rows, facts: LayerFacts, tolerances: Tolerances
) -> list[Violation]:
    """Check sets, competitors and margins (R006), groups (R021) and combine weights (R007) at the sampled positions."""
    at = matching_rows(routing, state)
    if (at < 0).any():
        missing = int(np.flatnonzero(at < 0)[0])
        return [Violation("ATL-R006", "a sampled position has no routing row", row_name(state, missing), "", "")]
    dispatch = state["dispatch"].astype(np.float64)
    members = routing["experts"][at].astype(np.int64)
    limited = facts.rule.group_mode != "none"
    admissible = state["admissible"] if limited else np.ones(dispatch.shape, dtype=np.bool_)
    inside = np.take_along_axis(dispatch, members, axis=1)
    outside = np.where(admissible, dispatch, -np.inf)
    chosen = np.take_along_axis(admissible, members, axis=1).all(axis=1)
    np.put_along_axis(outside, members, -np.inf, axis=1)
    lowest, highest = inside.min(axis=1), outside.max(axis=1)
    # Equal scores may be broken either way by the kernel that ran: what holds is that no non-member scores higher. Where a
    # softmax merged two logits (flag `saturated`), the merged probabilities must be equal to within their rounding.
    merged = 1.0 - np.exp(np.minimum(lowest - highest, 0.0)) <= tolerances.accumulation * max(
        facts.unit, tolerances.float32_unit
    )
    fits = (lowest >= highest) | (merged & ((routing["flags"][at] & 2) > 0) & (facts.rule.score_space == "logit"))
    leaves, rival = routing["competitor_out"][at].astype(np.int64), routing.valid("competitor_in")[at]
    enters = routing["competitor_in"][at].astype(np.int64)
    found = first_false("ATL-R006", "a non-member scores higher than a member", state, fits, members)
    found += first_false("ATL-R006", "competitor_out is not the lowest member", state,
                         np.take_along_axis(dispatch, leaves[:, None], 1)[:, 0] == lowest, leaves)  # fmt: skip
    found += first_false("ATL-R006", "competitor_in is not the highest non-member", state,
                         (np.take_along_axis(outside, enters[:, None], 1)[:, 0] == highest) | ~rival, enters)  # fmt: skip
    margin = np.where(rival, np.maximum(lowest - np.where(rival, highest, 0.0), 0.0), 0.0)
    scale = tolerances.accumulation * tolerances.float32_unit * np.abs(dispatch).max(axis=1)
    stated = routing["margin"][at].astype(np.float64)
    found += first_wrong("ATL-R006", "the margin is not the difference of the pair", state, stated, margin, scale)
    found += _check_logit_margin(state, own, (leaves, enters, rival), facts, tolerances)
    if limited:
        found += first_false("ATL-R021", "a member is not admissible", state, chosen, members)
        found += _check_groups(state, routing["group_margin"][at].astype(np.float64), facts.rule, tolerances)
    weights = facts.rule.weights(dispatch, members)
    allowed = (
        tolerances.accumulation * (facts.unit + 2 * tolerances.float32_unit) * facts.weight_slack(dispatch, members)
    )
    return found + first_wrong("ATL-R007", "combine weights do not follow from the scores", state,
                               state["weights"].astype(np.float64), weights, allowed)  # fmt: skip


def _check_groups(state: Rows, stated: F64, rule: RouterRule, tolerances: Tolerances) -> list[Violation]:
    """Check that whole groups are admissible, as many as are kept, none weaker than a dropped one, and their margin (R021)."""
    kept = state["admissible"].reshape(state.n, rule.n_groups, -1)
    some = np.asarray(kept.any(axis=2))
    whole = (kept.all(axis=2) == some).all(axis=1) & (some.sum(axis=1) == rule.kept_groups)
    found = first_false("ATL-R021", "admissible experts are not the kept groups", state, whole, some)
    if found:
        return found
    strength = rule.group_scores(state["dispatch"])
    weakest = np.where(some, strength, np.inf).min(axis=1)
    strongest = np.where(some, -np.inf, strength).max(axis=1)
    found = first_false(
        "ATL-R021", "a dropped group is stronger than a kept one", state, weakest >= strongest, strength
    )
    scale = tolerances.accumulation * tolerances.float32_unit * np.abs(strength).max(axis=1)
    return found + first_wrong(
        "ATL-R021", "the group margin is not that of the scores", state, stated, weakest - strongest, scale
    )


def _check_logit_margin(
    state: Rows, own: States, pair: tuple[Ints, Ints, Mask], facts: LayerFacts, tolerances: Tolerances
) -> list[Violation]:
    """Check the margin of the same pair on exact logits; signed, and there exactly where logits order the set (R006)."""
    leaves, enters, rival = pair
    there = rival if facts.rule.monotone else np.zeros(state.n, dtype=np.bool_)
    what = "margin_logit is missing, or there where logits do not order the set"
    found = first_false("ATL-R006", what, state, state.valid("margin_logit") == there, there)
    if not facts.rule.monotone:
        return found
    row, bound = np.arange(state.n), facts.logit_bound(own.size, facts.unit, tolerances)
    expected = np.where(there, own.logits[row, leaves] - own.logits[row, enters], 0.0)
    stated = state["margin_logit"].astype(np.float64)
    return found + first_wrong("ATL-R006", "margin_logit does not follow from the state", state, stated, expected,
                               bound[row, leaves] + bound[row, enters])  # fmt: skip


def check_moved(state: Rows, base_state: Rows) -> bool:
    """Return whether some state differs from the base's."""
    return bool((state["z"] != base_state["z"]).any())
