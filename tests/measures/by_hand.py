"""Rows, clusters and rules small enough to work out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from evidence.strategies import arrow
from simulator import MemorySource

from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.measures.clusters import Clusters
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.routers import RouterRule

DIMS = Dims(d=2, E=4, k=2, P=2)
Row = dict[str, Any]


def rows(table: str, *listed: Mapping[str, Any], dims: Dims = DIMS) -> Rows:
    """Return rows of a table; columns that an example is silent about hold nothing."""
    nothing: dict[str, Any] = {"str": "", "bool": False, "f32": 0.0, "f64": 0.0}

    def value(column: Any) -> Any:
        if column.nullable:
            return None
        one = nothing.get(column.type, 0)
        return one if not column.shape else [] if column.shape == "*" else [one] * dims.of(column.shape)

    spec = TABLES[table]
    full = [{c.name: row[c.name] if c.name in row else value(c) for c in spec.columns} for row in listed]
    return from_arrow(spec, dims, arrow(table, full, dims))


def source(**tables: list[Row]) -> MemorySource:
    """Return evidence with the given rows."""
    return MemorySource({name: arrow(name, listed, DIMS) for name, listed in tables.items()}, DIMS)


def clusters(*of: tuple[str, str]) -> Clusters:
    return Clusters(tuple(name for name, _ in of), tuple(domain for _, domain in of), {})


def layer(run: str = "base", **changes: Any) -> Row:
    usual: Row = {
        "run_id": run, "layer": 3, "d": 2, "n_experts": 4, "top_k": 2, "eps": 0.25, "norm_kind": "rms", "gain": [2.0, 3.0],
        "gain_convention": "w", "router_weight": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "router_bias": None,
        "selection_bias": None, "score_space": "logit", "weight_rule": "softmax_topk", "weight_scale": 1.5, "group_mode": "none",
        "n_groups": 1, "kept_groups": 1, "executed_dtype": "float32", "residual_path": "plain", "w1_kind": "gate_up",
        "w1_rank_min": 2, "tensor_digests": json.dumps({"router.0": "r"}), "reconstruction_error": 0.125,
        "identity_permutation": [0, 1, 2, 3],
    }  # fmt: skip
    return {**usual, **changes}


def at(name: str, position: int, **more: Any) -> Row:
    return {"run_id": "base", "layer": 3, "window_id": name, "position": position, **more}


def update(position: int, experts: list[int], v0: F64, v1: F64, **more: Any) -> Row:
    """Return an update row whose vectors ``[n, d]`` are given."""
    both = np.concatenate([v0, v1 - v0])
    gram = (both @ both.T)[np.triu_indices(2 * len(v0))].tolist()
    usual = {"experts": experts, "gram": gram, "in0": 0b011, "in1": 0b011, "pair_out": experts[1], "pair_in": experts[2],
             **dict.fromkeys(("rho0", "rho1"), [0.5, 0.25, 0.125][: len(experts)] + [0.0] * (len(experts) - 3)),
             **{name: [0.0] * len(experts) for name in ("uz0", "uu0", "uz1", "uu1")}}  # fmt: skip
    return {**at("w", position, run_id="arm:x"), **usual, **more}


V0 = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
V1 = np.array([[3.0, 4.0], [0.0, 5.0], [1.0, 4.0]])


def rule(space: str = "logit", weights: str = "softmax_topk", mode: str = "none", **more: Any) -> RouterRule:
    given = {"scale": 1.0, "selection_bias": None, "n_groups": 1 if mode == "none" else 2, "kept_groups": 1, **more}
    return RouterRule(space, weights, group_mode=mode, **given)


def pair(a: int, b: int, **more: Any) -> Row:
    usual = {
        "run_id": "base",
        "layer": 3,
        "expert_a": a,
        "expert_b": b,
        "visits": 1,
        "rank": 2,
        "cond": 1.0,
        "drift_den": 1.0,
    }
    return {**usual, **more}
