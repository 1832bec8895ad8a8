"""Defects of rows of runs, layers, native and same-state evaluation, under re-issued documents. `test_rules` runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from simulator import CHANGES, StudySimulator
from verify.cases import OTHER, POSITION, altered, copied, defect, first, forged, place, route, valued
from verify.forging import Json, mapped, only, study

from atlas_schema.canonical import canonical_json, digest_bytes
from atlas_schema.verify.outcome import Code, Report

# --- reproduction: runs and layers --------------------------------------------------------------------------------


@defect("R001", "A null arm ran other weights than the base.", Code.DIVERGED)
def null_of_other_weights() -> Report:
    return forged(altered("run", "null:batch", "weights_digest", lambda _: OTHER))


@defect("R001", "The base is not the checkpoint that was pre-registered.", Code.DIVERGED)
def other_base() -> Report:
    return forged(study().with_preregistration({"base": {"weights_digest": OTHER}}))


@defect("R001", "An arm was trained under another policy than planned.", Code.DIVERGED)
def other_policy() -> Report:
    return forged(altered("run", "arm:close", "policy", lambda _: "full"))


@defect("R001", "An arm with the base's weights claims to have moved.", Code.DIVERGED)
def moved_without_moving() -> Report:
    return forged(altered("run", "arm:frozen", "param_distance", lambda _: 0.1))


@defect("R001", "The base carries the policy of an arm.", Code.DIVERGED)
def base_with_a_policy() -> Report:
    return forged(altered("run", "base", "policy", lambda _: "certified"))


@defect("R001 R017", "A null arm has other tensors than the base.", Code.DIVERGED)
def null_of_other_tensors() -> Report:
    return forged(redigested(study(), "null:batch", lambda d: {**d, "upstream": OTHER}))


@defect("R001", "A null arm normalises by another constant than the base.", Code.DIVERGED)
def null_of_another_constant() -> Report:
    return forged(altered("layer", "null:batch", "eps", lambda eps: eps * (1 + 1e-9)))


@defect("R002", "An arm ran with another attention kernel than the base.", Code.DIVERGED)
def fingerprint_differs() -> Report:
    return forged(altered("run", "arm:close", "fingerprint", lambda f: f.replace('"eager"', '"sdpa"', 1)))


@defect("R002", "A null arm differs from the base in nothing.", Code.DIVERGED)
def null_of_nothing() -> Report:
    base = study().rows("run")[first("run", "base")]["fingerprint"]
    return forged(altered("run", f"null:{next(iter(CHANGES))}", "fingerprint", lambda _: base))


@defect("R002", "A layer claims a coarser dtype than the run, for its wider tolerances.", Code.DIVERGED)
def borrowed_tolerance() -> Report:
    return forged(altered("layer", "arm:close", "executed_dtype", lambda _: "bfloat16"))


@defect("A003", "A run's fingerprint is no JSON, and its layer is none that could be looked at.", Code.INADMISSIBLE)
def fingerprint_unreadable() -> Report:
    s = altered("layer", "arm:close", "eps", lambda _: 0.0)
    return forged(s.with_value("run", first("run", "arm:close"), "fingerprint", "{"))


@defect("R001", "An arm claims to be nearer to the base than the base.", Code.DIVERGED)
def negative_distance() -> Report:
    return forged(altered("run", "arm:close", "param_distance", lambda d: -d))


@defect("R003", "The stored router is not the one whose digest is stated.", Code.DIVERGED)
def router_replaced() -> Report:
    return forged(altered("layer", "arm:close", "router_weight", lambda w: [w[0] + 1e-3, *w[1:]]))


@defect("R003", "Two experts changed places.", Code.DIVERGED)
def experts_swapped() -> Report:
    return forged(altered("layer", "arm:close", "identity_permutation", lambda p: [p[1], p[0], *p[2:]]))


@defect("R003", "The block was not what its experts add up to.", Code.DIVERGED)
def not_reconstructed() -> Report:
    return forged(altered("layer", "base", "reconstruction_error", lambda _: 0.5))


@defect("R003", "The layer follows a weight rule that this version does not know.", Code.DIVERGED)
def unknown_rule() -> Report:
    return forged(altered("layer", "base", "weight_rule", lambda _: "softmax_whatever"))


@defect("R003", "The router has a bias that no rule of this version applies.", Code.DIVERGED)
def unknown_bias() -> Report:
    return forged(altered("layer", "base", "router_bias", lambda _: [0.0] * study().dims.E))


def redigested(s: StudySimulator, run_id: str, change: Callable[[Json], Json]) -> StudySimulator:
    """Change the tensor digests in the first layer row of a run."""

    def rewritten(row: Json) -> str:
        return canonical_json(change(json.loads(row["tensor_digests"]))).decode()

    return valued(s, "layer", s.find("layer", run_id=run_id), "tensor_digests", rewritten)


# --- reproduction: native rows ------------------------------------------------------------------------------------


@defect("R004", "A state does not have the norm that its normalisation gives.", Code.DIVERGED)
def wrong_scale() -> Report:
    return forged(altered("state", "arm:close", "r", lambda r: 10 * r))


@defect("R005", "A dispatch score was written to taste.", Code.DIVERGED)
def score_to_taste() -> Report:
    def lower_the_last(scores: list[float]) -> list[float]:
        at = scores.index(min(scores))
        return [s - 0.01 if i == at else s for i, s in enumerate(scores)]

    return forged(altered("state", "arm:close", "dispatch", lower_the_last))


@defect(
    "R005 R006 R007 R011 R133",
    "The states of the base were copied as those of an arm with another router.",
    Code.DIVERGED,
)
def base_states_as_the_arms() -> Report:
    return forged(copied("state", "arm:rewritten", "base"))


def routed(column: str, change: Callable[[Json], Any], run_id: str = "arm:close") -> Report:
    """Change one value in the routing row of a run's first sampled position."""
    at = route(study(), study().rows("state")[first("state", run_id)])
    return forged(valued(study(), "routing", at, column, change))


