"""Two experts exchanged in every column that names or numbers them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from simulator import StudySimulator

from atlas_schema.canonical import canonical_json
from atlas_schema.evidence.tables import TABLES
from atlas_schema.measures.tensors import tensor_digest

Row = dict[str, Any]
IDS = ("experts", "competitor_in", "competitor_out", "pair_in", "pair_out", "expert_a", "expert_b")
SLOTS = ("rho0", "rho1", "uz0", "uu0", "uz1", "uu1")


def experts_exchanged(s: StudySimulator, table: str, runs: Sequence[str], a: int, b: int) -> StudySimulator:
    """Exchange two experts in every column of a table, in the rows of some runs: ids, columns per expert, weights, digests."""
    number = {a: b, b: a}
    columns = [
        c
        for c in TABLES[table].columns
        if c.name in IDS or (c.shape in ("E", "E*d") and c.name != "identity_permutation")
    ]
    slots = {(r["run_id"], r["layer"], r["window_id"], r["position"]): np.argsort([number.get(e, e) for e in r["experts"]])
             for r in s.rows("update") if r["run_id"] in runs} if table in ("update", "update_vector") else {}  # fmt: skip

    def moved(row: Row) -> Row:
        if row["run_id"] not in runs:
            return row
        out = dict(row)
        for c in columns:
            value = row[c.name]
            if value is None:
                continue
            if c.name in IDS:
                out[c.name] = [number.get(v, v) for v in value] if isinstance(value, list) else number.get(value, value)
                continue
            parts = np.array(value, dtype=object).reshape(s.dims.E, -1)
            parts[[a, b]] = parts[[b, a]]
            out[c.name] = parts.reshape(-1).tolist()
        key = tuple(row[k] for k in ("run_id", "layer", "window_id", "position") if k in row)
        if key in slots:
            _reslot(out, slots[key], s.dims.d)
        return _redigested(out, a, b, s) if table == "layer" else out

    return s.with_rows(
        table, sorted((moved(r) for r in s.rows(table)), key=lambda r: [r[k] for k in TABLES[table].key])
    )


def _reslot(row: Row, order: np.ndarray, d: int) -> None:
    """Put the lists of an `update` or `update_vector` row into another order of experts."""
    n = len(order)
    for name in ("experts", *SLOTS):
        if name in row:
            row[name] = [row[name][i] for i in order]
    for name in ("v0", "v1"):
        if name in row:
            row[name] = np.array(row[name]).reshape(n, d)[order].reshape(-1).tolist()
    for name in ("in0", "in1"):
        if name in row:
            row[name] = sum(1 << slot for slot, i in enumerate(order) if row[name] >> int(i) & 1)
    if "gram" in row:
        gram, both = symmetric(row["gram"], 2 * n), np.r_[order, n + order]
        row["gram"] = gram[np.ix_(both, both)][np.triu_indices(2 * n)].tolist()


def symmetric(packed: Sequence[float], n: int) -> np.ndarray:
    """Unpack the upper triangle of a symmetric matrix ``[n, n]``."""
    full = np.zeros((n, n))
    full[np.triu_indices(n)] = packed
    return full + np.triu(full, 1).T


def _redigested(row: Row, a: int, b: int, s: StudySimulator) -> Row:
    digests = json.loads(row["tensor_digests"])
    digests[f"experts.{a}"], digests[f"experts.{b}"] = digests[f"experts.{b}"], digests[f"experts.{a}"]
    digests["router.weight"] = tensor_digest(
        np.array(row["router_weight"], dtype=np.float32).reshape(s.dims.E, s.dims.d)
    )
    for name, column in (("router.bias", "router_bias"), ("selection.bias", "selection_bias")):
        if row[column] is not None:
            digests[name] = tensor_digest(np.array(row[column], dtype=np.float32))
    return {**row, "tensor_digests": canonical_json(digests).decode()}
