"""What honest rows obey, whatever the models: the invariants of `docs/measures.md`, section 1, on every row.

Functions take sorted rows and return violations; nothing is sampled. Tolerances come from the contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas_schema.documents.contract import Tolerances
from atlas_schema.errors import DocumentError, RowsError
from atlas_schema.evidence.columns import Array, Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.drift import Group, matching_rows, require_same_keys, row_name, same_state, update_groups
from atlas_schema.measures.geometry import (
    F64,
    Ints,
    ranking,
    tangent_squared,
)
from atlas_schema.measures.routers import WEIGHT_RULES, RouterRule
from atlas_schema.measures.runs import same_tensors
from atlas_schema.measures.tensors import tensor_digest
from atlas_schema.verify.reading import read_json

UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Unit roundoff of the dtype a model ran in."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks a rule."""

    rule: str
    what: str
    where: str
    stated: str
    recomputed: str
    tolerance: str = "exact"


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """The constants of one routed layer of one run."""

    eps: float
    gain: F64
    router: F64
    weight_rule: str
    rule: RouterRule
    unit: float
    digests: dict[str, Any]

    @property
    def identity(self) -> tuple[object, ...]:
        """What is equal in every run of the same weights."""
        return self.digests, self.eps, self.weight_rule

    @classmethod
    def of(cls, layer: Rows, dims: Dims) -> LayerFacts:
        """Read them from the layer's one row."""
        return cls(
            float(layer["eps"][0]), layer["gain"][0].astype(np.float64),
            layer["router_weight"][0].astype(np.float64).reshape(dims.E, dims.d), str(layer["weight_rule"][0]), RouterRule.of(layer),
            UNIT.get(str(layer["executed_dtype"][0]), 0.0), text_object(layer, "tensor_digests", 0),
        )  # fmt: skip


def text_object(rows: Rows, column: str, at: int) -> dict[str, Any]:
    """Return the JSON object kept in a text column, read as strictly as a document. Raises `RowsError`."""
    try:
        value = read_json(str(rows[column][at]).encode())
    except DocumentError as error:
        raise RowsError(f"Column {column} does not hold strict JSON.", where=row_name(rows, at), expected=error.expected,
                        found=f"{error.what} {error.found}".strip()) from error  # fmt: skip
    if not isinstance(value, dict):
        raise RowsError(f"Column {column} does not hold a JSON object.", where=row_name(rows, at), expected="an object")
    return value


def first_wrong(
    rule: str, what: str, rows: Rows, stated: Array, recomputed: Array, tolerance: Array | float
) -> list[Violation]:
    """Compare ``[T, ...]`` arrays within a tolerance; report the first row that differs and how many do."""
    with np.errstate(invalid="ignore"):
        # Written so that NaN and infinite tolerances, which huge stored values can produce, count as wrong.
        off = ~(np.abs(stated - recomputed) <= tolerance) | ~np.isfinite(tolerance)
    off = off.reshape(rows.n, -1)
    wrong = np.flatnonzero(off.any(axis=1))
    if not len(wrong):
        return []
    at, item = int(wrong[0]), int(np.flatnonzero(off[int(wrong[0])])[0])
    allowed = np.broadcast_to(np.asarray(tolerance), stated.shape).reshape(rows.n, -1)[at, item]
    more = f" ({len(wrong)} of {rows.n} rows)" if len(wrong) > 1 else ""
    return [Violation(rule, what + more, row_name(rows, at), f"{stated.reshape(rows.n, -1)[at, item]:.9g}",
                      f"{recomputed.reshape(rows.n, -1)[at, item]:.9g}", f"{float(allowed):.3g} from the contract")]  # fmt: skip


def first_false(
    rule: str, what: str, rows: Rows, holds: Array, stated: Array, recomputed: Array | None = None
) -> list[Violation]:
    """Report the first row ``[T]`` for which a condition does not hold, showing its values."""
    wrong = np.flatnonzero(~holds)
    if not len(wrong):
        return []
    at = int(wrong[0])
    more = f" ({len(wrong)} of {rows.n} rows)" if len(wrong) > 1 else ""
    return [Violation(rule, what + more, row_name(rows, at), str(np.asarray(stated[at]).tolist()),
                      "" if recomputed is None else str(np.asarray(recomputed[at]).tolist()))]  # fmt: skip


