"""``collect``: one pass over the evidence, a block of windows of all runs at a time, to the sums that findings follow from.

Whoever else must see every row (digests, checks) looks on as an `Observer`, so that evidence is decoded once. Memory is one
block, the totals per cluster, and per sampled token of one layer what its cells weigh it by (for an exact top-percent share).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from atlas_schema.documents.contract import Contract, Form
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import LayerOccupancy
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource, read_all
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.clusters import Clusters, clusters_of, top_percent_share
from atlas_schema.measures.drift import Group, TokenValues, coordinate, in_form, same_state, update_groups
from atlas_schema.measures.facts import LayerFacts, RunFacts, layer_facts, run_facts, runs_of
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.ledger import Key, Ledger, Places, Ratio, Scalar, everywhere
from atlas_schema.measures.occupancy import Assignments, entropy_change, layer_occupancy, shift
from atlas_schema.measures.overlap import PairDrift, overlap_scalars, rank_correlation
from atlas_schema.measures.reported import (
    Native,
    angular,
    base_same_state,
    native,
    norm_baseline,
    outputs,
    same_state_reported,
    tangent,
)


@dataclass(frozen=True, slots=True)
class LayerBlock:
    """Rows of one protected layer and one range of windows, per run; `update` and `vectors` have none of the base."""

    layer: int
    state: Mapping[str, Rows]
    routing: Mapping[str, Rows]
    update: Mapping[str, Rows]
    vectors: Mapping[str, Rows]
    _groups: dict[str, list[Group]] = field(default_factory=dict)

    def groups(self, run_id: str) -> list[Group]:
        """Return `update_groups` of one run's rows, made once for all who ask."""
        if run_id not in self._groups:
            self._groups[run_id] = update_groups(self.update[run_id])
        return self._groups[run_id]


@dataclass(frozen=True, slots=True)
class OutputBlock:
    """Output rows of one range of windows, per run."""

    output: Mapping[str, Rows]


