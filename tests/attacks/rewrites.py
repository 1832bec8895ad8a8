"""Rows invented on real evidence, so that they obey what a routed layer obeys: what forgeries of `forgeries.py` are made of.

Every function takes a study and returns one with other rows; documents are issued anew afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attacks.experts import Row, symmetric
from simulator import StudySimulator
from verify.forging import mapped, only

from atlas_schema.canonical import canonical_json
from atlas_schema.evidence.tables import TABLES
from atlas_schema.measures.facts import layer_facts

Key = tuple[Any, ...]


def rewritten(
    s: StudySimulator, table: str, run: str, change: Callable[[Row], Mapping[str, Any] | None]
) -> StudySimulator:
    """Change rows of one run by a function; a row for which it returns None stays."""
    return mapped(s, table, only(run, change))


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


def smoothed(
    s: StudySimulator, run: str, factor: float | Mapping[Key, float], *, parts: Sequence[str] | None = None
) -> StudySimulator:
    """Shrink every change of an arm's updates by a factor, one for all tokens or one for each.

    ``parts`` are the columns of `update` to write; by default all, and what follows in vectors and maps.
    """
    at = states(s)

    def by(row: Row) -> float:
        return factor[token(row)] if isinstance(factor, Mapping) else factor

    def smaller(row: Row) -> Row:
        n, uz0 = len(row["experts"]), np.array(row["uz0"])
        scale = np.r_[np.ones(n), np.full(n, by(row))]
        gram = symmetric(row["gram"], 2 * n) * np.outer(scale, scale)
        made = updates_as(row, gram, uz0, uz0 + by(row) * (np.array(row["uz1"]) - uz0), at[token(row)])
        made["y0_norm"] = row["y0_norm"]
        return made if parts is None else {k: v for k, v in made.items() if k in parts}

    def nearer(row: Row) -> Row:
        v0, v1 = np.array(row["v0"], dtype=np.float32), np.array(row["v1"], dtype=np.float32)
        return {"v1": (v0 + np.float32(by(row)) * (v1 - v0)).tolist()}

    s = rewritten(s, "update", run, smaller)
    if parts is None:
        s = rewritten(s, "update_vector", run, nearer)
        if not isinstance(factor, Mapping):
            s = rewritten(s, "overlap", run, lambda r: {"drift_num": factor * r["drift_num"]})
    return s


def content_as(s: StudySimulator, run: str, level: Callable[[Key], float]) -> dict[Key, float]:
    """Return per token the factor under which the change of content comes to a level."""
    found = {}
    for row in s.rows("update"):
        if row["run_id"] == run:
            n = len(row["experts"])
            norms = np.sqrt(np.diagonal(symmetric(row["gram"], 2 * n)))
            found[token(row)] = level(token(row)) * float(row["rho0"] @ norms[:n]) / float(row["rho1"] @ norms[n:])
    return found


def router_of_the_base(s: StudySimulator, run: str) -> StudySimulator:
    """Give an arm the base's gain and router, and route its own states and the base's by them."""
    base = {r["layer"]: r for r in s.rows("layer") if r["run_id"] == "base"}
    columns = ("gain", "router_weight", "router_bias", "selection_bias")
    of_base = digests_of(s, "base")
    at = states(s)

    def same_router(row: Row) -> Row:
        digests = json.loads(row["tensor_digests"])
        digests |= {k: v for k, v in of_base[row["layer"]].items() if k.startswith(("router.", "selection.", "norm."))}
        return {**{c: base[row["layer"]][c] for c in columns}, "tensor_digests": canonical_json(digests).decode()}

    def same_sets(row: Row) -> Row:
        experts, n = row["experts"], len(row["experts"])
        slots = [i for i, e in enumerate(experts) if row["in0"] >> i & 1 or e == row["pair_in"]]
        both = np.r_[slots, n + np.array(slots)]
        gram = symmetric(row["gram"], 2 * n)[np.ix_(both, both)]
        of_zero = {"rho1": "rho0", "rho1_b_forced": "rho0_b", "dispatch1": "dispatch0"}
        less = {**row, **{new: row[old] for new, old in of_zero.items()}}
        less |= {name: [less[name][i] for i in slots] for name in ("experts", "rho0", "rho1")}
        less["in0"] = less["in1"] = sum(1 << i for i, slot in enumerate(slots) if row["in0"] >> slot & 1)
        uz0, uz1 = (np.array([row[name][i] for i in slots]) for name in ("uz0", "uz1"))
        return {**less, **updates_as(less, gram, uz0, uz1, at[token(row)]), "y0_norm": row["y0_norm"]}

    listed = {token(r): r for r in s.rows("update") if r["run_id"] == run}

    def fewer_vectors(row: Row) -> Row:
        mine = listed[token(row)]
        slots = [i for i, e in enumerate(mine["experts"]) if mine["in0"] >> i & 1 or e == mine["pair_in"]]
        return {v: np.array(row[v]).reshape(len(mine["experts"]), -1)[slots].reshape(-1).tolist() for v in ("v0", "v1")}

    s = rewritten(
        rewritten(rewritten(s, "layer", run, same_router), "update", run, same_sets),
        "update_vector",
        run,
        fewer_vectors,
    )
    return states_moved_to(s, run, lambda _, row: (np.array(row["z"]), row["r"]))


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


def states_moved_to(
    s: StudySimulator, run: str, state_of: Callable[[Key, Row], tuple[np.ndarray, float]]
) -> StudySimulator:
    """Give an arm other states, and route them by its own stored router; ``state_of`` returns a token's state and its ``r``.

    For routers whose scores are logits of all experts, as OLMoE's are.
    """
    source, k = s.source(), s.dims.k
    facts = {layer: layer_facts(source, run, layer) for layer in s.preregistration.protected_layers}
    routed: dict[Key, Row] = {}

    def moved(row: Row) -> Row:
        z, r = state_of(token(row), row)
        z = z.astype(np.float32)
        made = facts[row["layer"]]
        logits = (z.astype(np.float64) @ made.weights.T).astype(np.float32)
        order = np.argsort(-logits, kind="stable")
        weights = made.rule.weights(logits[None].astype(np.float64), order[None, :k])[0]
        margin = float(logits[order[k - 1]] - logits[order[k]])
        routed[token(row)] = {"experts": order[:k].tolist(), "competitor_out": int(order[k - 1]), "competitor_in": int(order[k]),
                              "margin": margin, "flags": 0}  # fmt: skip
        return {
            "z": z.tolist(),
            "r": r,
            "dispatch": logits.tolist(),
            "weights": weights.tolist(),
            "margin_logit": margin,
        }

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