def check_layer(layer: Rows, dims: Dims, tolerances: Tolerances) -> list[Violation]:
    """Check the constants of layers (R003)."""
    found: list[Violation] = []
    sizes = np.stack([layer["d"], layer["n_experts"], layer["top_k"]], axis=1).astype(np.int64)
    expected = np.broadcast_to([dims.d, dims.E, dims.k], sizes.shape)
    found += first_false(
        "ATL-R003", "sizes differ from the columns", layer, (sizes == expected).all(axis=1), sizes, expected
    )
    possible = (sizes[:, 2] >= 1) & (sizes[:, 2] <= sizes[:, 1])
    found += first_false("ATL-R003", "more experts are active than there are", layer, possible, sizes)
    sane = (layer["eps"] > 0) & (layer["eps"] < 1)
    found += first_false("ATL-R003", "eps is not between 0 and 1", layer, sane, layer["eps"])
    biased = layer.valid("router_bias")
    found += first_false("ATL-R003", "a router bias is unknown to this version", layer, ~biased, biased)
    error = layer["reconstruction_error"]
    # The self-check compares with the block's output in the dtype that ran, which rounds by its own unit.
    units = np.array([UNIT.get(name, 0.0) for name in layer["executed_dtype"]])
    fine = (error >= 0) & (error <= np.maximum(tolerances.reconstruction, tolerances.accumulation * units))
    found += first_false("ATL-R003", "the block was not reconstructed from its experts", layer, fine, error)
    identity = np.broadcast_to(np.arange(dims.E), (layer.n, dims.E))
    same = (layer["identity_permutation"] == identity).all(axis=1)
    found += first_false("ATL-R003", "experts changed places", layer, same, layer["identity_permutation"])
    for name, known in (("weight_rule", WEIGHT_RULES), ("score_space", ("logit",)), ("norm_kind", ("rms",)),
                        ("executed_dtype", tuple(UNIT)), ("residual_path", ("experts",))):  # fmt: skip
        fine = np.array([value in known for value in layer[name]], dtype=np.bool_)
        found += first_false("ATL-R003", f"{name} is unknown to this version", layer, fine, layer[name])
    for at in range(layer.n):
        digests = text_object(layer, "tensor_digests", at)
        router = layer["router_weight"][at].reshape(dims.E, dims.d)
        for name, tensor in (("norm.gain", layer["gain"][at]), ("router.weight", router)):
            if digests.get(name) != tensor_digest(tensor):
                found.append(Violation("ATL-R003", f"the digest of {name} is not that of the stored values",
                                       row_name(layer, at), str(digests.get(name)), tensor_digest(tensor)))  # fmt: skip
        names = {"norm.gain", "router.weight", "upstream", *(f"experts.{e}" for e in range(dims.E))}
        if set(digests) != names:
            found.append(Violation("ATL-R003", "a tensor has no digest, or an unknown one has", row_name(layer, at),
                                   ", ".join(sorted(set(digests) ^ names)), ""))  # fmt: skip
    return found


def _logit_bound(facts: LayerFacts, z: F64, scores: F64, unit: float, tolerances: Tolerances) -> F64:
    """Bound ``|executed - exact|`` of logits ``[T, E]``: rounding of inputs and output, and accumulation in float32."""
    magnitude = np.abs(z * facts.gain) @ np.abs(facts.router).T
    accumulated = z.shape[1] * tolerances.float32_unit * magnitude
    out: F64 = tolerances.accumulation * (unit * (np.abs(scores) + magnitude) + accumulated)
    return out


