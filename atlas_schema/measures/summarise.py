"""``summarise``: the one pure function from evidence, contract and pre-registration to findings.

Issuing a receipt stores its result; verifying recomputes it. No finding is computed anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from atlas_schema.canonical import digest_document
from atlas_schema.documents.contract import Bootstrap, Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import (
    ArmFindings,
    Bound,
    Cell,
    DomainDamage,
    Findings,
    Floor,
    Interval,
    MarginUse,
    MatchedSuccess,
    Predicates,
    TaskSuccess,
)
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.measures.bootstrap import Strata, first_seed, second_seed
from atlas_schema.measures.clusters import Clusters, merged_strata, strata_of
from atlas_schema.measures.collect import Sums, collect
from atlas_schema.measures.decide import Decision, agree, agree_on_success, decide, strictly_reached, success_state
from atlas_schema.measures.definitions import DAMAGE, SUCCESS
from atlas_schema.measures.intervals import Interval as Estimate
from atlas_schema.measures.intervals import Resampler, Statistic, family, score_interval
from atlas_schema.measures.matched import matched
from atlas_schema.measures.occupancy import margin_use
from atlas_schema.measures.runs import CellName, RunCells, damage_columns, run_cells
from atlas_schema.measures.statements import Statements, three_states
from atlas_schema.verdict.predicates import (
    ArmSummary,
    above_any,
    flags,
    knowledge_expansive,
    verdict,
)


def summarise(
    evidence: EvidenceSource,
    contract: Contract,
    preregistration: Preregistration,
    root: str,
    second: bytes | None = None,
) -> Findings:
    """Compute every finding.

    ``root`` is the evidence root, which with the pre-registration fixes the resamples. ``second`` replaces the second
    seed, under which every decision must hold again. Does not check that the rows are the ones the documents describe,
    nor that they obey the physics: those are the binding, contract and reproduction channels of verification.
    """
    return conclude(collect(evidence, contract, preregistration), contract, preregistration, root, second)


def conclude(
    sums: Sums, contract: Contract, plan: Preregistration, root: str, second: bytes | None = None
) -> Findings:  # fmt: skip
    """Compute every finding from what one pass over the evidence collected."""
    study = _Study(sums, contract, plan, root, second)
    nulls = [(n.id, study.cells(f"null:{n.id}")) for n in contract.nuisances]
    floors = study.floors(nulls)
    say = Statements(sums, plan.protected_layers, study.drift_strata[0].strata, study.domains)
    occupied = {run: say.occupancy(run) for run in ("base", *(f"arm:{a.name}" for a in plan.arms))}
    arms, summaries = [], []
    for planned in plan.arms:
        run = f"arm:{planned.name}"
        use = margin_use(occupied["base"], occupied[run], contract.occupancy)
        findings, strict = study.arm(planned.name, floors, say, use)
        arms.append(findings)
        rewrite = findings.predicates.protected_atlas_rewrite.value
        summaries.append(ArmSummary(planned.name, rewrite, findings.success.state, strict))
    return Findings(
        floors=tuple(floors.values()), base=say.base(), occupancy=tuple(occupied.values()), arms=tuple(arms),
        matched_success=study.matched(), knowledge_expansive=knowledge_expansive(plan.arms, summaries),
    )  # fmt: skip


def rounded(findings: Findings, contract: Contract) -> Findings:
    """Return findings as a receipt states them: every number with the contract's significant digits."""

    def round_leaf(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: round_leaf(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return tuple(round_leaf(v) for v in value)
        return float(f"{value:.{contract.numbers.significant_digits}g}") if isinstance(value, float) else value

    return Findings.model_validate(round_leaf(findings.model_dump()))


def _finite(value: float | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class _Decided:
    """A column's estimate under the first seed and the decision that holds under both."""

    estimate: Estimate
    decision: Decision


class _Study:
    """What all runs share: clusters, strata, resamples of both seeds, and rounding."""

    def __init__(self, sums: Sums, contract: Contract, plan: Preregistration, root: str, second: bytes | None) -> None:
        self.sums, self.contract, self.plan = sums, contract, plan
        self.rule: Bootstrap = contract.bootstrap
        self.clusters: Clusters = sums.clusters
        self.domains = tuple(sorted(set(self.clusters.domains)))
        first = first_seed(root, digest_document(plan.model_dump(mode="json")))
        self.seeds = (first, second or second_seed(first))
        groups = merged_strata(self.clusters, self.rule.min_clusters_per_stratum)
        self.drift_strata = [Resampler(s, strata_of(self.clusters, groups), self.rule) for s in self.seeds]
        enough = {d: [d] for d in self.domains if self.clusters.domains.count(d) >= self.rule.min_clusters}
        same = list(groups) == list(enough)
        self.damage_strata = self.drift_strata if same else [
            Resampler(s, strata_of(self.clusters, enough), self.rule) for s in self.seeds
        ]  # fmt: skip
        self._items: dict[int, list[Resampler]] = {}
        self.thresholds = {
            (c.definition, t.form): t.value for c in contract.channels for t in c.thresholds
        }  # fmt: skip

    def cells(self, run_id: str) -> RunCells:
        return run_cells(self.sums, run_id, self.plan.protected_layers, self.contract)

    def estimates(self, cells: RunCells, seed: int) -> list[Estimate]:
        return family(
            cells.numerator, cells.denominator, cells.statistics, self.drift_strata[seed], len(self.plan.arms)
        )

    def floors(self, nulls: list[tuple[str, RunCells]]) -> dict[CellName, Floor]:
        """Return the largest upper bound that any null arm reached, per cell; null where one of them has no bound."""
        reached: dict[CellName, list[tuple[float, str]]] = {}
        for nuisance, cells in nulls:
            for name, estimate in zip(cells.names, self.estimates(cells, 0), strict=True):
                upper = np.inf if estimate.upper is None else estimate.upper
                reached.setdefault(name, []).append((upper, nuisance))
        floors = {}
        for name, found in reached.items():
            upper, nuisance = max(found, key=lambda pair: pair[0])
            stated = float(upper) if np.isfinite(upper) else None
            floors[name] = Floor(
                layer=name.layer, definition=name.definition, form=name.form, upper=stated, nuisance=nuisance
            )
        return floors

    def arm(
        self, name: str, floors: dict[CellName, Floor], say: Statements, use: MarginUse
    ) -> tuple[ArmFindings, bool]:  # fmt: skip
        """Return the findings of one arm, and whether it refutes `knowledge_expansive` at ``alpha / arms``."""
        cells, strict = self._arm_cells(self.cells(f"arm:{name}"), floors)
        damage = self._damage(f"arm:{name}")
        success, strict_success = self._success(f"arm:{name}")
        rewrite = above_any([(f"layer {c.layer} {c.definition} {c.form}", c.state) for c in cells], "cell")
        harmed = above_any([(f"domain {d.domain}", d.state) for d in damage], "domain")
        findings = ArmFindings(
            arm=name, cells=cells, damage=damage, success=success, reported=say.arm(f"arm:{name}"),
            assumptions=say.assumptions(f"arm:{name}"), margin_use=use, three_states=three_states(cells, damage),
            predicates=Predicates(protected_atlas_rewrite=rewrite, base_domain_damage=harmed),
            verdict=verdict(rewrite, harmed, success.state),
            flags=(*flags(rewrite, harmed, success.state), *(() if use.citable else ("margin not citable",))),
        )  # fmt: skip
        return findings, strict and strict_success

    def _arm_cells(self, cells: RunCells, floors: dict[CellName, Floor]) -> tuple[tuple[Cell, ...], bool]:
        estimates = [self.estimates(cells, seed) for seed in (0, 1)]
        made, strict = [], True
        for at, name in enumerate(cells.names):
            threshold, floor = self.thresholds[name.definition, name.form], floors[name].upper
            decision = agree(*(decide(e[at], threshold, self.rule, floor) for e in estimates))
            if not cells.applicable[at]:
                decision = Decision("not_applicable", "every expert is active: there is no boundary", True)
            strict &= decision.strict_below
            made.append(self._cell(cells, at, _Decided(estimates[0][at], decision), threshold, floor))
        return tuple(made), strict

    def _cell(self, cells: RunCells, at: int, decided: _Decided, threshold: float, floor: float | None) -> Cell:
        name, estimate = cells.names[at], decided.estimate
        return Cell(
            layer=name.layer, definition=name.definition, form=name.form, value=_finite(estimate.value),
            numerator=float(cells.numerator[:, at].sum()),
            denominator=float(cells.denominator[:, at].sum()),
            clusters=estimate.clusters, nonzero_clusters=estimate.nonzero, missing_tokens=cells.missing[at],
            top_percent_share=_finite(cells.top_share[at]), method=estimate.method, upper=_finite(estimate.upper),
            simultaneous=self._simultaneous(estimate), monte_carlo_error=_finite(estimate.error), floor=floor,
            threshold=Bound(value=threshold, source="contract"), state=decided.decision.state,
            reason=decided.decision.reason, assurance="recomputed",
        )  # fmt: skip

    def _simultaneous(self, estimate: Estimate) -> Interval | None:
        if estimate.simultaneous_lower is None:
            return None
        return Interval(lower=float(estimate.simultaneous_lower), upper=_finite(estimate.simultaneous_upper))

    def _damage(self, run_id: str) -> tuple[DomainDamage, ...]:
        columns = damage_columns(self.sums, run_id, self.domains)
        base, run = self.sums.runs["base"], self.sums.runs[run_id]
        same = (base.weights, base.fingerprint) == (run.weights, run.fingerprint)
        statistics = []
        for domain in self.domains:
            count = self.clusters.domains.count(domain)
            few = (
                f"{count} clusters; the contract needs {self.rule.min_clusters}"
                if count < self.rule.min_clusters
                else ""
            )
            statistics.append(Statistic(same, False, False, few))
        arms = len(self.plan.arms)
        both = [family(columns.numerator, columns.denominator, statistics, r, arms) for r in self.damage_strata]
        tolerance = self.plan.damage_tolerance_nats
        made = []
        for at, domain in enumerate(self.domains):
            estimate, decision = both[0][at], agree(*(decide(e[at], tolerance, self.rule, -np.inf) for e in both))
            tokens = float(columns.denominator[:, at].sum())
            made.append(DomainDamage(
                definition=DAMAGE, domain=domain, delta_nll_nats=float(columns.numerator[:, at].sum()) / tokens,
                base_nll_nats=float(columns.base_nll[at]), tokens=int(tokens),
                clusters=self.clusters.domains.count(domain), upper=_finite(estimate.upper),
                simultaneous=self._simultaneous(estimate), monte_carlo_error=_finite(estimate.error),
                tolerance=Bound(value=tolerance, source="preregistration"), state=decision.state, reason=decision.reason,
                assurance="recomputed",
            ))  # fmt: skip
        return tuple(made)

    def _item_strata(self, items: int) -> list[Resampler]:
        """Return the resamples of both seeds over task items, one stratum; every arm has the same items."""
        if items not in self._items:
            self._items[items] = [Resampler(s, Strata((np.arange(items),)), self.rule) for s in self.seeds]
        return self._items[items]

    def _success(self, run_id: str) -> tuple[TaskSuccess, bool]:
        """Return task success and whether it is reached at ``alpha / arms``."""
        score = self.sums.scores[run_id]
        task, needed = self.plan.task, self.plan.task.target - self.plan.task.tolerance
        few = len(score) < self.contract.success.min_items
        reason = f"{len(score)} items; the contract needs {self.contract.success.min_items}" if few else ""
        both = [score_interval(score, r, reason, len(self.plan.arms)) for r in self._item_strata(len(score))]
        state, why = agree_on_success(*(success_state(e, needed, self.rule) for e in both))
        found = TaskSuccess(
            definition=SUCCESS, value=float(score.mean()), items=len(score), lower=_finite(both[0].lower),
            upper=_finite(both[0].upper), target=task.target, tolerance=task.tolerance, state=state, reason=why,
            assurance="recomputed",
        )  # fmt: skip
        return found, all(strictly_reached(e, needed, self.rule) for e in both)

    def matched(self) -> tuple[MatchedSuccess, ...]:
        """Compare every two arms on the same items."""
        names = [a.name for a in self.plan.arms]
        scores = {name: self.sums.scores[f"arm:{name}"] for name in names}
        resamplers = self._item_strata(len(scores[names[0]]))
        few = self.contract.success.min_items
        return tuple(
            matched(a, b, scores[a], scores[b], resamplers, self.plan.task.tolerance, few)
            for a, b in combinations(names, 2)
        )