@defect("R006", "A margin was inflated.", Code.DIVERGED)
def margin_inflated() -> Report:
    return routed("margin", lambda row: 2 * row["margin"] + 0.1)


@defect("R006", "A margin is negative.", Code.DIVERGED)
def margin_negative() -> Report:
    return routed("margin", lambda row: -0.5)


@defect("R006", "A margin is missing though there is a competitor.", Code.DIVERGED)
def margin_missing() -> Report:
    at = place(study(), "routing", lambda r: r["position"] == 0)  # never sampled
    return forged(study().with_value("routing", at, "margin", None))


@defect("R006", "A token flies a flag that nobody knows.", Code.DIVERGED)
def unknown_flag() -> Report:
    return routed("flags", lambda row: 8)


@defect("R006", "A token with a margin is flagged as a tie, which excuses its set.", Code.DIVERGED)
def excused_set() -> Report:
    return routed("flags", lambda row: row["flags"] | 3)


@defect("R015", "A router without groups claims a margin between them.", Code.DIVERGED)
def margin_of_no_groups() -> Report:
    return routed("group_margin", lambda row: 0.5)


@defect("R015", "A null arm claims a divergence from the base that nothing measures.", Code.DIVERGED)
def divergence_of_a_null_arm() -> Report:
    return forged(altered("output", "null:batch", "kl_from_base", lambda _: 0.0))


@defect("R015", "An arm's transport angle is missing on one token, to leave it out of the mean.", Code.DIVERGED)
def angle_left_out() -> Report:
    return updated("transport_angle", lambda _: None)


@defect("R006", "An expert was executed twice.", Code.DIVERGED)
def expert_twice() -> Report:
    return routed("experts", lambda row: [row["experts"][1]] * 2)


@defect("R006", "An expert was executed that does not exist.", Code.DIVERGED)
def expert_out_of_range() -> Report:
    return routed("experts", lambda row: [60_000, row["experts"][1]])


@defect("R006", "The competitor is not the best of those that were not executed.", Code.DIVERGED)
def weak_competitor() -> Report:
    def another(row: Json) -> int:
        return next(e for e in range(study().dims.E) if e not in (*row["experts"], row["competitor_in"]))

    return routed("competitor_in", another)


@defect("R006", "A token without margin claims to have a competitor's place free.", Code.DIVERGED)
def competitor_hidden() -> Report:
    return routed("competitor_in", lambda row: None)


@defect("R007", "Combine weights are not those of the scores.", Code.DIVERGED)
def weights_to_taste() -> Report:
    return forged(altered("state", "arm:close", "weights", lambda w: [0.5] * len(w)))


# --- reproduction: same-state rows --------------------------------------------------------------------------------