def check_state(state: Rows, facts: LayerFacts, tolerances: Tolerances, dims: Dims) -> list[Violation]:
    """Check normalisation (R004), dispatch scores (R005) of states and the margin recomputed from them."""
    z, r = state["z"].astype(np.float64), state["r"].astype(np.float64)
    squared = (z**2).sum(axis=1)
    found = first_false("ATL-R004", "r is not positive", state, r > 0, r)
    with np.errstate(divide="ignore"):
        expected = dims.d * (1.0 - facts.eps / r**2)
    allowed = tolerances.accumulation * dims.d * tolerances.float32_unit * 4.0
    found += first_wrong("ATL-R004", "||z||² is not d (1 - eps/r²)", state, squared, expected, allowed)
    logits = (z * facts.gain) @ facts.router.T
    dispatch = state["dispatch"].astype(np.float64)
    bound = _logit_bound(facts, z, dispatch, facts.unit, tolerances)
    found += first_wrong("ATL-R005", "dispatch scores do not follow from the state", state, dispatch, logits, bound)
    coordinates = np.where(state.valid("g")[:, None], state["g"].astype(np.float64), z * facts.gain)
    rounding = tolerances.accumulation * facts.unit * np.abs(z * facts.gain)
    return found + first_wrong(
        "ATL-R005", "gate coordinates are not state times gain", state, coordinates, z * facts.gain, rounding
    )


def check_routing_against_state(
    state: Rows, routing: Rows, facts: LayerFacts, tolerances: Tolerances
) -> list[Violation]:
    """Check executed sets, competitors and margins (R006) and combine weights (R007) at the sampled positions."""
    at = matching_rows(routing, state)
    if (at < 0).any():
        missing = int(np.flatnonzero(at < 0)[0])
        return [Violation("ATL-R006", "a sampled position has no routing row", row_name(state, missing), "", "")]
    dispatch = state["dispatch"].astype(np.float64)
    members = routing["experts"][at].astype(np.int64)
    k = members.shape[1]
    saturated = (routing["flags"][at] & 2) > 0
    inside = np.take_along_axis(dispatch, members, axis=1)
    outside = dispatch.copy()
    np.put_along_axis(outside, members, -np.inf, axis=1)
    # Equal scores may be broken either way by the kernel that ran: what holds is that no non-member scores higher. Where a
    # softmax merged two logits (flag `saturated`), the merged probabilities must be equal to within their rounding.
    gap = np.exp(np.minimum(inside.min(axis=1) - outside.max(axis=1), 0.0))
    merged = saturated & (1.0 - gap <= tolerances.accumulation * max(facts.unit, tolerances.float32_unit))
    fits = (inside.min(axis=1) >= outside.max(axis=1)) | merged
    found = first_false(
        "ATL-R006", "a non-member scores higher than a member", state, fits, members, ranking(dispatch)[:, :k]
    )
    leaves = routing["competitor_out"][at].astype(np.int64)
    found += first_false("ATL-R006", "competitor_out is not the lowest member", state,
                         np.take_along_axis(dispatch, leaves[:, None], 1)[:, 0] == inside.min(axis=1), leaves)  # fmt: skip
    rival = routing.valid("competitor_in")[at]
    enters = routing["competitor_in"][at].astype(np.int64)
    found += first_false("ATL-R006", "competitor_in is not the highest non-member", state,
                         (np.take_along_axis(outside, enters[:, None], 1)[:, 0] == outside.max(axis=1)) | ~rival, enters)  # fmt: skip
    margin = np.where(rival, np.maximum(inside.min(axis=1) - np.where(rival, outside.max(axis=1), 0.0), 0.0), 0.0)
    scale = tolerances.accumulation * tolerances.float32_unit * np.abs(dispatch).max(axis=1)
    stated = routing["margin"][at].astype(np.float64)
    found += first_wrong("ATL-R006", "the margin is not the difference of the pair", state, stated, margin, scale)
    found += _check_logit_margin(state, leaves, enters, rival, facts, tolerances)
    if facts.weight_rule in WEIGHT_RULES:
        weights = facts.rule.weights(dispatch, members)
        allowed = tolerances.accumulation * (facts.unit + 2 * tolerances.float32_unit)
        found += first_wrong("ATL-R007", "combine weights do not follow from the scores", state,
                             state["weights"].astype(np.float64), weights, allowed)  # fmt: skip
    return found


def _check_logit_margin(
    state: Rows, leaves: Ints, enters: Ints, rival: npt.NDArray[np.bool_], facts: LayerFacts, tolerances: Tolerances
) -> list[Violation]:
    """Check the margin of the same pair on recomputed logits; signed, and absent where there is no competitor (R006)."""
    z = state["z"].astype(np.float64)
    logits = (z * facts.gain) @ facts.router.T
    bound = _logit_bound(facts, z, logits, facts.unit, tolerances)
    row = np.arange(state.n)
    expected = np.where(rival, logits[row, leaves] - logits[row, enters], 0.0)
    allowed = bound[row, leaves] + bound[row, enters]
    found = first_false(
        "ATL-R006",
        "margin_logit and the competitor are not both there",
        state,
        state.valid("margin_logit") == rival,
        rival,
    )
    stated = state["margin_logit"].astype(np.float64)
    return found + first_wrong(
        "ATL-R006", "margin_logit does not follow from the state", state, stated, expected, allowed
    )


