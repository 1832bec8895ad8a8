"""What one routed layer computes, in float32: norm, logits, scores, group limits, sets, combine weights, updates.

Shapes: ``T`` tokens, ``E`` experts, ``d`` of the state, ``k`` members of a set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.settings import EPS, Settings

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weights = dict[str, F32]


def bfloat16(values: F32) -> F32:
    """Round float32 values to the nearest bfloat16, ties to even, and widen again."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def normalise(x: F32) -> tuple[F32, F32]:
    """Return ``z = x / r`` and ``r = sqrt(||x||^2 / d + eps)`` in float32, ``[..., d]`` and ``[...]``."""
    r = np.sqrt(np.mean(x * x, axis=-1, dtype=np.float32) + np.float32(EPS))
    return (x / r[..., None]).astype(np.float32), r.astype(np.float32)


def order_of(scores: F32) -> Ints:
    """Return expert ids by descending score, equal scores by ascending id, ``[T, E]``."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable").astype(np.int64)


def softmax32(logits: F32) -> F32:
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
    out: F32 = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def sigmoid32(logits: F32) -> F32:
    out: F32 = (1.0 / (1.0 + np.exp(-logits.astype(np.float32)))).astype(np.float32)
    return out


def gates(s: Settings, logits: F32) -> F32:
    """Return the gate's values before selection, float32 ``[T, E]``."""
    return softmax32(logits) if s.weight_rule.startswith("softmax") else sigmoid32(logits)


def selection_scores(s: Settings, weights: Weights, i: int, logits: F32) -> F32:
    """Return what top-k sees, before a group limit: the logits, or gates plus the selection bias."""
    if s.score_space == "logit":
        return logits
    bias = weights.get(f"layers.{i}.selection_bias", np.float32(0.0))
    out: F32 = (gates(s, logits) + bias).astype(np.float32)
    return out


def group_strengths(s: Settings, scores: F32) -> F32:
    """Return the strength of every group ``[T, n_groups]``: its best score, or the float32 sum of its two best."""
    parts = np.sort(scores.reshape(len(scores), s.n_groups, -1), axis=2)
    best: F32 = parts[:, :, -1]
    return best if s.group_mode == "max" else (parts[:, :, -1] + parts[:, :, -2]).astype(np.float32)


def admitted_experts(s: Settings, scores: F32) -> npt.NDArray[np.bool_]:
    """Return which experts a group limit leaves ``[T, E]``; equal strengths keep the lower group."""
    if s.group_mode == "none":
        return np.ones(scores.shape, dtype=np.bool_)
    kept = np.zeros((len(scores), s.n_groups), dtype=np.bool_)
    for t, order in enumerate(order_of(group_strengths(s, scores))):
        kept[t, order[: s.kept_groups]] = True
    return np.repeat(kept, s.experts // s.n_groups, axis=1)


def group_margins(s: Settings, scores: F32) -> F32:
    """Return the weakest kept group's strength less the strongest dropped one's, float32 ``[T]``."""
    ordered = -np.sort(-group_strengths(s, scores), axis=1)
    out: F32 = (ordered[:, s.kept_groups - 1] - ordered[:, s.kept_groups]).astype(np.float32)
    return out


def selection_order(s: Settings, scores: F32) -> Ints:
    """Return expert ids by descending score, those that a group limit drops last."""
    return order_of(np.where(admitted_experts(s, scores), scores, np.float32(-np.inf)))


def combine_weights(s: Settings, logits: F32, members: Ints) -> F32:
    """Return the members' combine weights under the weight rule, float32 ``[T, k]``."""
    chosen = np.take_along_axis(gates(s, logits), members, axis=1)
    if s.weight_rule.endswith("_renormalised"):
        chosen = chosen / chosen.sum(axis=1, keepdims=True)
    out: F32 = (chosen * np.float32(s.weight_scale)).astype(np.float32)
    return out


def factor(s: Settings, weights: Weights, i: int) -> F32:
    """Return the factor on the normalised state that the family's gain convention declares, float32 ``[d]``."""
    gain = weights[f"layers.{i}.norm"]
    if s.gain_convention == "none":
        return np.ones_like(gain)
    return gain if s.gain_convention == "w" else (np.float32(1.0) + gain).astype(np.float32)


def router_logits(weights: Weights, i: int, g: F32) -> F32:
    """Return float32 logits ``[T, E]``, the router's own bias included."""
    out: F32 = (g @ weights[f"layers.{i}.router"].T).astype(np.float32)
    bias = weights.get(f"layers.{i}.router_bias")
    return out if bias is None else (out + bias).astype(np.float32)


def shared_output(weights: Weights, i: int, g: F32) -> F32:
    """Return what the block adds beside its routed experts ``[T, d]``; zeros where there is no shared expert."""
    if f"layers.{i}.shared_in" not in weights:
        return np.zeros_like(g)
    hidden = g @ weights[f"layers.{i}.shared_in"].T
    out: F32 = ((hidden / (1.0 + np.exp(-hidden))) @ weights[f"layers.{i}.shared_out"].T).astype(np.float32)
    return out


def updates(weights: Weights, layer: int, g: F32) -> F32:
    """Return every expert's update at gate coordinates ``g`` ``[T, d]``: gated SiLU MLPs, float32 ``[T, E, d]``."""
    both = np.einsum("td,emd->tem", g, weights[f"layers.{layer}.gate_up"], dtype=np.float32)
    gate, up = np.split(both, 2, axis=2)
    hidden = (gate / (1.0 + np.exp(-gate)) * up).astype(np.float32)
    out: F32 = np.einsum("tem,edm->ted", hidden, weights[f"layers.{layer}.down"], dtype=np.float32)
    return out


def log_softmax(logits: F32) -> F32:
    """Return float32 log-probabilities ``[T, V]``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    out: F32 = (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)
    return out
