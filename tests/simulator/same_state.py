"""Both models at the base's own states: the columns of `update` and `update_vector`, and the rows of `overlap`."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.arithmetic import (
    F32,
    F64,
    Ints,
    Weights,
    combine_weights,
    factor,
    router_logits,
    selection_order,
    selection_scores,
    shared_output,
    updates,
)
from simulator.settings import Settings
from simulator.tables import Masked, Value


def same_state_columns(s: Settings, base: Weights, arm: Weights, i: int, z0: F32) -> dict[str, Value]:
    """Evaluate both models at the base's states ``[N, d]``: the columns of table `update` but the key, and ``v0``, ``v1``."""
    k = s.top_k
    g0, g1 = ((factor(s, weights, i) * z0).astype(np.float32) for weights in (base, arm))
    logits0, logits1 = router_logits(base, i, g0), router_logits(arm, i, g1)
    dispatch0, dispatch1 = selection_scores(s, base, i, logits0), selection_scores(s, arm, i, logits1)
    order0, order1 = selection_order(s, dispatch0), selection_order(s, dispatch1)
    rho0, rho1 = combine_weights(s, logits0, order0[:, :k]), combine_weights(s, logits1, order1[:, :k])
    forced = combine_weights(s, logits1, order0[:, :k])
    u0, u1 = updates(base, i, g0).astype(np.float64), updates(arm, i, g1).astype(np.float64)
    rest0, rest1 = (shared_output(w, i, g).astype(np.float64) for w, g in ((base, g0), (arm, g1)))
    columns: dict[str, list[Any]] = {}
    for t in range(len(z0)):
        set0, set1 = order0[t, :k], order1[t, :k]
        listed = np.array(sorted({*set0.tolist(), *set1.tolist(), *order0[t, : k + (k < s.admitted)].tolist()}))
        z = z0[t].astype(np.float64)
        full0, full1 = np.zeros(s.experts), np.zeros(s.experts)
        full0[set0], full1[set1] = rho0[t], rho1[t]
        a, b = u0[t, listed], u1[t, listed]
        v0, v1 = a - np.outer(a @ z, z) / s.d, b - np.outer(b @ z, z) / s.d
        vectors = np.concatenate([v0, v1 - v0])
        w0, w1 = full0[listed], full1[listed]
        y0, y1 = w0 @ a + rest0[t], w1 @ b + rest1[t]
        row = {
            "experts": listed, "in0": _bits(listed, set0), "in1": _bits(listed, set1), "rho0": w0, "rho1": w1,
            "uz0": a @ z, "uu0": (a * a).sum(axis=1), "uz1": b @ z, "uu1": (b * b).sum(axis=1),
            "gram": (vectors @ vectors.T)[np.triu_indices(len(vectors))],
            "dV_norm": float(np.linalg.norm(w1 @ v1 - w0 @ v0)),
            "y0_norm": float(np.linalg.norm(y0)), "dy_norm": float(np.linalg.norm(y1 - y0)),
            "v0": v0.reshape(-1).astype(np.float32), "v1": v1.reshape(-1).astype(np.float32),
        }  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    has = np.full(len(z0), k < s.admitted)
    entering = order0[:, k] if k < s.admitted else np.zeros(len(z0), dtype=np.int64)
    return {
        **columns, "pair_out": order0[:, k - 1], "pair_in": Masked(entering, has), "rho0_b": rho0[:, k - 1],
        "rho1_b_forced": forced[:, k - 1], "dispatch0": dispatch0, "dispatch1": dispatch1,
    }  # fmt: skip


def overlap_rows(s: Settings, base: Weights, run: Weights, i: int, z0: F32) -> list[dict[str, Any]]:
    """Return the overlap maps of one run: the pairs most visited by the base's same-state sets."""
    g = (factor(s, base, i) * z0).astype(np.float32)
    order = selection_order(s, selection_scores(s, base, i, router_logits(base, i, g)))
    together = np.zeros((s.experts, s.experts), dtype=np.int64)
    for members in order[:, : s.top_k]:
        for a in members:
            together[a, members[members != a]] += 1
    pairs = [(a, b) for a in range(s.experts) for b in range(s.experts) if a != b]
    chosen = sorted(sorted(pairs, key=lambda p: (-together[p], p))[: s.overlap_pairs])
    first, now = (w[f"layers.{i}.gate_up"].astype(np.float64) for w in (base, run))
    rows = []
    for a, b in chosen:
        visits = (order[:, : s.top_k] == a).any(axis=1) & (order[:, : s.top_k] == b).any(axis=1)
        seen = g[visits].astype(np.float64)
        t0, t1 = (w[b] @ np.linalg.pinv(w[a]) for w in (first, now))
        target, from_a, from_a0 = seen @ now[b].T, seen @ now[a].T, seen @ first[a].T
        rank = min(int(np.linalg.matrix_rank(now[e])) for e in (a, b))
        spectrum = np.linalg.eigvals(np.linalg.pinv(now[a].T @ now[a]) @ (now[b].T @ now[b])).real
        moved = from_a0 @ t1.T - from_a0 @ t0.T

        def length(vectors: F64) -> float:
            return float(np.linalg.norm(vectors, axis=1).sum())

        rows.append({
            "expert_a": a, "expert_b": b, "visits": int(visits.sum()), "rank": rank,
            "cond": float(np.sqrt(spectrum.max() / spectrum.min())) if rank == s.d else None,
            "residual": length(target - from_a @ t1.T) / length(target) if visits.any() else 0.0,
            "drift_num": length(moved), "drift_den": length(from_a0 @ t0.T),
        })  # fmt: skip
    return rows


def _bits(listed: Ints, members: Ints) -> int:
    return sum(1 << int(place) for place in np.searchsorted(listed, members))