def check_routing(routing: Rows, dims: Dims) -> list[Violation]:
    """Check that executed experts are distinct and in range and margins not negative, for every token (R006)."""
    experts = np.sort(routing["experts"].astype(np.int64), axis=1)
    distinct = (np.diff(experts, axis=1) > 0).all(axis=1) & (experts[:, -1] < dims.E)
    found = first_false("ATL-R006", "experts are not distinct ids in range", routing, distinct, routing["experts"])
    member = (experts == routing["competitor_out"][:, None]).any(axis=1)
    found += first_false("ATL-R006", "competitor_out is not a member", routing, member, routing["competitor_out"])
    rival = routing.valid("competitor_in")
    outside = ~(experts == routing["competitor_in"][:, None]).any(axis=1) & (routing["competitor_in"] < dims.E)
    found += first_false(
        "ATL-R006", "competitor_in is a member or out of range", routing, outside | ~rival, routing["competitor_in"]
    )
    found += first_false("ATL-R006", "a margin is negative", routing, routing["margin"] >= 0, routing["margin"])
    stated = routing.valid("margin")
    found += first_false(
        "ATL-R006", "a margin is missing, or there without a competitor", routing, stated == rival, stated
    )
    found += _check_flags(routing)
    exists = rival == (dims.k < dims.E)
    found += first_false("ATL-R006", "competitor_in is missing", routing, exists, rival)
    return found


def _check_flags(routing: Rows) -> list[Violation]:
    """Check that flags are known bits, and that a margin is zero exactly where a tie or a saturation is flagged (R006)."""
    flags = routing["flags"]
    found = first_false("ATL-R006", "a flag is unknown", routing, flags < 8, flags)
    zero = (routing["margin"] == 0) & routing.valid("margin")
    flagged = (flags & 3) > 0
    return found + first_false("ATL-R006", "a zero margin and its flag disagree", routing, zero == flagged, flags)


def check_reserved(rows: Rows, *names: str) -> list[Violation]:
    """Check that columns which nothing recomputes in this version hold nothing (R015)."""
    found: list[Violation] = []
    for name in names:
        empty = ~rows.valid(name)
        found += first_false(
            "ATL-R015", f"{name} is reserved in this version and must be null", rows, empty, rows[name]
        )
    return found


@dataclass(frozen=True, slots=True)
class _SameState:
    """Update rows with what both models' routers say at the base's states."""

    update: Rows
    z: F64
    base: LayerFacts
    arm: LayerFacts
    k: int

    def sides(self) -> Iterator[tuple[str, F64, LayerFacts]]:
        yield "0", self.update["dispatch0"].astype(np.float64), self.base
        yield "1", self.update["dispatch1"].astype(np.float64), self.arm


def check_update(
    update: Rows, base_state: Rows, base: LayerFacts, arm: LayerFacts, tolerances: Tolerances, k: int
) -> list[Violation]:
    """Check one arm's same-state evaluation against the base's states (R008), its Gram matrices (R009, R010) and R011."""
    require_same_keys(base_state, update)
    s = _SameState(update, base_state["z"].astype(np.float64), base, arm, k)
    found = _check_scores(s, tolerances) + _check_sets(s)
    if found:
        return found
    for group in update_groups(update):
        found += _check_weights(s, group, tolerances) + _check_gram(s, group, tolerances)
    return found + _check_equal_tensors(s)


def _check_scores(s: _SameState, tolerances: Tolerances) -> list[Violation]:
    found: list[Violation] = []
    for side, dispatch, facts in s.sides():
        bound = _logit_bound(facts, s.z, dispatch, tolerances.float32_unit, tolerances)
        exact = (s.z * facts.gain) @ facts.router.T
        found += first_wrong(
            "ATL-R008", f"dispatch{side} does not follow from the base's state", s.update, dispatch, exact, bound
        )
    return found