def updated(column: str, change: Callable[[Any], Any], run_id: str = "arm:close") -> Report:
    """Change one value in a row whose vectors are not kept, so that what they would say does not mix in."""
    kept = {w["window_id"] for w in study().rows("window") if w["split"] == "evaluation"}
    at = place(study(), "update", lambda row: row["run_id"] == run_id and row["window_id"] not in kept)
    return forged(valued(study(), "update", at, column, lambda row: change(row[column])))


@defect("R008", "Same-state scores are not those of the arm's router at the base's state.", Code.DIVERGED)
def same_state_scores() -> Report:
    return updated("dispatch1", lambda s: [v - 0.01 * (v == min(s)) for v in s])


@defect("R008", "The pair is not the base's k-th and next expert.", Code.DIVERGED)
def other_pair() -> Report:
    return forged(valued(study(), "update", first("update", "arm:close"), "pair_in", lambda row: row["pair_out"]))


@defect("R008", "The base's set is marked as the arm's set.", Code.DIVERGED)
def members_copied() -> Report:
    at = place(study(), "update", lambda r: r["run_id"] == "arm:rewritten" and r["in0"] != r["in1"])
    return forged(valued(study(), "update", at, "in1", lambda row: row["in0"]))


@defect("R008", "The forced weight of the pair's member was written to taste.", Code.DIVERGED)
def forced_weight() -> Report:
    return updated("rho1_b_forced", lambda w: w / 2)


@defect("R008", "The updates of two windows changed places.", Code.DIVERGED)
def updates_swapped() -> Report:
    rows = study().rows("update")
    a = first("update", "arm:close")
    b = place(study(), "update", lambda r: r["run_id"] == "arm:close" and r["window_id"] != rows[a]["window_id"])
    swapped = {at: {**rows[from_], **{k: rows[at][k] for k in POSITION}} for at, from_ in ((a, b), (b, a))}
    return forged(study().with_rows("update", [swapped.get(i, r) for i, r in enumerate(rows)]))


def _unpacked(row: Json) -> np.ndarray:
    """Return the Gram matrix of a row's ``n`` base updates and ``n`` changes, ``[2n, 2n]``."""
    full = np.zeros((2 * len(row["experts"]), 2 * len(row["experts"])))
    full[np.triu_indices(len(full))] = row["gram"]
    return full + np.triu(full, 1).T


def _packed(gram: np.ndarray) -> list[float]:
    return [float(v) for v in gram[np.triu_indices(len(gram))]]


def _scaled(row: Json, of_base: float, of_change: float) -> np.ndarray:
    """Return a row's Gram matrix for base updates and changes of so many times their length."""
    weights = np.repeat([of_base, of_change], len(row["experts"]))
    return _unpacked(row) * np.outer(weights, weights)


def _lengths(gram: np.ndarray, uz: np.ndarray, row: Json) -> np.ndarray:
    """Return the squared length of every update of the arm, from its part across the state and its part ``uz`` along it."""
    n, d, zz = len(uz), study().dims.d, _state_norm(row)
    across = np.diagonal(gram)[:n] + 2 * np.diagonal(gram[:n, n:]) + np.diagonal(gram)[n:]
    along: np.ndarray = uz**2 * (2 / d - zz / d**2)
    return across + along


@defect(
    "R009 R023", "The drift was smoothed: changes in the Gram matrix are a hundredth of what they were.", Code.DIVERGED
)
def drift_smoothed() -> Report:
    return forged(
        mapped(study(), "update", only("arm:rewritten", lambda row: {"gram": _packed(_scaled(row, 1.0, 0.01))}))
    )


@defect(
    "R010 R022 R023",
    "The drift was smoothed in every norm, but the field was recorded from the vectors.",
    Code.DIVERGED,
)
def drift_smoothed_in_all_norms() -> Report:
    def smooth(row: Json) -> Json:
        gram, uz0, uz1 = _scaled(row, 1.0, 0.01), np.array(row["uz0"]), np.array(row["uz1"])
        uz = uz0 + 0.01 * (uz1 - uz0)
        return {"gram": _packed(gram), "uz1": list(uz), "uu1": list(_lengths(gram, uz, row))}

    return forged(mapped(study(), "update", only("arm:close", smooth)))


@cache
def _state_norms() -> dict[tuple[str, int], float]:
    return {(r["window_id"], r["position"]): float((np.array(r["z"], dtype=np.float64) ** 2).sum())
            for r in study().rows("state") if r["run_id"] == "base"}  # fmt: skip


def _state_norm(row: Json) -> float:
    return _state_norms()[row["window_id"], row["position"]]


