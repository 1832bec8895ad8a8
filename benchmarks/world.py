"""Valid evidence of realistic sizes, made quickly: rows that obey every invariant, from a routed layer in NumPy.

There is no language model behind it: states are sums of embeddings, losses come from a small head. What verification
looks at is real: states from inputs, scores from states and stored routers, updates from expert weights, Gram matrices
from vectors. Written window by window, so that memory does not grow with the number of windows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_schema.canonical import canonical_json, digest_bytes
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration, Window
from atlas_schema.evidence.bundle import GROUP_BYTES, ParquetBundle, table_writer
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.tables import ARROW, STUDY_TABLES, TABLES, ColumnSpec, Dims
from atlas_schema.files import document_text
from atlas_schema.measures.tensors import tensor_bytes, tensor_digest
from atlas_schema.protocol.log import append_step
from atlas_schema.study.contracts import contract_digest, load_contract
from atlas_schema.study.plan import expected_rows
from atlas_schema.study.preregister import digest_of
from atlas_schema.study.probe import item_digest, positions_for, token_digest

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weights = dict[str, F32]
Columns = dict[str, Any]

EPS, VOCABULARY, ITEMS = 1e-5, 128, 200
SPREAD = {"arm:close": 0.002, "arm:far": 0.3}
NULL_VALUES = {"batch_size": 4, "attention": "sdpa", "experts": "eager", "dtype": "bfloat16"}
FINGERPRINT: dict[str, Any] = {
    "attention": "eager", "batch_size": 8, "device": "cpu", "dtype": "float32", "experts": "grouped_mm",
    "libraries": {"numpy": np.__version__}, "threads": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Sizes of a world. ``windows`` fixes the amount of evidence. They come from ``clusters`` documents, a multiple of 4."""

    windows: int
    d: int = 1024
    experts: int = 64
    top_k: int = 8
    positions: int = 8
    tokens: int = 96
    inner: int = 4
    layers: tuple[int, ...] = (0, 1)
    overlap_pairs: int = 2
    clusters: int = 400
    evaluated: int = 1
    seed: int = 1

    @property
    def dims(self) -> Dims:
        return Dims(self.d, self.experts, self.top_k, self.positions)


def bfloat16(values: F32) -> F32:
    """Round to the nearest bfloat16, ties to even, and widen again."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def order_of(scores: F32) -> Ints:
    """Return expert ids by descending score, ties to the lower id."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable").astype(np.int64)


def combine(logits: F32, members: Ints) -> F32:
    """Return softmax weights of members, renormalised."""
    raised = np.exp(np.take_along_axis(logits, members, 1) - logits.max(axis=1, keepdims=True)).astype(np.float32)
    out: F32 = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def angle(a: F64, b: F64) -> F64:
    """Return angles between rows in units of pi."""
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.asarray(2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1)) / np.pi)