def _check_sets(s: _SameState) -> list[Violation]:
    """Check pair, member bits and the list of experts, which follow exactly from the stored scores."""
    u, k = s.update, s.k
    orders = [ranking(dispatch) for _, dispatch, _ in s.sides()]
    experts_count = orders[0].shape[1]
    found = first_false("ATL-R008", "pair_out is not the base's k-th expert", u, u["pair_out"] == orders[0][:, k - 1],
                        u["pair_out"], orders[0][:, k - 1])  # fmt: skip
    has_pair = u.valid("pair_in")
    found += first_false("ATL-R008", "pair_in is missing", u, has_pair == (k < experts_count), has_pair)
    members = np.zeros((3, u.n, experts_count), dtype=np.bool_)
    for side in (0, 1):
        np.put_along_axis(members[side], orders[side][:, :k], True, axis=1)
    members[2] = members[0] | members[1]
    if k < experts_count:
        found += first_false("ATL-R008", "pair_in is not the base's next expert", u, u["pair_in"] == orders[0][:, k],
                             u["pair_in"], orders[0][:, k])  # fmt: skip
        np.put_along_axis(members[2], orders[0][:, k : k + 1], True, axis=1)
    lengths = np.diff(u.offsets("experts"))
    fits = lengths == members[2].sum(axis=1)
    found += first_false(
        "ATL-R008", "experts are not those of both sets and the pair", u, fits, lengths, members[2].sum(axis=1)
    )
    if found:
        return found
    row, expert = np.nonzero(members[2])
    if (u["experts"] != expert).any():
        wrong = int(row[int(np.flatnonzero(u["experts"] != expert)[0])])
        return [Violation("ATL-R008", "experts are not those of both sets and the pair", row_name(u, wrong), "", "")]
    slot = np.arange(len(row)) - u.offsets("experts")[:-1][row]
    for side, name in ((0, "in0"), (1, "in1")):
        bits = np.zeros(u.n, dtype=np.int64)
        np.add.at(bits, row, members[side][row, expert].astype(np.int64) << slot)
        found += first_false(
            "ATL-R008", f"{name} does not mark the members of R{side}", u, u[name] == bits, u[name], bits
        )
    return found


def _subset(rows: Rows, group: Group) -> Rows:
    return rows.take(group.rows)


def _check_weights(s: _SameState, group: Group, tolerances: Tolerances) -> list[Violation]:
    """Check rho of both models and the forced weight of the pair's member (R008)."""
    rows = _subset(s.update, group)
    found: list[Violation] = []
    allowed = tolerances.accumulation * 4 * tolerances.float32_unit
    orders = [ranking(dispatch[group.rows]) for _, dispatch, _ in s.sides()]
    for (side, dispatch, facts), order, stated in zip(s.sides(), orders, (group.rho0, group.rho1), strict=True):
        full = np.zeros_like(dispatch[group.rows])
        weights = facts.rule.weights(dispatch[group.rows], order[:, : s.k])
        np.put_along_axis(full, order[:, : s.k], weights, axis=1)
        expected = np.take_along_axis(full, group.experts, axis=1)
        found += first_wrong("ATL-R008", f"rho{side} does not follow from the scores", rows, stated, expected, allowed)
        forced = facts.rule.weights(dispatch[group.rows], orders[0][:, : s.k])[:, s.k - 1]
        name = "rho0_b" if side == "0" else "rho1_b_forced"
        found += first_wrong("ATL-R008", f"{name} is not the weight of the pair's member", rows,
                             rows[name].astype(np.float64), forced, allowed)  # fmt: skip
    return found


