"""One run against the base: the gated columns of its cells, as cluster sums and what the interval rules need to know."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from atlas_schema.documents.contract import Contract, Form
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.clusters import Clusters, matrices, merge, sum_by_cluster, top_percent_share
from atlas_schema.measures.definitions import DEFINITIONS, Definition
from atlas_schema.measures.drift import coordinate, in_form, same_state
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Statistic


@dataclass(frozen=True, slots=True)
class CellName:
    """A gated cell of one run."""

    layer: int
    definition: str
    form: Form

    def __str__(self) -> str:
        return f"layer {self.layer} {self.definition} {self.form}"


@dataclass(frozen=True, slots=True)
class RunCells:
    """Cells of one run with their cluster matrices ``[n, c]``."""

    names: tuple[CellName, ...]
    numerator: F64
    denominator: F64
    missing: tuple[int, ...]
    top_share: tuple[float | None, ...]
    statistics: tuple[Statistic, ...]
    applicable: tuple[bool, ...]


def tensor_digests(evidence: EvidenceSource, run_id: str, layer: int) -> dict[str, str]:
    """Return the digests of the tensors behind one layer of one run; empty where the row is missing."""
    rows = evidence.read("layer", (run_id, layer))
    return {} if rows.n == 0 else dict(json.loads(rows["tensor_digests"][0]))


def same_tensors(definition: Definition, base: dict[str, str], arm: dict[str, str]) -> bool:
    """Return whether every tensor that feeds a definition is bitwise equal in base and arm."""

    def feeding(digests: dict[str, str]) -> dict[str, str]:
        return {name: d for name, d in digests.items() if name.startswith(definition.tensors)}

    return bool(feeding(base)) and feeding(base) == feeding(arm)


def run_cells(
    evidence: EvidenceSource, run_id: str, layers: tuple[int, ...], contract: Contract, clusters: Clusters
) -> RunCells:
    """Compute every gated cell of one run, one layer at a time."""
    names: list[CellName] = []
    frames: list[pl.DataFrame] = []
    top: list[float | None] = []
    same: list[bool] = []
    for layer in layers:
        base_state, state = evidence.read("state", ("base", layer)), evidence.read("state", (run_id, layer))
        update = evidence.read("update", (run_id, layer))
        values = {ids.COORDINATE: coordinate(base_state, state), **same_state(update, evidence.dims.k)}
        digests = tensor_digests(evidence, "base", layer), tensor_digests(evidence, run_id, layer)
        where = {True: clusters.positions(state), False: clusters.positions(update)}
        for channel in contract.channels:
            definition = DEFINITIONS[channel.definition]
            for threshold in channel.thresholds:
                name = CellName(layer, definition.id, threshold.form)
                tokens = in_form(values[definition.id], threshold.form)
                names.append(name)
                frames.append(sum_by_cluster(str(name), tokens, where[definition.native], len(clusters.names)))
                top.append(top_percent_share(tokens))
                same.append(same_tensors(definition, *digests))
    frame = merge(frames)
    numerator, denominator = matrices(frame, [str(n) for n in names], len(clusters.names))
    counts = {row["column"]: row for row in frame.group_by("column").agg(pl.col("tokens", "missing").sum()).to_dicts()}
    missing = tuple(int(counts[str(n)]["missing"]) for n in names)
    total = [int(counts[str(n)]["tokens"]) + m for n, m in zip(names, missing, strict=True)]
    statistics = tuple(
        _statistic(n, s, m / t if t else 1.0, contract) for n, s, m, t in zip(names, same, missing, total, strict=True)
    )
    choice = evidence.dims.k < evidence.dims.E
    applicable = tuple(choice or n.definition not in (ids.BOUNDARY, ids.TRANSITION) for n in names)
    return RunCells(tuple(names), numerator, denominator, missing, tuple(top), statistics, applicable)


def _statistic(name: CellName, identical: bool, missing_share: float, contract: Contract) -> Statistic:
    definition, refused = DEFINITIONS[name.definition], ""
    if definition.needs_pair and missing_share > contract.max_missing_competitor_share:
        refused = f"{missing_share:.1%} of tokens have no competitor"
    return Statistic(identical, name.form in definition.bounded, True, refused)


@dataclass(frozen=True, slots=True)
class DamageColumns:
    """Per domain: cluster sums of the paired NLL difference ``[n, c]``, and totals ``[c]``."""

    numerator: F64
    denominator: F64
    base_nll: tuple[float, ...]


def damage_columns(
    evidence: EvidenceSource, run_id: str, domains: tuple[str, ...], clusters: Clusters
) -> DamageColumns:
    """Pair the per-token negative log-likelihoods of base and run, by cluster and domain."""
    from atlas_schema.measures.drift import require_same_keys

    base, arm = evidence.read("output", ("base",)), evidence.read("output", (run_id,))
    require_same_keys(base, arm)
    at = clusters.positions(base)
    size = len(clusters.names)
    # The difference is formed in float64 from the stored float32 values, token by token.
    change = np.bincount(at, weights=arm["nll"].astype(np.float64) - base["nll"].astype(np.float64), minlength=size)
    before = np.bincount(at, weights=base["nll"].astype(np.float64), minlength=size)
    tokens = np.bincount(at, minlength=size).astype(np.float64)
    inside = np.array([[d == domain for domain in domains] for d in clusters.domains])
    sums = [float(before[inside[:, c]].sum() / tokens[inside[:, c]].sum()) for c in range(len(domains))]
    return DamageColumns(change[:, None] * inside, tokens[:, None] * inside, tuple(sums))
