"""Token values of what is reported beside the gated channels. Nothing here decides a verdict.

Functions take rows of one block, in key order, and return `TokenValues` by definition id; formulas stand in
`docs/measures.md`, sections 1, 3 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.drift import Group, TokenValues, matching_rows, require_same_keys
from atlas_schema.measures.geometry import F64, Masks, member_masks, quadratic_norm
from atlas_schema.measures.ledger import everywhere
from atlas_schema.measures.routers import Mask, RouterRule

SLACK = 2.0**-20
"""What float32 sums of two scores may round away, relative to the largest: group margins certify only beyond it."""


@dataclass(frozen=True, slots=True)
class Native:
    """Routing rows of one run with their executed sets as bits."""

    rows: Rows
    masks: Masks

    @classmethod
    def of(cls, rows: Rows, experts: int) -> Native:
        """Read the sets of every token."""
        return cls(rows, member_masks(rows["experts"], experts))


def native(base: Native, arm: Native, comparable: bool) -> dict[str, TokenValues]:
    """Return turnover and, where both score spaces are one, the shift of the margin, for every token."""
    require_same_keys(base.rows, arm.rows)
    k = base.rows["experts"].shape[1]
    shared = np.bitwise_count(base.masks & arm.masks).sum(axis=1, dtype=np.float64)
    found = {ids.TURNOVER: everywhere(1.0 - shared / k)}
    if comparable:
        both = base.rows.valid("margin") & arm.rows.valid("margin")
        shift = arm.rows["margin"].astype(np.float64) - base.rows["margin"].astype(np.float64)
        found[ids.MARGIN_SHIFT] = TokenValues(shift, np.ones(len(shift)), both)
    return found


def norm_baseline(base: Rows, arm: Rows, eps0: float, eps1: float, d: int) -> TokenValues:
    """Return the relative change of the norm of the layer's input, ``||x||² = d (r² - eps)``, of paired state rows."""

    def size(rows: Rows, eps: float) -> F64:
        out: F64 = np.sqrt(np.maximum(d * (rows["r"].astype(np.float64) ** 2 - eps), 0.0))
        return out

    before, after = size(base, eps0), size(arm, eps1)
    change = np.divide(np.abs(after - before), before, out=np.zeros_like(before), where=before > 0)
    return everywhere(change, before > 0)


def same_state_reported(
    update: Rows, groups: Sequence[Group], rules: tuple[RouterRule, RouterRule], content: TokenValues
) -> dict[str, TokenValues]:
    """Return router term, tightness, router shift and certificate of one arm's update rows."""
    router = np.zeros(update.n)
    shift, counted = np.zeros(update.n), np.zeros(update.n)
    scores = [update[name].astype(np.float64) for name in ("dispatch0", "dispatch1")]
    ratio, shown = log_ratio(rules, *scores)
    for group in groups:
        n = group.experts.shape[1]
        norms = np.sqrt(np.maximum(np.diagonal(group.gram, axis1=1, axis2=2)[:, :n], 0.0))
        router[group.rows] = (np.abs(group.rho1 - group.rho0) * norms).sum(axis=1)
        member: Mask = (update["in0"][group.rows][:, None] >> np.arange(n, dtype=np.uint32)) & 1 > 0
        own = np.take_along_axis(ratio[group.rows], group.experts, axis=1)
        member &= np.take_along_axis(shown[group.rows], group.experts, axis=1)
        shift[group.rows], counted[group.rows] = np.where(member, own, 0.0).sum(axis=1), member.sum(axis=1)
    everyone = np.ones(update.n, dtype=np.bool_)
    found = {
        ids.ROUTER_TERM: TokenValues(router, content.denominator, everyone),
        ids.TIGHTNESS: TokenValues(update["dV_norm"], router + content.numerator, everyone),
        ids.ROUTER_SHIFT: TokenValues(shift, counted, counted > 0),
    }
    if rules[0].score_space == rules[1].score_space:
        has_pair = update.valid("pair_in")
        certified = certificate(update, rules[0], *scores)
        found[ids.CERTIFICATE] = everywhere(certified.astype(np.float64), has_pair)
    return found


def log_ratio(rules: tuple[RouterRule, RouterRule], before: F64, after: F64) -> tuple[F64, Mask]:
    """Return ``log(p1/p0)`` of the gate values ``[T, E]``, and where both are positive.

    Small changes are formed from the change of the scores, not from two logarithms: they keep their digits.
    """
    p0, p1 = (rule.probabilities(scores) for rule, scores in zip(rules, (before, after), strict=True))
    shown: Mask = (p0 > 0) & (p1 > 0)
    p0, p1 = np.where(shown, p0, 1.0), np.where(shown, p1, 1.0)
    ratio: F64 = np.log(p1) - np.log(p0)
    change = after - before
    near = np.abs(change).max(axis=1) < 1.0
    if all(rule.score_space == "logit" and rule.weight_rule.startswith("softmax") for rule in rules):
        small = change[near]
        ratio[near] = small - np.log1p((p0[near] * np.expm1(small)).sum(axis=1, keepdims=True))
    else:
        ratio[near] = np.log1p((p1[near] - p0[near]) / p0[near])
    return ratio, shown