def _check_gram(s: _SameState, group: Group, tolerances: Tolerances) -> list[Violation]:
    """Check the Gram matrix against norms kept beside it (R009) and the recorded field norms against it (R010)."""
    rows, n = _subset(s.update, group), group.experts.shape[1]
    d, relative = s.z.shape[1], tolerances.float64_relative
    zz = (s.z[group.rows] ** 2).sum(axis=1)
    diagonal = np.diagonal(group.gram, axis1=1, axis2=2)
    norm0, change = diagonal[:, :n], diagonal[:, n:]
    cross = np.diagonal(group.gram[:, :n, n:], axis1=1, axis2=2)
    norm1 = norm0 + 2.0 * cross + change
    found: list[Violation] = []
    for side, uu, uz, vv in (("0", group.uu0, group.uz0, norm0), ("1", group.uu1, group.uz1, norm1)):
        expected = tangent_squared(uu, uz, zz[:, None], d)
        scale = relative * (uu + norm0 + change) + 1e-300
        found += first_wrong(
            "ATL-R009",
            f"||v{side}||² in the Gram matrix is not that of uu{side} and uz{side}",
            rows,
            vv,
            expected,
            scale,
        )
        cauchy = uz**2 <= uu * zz[:, None] * (1.0 + relative)
        found += first_false("ATL-R009", f"uz{side} exceeds ||u|| ||z||", rows, cauchy.all(axis=1), uz)
    root = np.sqrt(np.maximum(diagonal, 0.0))
    scaled = group.gram / np.maximum(root[:, :, None] * root[:, None, :], 1e-300)
    slack = 2 * n * max(relative, 1e-12)
    # Cauchy-Schwarz first: it keeps what follows finite, whatever is stored.
    largest = np.abs(scaled).max(axis=(1, 2))
    fine = (largest <= 1.0 + slack) & (diagonal >= 0).all(axis=1)
    found += first_false("ATL-R009", "inner products exceed the norms in the Gram matrix", rows, fine, largest)
    if found:
        return found
    lowest = np.linalg.eigvalsh(scaled)[:, 0]
    found += first_false("ATL-R009", "the Gram matrix is not positive semidefinite", rows, lowest >= -slack, lowest)
    return found + _check_fields(rows, group, zz, d, relative)


def _check_fields(rows: Rows, group: Group, zz: F64, d: int, relative: float) -> list[Violation]:
    """Recompute ``||ΔV||``, ``||y0||`` and ``||Δy||`` from Gram matrix and inner products (R010).

    With ``u = v + z <u,z>/d`` and ``<v,z> = <u,z> (1 - ||z||²/d)``, a field's norm needs only its tangent part and the
    scalar ``a = sum rho <u,z>``. The block adds nothing else (`residual_path` is ``experts``).
    """
    both = np.concatenate([group.rho1 - group.rho0, group.rho1], axis=1)
    tangent = np.einsum("ti,tij,tj->t", both, group.gram, both)
    n = group.rho0.shape[1]
    tangent0 = np.einsum("ti,tij,tj->t", group.rho0, group.gram[:, :n, :n], group.rho0)
    radial0 = (group.rho0 * group.uz0).sum(axis=1)
    radial = (group.rho1 * group.uz1).sum(axis=1) - radial0

    def whole(part: F64, a: F64) -> F64:
        return part + 2.0 * a**2 / d * (1.0 - zz / d) + a**2 * zz / d**2

    sizes = (group.rho0 * np.sqrt(group.uu0)).sum(axis=1) + (group.rho1 * np.sqrt(group.uu1)).sum(axis=1)
    scale = relative * sizes**2 + 1e-300
    found: list[Violation] = []
    for name, expected in (
        ("dV_norm", tangent),
        ("y0_norm", whole(tangent0, radial0)),
        ("dy_norm", whole(tangent, radial)),
    ):
        found += first_false("ATL-R010", f"{name} is negative", rows, rows[name] >= 0, rows[name])
        found += first_wrong(
            "ATL-R010", f"{name}² does not agree with the Gram matrix", rows, rows[name] ** 2, expected, scale
        )
    return found


def _check_equal_tensors(s: _SameState) -> list[Violation]:
    """Check that drift is exactly zero where tensors are bitwise equal, and not zero where changed ones are used (R011)."""
    found: list[Violation] = []
    values = same_state(s.update, s.k)
    for name, tokens in values.items():
        if same_tensors(DEFINITIONS[name], s.base.digests, s.arm.digests):
            found += first_false("ATL-R011", f"{name} is not zero although every tensor that feeds it is equal", s.update,
                                 tokens.numerator == 0, tokens.numerator)  # fmt: skip
    changed = np.array(
        [s.base.digests.get(f"experts.{e}") != s.arm.digests.get(f"experts.{e}") for e in range(s.base.router.shape[0])]
    )
    if s.base.digests.get("norm.gain") == s.arm.digests.get("norm.gain") and changed.all():
        content = values[ids.CONTENT]
        if s.update.n and not (content.numerator > 0).any():
            found.append(Violation("ATL-R011", "no expert update changed although every expert's weights did",
                                   row_name(s.update, 0), "0", "more than 0"))  # fmt: skip
    return found


