"""The small tables, read whole: what runs and their routed layers are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.evidence.source import EvidenceSource, read_all
from atlas_schema.measures.definitions import Definition
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.routers import RouterRule, effective_gain


def runs_of(plan: Preregistration, contract: Contract) -> tuple[str, ...]:
    """Return base, null arms and arms, in the order of the documents."""
    return ("base", *(f"null:{n.id}" for n in contract.nuisances), *(f"arm:{a.name}" for a in plan.arms))


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One row of table `run`."""

    weights: str
    fingerprint: str
    distance: float


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One row of table `layer`: the router, and what the extractor says of the layer. ``weights`` ``[E, d]`` include the gain."""

    rule: RouterRule
    eps: float
    weights: F64
    bias: F64 | None
    rank: int
    reconstruction: float
    digests: Mapping[str, str]


def run_facts(evidence: EvidenceSource) -> dict[str, RunFacts]:
    """Read table `run`."""
    rows = read_all(evidence, "run")
    columns = (rows["weights_digest"], rows["fingerprint"], rows["param_distance"])
    return {
        run: RunFacts(str(w), str(f), float(d)) for run, w, f, d in zip(rows["run_id"], *columns, strict=True)
    }  # fmt: skip


def layer_facts(evidence: EvidenceSource, run_id: str, layer: int) -> LayerFacts:
    """Read one row of table `layer`."""
    rows = evidence.read("layer", (run_id, layer))
    dims = evidence.dims
    router = rows["router_weight"][0].astype(np.float64).reshape(dims.E, dims.d)
    biased = bool(rows.valid("router_bias")[0])
    return LayerFacts(
        RouterRule.of(rows), float(rows["eps"][0]), router * effective_gain(rows),
        rows["router_bias"][0].astype(np.float64) if biased else None, int(rows["w1_rank_min"][0]),
        float(rows["reconstruction_error"][0]), dict(json.loads(rows["tensor_digests"][0])),
    )  # fmt: skip


def tensor_digests(evidence: EvidenceSource, run_id: str, layer: int) -> dict[str, str]:
    """Return the digests of the tensors behind one layer of one run; empty where the row is missing."""
    rows = evidence.read("layer", (run_id, layer))
    return {} if rows.n == 0 else dict(json.loads(rows["tensor_digests"][0]))


def same_tensors(definition: Definition, base: Mapping[str, str], arm: Mapping[str, str]) -> bool:
    """Return whether every tensor that feeds a definition is bitwise equal in base and arm."""

    def feeding(digests: Mapping[str, str]) -> dict[str, str]:
        return {name: d for name, d in digests.items() if name.startswith(definition.tensors)}

    return bool(feeding(base)) and feeding(base) == feeding(arm)
