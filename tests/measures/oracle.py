"""The findings of a study computed by the oracle from plain rows: what `summarise` must agree with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from naive import bootstrap, decisions, measures
from naive.bootstrap import CellInput, Interval
from simulator import StudySimulator

Name = tuple[int, str, str]
Row = dict[str, Any]

FED_BY: dict[str, tuple[str, ...]] = {
    measures.COORDINATE: ("upstream",),
    measures.BOUNDARY: ("norm.gain", "router."),
    measures.TRANSITION: ("norm.gain", "router.", "experts."),
    measures.CONTENT: ("norm.gain", "router.", "experts."),
    measures.BLOCK: ("norm.gain", "router.", "experts."),
}


@dataclass(frozen=True, slots=True)
class OracleCell:
    """One cell: intervals under both seeds, the first also at ``alpha / arms``, and what follows."""

    intervals: tuple[Interval, Interval]
    strict: tuple[Interval, Interval]
    floor: float | None
    missing: int
    refused: bool
    state: decisions.CellState


@dataclass(frozen=True, slots=True)
class OracleArm:
    """One arm as the oracle finds it."""

    cells: dict[Name, OracleCell]
    damage: dict[str, tuple[Interval, Interval] | None]
    damage_states: dict[str, decisions.CellState]
    success: tuple[Interval, Interval]
    success_state: bootstrap.Success
    rewrite: decisions.Kleene
    harmed: decisions.Kleene
    verdict: decisions.Verdict
    strict_rewrite: bool


def worst_error(interval: Interval) -> Interval:
    """Return the interval with the largest of the errors that a decision looks at in place of each."""
    error = max(interval.mc_upper, interval.mc_lower, interval.mc_simultaneous_lower)
    return replace(interval, mc_upper=error, mc_lower=error, mc_simultaneous_lower=error)


class Oracle:
    """Rows of one study and the parameters of its contract, in plain Python."""

    def __init__(self, study: StudySimulator) -> None:
        self.study = study
        self.contract: dict[str, Any] = study.contract.model_dump(mode="json")
        self.plan: dict[str, Any] = study.preregistration.model_dump(mode="json")
        self.rows = {name: study.rows(name) for name in ("run", "layer", "window", "state", "update", "output", "task")}
        digests = (study.evidence_root(), study.preregistration_digest())
        self.seeds = bootstrap.bootstrap_seeds(*(bytes.fromhex(d.removeprefix("sha256:")) for d in digests))
        self.rule = self.contract["bootstrap"]
        self.strata = measures.cluster_domains(self.rows["window"])
        self.thresholds = {
            (c["definition"], t["form"]): t["value"] for c in self.contract["channels"] for t in c["thresholds"]
        }
        self.floors = self._floors()

    def family(self, cells: dict[Any, CellInput], seed: int, arms: int = 1) -> dict[Any, Interval]:
        return bootstrap.simultaneous_intervals(
            cells,
            self.seeds[seed],
            self.rule["resamples"],
            self.rule["alpha"] / arms,
            merge_below=self.rule["min_clusters_per_stratum"],
        )

    def digests(self, run_id: str, layer: int) -> dict[str, str]:
        row = next(r for r in self.rows["layer"] if (r["run_id"], r["layer"]) == (run_id, layer))
        found: dict[str, str] = json.loads(row["tensor_digests"])
        return found

    def missing(self, run_id: str, layer: int) -> tuple[int, int]:
        return measures.missing_pair_share(self.rows["update"], self.rows["window"], run_id, layer)

    def cells(self, run_id: str) -> dict[Name, CellInput]:
        """Return the gated cells of a run that the bootstrap may see."""
        made: dict[Name, CellInput] = {}
        for layer in self.plan["protected_layers"]:
            sums = measures.cluster_sums(self.rows["state"], self.rows["update"], self.rows["window"], run_id, layer)
            base, arm = self.digests("base", layer), self.digests(run_id, layer)
            for cell in self.thresholds:
                fed = [name for name in base if name.startswith(FED_BY[cell[0]])]
                same = all(base[name] == arm[name] for name in fed)
                if not self.refused(run_id, layer, cell[0]):
                    made[(layer, *cell)] = CellInput(
                        bootstrap.entries(sums[cell], self.strata), bounded=cell in measures.BOUNDED, identical=same
                    )
        return made

    def refused(self, run_id: str, layer: int, definition: str) -> bool:
        missing, total = self.missing(run_id, layer)
        return definition == measures.TRANSITION and missing / total > self.contract["max_missing_competitor_share"]

    def _floors(self) -> dict[Name, float]:
        found: dict[Name, float] = {}
        for nuisance in self.contract["nuisances"]:
            for name, interval in self.family(self.cells(f"null:{nuisance['id']}"), 0).items():
                upper = float("inf") if interval.upper is None else interval.upper
                found[name] = max(found.get(name, 0.0), upper)
        return found

    def arm(self, name: str) -> OracleArm:
        run_id, arms = f"arm:{name}", len(self.plan["arms"])
        inputs = self.cells(run_id)
        usual = [self.family(inputs, seed) for seed in (0, 1)]
        strict = [self.family(inputs, seed, arms) for seed in (0, 1)]
        cells: dict[Name, OracleCell] = {}
        for layer in self.plan["protected_layers"]:
            for cell, threshold in self.thresholds.items():
                key = (layer, *cell)
                refused = key not in inputs
                missing = self.missing(run_id, layer)[0] if cell[0] == measures.TRANSITION else 0
                if refused:
                    continue
                intervals = usual[0][key], usual[1][key]
                states = [
                    decisions.cell_state(worst_error(i), threshold, floor=self.floors[key], min_clusters=self.rule["min_clusters"])
                    for i in intervals
                ]  # fmt: skip
                state = decisions.under_both_seeds(*states)
                cells[key] = OracleCell(
                    intervals, (strict[0][key], strict[1][key]), self.floors[key], missing, False, state
                )
        damage, damage_states = self._damage(run_id)
        success = self._success(run_id, 1), self._success_interval(run_id, 1, 1)
        pair = (success[0], success[1])
        task = self.plan["task"]
        reached = [bootstrap.success_state(worst_error(i), task["target"], task["tolerance"]) for i in pair]
        state_of: bootstrap.Success = reached[0] if reached[0] == reached[1] else "undetermined"
        states_of = [c.state for c in cells.values()]
        if len(cells) < len(self.thresholds) * len(self.plan["protected_layers"]):
            states_of.append("undetermined")
        rewrite = decisions.protected_atlas_rewrite(states_of)
        harmed = decisions.base_domain_damage(damage_states.values())
        verdict, _ = decisions.verdict_and_flags(rewrite, harmed, state_of)
        return OracleArm(cells, damage, damage_states, pair, state_of, rewrite, harmed, verdict, self._strict(cells))

    def _strict(self, cells: dict[Name, OracleCell]) -> bool:
        def below(name: Name, cell: OracleCell) -> bool:
            if cell.state == "identical":
                return True
            margins = [bootstrap.MC_MULTIPLE * worst_error(i).mc_upper for i in cell.intervals]
            uppers = [i.upper for i in cell.strict]
            threshold = self.thresholds[name[1:]]
            return all(u is not None and u + m < threshold for u, m in zip(uppers, margins, strict=True))

        return all(below(name, cell) for name, cell in cells.items())

    def _damage(
        self, run_id: str
    ) -> tuple[dict[str, tuple[Interval, Interval] | None], dict[str, decisions.CellState]]:
        sums = measures.damage_sums(self.rows["output"], self.rows["window"], run_id)
        facts = {r["run_id"]: (r["weights_digest"], r["fingerprint"]) for r in self.rows["run"]}
        same = facts["base"] == facts[run_id]
        enough = {
            domain: CellInput(bootstrap.entries(clusters, self.strata), nonnegative=False, identical=same)
            for domain, clusters in sums.items()
            if len(clusters) >= self.rule["min_clusters"]
        }
        both = [self.family(enough, seed) for seed in (0, 1)]
        intervals: dict[str, tuple[Interval, Interval] | None] = {}
        states: dict[str, decisions.CellState] = {}
        for domain in sums:
            if domain not in enough:
                intervals[domain], states[domain] = None, "undetermined"
                continue
            pair = both[0][domain], both[1][domain]
            intervals[domain] = pair
            tolerance = self.plan["damage_tolerance_nats"]
            found = [
                decisions.cell_state(worst_error(i), tolerance, min_clusters=self.rule["min_clusters"]) for i in pair
            ]
            states[domain] = decisions.under_both_seeds(*found)
        return intervals, states

    def scores(self, run_id: str) -> list[tuple[str, float]]:
        return [(r["item_id"], r["score"]) for r in self.rows["task"] if r["run_id"] == run_id]

    def _success(self, run_id: str, arms: int) -> Interval:
        return self._success_interval(run_id, 0, arms)

    def _success_interval(self, run_id: str, seed: int, arms: int) -> Interval:
        alpha = self.rule["alpha"] / arms
        return bootstrap.success_interval(self.scores(run_id), self.seeds[seed], self.rule["resamples"], alpha)

    def knowledge_expansive(self, arms: dict[str, OracleArm]) -> decisions.Kleene:
        outcomes: list[decisions.ArmOutcome] = []
        task = self.plan["task"]
        for planned in self.plan["arms"]:
            found = arms[planned["name"]]
            count = len(self.plan["arms"])
            strict = [self._success_interval(f"arm:{planned['name']}", seed, count) for seed in (0, 1)]
            margins = [bootstrap.MC_MULTIPLE * worst_error(i).mc_lower for i in found.success]
            reached = all(
                i.lower is not None and i.lower - m >= task["target"] - task["tolerance"]
                for i, m in zip(strict, margins, strict=True)
            )
            outcomes.append(
                decisions.ArmOutcome(
                    planned["name"],
                    planned["policy"],
                    True,
                    True,
                    found.rewrite,
                    found.success_state,
                    "FALSE" if found.strict_rewrite else "UNDETERMINED",
                    "reached" if reached else "undetermined",
                )
            )
        preserving: Sequence[str] = sorted({a["policy"] for a in self.plan["arms"] if a["chart_preserving"]})
        return decisions.knowledge_expansive(outcomes, preserving)
