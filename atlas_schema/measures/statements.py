"""From sums to what a receipt reports without deciding anything: reported quantities, assumptions, occupancy, three states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atlas_schema.documents.receipt import (
    Assumption,
    BaseFindings,
    Cell,
    CellState,
    DomainDamage,
    Reported,
    RunOccupancy,
    ThreeStates,
)
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.collect import Sums
from atlas_schema.measures.geometry import F64, Ints
from atlas_schema.measures.ledger import Ratio, Scalar
from atlas_schema.measures.occupancy import run_occupancy

NOTES = {
    ids.CERTIFICATE: "sampled tokens with a competitor",
    ids.ONE_SWAP: "sampled tokens with a competitor",
    ids.PI_PLUGIN: "all assignments; biased upward",
    ids.PI_SHIFT: "all assignments; in expectation at most the true distance",
    ids.ADJACENCY_PLUGIN: "all tokens with a competitor; biased upward",
    ids.ADJACENCY_SHIFT: "all tokens with a competitor; in expectation at most the true distance",
}  # fmt: skip
"""What a value is taken over, where it takes more than the registry's words."""


def standard_error(ratio: Ratio, strata: Sequence[Ints]) -> float | None:
    """Return the linearised, cluster-robust, stratified standard error of ``sum N / sum D`` over the clusters of the strata.

    The formula is that of the bootstrap (`docs/measures.md`, section 6); None where no stratum has two clusters.
    """
    inside = np.concatenate(list(strata)) if strata else np.zeros(0, dtype=np.int64)
    n, d = ratio.numerator[inside], ratio.denominator[inside]
    total = float(d.sum())
    if not total > 0 or not any(len(members) > 1 for members in strata):
        return None
    with np.errstate(all="ignore"):
        residual: F64 = np.zeros(len(ratio.numerator))
        residual[inside] = n - float(n.sum()) / total * d
        if not float(np.abs(residual).max()) > 1e-12 * float(np.abs(n).max()):
            return 0.0
        variance = 0.0
        for members in strata:
            size, e = len(members), residual[members]
            if size > 1:
                variance += size / (size - 1.0) * float(((e - e.mean()) ** 2).sum())
        error = float(np.sqrt(variance)) / total
    return error if np.isfinite(error) else None


class Statements:
    """Writes entries of findings from sums. ``strata`` are those of drift; a domain is a stratum of its own."""

    def __init__(self, sums: Sums, layers: Sequence[int], strata: Strata, domains: Sequence[str]) -> None:
        self.sums, self.layers, self.strata, self.domains = sums, layers, strata.members, domains

    def base(self) -> BaseFindings:
        """Return what is reported of the base."""
        reported = [self._of_layer("base", layer, name) for layer in self.layers for name in ids.OF_BASE_LAYER]
        reported += [self._of_domain("base", domain, name) for domain in self.domains for name in ids.OF_BASE_DOMAIN]
        return BaseFindings(reported=tuple(reported), assumptions=self.assumptions("base"))

    def arm(self, run_id: str) -> tuple[Reported, ...]:
        """Return what is reported of an arm: by layer, of the whole model, by domain."""
        reported = [self._of_layer(run_id, layer, name) for layer in self.layers for name in ids.OF_ARM_LAYER]
        distance = Scalar(self.sums.runs[run_id].distance, 1)
        reported.append(self._entry(ids.BASELINE_PARAMETERS, None, None, distance, None))
        reported += [self._of_domain(run_id, domain, name) for domain in self.domains for name in ids.OF_ARM_DOMAIN]
        return tuple(reported)

    def assumptions(self, run_id: str) -> tuple[Assumption, ...]:
        """Return the measured status of every assumption, by layer."""
        made = []
        for layer in self.layers:
            rank = self.sums.scalars[run_id, layer, ids.RANK]
            angular, tangent = (self._ratio(run_id, layer, name) for name in (ids.ANGULAR, ids.TANGENT))
            for name, found, holds in (
                (ids.RANK, rank, rank.value == self.sums.dims.d), (ids.ANGULAR, angular, angular.value == 1.0),
                (ids.TANGENT, tangent, None),
            ):  # fmt: skip
                entry = ids.REGISTRY[name]
                made.append(Assumption(
                    definition=name, layer=layer, value=found.value, holds=None if found.value is None else holds,
                    count=found.count, assurance=entry.assurance, note=found.note or entry.over,
                ))  # fmt: skip
        return tuple(made)

    def occupancy(self, run_id: str) -> RunOccupancy:
        """Return one run's occupancy in the protected layers."""
        return run_occupancy(run_id, [self.sums.occupancy[run_id, layer] for layer in self.layers])

    def _ratio(self, run_id: str, layer: int, name: str) -> Scalar:
        ratio = self.sums.ratios.get((run_id, layer, name))
        if ratio is None:
            return Scalar(None, 0, "base and arm have different score spaces")
        return Scalar(ratio.value, ratio.tokens, "" if ratio.value is not None else "nothing is in the denominator")

    def _of_layer(self, run_id: str, layer: int, name: str) -> Reported:
        scalar = self.sums.scalars.get((run_id, layer, name))
        if scalar is not None:
            return self._entry(name, layer, None, scalar, None)
        ratio = self.sums.ratios.get((run_id, layer, name))
        error = None if ratio is None else standard_error(ratio, self.strata)
        return self._entry(name, layer, None, self._ratio(run_id, layer, name), error)

    def _of_domain(self, run_id: str, domain: str, name: str) -> Reported:
        members = np.flatnonzero([d == domain for d in self.sums.clusters.domains])
        loss = self.sums.ratios[run_id, None, ids.PERPLEXITY]
        whole = self.sums.ratios[run_id, None, name] if name != ids.BITS else None
        if whole is None:
            whole = Ratio(loss.numerator / np.log(2.0), self.sums.predicted_bytes)
        ratio = Ratio(whole.numerator[members], whole.denominator[members])
        count, value = int(loss.denominator[members].sum()), ratio.value
        error = standard_error(whole, [members])
        if name == ids.PERPLEXITY:
            with np.errstate(over="ignore"):
                value, error = None if value is None else float(np.exp(value)), None
        note = "" if value is not None else "nothing is in the denominator"
        return self._entry(name, None, domain, Scalar(value, count, note), error)

    def _entry(self, name: str, layer: int | None, domain: str | None, found: Scalar, error: float | None) -> Reported:
        entry, value = ids.REGISTRY[name], found.value
        if value is not None and not np.isfinite(value):
            found, value = Scalar(None, found.count, "the value is no finite number"), None
        return Reported(
            definition=name, layer=layer, domain=domain, value=value, standard_error=None if value is None else error,
            count=found.count, assurance=entry.assurance, note=found.note or NOTES.get(name, entry.over),
        )  # fmt: skip


def three_states(cells: Sequence[Cell], damage: Sequence[DomainDamage]) -> ThreeStates:
    """Return the informal summary for operators: boundaries, what lies behind them, outputs."""

    def joined(states: Sequence[CellState]) -> CellState:
        applicable = [s for s in states if s != "not_applicable"]
        if not applicable:
            return "not_applicable"
        for state in ("above", "undetermined", "below"):
            if state in applicable:
                return state
        return "identical"

    def of(*definitions: str) -> CellState:
        return joined([c.state for c in cells if c.definition in definitions])

    return ThreeStates(
        boundary_sensitivity=of(ids.BOUNDARY), coactive_compatibility=of(ids.TRANSITION, ids.CONTENT),
        output_damage=joined([d.state for d in damage]),
    )  # fmt: skip
