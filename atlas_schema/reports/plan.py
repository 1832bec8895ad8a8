"""A plan of sizes for people and for programs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from atlas_schema.errors import printable
from atlas_schema.study.sizing import Aims, Line, SizePlan


@dataclass(frozen=True, slots=True)
class Source:
    """What a plan was made from: the pilot's identity and size, and the contract."""

    study: str
    preregistration: str
    evidence: str
    clusters: int
    windows: int
    items: int
    contract: str
    contract_digest: str


def windows_needed(plan: SizePlan, source: Source) -> int:
    """Return how many windows the planned documents give, at the pilot's number of windows per document."""
    return math.ceil(sum(plan.clusters.values()) * source.windows / source.clusters)


def plan_json(plan: SizePlan, source: Source, aims: Aims) -> str:
    """Return the plan as one JSON object."""

    def line(found: Line) -> dict[str, Any]:
        return {"kind": found.kind, "name": found.name, "value": found.value, "threshold": found.threshold,
                "size": found.need.size, "why": found.need.why, "power": found.power}  # fmt: skip

    return json.dumps({
        "pilot": {"study": source.study, "preregistration": source.preregistration, "evidence": source.evidence,
                  "clusters": source.clusters, "windows": source.windows, "items": source.items},
        "contract": {"id": source.contract, "digest": source.contract_digest},
        "power": aims.power, "jointly": aims.jointly, "studies": aims.studies,
        "possible": plan.possible, "promise_kept": plan.kept,
        "needed": {"clusters": plan.clusters, "windows": windows_needed(plan, source), "items": plan.items},
        "arms": [{"arm": arm, "together": joint, "decisions": [line(n) for n in plan.lines if n.arm == arm]}
                 for arm, joint in plan.joint.items()],
    }, indent=2)  # fmt: skip


def plan_text(plan: SizePlan, source: Source, aims: Aims) -> str:
    """Return the plan as a table with what it means."""
    promise = "all decisions of an arm together" if aims.jointly else "every decision by itself"
    lines = [
        f"pilot     {printable(source.study)}: {source.clusters} documents, {source.windows} windows, {source.items} items",
        f"          pre-registration {source.preregistration}",
        f"          evidence {source.evidence}",
        f"contract  {printable(source.contract)} {source.contract_digest}",
        f"asked     power {aims.power:g} for {promise}, if the truth is what the pilot found",
    ]
    wide = max(len(_name(n)) for n in plan.lines)
    for arm, joint in plan.joint.items():
        lines += [
            "",
            f"arm {printable(arm)}",
            f"  {'':{wide}}  {'pilot':>9} {'limit':>7} {'needs':>6} {'power':>6}  by",
        ]
        lines += [_row(n, wide) for n in plan.lines if n.arm == arm]
        lines.append(f"  {'all of these together':{wide}}  {'':>9} {'':>7} {'':>6} {_share(joint):>6}")
    lines += ["", *_summary(plan, source, aims)]
    return "\n".join(lines)


def _name(line: Line) -> str:
    return {"damage": f"damage in {line.name}", "success": "success"}.get(line.kind, line.name)


def _share(power: float | None) -> str:
    return "-" if power is None else f"{power:.2f}"


def _row(line: Line, wide: int) -> str:
    value = "-" if line.value is None else f"{line.value:.4g}"
    size = "none" if line.need.size is None else str(line.need.size)
    return (
        f"  {printable(_name(line)):{wide}}  {value:>9} {line.threshold:>7.4g} {size:>6} {_share(line.power):>6}  "
        f"{line.need.why}"
    )


def _summary(plan: SizePlan, source: Source, aims: Aims) -> list[str]:
    per_domain = ", ".join(f"{printable(d)} {n}" for d, n in plan.clusters.items())
    lines = [
        f"needed    {sum(plan.clusters.values())} documents ({per_domain}), {windows_needed(plan, source)} windows at the "
        f"pilot's rate; {plan.items} items",
        f"checked   {aims.studies} studies of that size, drawn anew from the pilot and decided as a receipt decides: "
        "the column 'power'",
    ]
    never = sum(n.need.size is None for n in plan.lines)
    if never:
        lines.append(
            f"never     {never} decisions have no size ('none'): no arm that needs them can be called preserved"
        )
    if not plan.kept:
        lines.append("NOT KEPT  at these sizes the power asked for is not reached, and larger ones were not admitted")
    return lines