class World:
    """Runs, windows and the rows that they give."""

    def __init__(self, size: Size) -> None:
        self.size, self.contract = size, load_contract("chart-preserving.v1")
        self.nulls = {f"null:{n.id}": n.changes for n in self.contract.nuisances}
        self.runs = ["base", *self.nulls, *SPREAD]
        self.base = self._draw()
        self.weights = {run: self._moved(run) if run in SPREAD else self.base for run in self.runs}
        rng = np.random.default_rng([size.seed, 1])
        self.tokens = rng.integers(0, VOCABULARY, (size.windows, size.tokens))
        self.ids = [f"w{i:06d}" for i in range(size.windows)]
        digests = [token_digest(t.tolist()) for t in self.tokens]
        self.positions = np.array([positions_for(d, size.tokens, size.positions, 1) for d in digests])
        self.windows = tuple(
            Window(window_id=w, cluster_id=digest_bytes(f"document {i % size.clusters}".encode()), domain=f"domain{i % 4}",
                   n_bytes=2 * size.tokens,
                   split="evaluation" if i < size.evaluated else "probe", predicted_bytes=2 * (size.tokens - 1),
                   n_tokens=size.tokens, token_digest=d)
            for i, (w, d) in enumerate(zip(self.ids, digests, strict=True))
        )  # fmt: skip

    # weights

    def _draw(self) -> Weights:
        s, rng = self.size, np.random.default_rng([self.size.seed, 2])

        def normal(*shape: int, scale: float) -> F32:
            return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

        weights = {"embed": normal(VOCABULARY, s.d, scale=1), "place": normal(s.tokens, s.d, scale=0.3),
                   "head": normal(VOCABULARY, s.d, scale=0.05)}  # fmt: skip
        for i in s.layers:
            weights |= {
                f"{i}.attention": normal(s.d, scale=0.5), f"{i}.gain": 1 + normal(s.d, scale=0.1),
                f"{i}.router": normal(s.experts, s.d, scale=s.d**-0.5),
                f"{i}.gate_up": normal(s.experts, 2 * s.inner, s.d, scale=s.d**-0.5),
                f"{i}.down": normal(s.experts, s.d, s.inner, scale=s.inner**-0.5),
            }  # fmt: skip
        return weights

    def _moved(self, run: str) -> Weights:
        rng = np.random.default_rng([self.size.seed, 3, *run.encode()])
        return {
            n: w + rng.standard_normal(w.shape, dtype=np.float32) * np.float32(SPREAD[run] * w.std())
            for n, w in self.base.items()
        }

    @cached_property
    def digests(self) -> dict[str, str]:
        """Return the digest of every run's weights."""
        made = {id(w): digest_bytes(b"".join(tensor_bytes(w[n]) for n in sorted(w))) for w in self.weights.values()}
        return {run: made[id(w)] for run, w in self.weights.items()}

    def _tensor_digests(self, run: str, layer: int) -> str:
        w = self.weights[run]
        local = tensor_digest(w[f"{layer}.attention"])
        below = [
            tensor_digest(w[n])
            for n in sorted(w)
            if n in ("embed", "place") or (n[0].isdigit() and int(n.split(".")[0]) < layer)
        ]
        digests = {"norm.gain": tensor_digest(w[f"{layer}.gain"]), "router.weight": tensor_digest(w[f"{layer}.router"]),
                   "local": local, "upstream": digest_bytes("".join([*below, local]).encode())}  # fmt: skip
        pairs = zip(w[f"{layer}.gate_up"], w[f"{layer}.down"], strict=True)
        return canonical_json(
            digests | {f"experts.{e}": tensor_digest(a, b) for e, (a, b) in enumerate(pairs)}
        ).decode()

    # states

    def _input(self, w: Weights, at: slice) -> tuple[F32, F32]:
        """Return what enters a layer, and what its attention looks at, ``[windows, tokens, d]``."""
        tokens = self.tokens[at]
        before = np.concatenate([tokens[:, :1], tokens[:, :-1]], axis=1)
        return w["embed"][tokens] + w["place"], w["embed"][before]

    def _native(self, run: str, layer: int, at: slice) -> tuple[F32, F32, F32]:
        """Return ``z``, ``r`` and ``g`` ``[windows * tokens, ...]`` of native execution."""
        w = self.weights[run]
        x, seen = self._input(w, at)
        x = (x + seen * w[f"{layer}.attention"]).reshape(-1, self.size.d)
        if run in self.nulls:
            rng = np.random.default_rng([self.size.seed, 4, layer, at.start, *run.encode()])
            x = x * (1 + np.float32(1e-6) * rng.standard_normal(len(x), dtype=np.float32)[:, None]
                     * rng.standard_normal(self.size.d, dtype=np.float32))  # fmt: skip
        cast = self._cast(run)
        z, r = _normalised(cast(x))
        return z, r, cast(cast(w[f"{layer}.gain"]) * cast(z))

    def _cast(self, run: str) -> Callable[[F32], F32]:
        return bfloat16 if self.nulls.get(run) == "dtype" else (lambda values: values)

    def _sampled(self, at: slice) -> Ints:
        windows = len(self.ids[at])
        out: Ints = (np.arange(windows)[:, None] * self.size.tokens + self.positions[at]).reshape(-1)
        return out

    # rows

    def layer_rows(self, run: str, layer: int, at: slice) -> tuple[Columns, Columns]:
        """Return the columns of `routing` and `state` for a slice of windows."""
        s, w, cast = self.size, self.weights[run], self._cast(run)
        z, r, g = self._native(run, layer, at)
        router = w[f"{layer}.router"]
        dispatch = cast((g @ cast(router).T).astype(np.float32))
        order = order_of(dispatch)
        member, leaves, enters = order[:, : s.top_k], order[:, s.top_k - 1], order[:, s.top_k]
        row = np.arange(len(order))
        margin = dispatch[row, leaves] - dispatch[row, enters]
        position = np.tile(np.arange(s.tokens), len(self.ids[at]))
        routing = {"window_id": np.repeat(self.ids[at], s.tokens), "position": position, "experts": member,
                   "competitor_in": enters, "competitor_out": leaves, "margin": margin, "group_margin": None,
                   "flags": (margin == 0) * 1 + (position < 1) * 4}  # fmt: skip
        kept = self._sampled(at)
        logits, pick = g[kept] @ router.T, np.arange(len(kept))
        state = {"window_id": np.repeat(self.ids[at], s.positions), "position": self.positions[at].reshape(-1), "z": z[kept],
                 "r": r[kept], "g": None, "dispatch": dispatch[kept], "admissible": None,
                 "weights": cast(combine(dispatch[kept], member[kept])),
                 "margin_logit": logits[pick, leaves[kept]] - logits[pick, enters[kept]]}  # fmt: skip
        return routing, state

    def update_rows(self, run: str, layer: int, at: slice) -> tuple[Columns, Columns]:
        """Return the columns of `update` and `update_vector` for a slice of windows."""
        w, kept = self.weights[run], self._sampled(at)
        z0 = self._native("base", layer, at)[0][kept]
        columns, vectors = same_state(self.size.top_k, self.base, w, layer, z0)
        key = {"window_id": np.repeat(self.ids[at], self.size.positions), "position": self.positions[at].reshape(-1)}
        moved = None
        if run in SPREAD:
            x, seen = self._input(self.base, at)
            arrived = _normalised((x + seen * w[f"{layer}.attention"]).reshape(-1, self.size.d)[kept])[0]
            moved = angle(z0.astype(np.float64), arrived.astype(np.float64))
        chosen = np.arange(len(kept)) < max(0, self.size.evaluated - at.start) * self.size.positions
        vector_key = {name: values[chosen] for name, values in key.items()}
        picked = {name: values[: int(chosen.sum())] for name, values in vectors.items()}
        return {**key, **columns, "transport_angle": moved}, {**vector_key, **picked}

    def output_rows(self, run: str, at: slice) -> Columns:
        """Return the columns of `output` for a slice of windows."""
        x, _ = self._input(self.base, at)
        scores = [
            _log_softmax(_normalised(x)[0][:, :-1].reshape(-1, self.size.d) @ self.weights[r]["head"].T)
            for r in (run, "base")
        ]
        target = self.tokens[at][:, 1:].reshape(-1)
        p = np.exp(scores[0])
        kl = (np.exp(scores[1]) * (scores[1] - scores[0])).sum(axis=1) if run in SPREAD else None
        count = self.size.tokens - 1
        return {"window_id": np.repeat(self.ids[at], count), "position": np.tile(np.arange(count), len(self.ids[at])),
                "nll": -scores[0][np.arange(len(target)), target], "top1": scores[0].argmax(axis=1),
                "entropy": -(p * scores[0]).sum(axis=1), "kl_from_base": kl}  # fmt: skip

    def layer_row(self, run: str, layer: int) -> Columns:
        """Return the one row of table `layer`."""
        s, w = self.size, self.weights[run]
        return {"d": s.d, "n_experts": s.experts, "top_k": s.top_k, "eps": EPS, "norm_kind": "rms",
                "gain": w[f"{layer}.gain"][None], "gain_convention": "w", "router_weight": w[f"{layer}.router"].reshape(1, -1),
                "router_bias": None, "selection_bias": None, "score_space": "logit", "weight_rule": "softmax_topk_renormalised",
                "weight_scale": 1.0, "group_mode": "none", "n_groups": 1, "kept_groups": 1,
                "executed_dtype": "bfloat16" if self.nulls.get(run) == "dtype" else "float32", "residual_path": "experts",
                "w1_kind": "gate_up_stacked", "w1_rank_min": min(2 * s.inner, s.d),
                "tensor_digests": self._tensor_digests(run, layer), "reconstruction_error": 0.0,
                "identity_permutation": np.arange(s.experts)[None]}  # fmt: skip

    def run_row(self, run: str) -> Columns:
        """Return the one row of table `run`."""
        w, arm = self.weights[run], run.removeprefix("arm:") if run in SPREAD else None
        moved = sum(float(((w[n].astype(np.float64) - b) ** 2).sum()) for n, b in self.base.items())
        total = sum(float((b.astype(np.float64) ** 2).sum()) for b in self.base.values())
        changed = {self.nulls[run]: NULL_VALUES[self.nulls[run]]} if run in self.nulls else {}
        return {"role": run.partition(":")[0], "arm": arm, "policy": "none" if arm else None, "model": f"{run} of a generated world",
                "weights_digest": self.digests[run], "config_digest": digest_bytes(b"config"),
                "tokenizer_digest": digest_bytes(b"tokenizer"), "adapter": "olmoe",
                "fingerprint": canonical_json({**FINGERPRINT, **changed}).decode(), "param_distance": (moved / total) ** 0.5}  # fmt: skip

    def overlap_rows(self, run: str, layer: int, visits: Ints) -> Columns:
        """Return the columns of `overlap`: the most visited pairs, their maps from the input projections."""
        e, n = self.size.experts, self.size.overlap_pairs
        a, b = np.divmod(np.argsort(-visits.reshape(-1), kind="stable"), e)
        a, b = a[a != b][:n], b[a != b][:n]
        a, b = np.array(sorted(zip(a, b, strict=True))).T
        z = self._native("base", layer, slice(0, min(64, self.size.windows)))[0][:64]
        g = z.astype(np.float64) * self.base[f"{layer}.gain"]
        found = [
            _overlap(self.base[f"{layer}.gate_up"], self.weights[run][f"{layer}.gate_up"], i, j, g)
            for i, j in zip(a, b, strict=True)
        ]
        residual, drift_num, drift_den = np.array(found).T
        seen = visits[a, b]
        return {"expert_a": a, "expert_b": b, "visits": seen, "rank": min(2 * self.size.inner, self.size.d), "cond": None,
                "residual": np.where(seen > 0, residual, 0.0), "drift_num": np.where(seen > 0, drift_num, 0.0),
                "drift_den": np.where(seen > 0, drift_den, 0.0)}  # fmt: skip

    # documents and files

    def plan(self) -> Preregistration:
        """Return the pre-registration."""
        s, rows = self.size, expected_rows(
            self.windows, nulls=len(self.nulls), arms=len(SPREAD), layers=len(self.size.layers),
            positions=self.size.positions, overlap_pairs=self.size.overlap_pairs, items=ITEMS,
        )  # fmt: skip
        value = {
            "kind": "preregistration", "schema_version": "1.0", "study": "benchmark", "created": "2026-01-01T00:00:00Z",
            "contract": {"id": self.contract.id, "digest": contract_digest(self.contract)},
            "base": {"name": "generated", "architecture": "olmoe", "weights_digest": self.digests["base"],
                     "config_digest": digest_bytes(b"config"), "tokenizer_digest": digest_bytes(b"tokenizer")},
            "protected_layers": s.layers, "positions_per_window": s.positions, "first_allowed_position": 1,
            "overlap_pairs": s.overlap_pairs, "probe": {"file": "windows.jsonl", "digest": digest_bytes(b"")},
            "windows": [w.model_dump(mode="json") for w in self.windows], "damage_tolerance_nats": 0.05,
            "task": {"file": "task.jsonl", "digest": digest_bytes(b""), "scoring": "greedy_exact", "target": 0.9, "tolerance": 0.1,
                     "items": [{"item_id": f"item-{i:04d}", "digest": item_digest([i], [i + 1])} for i in range(ITEMS)]},
            "arms": [{"name": run.removeprefix("arm:"), "policy": "none", "chart_preserving": run == "arm:close"} for run in SPREAD],
            "pilot": None, "expected_rows": rows.model_dump(), "notes": "generated",
        }  # fmt: skip
        return Preregistration.model_validate_json(json.dumps(value))

    def write(self, folder: Path) -> Preregistration:
        """Write evidence, pre-registration and run log into a new folder."""
        (folder / "evidence").mkdir(parents=True)
        visits = {layer: np.zeros((self.size.experts,) * 2, dtype=np.int64) for layer in self.size.layers}
        self._write(folder, ("routing", "state"), self._native_parts())
        self._write(folder, ("update", "update_vector"), self._update_parts(visits))
        self._write(folder, ("output",), self._output_parts())
        for name, parts in self._small_parts(visits).items():
            self._write(folder, (name,), ((key, (columns,)) for key, columns in parts))
        plan = self.plan()
        (folder / "preregistration.json").write_text(document_text(plan), encoding="utf-8")
        cited = {"preregistration": digest_of(plan)}
        append_step(folder / "run_log.json", step="declare", actor="technician", inputs={}, outputs=cited)
        root = evidence_root(table_roots(ParquetBundle(folder / "evidence")))
        append_step(
            folder / "run_log.json", step="extract", actor="automation", inputs=cited, outputs={"evidence": root}
        )
        return plan

    def _slices(self) -> Iterator[slice]:
        s = self.size
        step = max(1, GROUP_BYTES // (s.positions * 4 * (s.d + s.experts + s.top_k + 8)))
        yield from (slice(at, min(at + step, s.windows)) for at in range(0, s.windows, step))

    def _native_parts(self) -> Iterator[tuple[Columns, tuple[Columns, ...]]]:
        for run in sorted(self.runs):
            for layer in self.size.layers:
                yield from (({"run_id": run, "layer": layer}, self.layer_rows(run, layer, at)) for at in self._slices())

    def _update_parts(self, visits: dict[int, Ints]) -> Iterator[tuple[Columns, tuple[Columns, ...]]]:
        for run in sorted(self.runs[1:]):
            for layer in self.size.layers:
                for at in self._slices():
                    update, vectors = self.update_rows(run, layer, at)
                    if run == self.runs[1]:
                        sets = order_of(update["dispatch0"])[:, : self.size.top_k]
                        np.add.at(visits[layer], (sets[:, :, None], sets[:, None, :]), 1)
                    yield {"run_id": run, "layer": layer}, (update, vectors)

    def _output_parts(self) -> Iterator[tuple[Columns, tuple[Columns, ...]]]:
        for run in sorted(self.runs):
            yield from (({"run_id": run}, (self.output_rows(run, at),)) for at in self._slices())

    def _small_parts(self, visits: dict[int, Ints]) -> dict[str, list[tuple[Columns, Columns]]]:
        runs, layers = sorted(self.runs), self.size.layers
        cells: list[tuple[Columns, str, int]] = [({"run_id": r, "layer": i}, r, i) for r in runs for i in layers]
        items = {"item_id": [f"item-{i:04d}" for i in range(ITEMS)], "score": (np.arange(ITEMS) % 20 > 0) * 1.0}
        w = self.windows
        window = {"window_id": self.ids, "cluster_id": [x.cluster_id for x in w], "domain": [x.domain for x in w],
                  "split": [x.split for x in w], "n_bytes": [x.n_bytes for x in w],
                  "predicted_bytes": [x.predicted_bytes for x in w], "tokens": self.tokens.tolist(), "positions": self.positions}  # fmt: skip
        return {
            "run": [({"run_id": r}, self.run_row(r)) for r in runs],
            "layer": [(key, self.layer_row(r, i)) for key, r, i in cells],
            "window": [({}, window)], "task": [({"run_id": r}, items) for r in runs],
            "overlap": [(key, self.overlap_rows(r, i, visits[i])) for key, r, i in cells if r not in self.nulls],
        }  # fmt: skip

    def _write(
        self, folder: Path, names: tuple[str, ...], parts: Iterator[tuple[Columns, tuple[Columns, ...]]]
    ) -> None:
        writers = [table_writer(folder / "evidence", name, self.size.dims) for name in names]
        for key, given in parts:
            for name, writer, columns in zip(names, writers, given, strict=True):
                writer.write_table(_table(name, self.size.dims, {**key, **columns}))
        for writer in writers:
            writer.close()


def _normalised(x: F32) -> tuple[F32, F32]:
    r = np.sqrt(np.einsum("...d,...d->...", x, x, dtype=np.float32) / np.float32(x.shape[-1]) + np.float32(EPS))
    return (x / r[..., None]).astype(np.float32), r.astype(np.float32)


def _log_softmax(logits: F32) -> F64:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _overlap(base: F32, arm: F32, a: int, b: int, g: F64) -> tuple[float, float, float]:
    w0, w1 = base.astype(np.float64), arm.astype(np.float64)
    t0, t1 = w0[b] @ np.linalg.pinv(w0[a]), w1[b] @ np.linalg.pinv(w1[a])
    through, there = g @ w0[a].T, g @ w1[b].T
    missed = np.linalg.norm(there - g @ w1[a].T @ t1.T, axis=1).sum() / np.linalg.norm(there, axis=1).sum()
    moved = 0.0 if arm is base else float(np.linalg.norm(through @ (t1 - t0).T, axis=1).sum())
    return float(missed), moved, float(np.linalg.norm(through @ t0.T, axis=1).sum())


def same_state(k: int, base: Weights, arm: Weights, layer: int, z0: F32) -> tuple[Columns, Columns]:
    """Evaluate both models at the base's states ``[N, d]``, a few at a time, so that vectors stay in the cache."""
    parts = [_same_state(k, base, arm, layer, z0[at : at + 32]) for at in range(0, len(z0), 32)]
    both = [{name: _joined([part[side][name] for part in parts]) for name in parts[0][side]} for side in (0, 1)]
    return both[0], both[1]


def _joined(values: list[Any]) -> Any:
    if not isinstance(values[0], _Lists):
        return np.concatenate(values)
    starts = np.cumsum([0, *(v.offsets[-1] for v in values)])
    offsets = [v.offsets[1:] + start for v, start in zip(values, starts, strict=False)]
    return _Lists(np.concatenate([v.values for v in values]), np.concatenate([[0], *offsets]))


def _same_state(k: int, base: Weights, arm: Weights, layer: int, z0: F32) -> tuple[Columns, Columns]:
    """Evaluate both models at the base's states ``[N, d]``; return the columns of `update` and of `update_vector`."""
    d, sides, z = z0.shape[1], [], z0.astype(np.float64)
    for w in (base, arm):
        g = w[f"{layer}.gain"] * z0
        logits = (g @ w[f"{layer}.router"].T).astype(np.float32)
        sides.append((g, logits, order_of(logits)))
    orders = [side[2] for side in sides]
    members = np.zeros((2, *sides[0][1].shape), dtype=np.bool_)
    for side in (0, 1):
        np.put_along_axis(members[side], orders[side][:, :k], True, axis=1)
    listed = members[0] | members[1]
    np.put_along_axis(listed, orders[0][:, k : k + 1], True, axis=1)
    row, expert = np.nonzero(listed)
    count = listed.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(count)])
    rho = [np.zeros(members[0].shape, dtype=np.float32) for _ in sides]
    u, v, uz = [], [], []
    for side, w in enumerate((base, arm)):
        g, logits, order = sides[side]
        np.put_along_axis(rho[side], order[:, :k], combine(logits, order[:, :k]), axis=1)
        u.append(_updates(w, layer, g, row, expert))
        uz.append(np.einsum("sd,sd->s", u[side], z[row]))
        v.append(u[side] - (uz[side] / d)[:, None] * z[row])
    change = v[1] - v[0]
    gram = [np.zeros(0)] * len(z0)
    for n in np.unique(count):
        rows = np.flatnonzero(count == n)
        slots = offsets[rows][:, None] + np.arange(n)
        both = np.concatenate([v[0][slots], change[slots]], axis=1)
        upper = np.triu_indices(2 * n)
        for at, packed in zip(rows, (both @ both.transpose(0, 2, 1))[:, upper[0], upper[1]], strict=True):
            gram[at] = packed
    w0, w1 = (rho[side][row, expert].astype(np.float64) for side in (0, 1))

    def norm(vectors: F64) -> F64:
        return np.asarray(np.linalg.norm(np.add.reduceat(vectors, offsets[:-1], axis=0), axis=1))

    y0, y1 = w0[:, None] * u[0], w1[:, None] * u[1]
    slot = np.arange(len(row)) - offsets[:-1][row]
    bits = [np.zeros(len(z0), dtype=np.int64) for _ in sides]
    for side in (0, 1):
        np.add.at(bits[side], row, members[side][row, expert].astype(np.int64) << slot)
    lists = {name: _Lists(values, offsets) for name, values in (
        ("experts", expert), ("rho0", w0), ("rho1", w1), ("uz0", uz[0]), ("uz1", uz[1]),
        ("uu0", np.einsum("sd,sd->s", u[0], u[0])), ("uu1", np.einsum("sd,sd->s", u[1], u[1])))}  # fmt: skip
    columns = {
        **lists, "gram": _Lists(np.concatenate(gram), np.concatenate([[0], np.cumsum(count * (2 * count + 1))])),
        "in0": bits[0], "in1": bits[1], "pair_out": orders[0][:, k - 1], "pair_in": orders[0][:, k],
        "rho0_b": combine(sides[0][1], orders[0][:, :k])[:, k - 1],
        "rho1_b_forced": combine(sides[1][1], orders[0][:, :k])[:, k - 1],
        "dispatch0": sides[0][1], "dispatch1": sides[1][1], "dV_norm": norm(w1[:, None] * v[1] - w0[:, None] * v[0]),
        "y0_norm": norm(y0), "dy_norm": norm(y1 - y0),
    }  # fmt: skip
    wide = offsets * d
    return columns, {
        "v0": _Lists(v[0].astype(np.float32).reshape(-1), wide),
        "v1": _Lists(v[1].astype(np.float32).reshape(-1), wide),
    }


