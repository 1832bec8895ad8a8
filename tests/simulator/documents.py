"""The documents of a simulated study: contract, pre-registration and run log, which cite each other by their true digests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.run_log import Artefact, RunLog, Step
from atlas_schema.protocol.log import step_hash
from atlas_schema.study.probe import item_digest, token_digest
from simulator.model import base_weights, model_digest
from simulator.probe import item_names, make_probe, predicted_bytes
from simulator.settings import CHANGES, NUISANCES, Settings


def contract_json(s: Settings) -> dict[str, Any]:
    """Return the contract of a simulated study as JSON."""
    bootstrap = {
        "resamples": 1000, "alpha": 0.025, "batches": 20, "monte_carlo_errors": 4.0, "min_clusters": 50,
        "min_clusters_per_stratum": 5, "rare_event_clusters": 10, "rare_event_resolution": 1e-6,
        "rationale": "small enough for tests", **s.bootstrap,
    }  # fmt: skip
    return {
        "kind": "contract", "schema_version": "1.0", "id": "simulated.v1", "title": "A contract for simulated studies",
        "channels": [
            {"definition": definition, "rationale": "a round number",
             "thresholds": [{"form": form, "value": value} for form, value in forms.items()]}
            for definition, forms in s.thresholds.items()
        ],
        "nuisances": [{"id": n, "changes": CHANGES[n], "rationale": "other arithmetic"} for n in NUISANCES],
        "max_missing_competitor_share": 0.05, "min_positions_per_window": 1, "bootstrap": bootstrap,
        "tolerances": {"float32_unit": 2.0**-24, "accumulation": 4, "float64_relative": 1e-9, "reconstruction": 1e-3,
                       "rationale": "the arithmetic of the simulator"},
        "numbers": {"significant_digits": 9, "relative_tolerance": 1e-12, "rationale": "more than anyone reads"},
        "damage": {"definition": "damage.delta_nll/1", "max_tolerance_nats": 0.1, "rationale": "a round number"},
        "success": {"definition": "success.mean_score/1", "max_tolerance": 0.2, "min_items": 50,
                    "rationale": "a round number"},
        "occupancy": {"min_effective_ratio": 0.8, "max_lost_experts": 0, "rarefied_tokens": 100,
                      "rationale": "round numbers"},
        "notes": "for tests",
    }  # fmt: skip


def preregistration_json(s: Settings, contract: Contract, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the pre-registration of a simulated study as JSON."""
    probe = make_probe(s)
    runs, layers, windows = 1 + len(NUISANCES) + len(s.arms), len(s.protected), len(probe.ids)
    tokens, evaluated = int(probe.lengths.sum()), probe.splits.count("evaluation")
    expected = {
        "run": runs, "layer": runs * layers, "window": windows, "routing": runs * layers * tokens,
        "state": runs * layers * windows * s.positions, "update": (runs - 1) * layers * windows * s.positions,
        "update_vector": (runs - 1) * layers * evaluated * s.positions, "output": runs * (tokens - windows),
        "task": runs * s.items, "overlap": (1 + len(s.arms)) * layers * s.overlap_pairs,
    }  # fmt: skip
    return {
        "kind": "preregistration", "schema_version": "1.0", "study": "simulated", "created": "2026-01-01T00:00:00Z",
        "contract": {"id": contract.id, "digest": digest_document(contract.model_dump(mode="json"))},
        "base": {"name": "tiny", "architecture": s.adapter, "weights_digest": model_digest(base_weights(s)),
                 "config_digest": digest_bytes(b"config"), "tokenizer_digest": digest_bytes(b"tokenizer")},
        "protected_layers": list(s.protected), "positions_per_window": s.positions,
        "first_allowed_position": s.first_allowed, "overlap_pairs": s.overlap_pairs,
        "probe": {"file": "windows.jsonl", "digest": digest_bytes(files["windows.jsonl"].encode())},
        "windows": [
            {"window_id": w, "cluster_id": c, "domain": d, "split": split, "n_bytes": len(text.encode()),
             "predicted_bytes": predicted_bytes(text), "n_tokens": len(t), "token_digest": token_digest(t)}
            for w, c, d, text, split, t in zip(
                probe.ids, probe.clusters, probe.domains, probe.texts, probe.splits, probe.tokens, strict=True)
        ],
        "damage_tolerance_nats": s.damage_tolerance_nats,
        "task": {"file": "task.jsonl", "digest": digest_bytes(files["task.jsonl"].encode()), "scoring": "greedy_exact",
                 "target": s.target, "tolerance": s.tolerance,
                 "items": [{"item_id": name, "digest": item_digest([i], [i + 1])}
                           for i, name in enumerate(item_names(s))]},
        "arms": [{"name": a.name, "policy": a.policy, "chart_preserving": a.chart_preserving} for a in s.arms],
        "pilot": None, "expected_rows": expected, "notes": "simulated",
    }  # fmt: skip


def make_log(preregistration: Preregistration, root: str, since: str = "2026-01-01T00:00:00Z") -> RunLog:
    """Return the run log of a study that was declared, then extracted, not before a time."""
    declared = digest_document(preregistration.model_dump(mode="json"))
    plan = preregistration
    inputs = {"base": plan.base.weights_digest, "contract": plan.contract.digest, "probe": plan.probe.digest,
              "task": plan.task.digest}  # fmt: skip
    times = [max(time, since) for time in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")]
    first = make_step(None, "declare", "technician", times[0], inputs, {"preregistration": declared})
    second = make_step(first, "extract", "automation", times[1], {"preregistration": declared},
                       {"evidence": root})  # fmt: skip
    return RunLog(kind="run_log", schema_version="1.0", steps=(first, second))


def make_step(
    before: Step | None, name: str, actor: str, time: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Step:
    """Return a step chained to the one before."""
    step = Step.model_validate({
        "index": before.index + 1 if before else 0, "step": name, "actor": actor, "tool": "simulator", "time": time,
        "inputs": tuple(Artefact(name=n, digest=d) for n, d in sorted(inputs.items())),
        "outputs": tuple(Artefact(name=n, digest=d) for n, d in sorted(outputs.items())),
        "previous": before.hash if before else None, "hash": "sha256:" + "0" * 64,
    })  # fmt: skip
    return step.model_copy(update={"hash": step_hash(step)})