def check_same_base(update: Rows, reference: Rows, tolerances: Tolerances, d: int) -> list[Violation]:
    """Check that the base's own updates at its own states are the same in every run's rows (R016).

    ``reference`` holds another run's rows of the same layer. Kernels see other batch shapes per run, so values agree within
    the float32 bound of an inner product, not bitwise.
    """
    require_same_keys(reference, update)
    keys, others = (
        np.repeat(np.arange(r.n), np.diff(r.offsets("experts"))) * 2**16 + r["experts"] for r in (update, reference)
    )
    _, mine, theirs = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    relative = tolerances.accumulation * d * tolerances.float32_unit
    size = reference["uu0"][theirs]
    found: list[Violation] = []
    for name, scale in (("uu0", size), ("uz0", np.sqrt(np.maximum(size, 0.0) * d))):
        stated, other = update[name][mine], reference[name][theirs]
        wrong = np.flatnonzero(~(np.abs(stated - other) <= relative * scale))
        if len(wrong):
            row = int(keys[mine[wrong[0]]]) >> 16
            found.append(Violation("ATL-R016", f"the base's {name} differs between runs ({len(wrong)} of {len(mine)} values)",
                                   row_name(update, row), f"{stated[wrong[0]]:.9g}", f"{other[wrong[0]]:.9g}",
                                   f"{relative * scale[wrong[0]]:.3g} from the contract"))  # fmt: skip
    return found


def check_digests(
    digests: Mapping[str, Sequence[Mapping[str, str]]], weights: Mapping[str, tuple[str, float]]
) -> list[Violation]:
    """Check tensor digests against each other, between layers and models (R017).

    ``digests`` holds per run those of each protected layer, ascending; ``weights`` per run the weights' digest and the
    parameter distance to the base.
    """
    found: list[Violation] = []
    base = digests["base"]
    for run, layers in digests.items():
        where = f"table layer, run_id={run}"
        if (weights[run][1] == 0 or weights[run][0] == weights["base"][0]) and list(layers) != list(base):
            found.append(
                Violation("ATL-R017", "tensors differ from the base's although the weights do not", where, "", "")
            )
        for other, theirs in digests.items():
            if other < run and weights[other][0] == weights[run][0] and list(theirs) != list(layers):
                what = f"tensors differ from those of {other} although the weights' digest is the same"
                found.append(Violation("ATL-R017", what, where, weights[run][0], weights[other][0]))
        changed = False
        for at, (mine, of_base) in enumerate(zip(layers, base, strict=True)):
            if changed and mine.get("upstream") == of_base.get("upstream"):
                what = f"upstream of protected layer number {at} equals the base's although an earlier layer differs"
                found.append(Violation("ATL-R017", what, where, str(mine.get("upstream")), "another digest"))
            changed = changed or dict(mine) != dict(of_base)
    return found


def check_moved(base_state: Rows, state: Rows, base: LayerFacts, facts: LayerFacts) -> list[Violation]:
    """Check that some state of a run moved if the tensors before the layer differ from the base's (R011)."""
    changed = base.digests.get("upstream") != facts.digests.get("upstream")
    if not changed or state.n == 0 or (state["z"] != base_state["z"]).any():
        return []
    what = "no state moved although the tensors before the layer did"
    return [Violation("ATL-R011", what, row_name(state, 0), "every z equal to the base's", "some z that differs")]


def check_output(output: Rows) -> list[Violation]:
    """Check losses and entropies (R012)."""
    found = first_false("ATL-R012", "a loss is negative", output, output["nll"] >= 0, output["nll"])
    return found + first_false("ATL-R012", "an entropy is negative", output, output["entropy"] >= 0, output["entropy"])


def check_task(task: Rows) -> list[Violation]:
    """Check that scores of greedy exact match are 0 or 1 (R012)."""
    return first_false(
        "ATL-R012", "a score is neither 0 nor 1", task, np.isin(task["score"], (0.0, 1.0)), task["score"]
    )
