"""Every row of a study: the base, its nuisances and its arms are run, and what they did is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_schema.canonical import canonical_json, digest_bytes
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims
from simulator.arithmetic import F32, F64, Ints, Weights, admitted_experts, group_margins, log_softmax, normalise
from simulator.model import (
    Executed,
    Numerics,
    arm_weights,
    attended,
    base_weights,
    execute,
    layer_digests,
    model_digest,
)
from simulator.probe import item_names, make_probe, predicted_bytes
from simulator.same_state import overlap_rows, same_state_columns
from simulator.settings import CHANGES, EPS, FINGERPRINT, NUISANCES, NULL_VALUES, Settings, SimulatedArm
from simulator.tables import Masked, Value, table


@dataclass(frozen=True, slots=True)
class Run:
    """One run and everything computed for it."""

    run_id: str
    arm: SimulatedArm | None
    weights: Weights
    fingerprint: dict[str, Any]
    layers: dict[int, Executed]
    next_token: F32


class World:
    """Computes runs and turns them into tables."""

    def __init__(self, s: Settings) -> None:
        self.s, self.probe = s, make_probe(s)
        self.dims = Dims(s.d, s.experts, s.top_k, s.positions)
        self._same_state: dict[tuple[int, int], dict[str, Value]] = {}
        base = base_weights(s)
        self.runs = [self._run("base", None, base, Numerics("base"), {})]
        for nuisance in NUISANCES:
            how = Numerics(f"null:{nuisance}", s.noise, nuisance == "dtype", nuisance == "attention")
            key = CHANGES[nuisance]
            self.runs.append(self._run(how.run_id, None, base, how, {key: NULL_VALUES[key]}))
        for arm in s.arms:
            name = f"arm:{arm.name}"
            self.runs.append(self._run(name, arm, arm_weights(s, arm, base), Numerics(name), {}))

    def _run(
        self, run_id: str, arm: SimulatedArm | None, weights: Weights, how: Numerics, changed: dict[str, Any]
    ) -> Run:
        layers, next_token = execute(self.s, self.probe, weights, how)
        return Run(run_id, arm, weights, {**FINGERPRINT, **changed}, layers, next_token)

    @property
    def base(self) -> Run:
        return self.runs[0]

    def tables(self) -> dict[str, pa.Table]:
        """Return every table of the study, rows in key order."""
        made: dict[str, list[pa.Table]] = {name: [] for name in STUDY_TABLES}
        made["window"].append(self._windows())
        for run in sorted(self.runs, key=lambda run: run.run_id):
            made["run"].append(self._run_row(run))
            made["output"].append(self._output(run))
            made["task"].append(self._task(run))
            for i in self.s.protected:
                made["layer"].append(self._layer(run, i))
                made["routing"].append(self._routing(run, i))
                made["state"].append(self._state(run, i))
                if run.run_id != "base":
                    made["update"].append(self._update(run, i))
                    made["update_vector"].append(self._vectors(run, i))
                if not run.run_id.startswith("null:"):
                    made["overlap"].append(self._overlap(run, i))
        empty = {name: TABLES[name].arrow_schema(self.dims).empty_table() for name in STUDY_TABLES}
        return {name: pa.concat_tables([empty[name], *parts]).combine_chunks() for name, parts in made.items()}

    def _run_row(self, run: Run) -> pa.Table:
        parameters = sum(w.size for w in run.weights.values())
        moved = sum(float(((run.weights[n].astype(np.float64) - w) ** 2).sum()) for n, w in self.base.weights.items())
        total = sum(float((w.astype(np.float64) ** 2).sum()) for w in self.base.weights.values())
        return table("run", self.dims, 1, {
            "run_id": run.run_id, "role": "arm" if run.arm else run.run_id.partition(":")[0],
            "arm": run.arm.name if run.arm else None, "policy": run.arm.policy if run.arm else None,
            "model": f"{run.arm.name if run.arm else 'tiny'} (TinyMoe, {parameters} parameters)",
            "weights_digest": model_digest(run.weights), "config_digest": digest_bytes(b"config"),
            "tokenizer_digest": digest_bytes(b"tokenizer"), "adapter": self.s.adapter,
            "fingerprint": canonical_json(run.fingerprint).decode(), "param_distance": (moved / total) ** 0.5,
        })  # fmt: skip

    def _layer(self, run: Run, i: int) -> pa.Table:
        s, gate_up = self.s, run.weights[f"layers.{i}.gate_up"]

        def row(name: str) -> F32 | None:
            found = run.weights.get(f"layers.{i}.{name}")
            return None if found is None else found.reshape(1, -1)

        return table("layer", self.dims, 1, {
            "run_id": run.run_id, "layer": i, "d": s.d, "n_experts": s.experts, "top_k": s.top_k,
            "eps": EPS, "norm_kind": "rms", "gain": row("norm"), "gain_convention": s.gain_convention,
            "router_weight": row("router"), "router_bias": row("router_bias"), "selection_bias": row("selection_bias"),
            "score_space": s.score_space, "weight_rule": s.weight_rule, "weight_scale": s.weight_scale,
            "group_mode": s.group_mode, "n_groups": s.n_groups, "kept_groups": s.kept_groups,
            "executed_dtype": run.fingerprint["dtype"], "residual_path": "experts+shared" if s.shared else "experts",
            "w1_kind": "gate_up_stacked", "w1_rank_min": min(int(np.linalg.matrix_rank(w.astype(np.float64))) for w in gate_up),
            "tensor_digests": canonical_json(layer_digests(run.weights, i)).decode(),
            "reconstruction_error": run.layers[i].reconstruction_error,
            "identity_permutation": np.arange(s.experts)[None],
        })  # fmt: skip

    def _windows(self) -> pa.Table:
        p = self.probe
        return table("window", self.dims, len(p.ids), {
            "window_id": p.ids, "cluster_id": p.clusters, "domain": p.domains, "split": p.splits,
            "n_bytes": np.array([len(t.encode()) for t in p.texts]),
            "predicted_bytes": np.array([predicted_bytes(t) for t in p.texts]), "tokens": p.tokens,
            "positions": np.array(p.positions),
        })  # fmt: skip

    def _pairs(self, order: Ints) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        k = self.s.top_k
        has = np.full(len(order), k < self.s.admitted)
        return order[:, k - 1], order[:, k] if k < self.s.admitted else np.zeros(len(order), dtype=np.int64), has

    def _routing(self, run: Run, i: int) -> pa.Table:
        done = run.layers[i]
        ids, positions = self.probe.token_rows
        leaving, entering, has = self._pairs(done.order)
        at = np.arange(len(ids))
        margin = done.dispatch[at, leaving] - done.dispatch[at, entering]
        flags = ((margin == 0) & has) * 1 + (positions < self.s.first_allowed) * 4
        return table("routing", self.dims, len(ids), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions,
            "experts": done.order[:, : self.s.top_k], "competitor_in": Masked(entering, has),
            "competitor_out": leaving, "margin": Masked(margin, has),
            "group_margin": None if self.s.group_mode == "none" else group_margins(self.s, done.dispatch), "flags": flags,
        })  # fmt: skip

    def _state(self, run: Run, i: int) -> pa.Table:
        s, done = self.s, run.layers[i]
        ids, positions, rows = self.probe.sampled
        leaving, entering, has = self._pairs(done.order[rows])
        at = np.arange(len(rows))
        logits = done.logits[rows]
        has = has & (s.score_space == "logit") & (s.group_mode == "none")
        return table("state", self.dims, len(rows), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions, "z": done.z[rows],
            "r": done.r[rows], "g": Masked(done.g[rows], ~done.derived[rows]), "dispatch": done.dispatch[rows],
            "admissible": None if s.group_mode == "none" else admitted_experts(s, done.dispatch[rows]),
            "weights": done.weights[rows],
            "margin_logit": Masked(logits[at, leaving] - logits[at, entering], has),
        })  # fmt: skip

    def _evaluated(self, run: Run, i: int) -> dict[str, Value]:
        """Return the same-state columns; runs of the same weights have the same."""
        key = (id(run.weights), i)
        if key not in self._same_state:
            z0 = self.base.layers[i].z[self.probe.sampled[2]]
            self._same_state[key] = same_state_columns(self.s, self.base.weights, run.weights, i, z0)
        return self._same_state[key]

    def _update(self, run: Run, i: int) -> pa.Table:
        ids, positions, rows = self.probe.sampled
        columns = {name: v for name, v in self._evaluated(run, i).items() if name not in ("v0", "v1")}
        angle = self._transported(run, i)[rows] if run.arm else None
        return table("update", self.dims, len(rows), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions, "transport_angle": angle, **columns,
        })  # fmt: skip

    def _transported(self, run: Run, i: int) -> F64:
        """Return, per token, the angle over pi between the base's state and the one that the run makes of the same input."""
        base = self.base.layers[i]
        longest = int(self.probe.lengths.max())
        valid = np.arange(longest) < self.probe.lengths[:, None]
        z = normalise(attended(run.weights, i, base.entering).astype(np.float32)[valid])[0].astype(np.float64)
        z0 = base.z.astype(np.float64)
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z0, z))
        out: F64 = 2.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)) / np.pi
        return out

    def _vectors(self, run: Run, i: int) -> pa.Table:
        ids, positions, _ = self.probe.sampled
        split = dict(zip(self.probe.ids, self.probe.splits, strict=True))
        kept = [at for at, w in enumerate(ids) if split[w] == "evaluation"]
        columns = self._evaluated(run, i)
        return table("update_vector", self.dims, len(kept), {
            "run_id": run.run_id, "layer": i, "window_id": [ids[at] for at in kept], "position": positions[kept],
            "v0": [columns["v0"][at] for at in kept], "v1": [columns["v1"][at] for at in kept],
        })  # fmt: skip

    def _overlap(self, run: Run, i: int) -> pa.Table:
        z0 = self.base.layers[i].z[self.probe.sampled[2]]
        rows = overlap_rows(self.s, self.base.weights, run.weights, i, z0)
        columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        spec = TABLES["overlap"].arrow_schema(self.dims)
        return (
            pa.table({"run_id": [run.run_id] * len(rows), "layer": [i] * len(rows), **columns}, schema=spec)
            if rows
            else spec.empty_table()
        )

    def _output(self, run: Run) -> pa.Table:
        ids, positions = self.probe.token_rows
        predicts = positions < np.repeat(self.probe.lengths, self.probe.lengths) - 1
        scores, logits = log_softmax(run.next_token[predicts]), run.next_token[predicts]
        base = log_softmax(self.base.next_token[predicts])
        target = np.concatenate([np.array(t[1:]) for t in self.probe.tokens])
        kl = (np.exp(base.astype(np.float64)) * (base.astype(np.float64) - scores)).sum(axis=1) if run.arm else None
        return table("output", self.dims, len(target), {
            "run_id": run.run_id, "window_id": [w for w, p in zip(ids, predicts, strict=True) if p],
            "position": positions[predicts], "nll": -scores[np.arange(len(target)), target],
            "top1": logits.argmax(axis=1), "entropy": -(np.exp(scores) * scores).sum(axis=1), "kl_from_base": kl,
        })  # fmt: skip

    def _task(self, run: Run) -> pa.Table:
        s = self.s
        easy = np.argsort(np.random.default_rng([s.seed, 6]).random(s.items))
        score = np.zeros(s.items)
        score[easy[: round((run.arm.success if run.arm else 0.2) * s.items)]] = 1.0
        return table("task", self.dims, s.items, {"run_id": run.run_id, "item_id": item_names(s), "score": score})