@defect(
    "R016 R023",
    "One arm's rows inflate the base's own updates, so that its drift looks small beside them.",
    Code.DIVERGED,
)
def base_inflated() -> Report:
    factor, d = 4.0, study().dims.d

    def inflate(row: Json) -> Json:
        n, zz, gram = len(row["experts"]), _state_norm(row), _scaled(row, factor, 1.0)
        uz0 = np.array(row["uz0"]) * factor
        uz1 = uz0 + np.array(row["uz1"]) - np.array(row["uz0"])
        rho0, rho1 = np.array(row["rho0"]), np.array(row["rho1"])
        both = np.r_[rho1 - rho0, rho1]
        tangent, tangent0 = both @ gram @ both, rho0 @ gram[:n, :n] @ rho0
        a0 = rho0 @ uz0
        a = rho1 @ uz1 - a0

        def whole(part: Any, along: Any) -> float:
            return float(np.sqrt(part + 2 * along**2 / d * (1 - zz / d) + along**2 * zz / d**2))

        radial = uz0**2 * (2 / d - zz / d**2)
        return {"gram": _packed(gram), "uz0": list(uz0), "uz1": list(uz1), "uu0": list(np.diagonal(gram)[:n] + radial),
                "uu1": list(_lengths(gram, uz1, row)), "dV_norm": float(np.sqrt(tangent)),
                "y0_norm": whole(tangent0, a0), "dy_norm": whole(tangent, a)}  # fmt: skip

    return forged(mapped(study(), "update", only("arm:rewritten", inflate)))


@defect("R017 R027", "An arm claims the base's weights, and its layer has other tensors.", Code.DIVERGED)
def borrowed_weights() -> Report:
    base = study().rows("run")[first("run", "base")]
    s = altered("run", "arm:rewritten", "weights_digest", lambda _: base["weights_digest"])
    return forged(s.with_value("run", first("run", "arm:rewritten"), "param_distance", 0.0))


@defect("R009", "An expert's update is longer than the Gram matrix says.", Code.DIVERGED)
def update_norm() -> Report:
    return updated("uu1", lambda uu: [uu[0] * 1.001, *uu[1:]])


@defect("R009", "Inner products exceed what the norms allow.", Code.DIVERGED)
def gram_not_of_vectors() -> Report:
    return updated("gram", lambda gram: [gram[0], 100 * gram[0], *gram[2:]])


@defect("R009", "A Gram matrix is too large to be compared.", Code.DIVERGED)
def gram_overflows() -> Report:
    return updated("gram", lambda gram: [1.7e308] * len(gram))


@defect("R010", "The change of the field is not that of its vectors.", Code.DIVERGED)
def field_change() -> Report:
    return updated("dV_norm", lambda norm: 0.0)


@defect("R010", "A change of the block is negative, to cancel the others in a sum.", Code.DIVERGED)
def negative_change() -> Report:
    return updated("dy_norm", lambda norm: -norm)


@defect("R010", "The base's block output is larger than it was, so that changes look small.", Code.DIVERGED)
def large_base() -> Report:
    return updated("y0_norm", lambda norm: 100 * norm)


@defect("R011 R023", "An arm with the base's tensors shows drift.", Code.DIVERGED)
def drift_of_equal_tensors() -> Report:
    def moved(row: Json) -> Json:
        n, c = len(row["experts"]), 0.25  # every expert's update grows by a quarter
        inner = _unpacked(row)[:n, :n]
        gram = np.block([[inner, c * inner], [c * inner, c * c * inner]])
        field = float(np.sqrt(np.array(row["rho0"]) @ inner @ np.array(row["rho0"])))
        return {"gram": _packed(gram), "uz1": [(1 + c) * v for v in row["uz0"]],
                "uu1": [(1 + c) ** 2 * v for v in row["uu0"]], "dV_norm": c * field, "dy_norm": c * row["y0_norm"]}  # fmt: skip

    return forged(mapped(study(), "update", only("arm:frozen", moved)))


@defect("R011", "The base's rows were copied as those of an arm whose experts all changed.", Code.DIVERGED)
def no_drift_of_changed_tensors() -> Report:
    s = altered("run", "arm:frozen", "weights_digest", lambda _: OTHER)
    s = s.with_value("run", first("run", "arm:frozen"), "param_distance", 0.2)
    return forged(
        redigested(
            s, "arm:frozen", lambda d: {k: digest_bytes(v.encode()) if "experts" in k else v for k, v in d.items()}
        )
    )