def _updates(w: Weights, layer: int, g: F32, row: Ints, expert: Ints) -> F64:
    inner = w[f"{layer}.down"].shape[2]
    both = (g @ w[f"{layer}.gate_up"].reshape(-1, g.shape[1]).T).reshape(len(g), -1, 2 * inner)
    gate, up = both[:, :, :inner], both[:, :, inner:]
    hidden = gate / (1 + np.exp(-gate)) * up
    out = np.empty((len(row), g.shape[1]))
    for e in range(both.shape[1]):
        at = np.flatnonzero(expert == e)
        out[at] = hidden[row[at], e] @ w[f"{layer}.down"][e].T
    return out


@dataclass(frozen=True)
class _Lists:
    """Lists of variable size: flat values and where each row starts."""

    values: npt.NDArray[Any]
    offsets: Ints

    def __getitem__(self, rows: slice) -> _Lists:
        offsets = self.offsets[: rows.stop + 1]
        return _Lists(self.values[: offsets[-1]], offsets)


def _table(name: str, dims: Dims, columns: Mapping[str, Any]) -> pa.Table:
    spec = TABLES[name]
    first = next((v for v in columns.values() if not isinstance(v, str | int | float | None)), None)
    n = 1 if first is None else len(first.offsets) - 1 if isinstance(first, _Lists) else len(first)
    arrays = [_arrow(c, dims, columns[c.name], n) for c in spec.columns]
    return pa.table(arrays, schema=spec.arrow_schema(dims))


def _arrow(column: ColumnSpec, dims: Dims, value: Any, n: int) -> pa.Array:
    kind = column.arrow_type(dims)
    if value is None:
        return pa.nulls(n, kind)
    if isinstance(value, str | int | float):
        return pa.array([value] * n, kind)
    dtype = ARROW[column.type].to_pandas_dtype()
    if isinstance(value, _Lists):
        values = pa.array(np.ascontiguousarray(value.values, dtype=dtype), ARROW[column.type])
        return pa.ListArray.from_arrays(pa.array(value.offsets, pa.int32()), values, type=kind)
    if column.type == "str" or column.shape == "*":
        return pa.array(list(value), kind)
    values = pa.array(np.ascontiguousarray(value, dtype=dtype).reshape(-1), ARROW[column.type])
    return values if column.shape == "" else pa.FixedSizeListArray.from_arrays(values, type=kind)


def write_world(folder: Path, size: Size) -> tuple[Preregistration, Contract]:
    """Write a world of this size into a new folder; the receipt is issued by the package."""
    world = World(size)
    return world.write(folder), world.contract


__all__ = ["STUDY_TABLES", "Size", "World", "write_world"]
