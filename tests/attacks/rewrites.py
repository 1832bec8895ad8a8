"""Rows invented on real evidence, so that they obey what a routed layer obeys: what forgeries of `forgeries.py` are made of.

Every function takes a study and returns one with other rows; documents are issued anew afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attacks.edits import symmetric
from simulator import StudySimulator

from atlas_schema.canonical import canonical_json
from atlas_schema.evidence.tables import TABLES
from atlas_schema.measures.facts import layer_facts

Row = dict[str, Any]
Key = tuple[Any, ...]


def rewritten(
    s: StudySimulator, table: str, run: str, change: Callable[[Row], Mapping[str, Any] | None]
) -> StudySimulator:
    """Change rows of one run by a function; a row for which it returns None stays."""
    return s.with_rows(table, [{**r, **((change(r) or {}) if r.get("run_id") == run else {})} for r in s.rows(table)])


def token(row: Row) -> Key:
    """Return what names a row within a run."""
    return tuple(row[name] for name in ("layer", "window_id", "position") if name in row)


def states(s: StudySimulator, run: str = "base") -> dict[Key, np.ndarray]:
    """Return a run's sampled states, in float64."""
    return {token(r): np.array(r["z"], dtype=np.float64) for r in s.rows("state") if r["run_id"] == run}


def copied(s: StudySimulator, tables: Sequence[str], run: str, source: str, **fixed: Any) -> StudySimulator:
    """Put another run's rows in place of a run's, under its name; ``fixed`` columns get one value."""
    for table in tables:
        rows = s.rows(table)
        theirs = [
            {**r, "run_id": run, **{k: v for k, v in fixed.items() if k in r}} for r in rows if r["run_id"] == source
        ]
        every = [r for r in rows if r["run_id"] != run] + theirs
        s = s.with_rows(table, sorted(every, key=lambda r: [r[k] for k in TABLES[table].key]))
    return s


# --- updates ------------------------------------------------------------------------------------------------------


def updates_as(row: Row, gram: np.ndarray, uz0: np.ndarray, uz1: np.ndarray, z: np.ndarray) -> Row:
    """Return the columns of an `update` row that follow from inner products ``[2n, 2n]`` and parts along the state ``[n]``."""
    n, d, zz = len(uz0), len(z), float(z @ z)
    rho0, rho1 = np.array(row["rho0"]), np.array(row["rho1"])
    norm0, change, cross = np.diagonal(gram)[:n], np.diagonal(gram)[n:], np.diagonal(gram[:n, n:])
    radial, both, a0 = 2 / d - zz / d**2, np.r_[rho1 - rho0, rho1], float(rho0 @ uz0)

    def whole(part: float, along: float) -> float:
        return float(np.sqrt(max(part + 2 * along**2 / d * (1 - zz / d) + along**2 * zz / d**2, 0.0)))

    tangent = float(both @ gram @ both)
    return {
        "gram": gram[np.triu_indices(2 * n)].tolist(), "uz0": uz0.tolist(), "uz1": uz1.tolist(),
        "uu0": (norm0 + uz0**2 * radial).tolist(), "uu1": (norm0 + 2 * cross + change + uz1**2 * radial).tolist(),
        "dV_norm": float(np.sqrt(max(tangent, 0.0))), "y0_norm": whole(float(rho0 @ gram[:n, :n] @ rho0), a0),
        "dy_norm": whole(tangent, float(rho1 @ uz1) - a0),
    }  # fmt: skip


def smoothed(s: StudySimulator, run: str, factor: float, *, parts: Sequence[str] | None = None) -> StudySimulator:
    """Shrink every change of an arm's updates by a factor; ``parts`` are the columns to write, all of them by default."""
    at = states(s)

    def smaller(row: Row) -> Row:
        n, uz0 = len(row["experts"]), np.array(row["uz0"])
        scale = np.r_[np.ones(n), np.full(n, factor)]
        gram = symmetric(row["gram"], 2 * n) * np.outer(scale, scale)
        made = updates_as(row, gram, uz0, uz0 + factor * (np.array(row["uz1"]) - uz0), at[token(row)])
        made["y0_norm"] = row["y0_norm"]
        return made if parts is None else {k: v for k, v in made.items() if k in parts}

    def nearer(row: Row) -> Row:
        v0 = np.array(row["v0"], dtype=np.float32)
        return {"v1": (v0 + np.float32(factor) * (np.array(row["v1"], dtype=np.float32) - v0)).tolist()}

    s = rewritten(s, "update", run, smaller)
    if parts is None:
        s = rewritten(s, "update_vector", run, nearer)
        s = rewritten(s, "overlap", run, lambda r: {"drift_num": factor * r["drift_num"]})
    return s


