"""One run against the base: the gated columns of its cells, as cluster sums and what the interval rules need to know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Contract, Form
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.collect import Sums, cell_key
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.facts import same_tensors, tensor_digests
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Statistic

__all__ = ["CellName", "DamageColumns", "RunCells", "damage_columns", "run_cells", "same_tensors", "tensor_digests"]


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


def run_cells(sums: Sums, run_id: str, layers: tuple[int, ...], contract: Contract) -> RunCells:
    """Return every gated cell of one run."""
    names = [
        CellName(layer, c.definition, t.form) for layer in layers for c in contract.channels for t in c.thresholds
    ]  # fmt: skip
    ratios = [sums.ratios[cell_key(run_id, n.layer, n.definition, n.form)] for n in names]
    statistics = []
    for name, ratio in zip(names, ratios, strict=True):
        definition, total = DEFINITIONS[name.definition], ratio.tokens + ratio.missing
        share = ratio.missing / total if total else 1.0
        refused = (
            f"{share:.1%} of tokens have no competitor"
            if definition.needs_pair and share > contract.max_missing_competitor_share
            else ""
        )
        digests = (sums.layers[run, name.layer].digests for run in ("base", run_id))
        statistics.append(Statistic(same_tensors(definition, *digests), name.form in definition.bounded, True, refused))
    choice = sums.dims.k < sums.dims.E
    return RunCells(
        tuple(names), np.stack([r.numerator for r in ratios], axis=1), np.stack([r.denominator for r in ratios], axis=1),
        tuple(r.missing for r in ratios),
        tuple(sums.top_shares[cell_key(run_id, n.layer, n.definition, n.form)] for n in names), tuple(statistics),
        tuple(choice or n.definition not in (ids.BOUNDARY, ids.TRANSITION) for n in names),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DamageColumns:
    """Per domain: cluster sums of the paired NLL difference ``[n, c]``, and totals ``[c]``."""

    numerator: F64
    denominator: F64
    base_nll: tuple[float, ...]


def damage_columns(sums: Sums, run_id: str, domains: tuple[str, ...]) -> DamageColumns:
    """Split the paired change of the loss by domain."""
    change, before = sums.ratios[run_id, None, ids.DAMAGE], sums.ratios["base", None, ids.PERPLEXITY]
    inside = np.array([[d == domain for domain in domains] for d in sums.clusters.domains])
    base = [float(before.numerator[mask].sum() / before.denominator[mask].sum()) for mask in inside.T]
    return DamageColumns(change.numerator[:, None] * inside, change.denominator[:, None] * inside, tuple(base))
