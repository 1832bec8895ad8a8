"""The constants of routed layers and the digests of their tensors (R001, R003, R017, R020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlas_schema.documents.contract import Tolerances
from atlas_schema.errors import DocumentError, RowsError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.drift import row_name
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.routers import GROUP_MODES, SCORE_SPACES, WEIGHT_RULES, Mask, RouterRule, effective_gain
from atlas_schema.measures.tensors import tensor_digest
from atlas_schema.verify.physics.violations import Violation, first_false
from atlas_schema.verify.reading import read_json

UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Unit roundoff of the dtype a model ran in."""
KNOWN: Mapping[str, tuple[str, ...]] = {
    "weight_rule": WEIGHT_RULES, "score_space": SCORE_SPACES, "norm_kind": ("rms",), "executed_dtype": tuple(UNIT),
    "residual_path": ("experts", "experts+shared"), "gain_convention": ("w", "1+w", "none"), "group_mode": GROUP_MODES,
    "w1_kind": ("gate_up_stacked",),
}  # fmt: skip
GATE = {"sigmoid+bias": "sigmoid", "softmax+bias": "softmax", "logit": ""}


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """The constants of one routed layer of one run: ``gain`` ``[d]`` as applied, router ``[E, d]`` times gain, its row norms."""

    eps: float
    gain: F64
    router: F64
    bias: F64
    reach: F64
    rule: RouterRule
    unit: float
    shared: bool
    digests: dict[str, Any]
    identity: tuple[object, ...]

    @classmethod
    def of(cls, layer: Rows, dims: Dims) -> LayerFacts:
        """Read them from the layer's one row."""
        gain = effective_gain(layer)
        router = layer["router_weight"][0].astype(np.float64).reshape(dims.E, dims.d) * gain
        bias = layer["router_bias"][0].astype(np.float64)  # zeros where null
        digests, rule = text_object(layer, "tensor_digests", 0), RouterRule.of(layer)
        named = (*KNOWN, "eps", "weight_scale", "n_groups", "kept_groups")
        constants = tuple(str(layer[name][0]) for name in named if name != "executed_dtype")
        return cls(float(layer["eps"][0]), gain, router, bias, np.linalg.norm(router, axis=1), rule,
                   UNIT.get(str(layer["executed_dtype"][0]), 0.0), str(layer["residual_path"][0]) != "experts", digests,
                   (digests, constants))  # fmt: skip

    def logits(self, z: F64) -> F64:
        """Return exact logits ``[T, E]`` of states ``[T, d]``."""
        out: F64 = z @ self.router.T + self.bias
        return out

    def logit_bound(self, size: F64, unit: float, tolerances: Tolerances) -> F64:
        """Bound ``|executed - exact|`` of logits ``[T, E]`` of states of norm ``size`` ``[T]``.

        Inputs and output round by ``unit``, sums in float32; ``sum |W g z|`` is at most ``||W_e gain|| ||z||``.
        """
        relative = 2.0 * unit + len(self.gain) * tolerances.float32_unit
        out: F64 = tolerances.accumulation * (relative * size[:, None] * self.reach + unit * np.abs(self.bias))
        return out

    def score_bound(self, logit_bound: F64, scores: F64, unit: float, tolerances: Tolerances) -> F64:
        """Bound the error of dispatch scores: a gate moves by at most a quarter (sigmoid) or half (softmax) of its logits."""
        if self.rule.score_space == "logit":
            return logit_bound
        worst = (
            logit_bound.max(axis=1, keepdims=True) / 2 if self.rule.score_space == "softmax+bias" else logit_bound / 4
        )
        bias = np.zeros(1) if self.rule.selection_bias is None else np.abs(self.rule.selection_bias)
        out: F64 = worst + tolerances.accumulation * max(unit, tolerances.float32_unit) * (np.abs(scores) + bias + 1.0)
        return out

    def weight_slack(self, scores: F64, members: Any) -> F64:
        """Return by how much ``[T, 1]`` the error of combine weights exceeds that of gates read directly.

        Where scores hold a bias, gates are recovered by subtraction, which cancels.
        """
        rule = self.rule
        if rule.selection_bias is None:
            return np.full((len(scores), 1), rule.scale)
        size = np.take_along_axis(np.abs(scores) + np.abs(rule.selection_bias), members, axis=1)
        if not rule.renormalised:
            return rule.scale * (1.0 + size)
        total = np.take_along_axis(rule.probabilities(scores), members, axis=1).sum(axis=1, keepdims=True)
        out: F64 = rule.scale * (1.0 + 2.0 * size.sum(axis=1, keepdims=True) / np.maximum(total, 1e-300))
        return out


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