def turned_apart(s: StudySimulator, runs: Sequence[str]) -> StudySimulator:
    """Turn the base's updates of the pair away from each other, in windows whose vectors are not kept: the jump is longer."""
    at, kept = states(s), {w["window_id"] for w in s.rows("window") if w["split"] == "evaluation"}

    def turned(row: Row) -> Row | None:
        if row["window_id"] in kept or row["pair_in"] is None:
            return None
        n, uz0, uz1 = len(row["experts"]), np.array(row["uz0"]), np.array(row["uz1"])
        gram = symmetric(row["gram"], 2 * n)
        values, vectors = np.linalg.eigh(gram)
        v = vectors * np.sqrt(np.maximum(values, 0.0))  # rows: vectors with these inner products
        out, into = row["experts"].index(row["pair_out"]), row["experts"].index(row["pair_in"])
        v[into] = -v[out] * np.linalg.norm(v[into]) / np.linalg.norm(v[out])
        return updates_as(row, v @ v.T, uz0, uz1, at[token(row)])

    for run in runs:
        s = rewritten(s, "update", run, turned)
    return s


# --- states and routing -------------------------------------------------------------------------------------------


def states_moved_to(s: StudySimulator, run: str, z_of: Callable[[Key, np.ndarray], np.ndarray]) -> StudySimulator:
    """Give an arm other states, and route them by its own stored router; ``z_of`` takes a token and the arm's own state.

    For routers whose scores are logits of all experts, as OLMoE's are.
    """
    source, k = s.source(), s.dims.k
    facts = {layer: layer_facts(source, run, layer) for layer in s.preregistration.protected_layers}
    routed: dict[Key, Row] = {}

    def moved(row: Row) -> Row:
        z = z_of(token(row), np.array(row["z"])).astype(np.float32)
        made = facts[row["layer"]]
        logits = (z.astype(np.float64) @ made.weights.T).astype(np.float32)
        order = np.argsort(-logits, kind="stable")
        weights = made.rule.weights(logits[None].astype(np.float64), order[None, :k])[0]
        margin = float(logits[order[k - 1]] - logits[order[k]])
        routed[token(row)] = {"experts": order[:k].tolist(), "competitor_out": int(order[k - 1]), "competitor_in": int(order[k]),
                              "margin": margin, "flags": 0}  # fmt: skip
        return {"z": z.tolist(), "dispatch": logits.tolist(), "weights": weights.tolist(), "margin_logit": margin}

    s = rewritten(s, "state", run, moved)
    return rewritten(s, "routing", run, lambda r: routed.get(token(r)))


def routing_elsewhere(s: StudySimulator, run: str, change: Callable[[Row], Mapping[str, Any] | None]) -> StudySimulator:
    """Change routing rows away from sampled positions, where nothing else is kept of a token."""
    sampled = {token(r) for r in s.rows("state") if r["run_id"] == run}
    return rewritten(s, "routing", run, lambda r: None if token(r) in sampled else change(r))


def redigested(s: StudySimulator, run: str, change: Callable[[dict[str, str]], dict[str, str]]) -> StudySimulator:
    """Change the tensor digests of a run's layers."""
    return rewritten(
        s, "layer", run, lambda r: {"tensor_digests": canonical_json(change(json.loads(r["tensor_digests"]))).decode()}
    )


def digests_of(s: StudySimulator, run: str) -> dict[int, dict[str, str]]:
    """Return the tensor digests of a run by layer."""
    return {r["layer"]: json.loads(r["tensor_digests"]) for r in s.rows("layer") if r["run_id"] == run}