def certificate(update: Rows, rule: RouterRule, before: F64, after: F64) -> Mask:
    """Return for which tokens ``[T]`` the change of the scores ``[T, E]`` is too small to change the base's set.

    Plain top-k: the largest change less the smallest is below the set margin. With a group limit, also below what the margin
    between kept and dropped groups allows: half of it where a strength is the sum of two scores.
    """
    row, change = np.arange(update.n), after - before
    left = rule.admissible(before)
    spread = np.where(left, change, -np.inf).max(axis=1) - np.where(left, change, np.inf).min(axis=1)
    margin = before[row, update["pair_out"]] - before[row, update["pair_in"]]
    certified: Mask = spread < margin
    if rule.group_mode != "none":
        strengths = -np.sort(-rule.group_scores(before), axis=1)
        gap = strengths[:, rule.kept_groups - 1] - strengths[:, rule.kept_groups]
        gap = gap - SLACK * np.abs(before).max(axis=1)
        allowed = gap / 2.0 if rule.group_mode == "top2_sum" else gap
        certified &= change.max(axis=1) - change.min(axis=1) < allowed
    return certified & update.valid("pair_in")


def base_same_state(update: Rows, groups: Sequence[Group], rule: RouterRule, base: Native) -> dict[str, TokenValues]:
    """Return agreement and one-swap residual of the base, from some run's update rows and the base's routing rows.

    A token without a routing row counts as disagreeing: a rule of verification refuses it.
    """
    scores = update["dispatch0"].astype(np.float64)
    k = base.rows["experts"].shape[1]
    order = rule.order(scores)
    at = matching_rows(base.rows, update)
    executed = base.masks[at] if len(base.masks) else np.zeros((update.n, base.masks.shape[1]), dtype=np.uint64)
    same = (executed == member_masks(order[:, :k], scores.shape[1])).all(axis=1) & (at >= 0)
    has_pair = update.valid("pair_in")
    entering = np.where(has_pair, update["pair_in"], order[:, k - 1]).astype(np.int64)
    swapped = np.concatenate([order[:, : k - 1], entering[:, None]], axis=1)
    forced = []
    for members in (order[:, :k], swapped):
        full = np.zeros_like(scores)
        np.put_along_axis(full, members, rule.weights(scores, members), axis=1)
        forced.append(full)
    weight = np.take_along_axis(forced[0], order[:, k - 1 : k], axis=1)
    pair = np.zeros_like(scores)
    np.put_along_axis(pair, entering[:, None], 1.0, axis=1)
    np.put_along_axis(pair, order[:, k - 1 : k], -1.0, axis=1)
    jump, residual = np.zeros(update.n), np.zeros(update.n)
    for group in groups:
        n = group.experts.shape[1]
        change, step = (
            np.take_along_axis(part[group.rows], group.experts, axis=1)
            for part in (forced[1] - forced[0], weight * pair)
        )
        gram = group.gram[:, :n, :n]
        jump[group.rows], residual[group.rows] = quadratic_norm(gram, change), quadratic_norm(gram, change - step)
    kept = np.where(has_pair, residual, 0.0), np.where(has_pair, jump, 0.0)
    return {ids.AGREEMENT: everywhere(same.astype(np.float64)), ids.ONE_SWAP: TokenValues(*kept, has_pair)}


def tangent(update: Rows, groups: Sequence[Group], of_base: bool) -> TokenValues:
    """Return ``sum ||v||`` and ``sum ||u||`` over the evaluated experts, of the base's updates or the run's own."""
    visible, whole = np.zeros(update.n), np.zeros(update.n)
    for group in groups:
        n = group.experts.shape[1]
        squared = np.diagonal(group.gram, axis1=1, axis2=2)
        base, change = squared[:, :n], squared[:, n:]
        cross = np.diagonal(group.gram[:, :n, n:], axis1=1, axis2=2)
        own = base if of_base else base + 2.0 * cross + change
        visible[group.rows] = np.sqrt(np.maximum(own, 0.0)).sum(axis=1)
        whole[group.rows] = np.sqrt(np.maximum(group.uu0 if of_base else group.uu1, 0.0)).sum(axis=1)
    return TokenValues(visible, whole, np.ones(update.n, dtype=np.bool_))


def angular(state: Rows, rule: RouterRule, weights: F64, bias: F64 | None, k: int, positions: int) -> TokenValues:
    """Return for which native states the set by the stored router at ``sqrt(d) z/||z||`` is that at ``z``.

    ``weights`` ``[E, d]`` is the router map times the effective gain. Logits are linear in ``z`` but for the router's bias,
    so one product serves both. Each window's ``positions`` rows are multiplied by themselves, so that no cut changes a bit.
    """
    z = state["z"].astype(np.float64)
    together = positions if len(z) % positions == 0 else 1
    windows = z.reshape(len(z) // together, together, z.shape[1])
    linear = (windows @ weights.T).reshape(len(z), len(weights))
    stretch = np.sqrt(z.shape[1]) / np.linalg.norm(z, axis=1, keepdims=True)
    sets = []
    for logits in (linear, stretch * linear):
        scores = rule.dispatch(logits if bias is None else logits + bias)
        sets.append(member_masks(rule.order(scores)[:, :k], len(weights)))
    return everywhere((sets[0] == sets[1]).all(axis=1).astype(np.float64))


def outputs(base: Rows, run: Rows) -> Mapping[str, TokenValues]:
    """Return loss, its change, divergence and agreement of paired output rows."""
    require_same_keys(base, run)
    before, after = base["nll"].astype(np.float64), run["nll"].astype(np.float64)
    return {
        ids.PERPLEXITY: everywhere(after),
        # The difference is formed in float64 from the stored float32 values, token by token.
        ids.DAMAGE: everywhere(after - before),
        ids.KL: everywhere(run["kl_from_base"].astype(np.float64), run.valid("kl_from_base")),
        ids.TOP1: everywhere((base["top1"] == run["top1"]).astype(np.float64)),
    }
