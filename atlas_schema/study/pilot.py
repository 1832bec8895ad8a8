"""A pilot's evidence as the planner wants it; and what a plan can never decide, whatever is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas_schema.canonical import digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Pilot, Preregistration
from atlas_schema.errors import UsageError
from atlas_schema.evidence.source import EvidenceSource, read_all
from atlas_schema.files import read_document
from atlas_schema.measures.bootstrap import clopper_pearson_upper
from atlas_schema.measures.collect import Sums, collect
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.intervals import Statistic
from atlas_schema.measures.runs import RunCells, damage_columns, run_cells
from atlas_schema.study.plan import planned_runs
from atlas_schema.study.planner import Domains
from atlas_schema.study.probe import load_windows
from atlas_schema.study.rehearsal import Cells, Group
from atlas_schema.study.sizing import PilotArm


@dataclass(frozen=True, slots=True)
class Limits:
    """What the study to be planned will be judged by beside the contract: its own pre-registered choices."""

    target: float
    tolerance: float
    damage_nats: float


def read_pilot(
    evidence: EvidenceSource, plan: Preregistration, contract: Contract, arms: Sequence[str], limits: Limits
) -> tuple[list[PilotArm], Domains]:
    """Return the named arms of a pilot and the domain of each of its clusters.

    ``contract`` may be another than the pilot was extracted under, since thresholds are often chosen from it. Does not verify
    the pilot. Raises `UsageError` where a run is missing.
    """
    present = set(read_all(evidence, "run")["run_id"])
    missing = [r for r in planned_runs(plan, contract) if r not in present]
    if missing:
        raise UsageError("The pilot lacks runs that the contract asks for.", found="missing " + ", ".join(missing),
                         todo="extract the pilot under a contract with the same nuisances, and all of its arms")  # fmt: skip
    sums = collect(evidence, contract, plan)
    nulls = [run_cells(sums, f"null:{n.id}", plan.protected_layers, contract) for n in contract.nuisances]
    return [_arm(sums, plan, contract, name, nulls, limits) for name in arms], sums.clusters.domains


def _arm(
    sums: Sums, plan: Preregistration, contract: Contract, name: str, nulls: Sequence[RunCells], limits: Limits
) -> PilotArm:
    thresholds = {(c.definition, t.form): t.value for c in contract.channels for t in c.thresholds}
    found = run_cells(sums, f"arm:{name}", plan.protected_layers, contract)
    gated = np.flatnonzero(found.applicable)
    drift = Group(
        _cells(found, gated), tuple(thresholds[found.names[c].definition, found.names[c].form] for c in gated),
        nulls=tuple(_cells(null, gated) for null in nulls),
    )  # fmt: skip
    domains = tuple(sorted(set(sums.clusters.domains)))
    change = damage_columns(sums, f"arm:{name}", domains)
    base, run = sums.runs["base"], sums.runs[f"arm:{name}"]
    same = Statistic((base.weights, base.fingerprint) == (run.weights, run.fingerprint), False, False)
    damage = Group(Cells(change.numerator, change.denominator, (same,) * len(domains)),
                   (limits.damage_nats,) * len(domains), apart=True)  # fmt: skip
    names = tuple(str(found.names[c]) for c in gated)
    return PilotArm(name, names, drift, damage, sums.scores[f"arm:{name}"], limits.target - limits.tolerance)


def _cells(cells: RunCells, columns: np.ndarray) -> Cells:
    statistics = tuple(cells.statistics[c] for c in columns)
    return Cells(cells.numerator[:, columns], cells.denominator[:, columns], statistics)


def pilot_of(path: Path, description: str) -> Pilot:
    """Return a pilot for a pre-registration: the documents of a study folder, or of a file of windows."""
    if not path.is_dir():
        clusters = {w.cluster_id for w in load_windows(path)}
        return Pilot(description=description or "calibration windows", clusters=tuple(sorted(clusters)))
    plan = read_document(path / "preregistration.json", Preregistration, "pilot's pre-registration")
    digest = digest_document(plan.model_dump(mode="json"))
    return Pilot(description=description or f"pilot study {plan.study}, pre-registration {digest}",
                 clusters=tuple(sorted({w.cluster_id for w in plan.windows})))  # fmt: skip


def undecidable(plan: Preregistration, contract: Contract) -> list[str]:
    """Return what this plan cannot decide even if nothing at all drifts and every item is solved; empty where it might."""
    rule, found = contract.bootstrap, []
    domain_of = {w.cluster_id: w.domain for w in plan.windows}
    clusters, items = len(domain_of), len(plan.task.items)
    if clusters < rule.min_clusters:
        found.append(f"{clusters} documents: the contract decides no drift with fewer than {rule.min_clusters}")
    for domain in sorted(set(domain_of.values())):
        count = list(domain_of.values()).count(domain)
        if count < rule.min_clusters:
            found.append(
                f"domain {domain}: {count} documents; damage is undetermined with fewer than {rule.min_clusters}"
            )
    if items < contract.success.min_items:
        found.append(f"{items} items: success is undetermined with fewer than {contract.success.min_items}")
    best = clopper_pearson_upper(0, clusters, rule.alpha)
    for channel in contract.channels:
        for threshold in channel.thresholds:
            if threshold.form in DEFINITIONS[channel.definition].bounded and threshold.value <= best:
                found.append(f"{channel.definition} {threshold.form}: {clusters} documents without any change are bounded by "
                             f"{best:.3g}, which is not below the threshold {threshold.value:.3g}, unless tensors are equal")  # fmt: skip
    needed, lowest = plan.task.target - plan.task.tolerance, 1.0 - clopper_pearson_upper(0, items, rule.alpha)
    if items >= contract.success.min_items and lowest < needed:
        found.append(f"{items} items: even a perfect score has the lower bound {lowest:.3f}; {needed:.3f} is needed")
    return found