def check_layer(layer: Rows, dims: Dims, tolerances: Tolerances) -> list[Violation]:
    """Check the constants of layers (R003) and their router's rule (R020)."""
    sizes = np.stack([layer["d"], layer["n_experts"], layer["top_k"]], axis=1).astype(np.int64)
    expected = np.broadcast_to([dims.d, dims.E, dims.k], sizes.shape)
    error = layer["reconstruction_error"]
    # The self-check compares with the block's output in the dtype that ran, which rounds by its own unit.
    units = np.array([UNIT.get(name, 0.0) for name in layer["executed_dtype"]])
    identity = np.broadcast_to(np.arange(dims.E), (layer.n, dims.E))
    plain = (layer["gain"] == 1).all(axis=1) | (layer["gain_convention"] != "none")
    conditions = (
        ("sizes differ from the columns", (sizes == expected).all(axis=1), sizes),
        ("more experts are active than there are", (sizes[:, 2] >= 1) & (sizes[:, 2] <= sizes[:, 1]), sizes),
        ("eps is not between 0 and 1", (layer["eps"] > 0) & (layer["eps"] < 1), layer["eps"]),
        ("the block was not reconstructed from its experts",
         (error >= 0) & (error <= np.maximum(tolerances.reconstruction, tolerances.accumulation * units)), error),
        ("experts changed places", (layer["identity_permutation"] == identity).all(axis=1), layer["identity_permutation"]),
        ("a rank is larger than the hidden size", layer["w1_rank_min"] <= dims.d, layer["w1_rank_min"]),
        ("a norm without gain has one", plain, layer["gain"][:, 0]),
    )  # fmt: skip
    found = [v for what, holds, stated in conditions for v in first_false("ATL-R003", what, layer, holds, stated)]
    for name, known in KNOWN.items():
        fine = np.array([value in known for value in layer[name]], dtype=np.bool_)
        found += first_false("ATL-R003", f"{name} is unknown to this version", layer, fine, layer[name])
    found += _check_rule(layer, dims)
    for at in range(layer.n):
        found += _check_tensors(layer, dims, at)
    return found


def _check_rule(layer: Rows, dims: Dims) -> list[Violation]:
    """Check that groups divide the experts and leave enough of them, and that biases stand where scores hold them (R020)."""
    mode, groups, kept = layer["group_mode"], layer["n_groups"].astype(np.int64), layer["kept_groups"].astype(np.int64)
    size = dims.E // np.maximum(groups, 1)
    limited = (groups * size == dims.E) & (kept >= 1) & (kept < groups) & (kept * size >= dims.k)
    limited &= (mode != "top2_sum") | (size >= 2)
    stated = np.stack([groups, kept], axis=1)
    gates = [
        rule.startswith(GATE.get(space, "?"))
        for rule, space in zip(layer["weight_rule"], layer["score_space"], strict=True)
    ]
    biased = ~layer.valid("selection_bias") | (layer["score_space"] != "logit")
    scale = layer["weight_scale"]
    conditions = (
        ("groups do not divide the experts, or leave too few", np.where(mode == "none", (groups == 1) & (kept == 1), limited), stated),
        ("weights and scores have different gates", np.array(gates, dtype=np.bool_), layer["weight_rule"]),
        ("logits carry a selection bias", biased, layer["score_space"]),
        ("the scale of the weights is not between 1e-6 and 1e6", (scale >= 1e-6) & (scale <= 1e6), scale),
    )  # fmt: skip
    return [
        v
        for what, holds, value in conditions
        for v in first_false("ATL-R020", what, layer, holds.astype(np.bool_), value)
    ]


def _check_tensors(layer: Rows, dims: Dims, at: int) -> list[Violation]:
    """Check the digests of one row: of what is stored, and exactly those that the layer has (R003)."""
    digests = text_object(layer, "tensor_digests", at)
    stored = {"norm.gain": layer["gain"][at], "router.weight": layer["router_weight"][at].reshape(dims.E, dims.d)}
    stored |= {name: layer[column][at] for name, column in (("router.bias", "router_bias"), ("selection.bias", "selection_bias"))
               if layer.valid(column)[at]}  # fmt: skip
    found = [
        Violation("ATL-R003", f"the digest of {name} is not that of the stored values", row_name(layer, at), str(digests.get(name)),
                  tensor_digest(tensor))
        for name, tensor in stored.items() if digests.get(name) != tensor_digest(tensor)
    ]  # fmt: skip
    names = {*stored, "local", "upstream", *(f"experts.{e}" for e in range(dims.E))}
    names |= {"shared"} if layer["residual_path"][at] == "experts+shared" else set()
    if set(digests) != names:
        found.append(Violation("ATL-R003", "a tensor has no digest, or an unknown one has", row_name(layer, at),
                               ", ".join(sorted(set(digests) ^ names)), ""))  # fmt: skip
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
            changed |= mine.get("local") != of_base.get("local")  # upstream covers the layer's own part
            if changed and mine.get("upstream") == of_base.get("upstream"):
                what = f"upstream of protected layer number {at} equals the base's although an earlier tensor differs"
                found.append(Violation("ATL-R017", what, where, str(mine.get("upstream")), "another digest"))
            changed = changed or dict(mine) != dict(of_base)
    return found


def groups_of(rule: RouterRule, experts: int) -> Any:
    """Return the group of every expert ``[E]``."""
    return np.arange(experts) // (experts // rule.n_groups)


__all__ = ["UNIT", "LayerFacts", "Mask", "check_digests", "check_layer", "groups_of", "text_object"]
