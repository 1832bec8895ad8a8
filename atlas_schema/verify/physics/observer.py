"""Every physical check, block by block, as an observer of the one pass over the evidence."""

from __future__ import annotations

import numpy as np

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.evidence.columns import Array, Rows
from atlas_schema.evidence.source import EvidenceSource, read_all
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.collect import LayerBlock, OutputBlock
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.drift import require_same_keys, same_state
from atlas_schema.measures.facts import runs_of, same_tensors
from atlas_schema.measures.geometry import Ints
from atlas_schema.verify.physics import native, outputs
from atlas_schema.verify.physics.layers import LayerFacts, check_digests, check_layer, text_object
from atlas_schema.verify.physics.overlap import check_overlap, check_overlap_ids, check_ranks
from atlas_schema.verify.physics.samestate import BaseSide
from atlas_schema.verify.physics.vectors import check_vectors
from atlas_schema.verify.physics.violations import Record, Violation, first_false

Cell = tuple[str, int]


class Physics:
    """Observer: checks of every row (R001 to R012, R015 to R028, R130 to R133). Memory is a block and a few numbers per layer.

    ``ready`` where the small tables can be used at all; without that no block may be shown.
    """

    def __init__(self, evidence: EvidenceSource, plan: Preregistration, contract: Contract) -> None:
        self.evidence, self.plan, self.contract = evidence, plan, contract
        self.runs, self.dims, self.tolerances = runs_of(plan, contract), evidence.dims, contract.tolerances
        self.record, self.facts = Record(), {}
        self._moved: set[tuple[str, Cell]] = set()
        self._visits: dict[int, Ints] = {}
        self._marks: dict[tuple[str, int | None], dict[str, int]] = {}
        table = read_all(evidence, "run")
        self.weights = {
            str(run): (str(digest), float(distance))
            for run, digest, distance in zip(
                table["run_id"], table["weights_digest"], table["param_distance"], strict=True
            )
        }
        self._tokens = read_all(evidence, "window")
        for layer in plan.protected_layers:
            for run in self.runs:
                self._prepare(run, layer)
        self.ready = len(self.facts) == len(self.runs) * len(plan.protected_layers) and not self.record.broken(
            "ATL-R024"
        )

    facts: dict[Cell, LayerFacts]

    def _cell(self, run: str, layer: int | None) -> tuple[int, int]:
        layers = self.plan.protected_layers
        return len(layers) if layer is None else layers.index(layer), self.runs.index(run)

    def _prepare(self, run: str, layer: int) -> None:
        """Check the layer's row and the pairs of its overlap rows, which everything else indexes by."""
        row, cell = self.evidence.read("layer", (run, layer)), self._cell(run, layer)
        faults = check_layer(row, self.dims, self.tolerances)
        self.record.add(cell, faults, row.n)
        if faults:
            return
        facts = self.facts[run, layer] = LayerFacts.of(row, self.dims)
        prints = read_all(self.evidence, "run")
        dtype = text_object(prints, "fingerprint", list(prints["run_id"]).index(run)).get("dtype")
        if row["executed_dtype"][0] != dtype:
            what = "the executed dtype is not that of the numerics fingerprint"
            self.record.add(
                cell, [Violation("ATL-R002", what, f"{run}, layer {layer}", str(row["executed_dtype"][0]), str(dtype))]
            )
        base = self.facts.get(("base", layer), facts)
        where = f"{run}, layer {layer}"
        if run.startswith("null:") and facts.identity != base.identity:
            what = "a null arm has other tensors or constants than the base"
            self.record.add(cell, [Violation("ATL-R001", what, where, "", "")])
        elif facts.identity[1] != base.identity[1]:
            what = "an arm's layer has other constants than the base's"
            self.record.add(cell, [Violation("ATL-R020", what, where, str(facts.identity[1]), str(base.identity[1]))])
        if not run.startswith("null:"):
            overlap = self.evidence.read("overlap", (run, layer))
            self.record.add(cell, check_overlap_ids(overlap, self.dims, self.plan.overlap_pairs), overlap.n)

    def layer_block(self, block: LayerBlock) -> None:
        """Check one block of one layer. Raises `RowsError` for lists of the wrong length."""
        layer, base = block.layer, self.facts["base", block.layer]
        states = native.States.of(block.state["base"], base)
        side = BaseSide(states, base, self.tolerances, self.dims)
        for run in self.runs:
            facts, cell, state, routing = (
                self.facts[run, layer],
                self._cell(run, layer),
                block.state[run],
                block.routing[run],
            )
            own = states if run == "base" else native.States.of(state, facts)
            faults = native.check_routing(routing, facts.rule, self.dims)
            self.record.add(cell, faults, routing.n)
            self.record.add(cell, native.check_state(state, own, facts, self.tolerances, self.dims), state.n)
            if not faults:  # ids out of range index nothing
                faults = native.check_routing_against_state(state, own, routing, facts, self.tolerances)
                self.record.add(cell, faults, state.n)
            self._mark("states", run, layer, state["z"])
            if run != "base":
                self._mark("updates", run, layer, block.update[run]["gram"])
                self._note("state", run, layer, native.check_moved(state, block.state["base"]))
                self._same_state(block, run, side)
        if side.choice is not None:
            member = side.choice.member.astype(np.float64)
            visits = (member.T @ member).astype(np.int64)
            self._visits[layer] = self._visits.get(layer, np.zeros_like(visits)) + visits

    def _same_state(self, block: LayerBlock, run: str, side: BaseSide) -> None:
        layer, cell = block.layer, self._cell(run, block.layer)
        base, facts, update = self.facts["base", layer], self.facts[run, layer], block.update[run]
        require_same_keys(block.state["base"], update)
        arm, equal = run.startswith("arm:"), facts.digests["local"] == base.digests["local"]
        faults = outputs.check_transport(update, arm=arm, equal=equal)
        self.record.add(cell, faults)
        if arm:
            self._note("angle", run, layer, bool((update["transport_angle"] > 0).any()))
        faults = side.check(update, facts, block.groups(run))
        if not any(v.rule == "ATL-R008" for v in faults):
            faults += self._equal_tensors(block, run)
            vectors = block.vectors[run]
            same = facts.identity == base.identity
            wrong = check_vectors(vectors, update, side.states.z, self.tolerances, equal=same) if vectors.n else []
            faults += wrong or side.check_same_vectors(vectors, update)
            self.record.add(cell, [], vectors.n)
        self.record.add(cell, faults, update.n)

    def _equal_tensors(self, block: LayerBlock, run: str) -> list[Violation]:
        """Check that drift is exactly zero where tensors are bitwise equal, and note whether changed experts change updates (R011)."""
        layer, update = block.layer, block.update[run]
        base, facts = self.facts["base", layer].digests, self.facts[run, layer].digests
        same = [
            name
            for name in (ids.BOUNDARY, ids.TRANSITION, ids.CONTENT, ids.GUARD)
            if same_tensors(DEFINITIONS[name], base, facts)
        ]
        if not same and ("content", (run, layer)) in self._moved:
            return []
        values, found = same_state(update, self.dims.k, block.groups(run)), []
        for name in same:
            numerator = values[name].numerator
            what = f"{name} is not zero although every tensor that feeds it is equal"
            found += first_false("ATL-R011", what, update, numerator == 0, numerator)
        self._note("content", run, layer, bool((values[ids.CONTENT].numerator > 0).any()))
        return found

    def _note(self, what: str, run: str, layer: int, happened: bool) -> None:
        if happened:
            self._moved.add((what, (run, layer)))

    def _mark(self, what: str, run: str, layer: int | None, values: Array) -> None:
        """Add up the bits of a column, so that two runs with the same rows are seen, however blocks are cut."""
        if run.startswith("null:") or (run == "base" and what != "losses"):
            return  # null arms have the base's tensors; arms are compared with the base's states and updates elsewhere (R011)
        mine = self._marks.setdefault((what, layer), {})
        bits = values.view(np.uint32 if values.itemsize == 4 else np.uint64)
        mine[run] = (mine.get(run, 0) + int(bits.sum(dtype=np.uint64))) % 2**64

    def _shared_rows(self) -> None:
        """Check that runs of different tensors do not share rows (R133)."""
        layers = self.plan.protected_layers
        for (what, layer), marks in self._marks.items():
            first: dict[int, str] = {}
            for run, mark in marks.items():
                other = first.setdefault(mark, run)
                if other != run and all(
                    self._differ(what, other, run, at) for at in ((layer,) if layer in layers else layers[-1:])
                ):
                    where = "table output" if layer is None else f"layer {layer}"
                    problem = Violation(
                        "ATL-R133", f"two runs of different tensors have the same {what}", f"{where}, {run}", other, run
                    )
                    self.record.add(self._cell(run, layer), [problem])

    def _differ(self, what: str, a: str, b: str, layer: int) -> bool:
        """Return whether the tensors behind a column differ: all experts for updates, all that is before the layer otherwise."""
        one, two = self.facts[a, layer].digests, self.facts[b, layer].digests
        if what != "updates":
            return bool(one["upstream"] != two["upstream"])
        return one["norm.gain"] == two["norm.gain"] and all(
            one[f"experts.{e}"] != two[f"experts.{e}"] for e in range(self.dims.E)
        )

    def output_block(self, block: OutputBlock) -> None:
        """Check one block of outputs."""
        base = block.output["base"]
        for run in self.runs:
            output = block.output[run]
            equal = self.weights[run][0] == self.weights["base"][0]
            faults = outputs.check_output(output, self._targets(output))
            self._mark("losses", run, None, output["nll"])
            faults += outputs.check_divergence(output, base, arm=run.startswith("arm:"), equal=equal)
            self.record.add(self._cell(run, None), faults, output.n)

    def _targets(self, output: Rows) -> Ints:
        """Return the token that each row predicts."""
        window, column = self._tokens, output.columns["window_id"]
        start = dict(zip(window["window_id"], window.offsets("tokens")[:-1].tolist(), strict=True))
        starts = np.array([start[text] for text in column.texts], dtype=np.int64)
        codes = np.zeros(0, dtype=np.int64) if column.codes is None else column.codes
        out: Ints = window["tokens"][starts[codes] + output["position"].astype(np.int64) + 1].astype(np.int64)
        return out

    def finish(self) -> None:
        """Check what needs a whole layer or all layers, once every block was seen."""
        layers = self.plan.protected_layers
        for run in self.runs:
            task = self.evidence.read("task", (run,))
            self.record.add(self._cell(run, None), outputs.check_task(task), task.n)
            for layer in layers if run != "base" else ():
                self.record.add(self._cell(run, layer), self._unmoved(run, layer))
        self._shared_rows()
        digests = {run: [self.facts[run, layer].digests for layer in layers] for run in self.runs}
        self.record.add(self._cell("base", None), check_digests(digests, self.weights), len(self.runs))
        self._check_ranks()
        for layer in layers if self.plan.overlap_pairs else ():
            rows = {
                run: self.evidence.read("overlap", (run, layer)) for run in self.runs if not run.startswith("null:")
            }
            if layer in self._visits:
                known = {run: self.facts[run, layer].digests for run in rows}
                found = check_overlap(rows, known, self._visits[layer], self.dims, self.tolerances.float64_relative)
                for run, faults in found.items():
                    self.record.add(self._cell(run, layer), faults)

    def _check_ranks(self) -> None:
        for (run, layer), facts in self.facts.items():
            rows, of_base = self.evidence.read("layer", (run, layer)), self.evidence.read("layer", ("base", layer))
            base = self.facts["base", layer].digests
            equal = all(facts.digests.get(f"experts.{e}") == base.get(f"experts.{e}") for e in range(self.dims.E))
            lowest = int(rows["w1_rank_min"][0])
            maps = self.evidence.read("overlap", (run, layer))
            self.record.add(
                self._cell(run, layer), check_ranks(maps, lowest, int(of_base["w1_rank_min"][0]), equal=equal)
            )

    def _unmoved(self, run: str, layer: int) -> list[Violation]:
        """Check that something moved where the tensors behind it did (R011, R026)."""
        base, arm = self.facts["base", layer].digests, self.facts[run, layer].digests
        experts = [f"experts.{e}" for e in range(self.dims.E)]
        expected = {
            "state": ("ATL-R011", "no state moved although the tensors before the layer did", base["upstream"] != arm["upstream"]),
            "content": ("ATL-R011", "no expert update changed although every expert's weights did",
                        base["norm.gain"] == arm["norm.gain"] and all(base[e] != arm[e] for e in experts)),
            "angle": ("ATL-R026", "no state is turned although attention or norm changed",
                      run.startswith("arm:") and base["local"] != arm["local"]),
        }  # fmt: skip
        return [Violation(rule, sentence, f"{run}, layer {layer}", "0 on every row", "more than 0 on some")
                for what, (rule, sentence, changed) in expected.items() if changed and (what, (run, layer)) not in self._moved]  # fmt: skip