class Observer(Protocol):
    """Sees every block before it is measured; may raise `RowsError` to stop the pass."""

    def layer_block(self, block: LayerBlock) -> None: ...

    def output_block(self, block: OutputBlock) -> None: ...


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything that findings follow from, of a size that does not grow with the number of tokens."""

    dims: Dims
    clusters: Clusters
    runs: Mapping[str, RunFacts]
    layers: Mapping[tuple[str, int], LayerFacts]
    ratios: Mapping[Key, Ratio]
    scalars: Mapping[Key, Scalar]
    top_shares: Mapping[Key, float | None]
    occupancy: Mapping[tuple[str, int], LayerOccupancy]
    predicted_bytes: F64
    scores: Mapping[str, F64]


def cell_key(run_id: str, layer: int, definition: str, form: Form) -> Key:
    """Return the key of a gated cell."""
    return run_id, layer, f"{definition} {form}"


def collect(
    evidence: EvidenceSource, contract: Contract, plan: Preregistration, observers: Sequence[Observer] = ()
) -> Sums:
    """Read the evidence once. Does not check it: checks are observers, and look first."""
    window = read_all(evidence, "window")
    work = _Pass(evidence, contract, runs_of(plan, contract), clusters_of(window), observers)
    for layer in plan.protected_layers:
        work.layer(layer)
    work.outputs()
    places = Places.of(window, work.clusters)
    predicted = np.bincount(places.cluster, weights=window["predicted_bytes"], minlength=len(work.clusters.names))
    scores = {run: evidence.read("task", (run,))["score"].astype(np.float64) for run in work.runs}
    return Sums(
        evidence.dims, work.clusters, run_facts(evidence), work.layers, work.ledger.ratios, work.scalars, work.top_shares,
        work.occupancy, predicted.astype(np.float64), scores,
    )  # fmt: skip


class _Pass:
    """The state of one pass."""

    def __init__(
        self, evidence: EvidenceSource, contract: Contract, runs: tuple[str, ...], clusters: Clusters,
        observers: Sequence[Observer],
    ) -> None:  # fmt: skip
        self.evidence, self.contract, self.runs, self.clusters = evidence, contract, runs, clusters
        self.observers, self.dims = observers, evidence.dims
        self.others = runs[1:]
        self.arms = tuple(run for run in runs if run.startswith("arm:"))
        self.halves = clusters.halves
        self.ledger = Ledger(len(clusters.names))
        self.layers: dict[tuple[str, int], LayerFacts] = {}
        self.scalars: dict[Key, Scalar] = {}
        self.top_shares: dict[Key, float | None] = {}
        self.occupancy: dict[tuple[str, int], LayerOccupancy] = {}

    def layer(self, layer: int) -> None:
        """Collect one protected layer."""
        self.layers |= {(run, layer): layer_facts(self.evidence, run, layer) for run in self.runs}
        work = _Layer(self, layer)
        tables = (("state", self.runs), ("routing", self.runs), ("update", self.others), ("update_vector", self.others))
        wanted: list[tuple[str, tuple[str | int, ...]]] = [(t, (run, layer)) for t, runs in tables for run in runs]
        for parts in self.evidence.blocks(wanted):
            rest = iter(parts)
            state, routing, update, vectors = ({run: next(rest) for run in runs} for _, runs in tables)
            block = LayerBlock(layer, state, routing, update, vectors)
            for observer in self.observers:
                observer.layer_block(block)
            work.add(block)
        work.close()

    def outputs(self) -> None:
        """Collect the outputs of all runs."""
        for parts in self.evidence.blocks([("output", (run,)) for run in self.runs]):
            block = OutputBlock(dict(zip(self.runs, parts, strict=True)))
            for observer in self.observers:
                observer.output_block(block)
            for run in ("base", *self.arms):
                places = Places.of(block.output[run], self.clusters)
                for name, values in outputs(block.output["base"], block.output[run]).items():
                    self.ledger.add((run, None, name), values, places)


class _Layer:
    """One protected layer under collection."""

    def __init__(self, work: _Pass, layer: int) -> None:
        self.work, self.number = work, layer
        size = work.dims.E
        self.assignments = {run: Assignments(size) for run in ("base", *work.arms)}
        self.overlap = {run: work.evidence.read("overlap", (run, layer)) for run in ("base", *work.arms)}
        self.pairs = {run: PairDrift(self.overlap["base"], size) for run in work.arms}
        self.weights: dict[Key, list[F64]] = {}  # of cells whose tokens weigh differently
        self.cells: set[Key] = set()

    def facts(self, run: str) -> LayerFacts:
        return self.work.layers[run, self.number]

    def add(self, block: LayerBlock) -> None:
        """Add one block of all runs."""
        work, base = self.work, block.state["base"]
        routed = Native.of(block.routing["base"], work.dims.E)
        at_all = Places.of(block.routing["base"], work.clusters)
        self._assign("base", block.routing["base"], at_all)
        self._angular("base", base)
        for run in work.others:
            state, update, groups = block.state[run], block.update[run], block.groups(run)
            values = {ids.COORDINATE: coordinate(base, state), **same_state(update, work.dims.k, groups)}
            at_state, at_update = Places.of(state, work.clusters), Places.of(update, work.clusters)
            self._cells(run, values, at_state, at_update)
            if not run.startswith("arm:"):
                continue
            both = self.facts("base"), self.facts(run)
            native_values = native(
                routed, Native.of(block.routing[run], work.dims.E), both[0].rule.score_space == both[1].rule.score_space
            )
            self._record(run, native_values, Places.of(block.routing[run], work.clusters))
            self._record(
                run, {ids.BASELINE_NORM: norm_baseline(base, state, both[0].eps, both[1].eps, work.dims.d)}, at_state
            )
            rules = both[0].rule, both[1].rule
            own = same_state_reported(update, groups, rules, values[ids.CONTENT])
            own[ids.TRANSPORT_LOCAL] = everywhere(update["transport_angle"], update.valid("transport_angle"))
            own[ids.TANGENT] = tangent(update, groups, of_base=False)
            self._record(run, own, at_update)
            self.pairs[run].add(update, values[ids.TRANSITION])
            self._assign(run, block.routing[run], Places.of(block.routing[run], work.clusters))
            self._angular(run, state)
        # The base's own same-state values are the same in every run's rows; the first planned arm's stand for them.
        update, groups = block.update[work.arms[0]], block.groups(work.arms[0])
        own = base_same_state(update, groups, self.facts("base").rule, routed)
        own[ids.TANGENT] = tangent(update, groups, of_base=True)
        self._record("base", own, Places.of(update, work.clusters))

    def close(self) -> None:
        """Finish what needs the whole layer."""
        work, layer, k = self.work, self.number, self.work.dims.k
        base = self.assignments["base"]
        for key in self.cells:
            parts = self.weights.get(key)
            equal = np.ones(work.ledger.ratios[key].tokens) if parts is None else np.concatenate(parts)
            work.top_shares[key] = top_percent_share(equal)
        for run, found in self.assignments.items():
            rarefied = work.contract.occupancy.rarefied_tokens
            work.occupancy[run, layer] = layer_occupancy(layer, found, k, rarefied)
            scalars = overlap_scalars(self.overlap[run], work.dims.d)
            facts = self.facts(run)
            scalars[ids.RECONSTRUCTION] = Scalar(facts.reconstruction, found.tokens)
            scalars[ids.RANK] = Scalar(float(facts.rank), work.dims.E)
            if run != "base":
                scalars[ids.BASELINE_TELEMETRY] = Scalar(entropy_change(base, found), found.tokens)
                scalars[ids.OVERLAP_CORRELATION] = rank_correlation(self.overlap["base"], self.pairs[run])
                scalars |= _shifts(base, found)
            work.scalars |= {(run, layer, name): scalar for name, scalar in scalars.items()}

    def _cells(self, run: str, values: Mapping[str, TokenValues], at_state: Places, at_update: Places) -> None:
        for channel in self.work.contract.channels:
            places = at_state if ids.DEFINITIONS[channel.definition].native else at_update
            for threshold in channel.thresholds:
                tokens = in_form(values[channel.definition], threshold.form)
                key = cell_key(run, self.number, channel.definition, threshold.form)
                self.work.ledger.add(key, tokens, places)
                if threshold.form == ids.SUMS and channel.definition not in (ids.COORDINATE, ids.BOUNDARY):
                    self.weights.setdefault(key, []).append(tokens.denominator[tokens.present])
                self.cells.add(key)

    def _record(self, run: str, values: Mapping[str, TokenValues], places: Places) -> None:
        for name, tokens in values.items():
            self.work.ledger.add((run, self.number, name), tokens, places)

    def _assign(self, run: str, routing: Rows, places: Places) -> None:
        self.assignments[run].add(routing, self.work.halves[places.cluster])

    def _angular(self, run: str, state: Rows) -> None:
        facts, dims = self.facts(run), self.work.dims
        values = angular(state, facts.rule, facts.weights, facts.bias, dims.k, dims.P)
        self._record(run, {ids.ANGULAR: values}, Places.of(state, self.work.clusters))


def _shifts(base: Assignments, arm: Assignments) -> dict[str, Scalar]:
    found = {}
    for counts0, counts1, witness, plugin in (
        (base.loads, arm.loads, ids.PI_SHIFT, ids.PI_PLUGIN), (base.swaps, arm.swaps, ids.ADJACENCY_SHIFT, ids.ADJACENCY_PLUGIN),
    ):  # fmt: skip
        moved = shift(counts0, counts1)
        found[witness] = Scalar(moved.witness, moved.count, "" if moved.witness is not None else "a half has no tokens")
        found[plugin] = Scalar(moved.plugin, moved.count, "" if moved.plugin is not None else "no tokens")
    return found
